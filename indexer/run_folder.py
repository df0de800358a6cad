"""The folder of a training run: what it was asked for, what it drew, how far it got."""

import fcntl
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from indexer.run_config import RunConfig
from indexer.splits import Splits
from indexer.train import EpochRecord
from indexer.training_set import catalogue_splits
from models.catalogue import Catalogue
from models.durable import make_folder, replace_file
from models.errors import InvalidConfig, VoucherError
from models.home import Home

COMPARISON_PREFIX = "compare-"
"""What the ids of runs begin with that belong to a comparison, so that nothing else takes up or serves them unasked."""


def new_run_id(prefix: str = "") -> str:
    """An id that no other run has, later ones after earlier ones."""
    return f"{prefix}{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class TrainingRun:
    """A run's folder below ``runs/``, with its config, splits, checkpoints and, at the end, its model's id."""

    def __init__(self, home: Home, run_id: str, config: RunConfig, splits: Splits) -> None:
        self.home, self.run_id, self.config, self.splits = home, run_id, config, splits
        self.folder = home.runs / run_id

    @classmethod
    def start(
        cls,
        home: Home,
        catalogue: Catalogue,
        config: RunConfig,
        *,
        splits: Splits | None = None,
        run_id: str | None = None,
    ) -> "TrainingRun":
        """A new run with its splits saved: those that are given, or newly drawn ones."""
        if splits is None:
            splits = catalogue_splits(catalogue, config.split, np.random.default_rng([config.seed]))
        run = cls(home, run_id or new_run_id(), config, splits)
        make_folder(run.folder)
        run.splits.save(run.folder / "splits.parquet")
        # Last: a folder with a config is one that can be opened again.
        replace_file(run.folder / "config.json", json.dumps(config.to_json(), indent=1).encode())
        return run

    @classmethod
    def exists(cls, home: Home, run_id: str) -> bool:
        """Whether the run was started."""
        return (home.runs / run_id / "config.json").is_file()

    @classmethod
    def open(cls, home: Home, run_id: str) -> "TrainingRun":
        """A run that was started before. Raises `InvalidConfig` if there is none, or another version wrote it."""
        folder = home.runs / run_id
        try:
            content = (folder / "config.json").read_bytes()
            config = RunConfig.model_validate_json(content)
        except FileNotFoundError as error:
            raise InvalidConfig(f"there is no run {run_id} in {home.runs}; train again") from error
        except ValidationError as error:
            raise InvalidConfig(f"{folder / 'config.json'} is of another version; delete {folder}") from error
        # A setting that the run did not know would be given today's default in the middle of it.
        if json.loads(content) != config.to_json():
            raise InvalidConfig(f"{folder / 'config.json'} is of another version; delete {folder}")
        return cls(home, run_id, config, Splits.load(folder / "splits.parquet"))

    @classmethod
    def unfinished(cls, home: Home) -> "TrainingRun | None":
        """The latest run that has not given a model yet; those of comparisons are continued by `voucher compare`.

        Raises `InvalidConfig` if another version wrote its config.
        """
        for folder in sorted(home.runs.glob("*"), reverse=True):
            of_comparison = folder.name.startswith(COMPARISON_PREFIX)
            if not of_comparison and cls.exists(home, folder.name) and not (folder / "model.json").is_file():
                return cls.open(home, folder.name)
        return None

    @property
    def model_id(self) -> str:
        """The id of the model that the run gives."""
        return f"model-{self.run_id}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run against a second process, and drop its folder if it fails before it has anything to resume."""
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidConfig(f"run {self.run_id} is being trained by another process") from error
            try:
                yield
            except VoucherError:
                # A cache of features is hours of work too.
                if not (self.folder / "checkpoints").is_dir() and not (self.home.cache / self.run_id).is_dir():
                    shutil.rmtree(self.folder, ignore_errors=True)
                    shutil.rmtree(self.home.cache / self.run_id, ignore_errors=True)
                raise

    def checkpoint(self, stage: str) -> Path:
        """Where a stage keeps its state."""
        return self.folder / "checkpoints" / f"{stage}.safetensors"

    def finish(self, model_id: str, history: list[EpochRecord]) -> None:
        """Note the model, and drop what only a resumed run needs."""
        result = {"model_id": model_id, "history": [asdict(record) for record in history]}
        replace_file(self.folder / "model.json", json.dumps(result, indent=1).encode())
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(self.home.cache / self.run_id, ignore_errors=True)
