"""Embeddings, candidates and answers. NumPy only."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.taxonomy import Species, SpeciesId

FloatArray = NDArray[np.float32]

UNIT_TOLERANCE = 1e-3
"""How far the norm of a unit row may be from one; float16 storage alone costs about 5e-4."""


@dataclass(frozen=True)
class EmbeddingBatch:
    """``(N, D)`` float32 rows of unit length, and the space they may be compared in.

    `keys` names the rows (sheet ids, photo ids). Raises `ValueError` when the shape, the type, the
    norm or the number of keys is off, or a value is not finite.
    """

    vectors: FloatArray
    keys: tuple[str, ...]
    space_id: str

    def __post_init__(self) -> None:
        v = self.vectors
        if v.ndim != 2 or v.dtype != np.float32:
            raise ValueError(f"expected (N, D) float32, got {v.shape} {v.dtype}")
        if len(self.keys) != len(v):
            raise ValueError(f"{len(self.keys)} keys for {len(v)} vectors")
        if not self.space_id:
            raise ValueError("an embedding batch names its space")
        if len(v):
            norms = np.linalg.norm(v, axis=1)
            if not np.all(np.abs(norms - 1.0) <= UNIT_TOLERANCE):
                raise ValueError("rows must be finite and of unit length")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.shape[1])


@dataclass(frozen=True)
class Prototype:
    """A species' unit mean sheet embedding, ``(D,)`` float32, and how many sheets it is the mean of."""

    species_id: SpeciesId
    vector: FloatArray
    sheet_count: int


@dataclass(frozen=True, slots=True)
class SheetMatch:
    """A sheet that vouches for a candidate; `similarity` is the cosine to the photo, -1 … 1."""

    sheet_id: str
    species_id: SpeciesId
    similarity: float


class DecisionSource(StrEnum):
    """Which stream the answer came from."""

    SPECIALIST = "specialist"
    """the trained classifier"""
    GENERALIST = "generalist"
    """nearest prototypes of herbarium sheets"""
    FUSION = "fusion"
    """both, weighed"""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Who decided and why, in a sentence that a botanist understands.

    `evidence` holds the figures that the decision rests on, by name, for a machine.
    """

    source: DecisionSource
    reason: str
    evidence: dict[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible species.

    `probability` is 0 … 1 and sums to at most one over the candidates; `similarity` is the cosine between the
    photo and the species' prototype, -1 … 1, None for a species without sheets; `has_field_photos` tells whether
    field photos of this species were in training (without them probabilities are less certain).
    """

    species: Species
    probability: float
    similarity: float | None
    has_field_photos: bool
    in_classifier: bool
    sheets: tuple[SheetMatch, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability outside 0 … 1: {self.probability}")
        if self.similarity is not None and not -1.001 <= self.similarity <= 1.001:
            raise ValueError(f"cosine similarity outside -1 … 1: {self.similarity}")


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer: candidates by falling probability, the decision, and the bundle that gave it."""

    candidates: tuple[Candidate, ...]
    decision: GateDecision
    bundle_id: str
    photo_count: int

    def __post_init__(self) -> None:
        p = [c.probability for c in self.candidates]
        if p != sorted(p, reverse=True):
            raise ValueError("candidates must be ordered by falling probability")
