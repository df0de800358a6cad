"""What a comparison knows of one recipe with one seed, kept in one JSON file from before its training begins."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.durable import replace_file
from models.errors import InvalidConfig


@dataclass(frozen=True)
class AnsweredPhotos:
    """Places of the true species in the answers to N photos, as columns; place 1 is the first answer.

    `photo_id` is equal in two recipes for the same photo of the same seed; `observation` names the plant, across
    seeds too; `herbarium_only` tells that no field photo of the true species was in training.
    """

    photo_id: tuple[str, ...]
    observation: tuple[str, ...]
    herbarium_only: NDArray[np.bool_]
    truth_position: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        if len(set(self.photo_id)) != len(self.photo_id):
            raise ValueError("a photo is answered once")

    def __len__(self) -> int:
        return len(self.photo_id)

    def to_json(self) -> dict[str, Any]:
        """The columns as lists."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "AnsweredPhotos":
        """Inverse of `to_json`. Raises `KeyError`, `TypeError` or `ValueError`."""
        return cls(
            tuple(map(str, values["photo_id"])),
            tuple(map(str, values["observation"])),
            np.array(values["herbarium_only"], dtype=bool),
            np.array(values["truth_position"], dtype=np.int64),
        )


@dataclass(frozen=True)
class Scored:
    """Answers, and the calibration error by group (None for a group without photos); `details` as they were given."""

    photos: AnsweredPhotos
    ece: dict[str, float | None]
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"photos": self.photos.to_json(), "ece": self.ece, "details": self.details}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scored":
        """Inverse of `to_json`. Raises `KeyError`, `TypeError` or `ValueError`."""
        return cls(AnsweredPhotos.from_json(values["photos"]), dict(values["ece"]), dict(values["details"]))


@dataclass(frozen=True)
class InferenceCost:
    """What one answer to one photo costs, from pixels to probabilities; a multiply-add counts as two operations."""

    milliseconds: float
    gigaflops: float
    parameters: int


@dataclass
class PairRecord:
    """How far one recipe with one seed has come.

    `attempts` counts the times that training was begun, `timed_attempts` those that ended, if only by Ctrl-C: where
    they differ, a process was killed and `training_seconds` lacks its time.
    """

    recipe: str
    seed: int
    run_id: str
    attempts: int = 0
    timed_attempts: int = 0
    training_seconds: float = 0.0
    device: str | None = None
    model_id: str | None = None
    bundle_id: str | None = None
    cost: InferenceCost | None = None
    test: Scored | None = None
    folds: Scored | None = None
    error: str | None = None

    @property
    def knows_all_seconds(self) -> bool:
        """Whether `training_seconds` is the whole time."""
        return self.attempts == self.timed_attempts

    def lacks(self, *, test: bool, folds: bool) -> bool:
        """Whether something that is asked for is still to be done."""
        return self.cost is None or (test and self.test is None) or (folds and self.folds is None)

    def save(self, path: Path) -> None:
        """Put the record into its file in one step."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["cost"] = asdict(self.cost) if self.cost else None
        values["test"] = self.test.to_json() if self.test else None
        values["folds"] = self.folds.to_json() if self.folds else None
        replace_file(path, json.dumps(values, ensure_ascii=False, allow_nan=False).encode())

    @classmethod
    def load(cls, path: Path) -> "PairRecord":
        """Inverse of `save`. Raises `InvalidConfig` for a file that holds something else."""
        try:
            values = json.loads(path.read_bytes())
            values["cost"] = InferenceCost(**values["cost"]) if values["cost"] else None
            values["test"] = Scored.from_json(values["test"]) if values["test"] else None
            values["folds"] = Scored.from_json(values["folds"]) if values["folds"] else None
            return cls(**values)
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidConfig(
                f"{path} is no result of a comparison ({error}); delete it, and that recipe is trained again"
            ) from error
