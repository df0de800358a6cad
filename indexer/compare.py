"""Recipes trained, built and scored on the same splits of one catalogue; stopped anywhere, it goes on from there."""

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.build_gallery import build
from indexer.compare_answers import read_answers
from indexer.compare_cost import inference_cost
from indexer.compare_folds import score_folds
from indexer.compare_record import PairRecord, Scored
from indexer.evaluate import evaluate
from indexer.metrics import GROUPS
from indexer.progress import Report, silent
from indexer.recipes import Recipe
from indexer.run_config import RunConfig
from indexer.run_folder import COMPARISON_PREFIX, TrainingRun, new_run_id
from indexer.splits import Splits
from indexer.training_run import train
from indexer.training_set import catalogue_splits
from models.artifacts import list_artifacts
from models.bundle import load_model
from models.catalogue import Catalogue
from models.compute import Compute
from models.durable import make_folder, staging_path, sync_file, sync_folder
from models.errors import InvalidConfig, VoucherError
from models.home import Home
from models.identifier import Identifier
from models.specimens import FieldPhoto, Sheet

logger = logging.getLogger(__name__)

Progress = Callable[[], AbstractContextManager[Report]]
"""Opens a fresh display of progress, one for each recipe and seed."""

_FAILURES = (VoucherError, RuntimeError, ValueError, ArithmeticError, MemoryError, OSError)
"""What stops one recipe and not the others: too little memory (torch says RuntimeError), a solver that gives up."""

_DEMO_INSTITUTION = "DEMO"
"""Institution code of the sheets that voucher drew itself."""


@dataclass(frozen=True)
class CatalogueFacts:
    """What is compared on. `invented`: all plants were drawn by voucher and do not exist."""

    digest: str
    species: int
    sheets: int
    field_photos: int
    invented: bool


class Comparison:
    """Recipes, seeds and images, and the places below ``comparisons/`` that results lie in.

    The result of one recipe with one seed is kept under a digest of all that it depends on: the run config, the
    content of the weights that it starts from, the seed and what the catalogue holds. So a comparison that is made
    again, or widened by a recipe or a seed, finds what is there already, and one on other images finds nothing.
    `folder` is for the tables of just these recipes and seeds.
    """

    def __init__(self, home: Home, recipes: Sequence[Recipe], seeds: Sequence[int], facts: CatalogueFacts) -> None:
        _check(recipes, seeds)
        self.home, self.recipes, self.seeds, self.facts = home, tuple(recipes), tuple(seeds), facts
        self._keys = {r.name: _digest([_without_paths(r.config), facts.digest]) for r in recipes}
        self.comparison_id = _digest([self._keys, sorted(seeds)])
        self._parent = home.root / "comparisons"
        self.folder = self._parent / self.comparison_id

    def record_path(self, recipe: str, seed: int) -> Path:
        """Where the results of one recipe with one seed lie."""
        return self._parent / "results" / f"{recipe}-{self._keys[recipe]}-seed-{seed}.json"

    def record(self, recipe: str, seed: int) -> PairRecord:
        """What is known of one recipe with one seed; a new record gets the id of a run that is not begun yet."""
        path = self.record_path(recipe, seed)
        return PairRecord.load(path) if path.is_file() else PairRecord(recipe, seed, new_run_id(COMPARISON_PREFIX))

    def splits(self, catalogue: Catalogue, seed: int) -> Splits:
        """The splits of a seed: drawn once, as a run of its own would draw them, and kept."""
        config = self.recipes[0].config.split
        key = _digest([config.model_dump(mode="json"), self.facts.digest])
        path = self._parent / "splits" / f"{key}-seed-{seed}.parquet"
        if not path.is_file():
            make_folder(path.parent)
            temporary = staging_path(path.parent, path.name)
            catalogue_splits(catalogue, config, np.random.default_rng([seed])).save(temporary)
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        return Splits.load(path)


def catalogue_facts(catalogue: Catalogue) -> CatalogueFacts:
    """Counts, and a digest that changes with any image, its species and that one's names, its split or its plant."""
    digest = hashlib.sha256()
    names = {species.species_id: species for species in catalogue.species()}

    def add(record: Sheet | FieldPhoto, image_id: str, group: str) -> None:
        species = names[record.species_id]
        taxa = (species.scientific_name, str(species.genus), str(species.family))
        parts = (image_id, record.species_id, *taxa, group, str(record.split), record.image.stored_sha256)
        digest.update(("\x1f".join(parts) + "\x1e").encode())

    sheets = photos = 0
    invented = True
    for sheet in catalogue.sheets():
        add(sheet, sheet.sheet_id, sheet.specimen_key)
        sheets += 1
        invented = invented and sheet.specimen.institution_code == _DEMO_INSTITUTION
    for photo in catalogue.field_photos():
        add(photo, photo.photo_id, photo.observation_key)
        photos += 1
    return CatalogueFacts(digest.hexdigest(), catalogue.counts().species, sheets, photos, invented and sheets > 0)


def compare(
    comparison: Comparison,
    catalogue: Catalogue,
    compute: Compute,
    *,
    test: bool = True,
    folds: bool = False,
    progress: Progress = lambda: nullcontext(silent),
) -> list[PairRecord]:
    """One record for each recipe and seed, recipes in their order; those that failed say why in `error`.

    What an earlier call finished is not done again, and a training run that it began is continued. The bundle that
    the home serves stays as it is. Without `test` no test photo is read; with `folds` the answers of the rotating
    folds are scored. Raises `InvalidConfig` when nothing is to be scored, and `InsufficientData` when the catalogue
    cannot be split as the recipes want it.
    """
    if not test and not folds:
        raise InvalidConfig("without the test photos and without the folds there is nothing to compare by")
    records: dict[tuple[str, int], PairRecord] = {}
    for seed in comparison.seeds:
        splits = comparison.splits(catalogue, seed)
        for recipe in comparison.recipes:
            with _alone(comparison.record_path(recipe.name, seed)):
                pair = _Pair(comparison, catalogue, compute, recipe, seed)
                if pair.record.lacks(test=test, folds=folds):
                    logger.info("%s, seed %d", recipe.name, seed)
                    with progress() as report:
                        pair.finish(splits, report, test=test, folds=folds)
                records[recipe.name, seed] = pair.record
    return [records[recipe.name, seed] for recipe in comparison.recipes for seed in comparison.seeds]


class _Pair:
    """One recipe with one seed."""

    def __init__(
        self, comparison: Comparison, catalogue: Catalogue, compute: Compute, recipe: Recipe, seed: int
    ) -> None:
        self.home, self.catalogue, self.compute = comparison.home, catalogue, compute
        self._catalogued = comparison.facts.digest
        self.config = recipe.config.model_copy(update={"seed": seed})
        self.record = comparison.record(recipe.name, seed)
        self._path = comparison.record_path(recipe.name, seed)

    def finish(self, splits: Splits, report: Report, *, test: bool, folds: bool) -> None:
        """Do what is missing; a failure is put down in the record."""
        self.record.error = None
        self._forget_what_is_gone()
        try:
            self._check_unchanged()
            if self.record.model_id is None:
                self._train(splits, report)
            if self.record.bundle_id is None:
                built = build(
                    self.home, self.catalogue, self.compute, model_id=self.record.model_id, activate_it=False,
                    report=report,
                )  # fmt: skip
                self.record.bundle_id = built.bundle_id
                self._save()
            self._check_unchanged()
            self._score(report, test=test, folds=folds)
        except _FAILURES as error:
            expected = isinstance(error, VoucherError)
            logger.error("%s, seed %d failed: %s", self.record.recipe, self.record.seed, error, exc_info=not expected)
            self.record.error = str(error) if expected else f"{type(error).__name__}: {error}"
            self._save()

    def _check_unchanged(self) -> None:
        """Raises `InvalidConfig` when something was imported since the comparison began."""
        if catalogue_facts(self.catalogue).digest != self._catalogued:
            raise InvalidConfig("the catalogue has changed since this comparison began; run the same command again")

    def _forget_what_is_gone(self) -> None:
        """A model that was deleted is trained again, an index built again; figures that are known stay."""
        record = self.record
        if record.model_id is not None and record.model_id not in list_artifacts(self.home.models):
            record.run_id, record.model_id, record.bundle_id = new_run_id(COMPARISON_PREFIX), None, None
            record.attempts, record.timed_attempts, record.training_seconds = 0, 0, 0.0
        if record.bundle_id is not None and record.bundle_id not in list_artifacts(self.home.indexes):
            record.bundle_id = None

    def _train(self, splits: Splits, report: Report) -> None:
        record = self.record
        record.attempts += 1
        record.device = self.compute.describe()
        self._save()  # names the run before it exists, so that no run is begun that nobody will continue
        begun = TrainingRun.exists(self.home, record.run_id)
        start = time.perf_counter()
        try:
            if begun:
                run = TrainingRun.open(self.home, record.run_id)
            else:
                run = TrainingRun.start(self.home, self.catalogue, self.config, splits=splits, run_id=record.run_id)
            record.model_id = train(self.home, self.catalogue, run, self.compute, report=report).model_id
        finally:
            record.training_seconds += time.perf_counter() - start
            record.timed_attempts += 1
            self._save()

    def _score(self, report: Report, *, test: bool, folds: bool) -> None:
        record = self.record
        if record.cost is None or (test and record.test is None):
            identifier = Identifier.load(self.home, self.compute, record.bundle_id)
            if record.cost is None:
                record.cost = inference_cost(identifier)
            if test and record.test is None:
                result = evaluate(self.home, self.catalogue, identifier, report=report)
                values = result.to_json()
                ece = {group: values["ensemble"][group]["ece"] for group in GROUPS}
                record.test = Scored(read_answers(result.report), ece, values)
            self._save()
        if folds and record.folds is None and self.config.calibration.folds > 0:
            record.folds = score_folds(load_model(self.home, str(record.model_id), self.compute))
            self._save()

    def _save(self) -> None:
        self.record.save(self._path)


def _check(recipes: Sequence[Recipe], seeds: Sequence[int]) -> None:
    if not recipes or not seeds:
        raise InvalidConfig("a comparison needs at least one recipe and one seed")
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise InvalidConfig(f"recipes and seeds are named once each; got {', '.join(names)} and {list(seeds)}")
    if min(seeds) < 0:
        raise InvalidConfig(f"a seed is 0 or more; got {min(seeds)}")
    first = recipes[0]
    for other in recipes[1:]:
        if other.config.split != first.config.split:
            raise InvalidConfig(
                f"recipes are compared on the same splits, but [split] of {other.name} differs from that of "
                f"{first.name}; set it for all with --set split.KEY=VALUE"
            )


@contextmanager
def _alone(record: Path) -> Iterator[None]:
    """Hold a record against a second process. Raises `InvalidConfig` if there is one."""
    make_folder(record.parent)
    with record.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidConfig(f"{record.stem} is being compared by another process; wait for it") from error
        yield


def _without_paths(config: RunConfig) -> dict[str, Any]:
    """The config with its weights file named by content, and without the seed, which a comparison sets itself."""
    values = config.to_json()
    values.pop("seed")
    if config.backbone.weights is not None:
        try:
            with config.backbone.weights.open("rb") as file:
                values["backbone"]["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InvalidConfig(f"there are no weights at {config.backbone.weights}: {error.strerror}") from error
    return values


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
