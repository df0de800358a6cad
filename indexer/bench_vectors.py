"""Vectors for measurements: unit, in clusters as sheets are about their species, the same for the same seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from models.retrieval import EmbeddingBatch, FloatArray
from models.taxonomy import SpeciesId

_BLOCK_ROWS = 65_536
_SHEETS_PER_SPECIES = 100
_SPECIES_PER_GENUS = 10
_SPECIES_SPREAD = 0.7
_SHEET_SPREAD = 1.2
_PHOTO_SPREAD = 1.6
"""Lengths of random steps: from a genus' unit centre to its species', from there to a sheet or a photo. They leave
cosines of 0.41 between a species' sheets and 0.34 to its photos, and two thirds of that to those of its genus."""


@dataclass(frozen=True)
class Flora:
    """`rows` sheets of species of a hundred sheets each, in `dimensions`; `seed` draws everything.

    Only differences of direction are as in reality; how hard the species are to tell apart is not.
    """

    rows: int
    dimensions: int
    seed: int

    @property
    def species(self) -> int:
        """How many species there are."""
        return max(1, self.rows // _SHEETS_PER_SPECIES)

    def _centres(self) -> FloatArray:
        generator = np.random.default_rng([self.seed, 0])
        genera = -(-self.species // _SPECIES_PER_GENUS)
        of_genera = _unit(generator.standard_normal((genera, self.dimensions), dtype=np.float32))
        return self._about(of_genera[np.arange(self.species) // _SPECIES_PER_GENUS], _SPECIES_SPREAD, generator)

    def _about(self, centres: FloatArray, spread: float, generator: np.random.Generator) -> FloatArray:
        steps = _unit(generator.standard_normal(centres.shape, dtype=np.float32))
        return _unit(centres + np.float32(spread) * steps)

    def species_of_rows(self, start: int, stop: int) -> list[SpeciesId]:
        """The species of some rows."""
        return [SpeciesId(f"{row % self.species:07d}") for row in range(start, stop)]

    def blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """First row and ``(B, D)`` vectors of consecutive blocks of all sheets."""
        centres, generator = self._centres(), np.random.default_rng([self.seed, 1])
        for start in range(0, self.rows, _BLOCK_ROWS):
            of_rows = np.arange(start, min(start + _BLOCK_ROWS, self.rows)) % self.species
            yield start, self._about(centres[of_rows], _SHEET_SPREAD, generator)

    def write(self, path: Path) -> None:
        """Write ``(rows, D)`` vectors as `.npy`, a block at a time."""
        target = open_memmap(path, mode="w+", dtype=np.float32, shape=(self.rows, self.dimensions))
        for start, block in self.blocks():
            target[start : start + len(block)] = block
        target.flush()

    def photos(self, count: int) -> FloatArray:
        """``(count, D)`` unit queries, farther from their species than its sheets."""
        generator = np.random.default_rng([self.seed, 2])
        centres = self._centres()[generator.integers(0, self.species, count)]
        return self._about(centres, _PHOTO_SPREAD, generator)

    def sheets(self, space_id: str) -> tuple[EmbeddingBatch, list[SpeciesId]]:
        """All sheets with their species."""
        vectors = np.concatenate([block for _, block in self.blocks()])
        keys = tuple(f"sheet{row:012d}" for row in range(self.rows))
        return EmbeddingBatch(vectors, keys, space_id), self.species_of_rows(0, self.rows)

    def more_sheets(self, count: int, space_id: str) -> tuple[EmbeddingBatch, list[SpeciesId]]:
        """`count` sheets that are not among `sheets`, one in ten of a new species."""
        generator = np.random.default_rng([self.seed, 3])
        positions = generator.integers(0, self.species, count)
        vectors = self._about(self._centres()[positions], _SHEET_SPREAD, generator)
        names = [SpeciesId(f"new{p:07d}" if i % 10 == 0 else f"{p:07d}") for i, p in enumerate(positions)]
        return EmbeddingBatch(vectors, tuple(f"added{i:09d}" for i in range(count)), space_id), names


def _unit(vectors: FloatArray) -> FloatArray:
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32, copy=False)
