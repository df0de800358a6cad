"""Embeddings, candidates and answers. NumPy only."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.taxonomy import Species, SpeciesId, TaxonRank

FloatArray = NDArray[np.float32]

UNIT_TOLERANCE = 1e-3
"""How far the norm of a unit row may be from one; float16 storage alone costs about 5e-4."""


DOUBTFUL_OUTSIDE = 0.5
"""Probability of the species that a filter left out from which an answer says so: they are then the likelier ones."""


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
    """A sheet that vouches for a candidate; `similarity` is the cosine to the photo or the mean of several, -1 … 1."""

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
    photo and the species' prototype, -1 … 1, the mean over several photos, None for a species without sheets;
    `has_field_photos` tells whether field photos of this species were in training (without them probabilities are
    less certain).
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


class Outcome(StrEnum):
    """What an answer comes down to."""

    SPECIES = "species"
    """one species is likely enough"""
    GENUS = "genus"
    """the species are too close to call, their genus is not"""
    FAMILY = "family"
    """neither species nor genus, but the family"""
    UNDECIDED = "undecided"
    """not even the family"""
    NONE_OF_THESE = "none of these"
    """the plant looks like no species of the index"""


@dataclass(frozen=True, slots=True)
class RollUp:
    """The lowest taxon that is likely enough: its rank and name, the summed probability of its species, 0 … 1.

    `species_count` is how many species of the index it has. For the rank of species `name` is the scientific name.
    """

    taxon_rank: TaxonRank
    name: str
    probability: float
    species_count: int


@dataclass(frozen=True, slots=True)
class Novelty:
    """Whether the plant is of a species that the index does not hold.

    `unknown_score`, 0 … 1, is what a model fitted on as many unknown as known photos gives; it is no share of all
    photos. `is_unknown` says that it exceeds `threshold`, below which 95 % of the known calibration photos lie.
    """

    unknown_score: float
    threshold: float

    @property
    def is_unknown(self) -> bool:
        """Whether the answer is "none of these"."""
        return self.unknown_score > self.threshold


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """Species among which the true one is with a probability of `coverage`, by falling probability.

    `size` counts them all, `species` lists the first of them, `herbarium_only` counts those known from sheets alone.
    A set may be empty: no species is likely enough to be in it. `guarantee` says in plain words what holds.
    """

    species: tuple[Species, ...]
    size: int
    herbarium_only: int
    coverage: float
    guarantee: str


@dataclass(frozen=True, slots=True)
class SpeciesKnowledge:
    """How a bundle knows a species that it can answer with."""

    in_classifier: bool
    """Whether the trained classifier has a column for it."""
    has_field_photos: bool
    """Whether field photos of it were in training."""
    has_sheets: bool
    """Whether sheets of it can be compared with."""


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer: candidates by falling probability, the decision, and the bundle that gave it.

    `calibrated` tells whether the probabilities were fitted to photos that the answering networks had not seen.
    Without enough of these `prediction_set` and `novelty` are None: nothing is promised. `roll_up` is None when not
    even a family is likely enough. `probability_outside`, 0 … 1, is what the species that a filter left out had
    together before it was applied; None where there was no filter.
    """

    candidates: tuple[Candidate, ...]
    decision: GateDecision
    bundle_id: str
    photo_count: int
    calibrated: bool = False
    roll_up: RollUp | None = None
    novelty: Novelty | None = None
    prediction_set: PredictionSet | None = None
    probability_outside: float | None = None

    def __post_init__(self) -> None:
        p = [c.probability for c in self.candidates]
        if p != sorted(p, reverse=True):
            raise ValueError("candidates must be ordered by falling probability")

    @property
    def outcome(self) -> Outcome:
        """What the answer comes down to."""
        if self.novelty is not None and self.novelty.is_unknown:
            return Outcome.NONE_OF_THESE
        return Outcome.UNDECIDED if self.roll_up is None else Outcome(self.roll_up.taxon_rank.value)

    @property
    def summary(self) -> str:
        """The answer in a sentence for people, and a second one where a filter left out what fits better."""
        outside = self.probability_outside
        if outside is None or outside < DOUBTFUL_OUTSIDE:
            return self._summary_of_candidates
        return (
            f"{self._summary_of_candidates} Doubt this: of all species, those that were not allowed have "
            f"{_in_percent(outside)} of the probability."
        )

    @property
    def _summary_of_candidates(self) -> str:
        if not self.candidates:
            return "No species of this collection fits."
        first, outcome = self.candidates[0], self.outcome
        nearest = f"{first.species.scientific_name} ({_in_percent(first.probability)})"
        if outcome is Outcome.NONE_OF_THESE:
            # Without the dot that an author's abbreviation brings itself.
            return f"None of these. Nearest: {first.species.scientific_name.rstrip('.')}."
        if self.roll_up is None:
            return f"Not even the family is clear. Most likely: {nearest}."
        named = f"{self.roll_up.name} ({_in_percent(self.roll_up.probability)})"
        if outcome is Outcome.SPECIES:
            return f"{named}."
        too_close = "the species are" if outcome is Outcome.GENUS else "species and genera are"
        return f"{outcome.value.capitalize()} {named}: {too_close} too close to call. Most likely: {nearest}."


def _in_percent(probability: float) -> str:
    """In whole percent as they are shown elsewhere; only certainty is 100 %, only the impossible 0 %."""
    if 0.995 <= probability < 1.0 - 1e-9:
        return "more than 99 %"
    return "less than 1 %" if 0.0 < probability <= 0.005 else f"{100 * probability:.0f} %"
