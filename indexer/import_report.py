"""What an import did, for the curator and for machines."""

from dataclasses import dataclass
from typing import Any

from indexer.sources import Layout
from models.taxonomy import SpeciesId

LISTED_AT_MOST = 1_000
"""Files named one by one in a report; the counts cover all of them."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A file that was left out because `kept` holds the same image of the same species."""

    path: str
    kept: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Files that hold one image, about which they contradict one another."""

    reason: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpeciesImages:
    """A species of the dataset, and how many images of it the catalogue holds now."""

    species_id: SpeciesId
    scientific_name: str
    sheets: int
    field_photos: int


@dataclass(frozen=True, slots=True)
class Added:
    """What is new in the catalogue."""

    sheets: int = 0
    field_photos: int = 0
    species: int = 0


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import.

    `already_present` counts files that an earlier import brought in, `updated` those of them whose
    metadata changed, `already_removed` files of sheets that a curator has removed, which they stay. `rejected`,
    `duplicates` and `conflicts` name the first thousand files.
    """

    layout: Layout
    added: Added
    updated: int
    updated_species: int
    already_present: int
    duplicate_count: int
    duplicates: tuple[Duplicate, ...]
    rejected_count: int
    rejected: tuple[Rejection, ...]
    conflict_count: int
    conflicts: tuple[Conflict, ...]
    by_species: tuple[SpeciesImages, ...]
    notes: tuple[str, ...]
    seconds: float
    already_removed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; the keys stay stable."""
        return {
            "layout": self.layout.value,
            "added": {
                "sheets": self.added.sheets,
                "field_photos": self.added.field_photos,
                "species": self.added.species,
            },
            "updated": self.updated,
            "updated_species": self.updated_species,
            "already_present": self.already_present,
            "already_removed": self.already_removed,
            "duplicate_count": self.duplicate_count,
            "duplicates": [{"path": d.path, "kept": d.kept} for d in self.duplicates],
            "rejected_count": self.rejected_count,
            "rejected": [{"path": r.path, "reason": r.reason} for r in self.rejected],
            "conflict_count": self.conflict_count,
            "conflicts": [{"reason": c.reason, "paths": list(c.paths)} for c in self.conflicts],
            "by_species": [
                {
                    "species_id": s.species_id,
                    "scientific_name": s.scientific_name,
                    "sheets": s.sheets,
                    "field_photos": s.field_photos,
                }
                for s in self.by_species
            ],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }
