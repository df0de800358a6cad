"""How well the sheets of an index find their own species, and which of them look as if they were determined wrongly."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexer.intervals import Interval, mean_intervals
from indexer.progress import Report, silent
from models.gallery import Gallery
from models.specimens import Sheet

MOST_SHEETS = 5_000
"""Asked at most, drawn evenly by their ids: each costs a search of all sheets."""

_NEIGHBOURS = 50
"""Asked for at once: a specimen of more images than that would hide its neighbours, and is left out."""
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class DoubtfulSheet:
    """A sheet whose nearest sheets are of another species.

    `agreeing` of `neighbours` nearest sheets are of its own species; `similarity` is the cosine to the nearest.
    """

    sheet_id: str
    species_id: str
    nearest_sheet_id: str
    nearest_species_id: str
    similarity: float
    agreeing: int
    neighbours: int


@dataclass(frozen=True)
class LeaveOneOut:
    """Top-1 of N sheets against all others but those of their own specimen, by cosine of the raw embeddings.

    Sheets of species with one specimen alone cannot be right and are counted in `alone`, not in `top1`.
    """

    sheets: int
    species: int
    alone: int
    top1: float | None
    top1_interval: Interval | None
    doubtful: tuple[DoubtfulSheet, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "sheets": self.sheets,
            "species": self.species,
            "alone": self.alone,
            "top1": self.top1,
            "top1_interval": None if self.top1_interval is None else list(self.top1_interval),
            "doubtful": [{name: getattr(d, name) for name in DoubtfulSheet.__slots__} for d in self.doubtful],
        }


def specimens_of(sheets: Iterable[Sheet]) -> dict[str, str]:
    """The specimen of every sheet."""
    return {sheet.sheet_id: sheet.specimen_key for sheet in sheets}


def leave_one_out(
    gallery: Gallery,
    specimen_of: Mapping[str, str],
    *,
    species: frozenset[str] | None = None,
    most_doubtful: int = 20,
    neighbours: int = 5,
    report: Report = silent,
) -> LeaveOneOut:
    """Every sheet (of the named `species`, if any) asked for its nearest sheets, its own specimen left out.

    A sheet that `specimen_of` does not know counts as a specimen of its own.
    """
    table = gallery.sheet_columns()
    pairs = list(zip(table["sheet_id"].to_pylist(), table["species_id"].to_pylist(), strict=True))
    specimens: dict[str, set[str]] = {}
    for sheet, of in pairs:
        specimens.setdefault(of, set()).add(specimen_of.get(sheet, sheet))
    asked = sorted(pair for pair in pairs if species is None or pair[1] in species)
    alone = sum(len(specimens[of]) < 2 for _, of in asked)
    asked = [pair for pair in asked if len(specimens[pair[1]]) >= 2]
    if len(asked) > MOST_SHEETS:
        asked = [asked[i] for i in np.linspace(0, len(asked) - 1, MOST_SHEETS).astype(int)]
    right: list[float] = []
    plants: list[str] = []
    doubtful: list[DoubtfulSheet] = []
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        found = gallery.nearest_sheets(gallery.vectors_for([sheet for sheet, _ in block]), _NEIGHBOURS)
        for (sheet, of), matches in zip(block, found, strict=True):
            own = specimen_of.get(sheet, sheet)
            others = [m for m in matches if specimen_of.get(m.sheet_id, m.sheet_id) != own][:neighbours]
            if not others:
                continue
            right.append(float(others[0].species_id == of))
            plants.append(own)
            agreeing = sum(m.species_id == of for m in others)
            if not right[-1]:
                nearest = others[0]
                doubtful.append(
                    DoubtfulSheet(
                        sheet, of, nearest.sheet_id, nearest.species_id, nearest.similarity, agreeing, len(others)
                    )
                )
        report("asking the sheets", min(start + _BLOCK, len(asked)), len(asked))
    doubtful.sort(key=lambda d: (d.agreeing, -d.similarity, d.sheet_id))
    values = np.array(right, dtype=np.float64)
    clusters = np.unique(plants, return_inverse=True)[1].reshape(-1) if plants else np.zeros(0, dtype=np.intp)
    return LeaveOneOut(
        sheets=len(right),
        species=len({of for _, of in asked}),
        alone=alone,
        top1=float(values.mean()) if len(values) else None,
        top1_interval=mean_intervals(values[:, None], clusters, resamples=1000, seed=0)[0] if len(values) else None,
        doubtful=tuple(doubtful[:most_doubtful]),
    )
