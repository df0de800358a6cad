"""What a dataset says about its images, before any of them is opened."""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models.errors import InvalidDataset
from models.specimens import Organ, Role, Specimen, Split
from models.taxonomy import Species, SpeciesId

_MAX_SPECIES_ID_LENGTH = 200
_PROBLEMS_SHOWN = 20
_UNCITED = Specimen()


class Layout(StrEnum):
    """How a dataset is laid out on disk."""

    PLANTCLEF = "plantclef"
    MANIFEST = "manifest"
    FOLDERS = "folders"


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a dataset: where it lies, and what is known about the plant.

    `name` is its path as the dataset writes it, for reports. `plant_key` is shared by all images of one
    specimen or observation; None stands for a plant of its own.
    """

    path: Path
    name: str
    species_id: SpeciesId
    role: Role
    plant_key: str | None = None
    organ: Organ | None = None
    split: Split | None = None
    specimen: Specimen = _UNCITED
    license: str | None = None
    rights_holder: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset whose lists have been read and found sound; its images have not been looked at.

    `told` names the metadata that the dataset speaks about: what it does not mention stays in the
    catalogue as it is. `notes` are remarks for the curator. `records` may be called more than once.
    """

    layout: Layout
    root: Path
    species: tuple[Species, ...]
    record_count: int
    records: Callable[[], Iterator[Record]]
    told: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def parse_species_id(text: str) -> SpeciesId:
    """Identifier in Unicode's composed form (file systems differ). Raises `ValueError` with the reason."""
    species_id = unicodedata.normalize("NFC", text).strip()
    if not species_id:
        raise ValueError("the species is empty")
    if len(species_id) > _MAX_SPECIES_ID_LENGTH or not species_id.isprintable():
        raise ValueError(f"the species {species_id[:40]!r} must be printable and at most {_MAX_SPECIES_ID_LENGTH} long")
    return SpeciesId(species_id)


class Problems:
    """Mistakes of a list or manifest, gathered so that a curator sees them at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._shown: list[str] = []
        self._count = 0

    def add(self, line: int, what: str) -> None:
        """Note a mistake in a line (counted from 1)."""
        self._count += 1
        if len(self._shown) < _PROBLEMS_SHOWN:
            self._shown.append(f"line {line}: {what}")

    def raise_if_any(self) -> None:
        """Raises `InvalidDataset` that lists the first of them."""
        if not self._count:
            return
        more = self._count - len(self._shown)
        lines = self._shown + ([f"… and {more:,} more"] if more else [])
        raise InvalidDataset(f"{self._file} cannot be imported:\n  " + "\n  ".join(lines))


def read_text(file: Path) -> str:
    """A list or manifest as text, without a byte order mark. Raises `InvalidDataset`."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(file) from error
    except OSError as error:
        raise InvalidDataset(f"{file} cannot be read: {error.strerror or error}") from error


def not_utf8(file: Path) -> InvalidDataset:
    """The error for a text file in another encoding."""
    return InvalidDataset(f"{file} is not UTF-8 text; save it again with the encoding UTF-8 (in Excel: “CSV UTF-8”)")
