"""What an answer is worth: calibrated probabilities, sets with stated coverage, novelty, roll-up. No torch, no I/O."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidConfig
from models.gate import BoolArray, Evidence
from models.retrieval import FloatArray, Novelty, PredictionSet, RollUp
from models.taxonomy import Species, TaxonRank

Float64Array = NDArray[np.float64]

COVERAGE = 0.9
"""Share of photos whose true species a prediction set is to hold."""

ROLL_UP_LEVEL = 0.8
"""Probability from which a taxon is named: of calibrated answers at most one in five is then wrong. Above the two
thirds by which iNaturalist lets a community settle a name, since nobody here objects to a wrong one."""

NOVELTY_FEATURES = ("first_log_odds", "nearest_similarity", "similarity_contrast", "logit_contrast")
"""What the novelty model looks at; the more of each, the better known the plant."""

_MOST_LISTED = 50
_PROVISO = " This holds only for plants of the species that were allowed."
_SMALLEST = 1e-30
_LARGEST_DEVIATION = 6.0


@dataclass(frozen=True, slots=True)
class ByGroup:
    """A number for species with field photos in training and one for herbarium-only species; None: not known."""

    with_photos: float | None
    herbarium_only: float | None

    def of(self, has_field_photos: BoolArray) -> Float64Array:
        """The number of each species, NaN where none is known; shape of the flags."""
        values = [math.nan if v is None else v for v in (self.with_photos, self.herbarium_only)]
        return np.where(has_field_photos, values[0], values[1])


@dataclass(frozen=True, slots=True)
class NoveltyModel:
    """Logistic model of `NOVELTY_FEATURES`: how likely a photo is of a species that the index does not hold.

    `weights` are not negative, so that a higher probability or similarity never makes a plant less known. Deviations
    from `means` are in units of `scales` and cut at six of them: beyond that the fit has seen nothing.
    """

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float

    def __post_init__(self) -> None:
        parameters = (self.means, self.scales, self.weights)
        if any(len(values) != len(NOVELTY_FEATURES) for values in parameters):
            raise InvalidConfig(f"a novelty model has one mean, scale and weight for each of {NOVELTY_FEATURES}")
        if not all(map(math.isfinite, (*self.means, *self.scales, *self.weights, self.bias, self.threshold))):
            raise InvalidConfig("the parameters of a novelty model are finite")
        if min(self.weights) < 0 or min(self.scales) <= 0 or not 0 <= self.threshold <= 1:
            raise InvalidConfig("a novelty model has weights from 0, scales above 0 and a threshold of 0 … 1")

    def unknown_scores(self, features: Float64Array) -> Float64Array:
        """``(N,)``, 0 … 1, of features ``(N, F)``; one that is NaN counts as average."""
        deviations = np.nan_to_num((features - np.array(self.means)) / np.array(self.scales), nan=0.0)
        known = np.clip(deviations, -_LARGEST_DEVIATION, _LARGEST_DEVIATION) @ np.array(self.weights) + self.bias
        return np.asarray(0.5 * (1.0 - np.tanh(0.5 * known)))


def novelty_features(evidence: Evidence, probabilities: FloatArray) -> Float64Array:
    """``(N, F)`` values of `NOVELTY_FEATURES`, NaN where a stream says nothing; `probabilities` ``(N, U)``."""
    first = np.clip(probabilities.max(axis=1).astype(np.float64), 1e-6, 1.0 - 1e-6)
    nearest, similarity_contrast = _best_and_contrast(evidence.similarities)
    # The classifier's values only as contrast: what all logits of a photo share says nothing.
    _, logit_contrast = _best_and_contrast(evidence.logits)
    return np.stack([np.log(first / (1.0 - first)), nearest, similarity_contrast, logit_contrast], axis=1)


def _best_and_contrast(values: FloatArray) -> tuple[Float64Array, Float64Array]:
    """``(N,)`` largest value, and by how much it exceeds the mean of the finite ones; NaN where there are none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    best = np.where(count > 0, np.where(finite, values, -np.inf).max(axis=1), np.nan).astype(np.float64)
    mean = np.where(finite, values, 0.0).sum(axis=1, dtype=np.float64) / np.maximum(count, 1)
    return best, best - mean


def tempered(probabilities: FloatArray, temperature: Float64Array) -> FloatArray:
    """``p^(1/T)`` of each row ``(N, U)`` with its own temperature ``(N,)``, normalised to one."""
    scaled = np.log(np.maximum(probabilities, _SMALLEST, dtype=np.float64)) / temperature[:, None]
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def independent_looks(vectors: FloatArray) -> float:
    """How many independent photos the photos of one plant are worth, 1 … P, by their unit vectors ``(P, D)``.

    ``P / (1 + (P − 1) r)`` with their mean cosine r for the correlation: the design effect of a sample in clusters
    (Kish 1965, "Survey Sampling", §5.4). The same photo twice is one look.
    """
    together = float(np.square(vectors.mean(axis=0, dtype=np.float64)).sum())
    return 1.0 / min(1.0, max(together, 1.0 / len(vectors)))


@dataclass(frozen=True, slots=True)
class Reliability:
    """What was learnt, on photos that the answering networks had not seen, about the gate's answers.

    `temperatures`: by the group of the answer's first species (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", §4.2); the order of the species in an answer stays. `set_limits`: the probability from which a species of
    a group stands in the prediction set, None where too few photos told it. `novelty`: None likewise.
    """

    temperatures: ByGroup = ByGroup(1.0, 1.0)
    set_limits: ByGroup = ByGroup(None, None)
    novelty: NoveltyModel | None = None
    fitted: bool = False

    def __post_init__(self) -> None:
        t = (self.temperatures.with_photos, self.temperatures.herbarium_only)
        if not all(value is not None and math.isfinite(value) and value > 0 for value in t):
            raise InvalidConfig(f"temperatures are above 0, not {t}")
        limits = (self.set_limits.with_photos, self.set_limits.herbarium_only)
        if not all(value is None or 0.0 <= value <= 1.0 for value in limits):
            raise InvalidConfig(f"limits of prediction sets are probabilities, not {limits}")

    def calibrate(self, probabilities: FloatArray, has_field_photos: BoolArray) -> FloatArray:
        """Calibrated probabilities ``(N, U)`` of the gate's; rows sum to one and keep their order."""
        if self.temperatures == ByGroup(1.0, 1.0):
            return probabilities
        return tempered(probabilities, self.temperatures.of(has_field_photos[probabilities.argmax(axis=1)]))

    def gives_sets(self, has_field_photos: BoolArray) -> bool:
        """Whether a limit is known for every group that the species of the index ``(U,)`` belong to."""
        return bool(np.isfinite(self.set_limits.of(has_field_photos)).all())

    def in_set(self, probabilities: FloatArray, has_field_photos: BoolArray) -> BoolArray:
        """``(N, U)``: species in the prediction set of calibrated probabilities.

        Split conformal with the score 1 − p (Sadinle, Lei & Wasserman 2019, "Least Ambiguous Set-Valued Classifiers")
        and a limit for each group of species (Mondrian: Vovk 2012, "Conditional validity of inductive conformal
        predictors", §4), so that the coverage holds in each group. None are in it where no limit is known.
        """
        return np.asarray(probabilities >= self.set_limits.of(has_field_photos))

    def prediction_set(
        self,
        probabilities: FloatArray,
        species: Sequence[Species],
        has_field_photos: BoolArray,
        *,
        restricted: bool = False,
    ) -> PredictionSet | None:
        """The set for calibrated probabilities ``(U,)`` of one plant; None where a limit is not known.

        With `restricted` these are the species that a filter allows, and their probabilities given that the plant is
        one of them. No such probability is smaller than it was, so the set holds all of the unrestricted one that is
        allowed, and misses the species of an allowed plant no more often.
        """
        if not self.gives_sets(has_field_photos):
            return None
        members = np.flatnonzero(self.in_set(probabilities[None], has_field_photos)[0])
        members = members[np.argsort(-probabilities[members], kind="stable")]
        herbarium_only = int((~has_field_photos[members]).sum())
        listed = tuple(species[int(i)] for i in members[:_MOST_LISTED])
        guarantee = _guarantee(herbarium_only) + (_PROVISO if restricted else "")
        return PredictionSet(listed, len(members), herbarium_only, COVERAGE, guarantee)

    def judge(self, evidence: Evidence, probabilities: FloatArray) -> Novelty | None:
        """Whether one plant is of an unknown species, from its evidence and calibrated probabilities ``(1, U)``."""
        if self.novelty is None:
            return None
        score = float(self.novelty.unknown_scores(novelty_features(evidence, probabilities))[0])
        return Novelty(score, self.novelty.threshold)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Reliability":
        """Inverse of `to_json`. Raises `InvalidConfig` for wrong keys or values."""
        try:
            arguments: dict[str, Any] = dict(values)
            novelty: dict[str, Any] | None = arguments.pop("novelty")
            if novelty is not None:
                lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in novelty.items()}
                arguments["novelty"] = NoveltyModel(**lists)
            for name in ("temperatures", "set_limits"):
                arguments[name] = ByGroup(**arguments.pop(name))
            return cls(**arguments)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidConfig(f"the reliability file has wrong parameters: {error}") from error


def _guarantee(herbarium_only: int) -> str:
    held = f"Of photos of species with field photos, {100 * COVERAGE:.0f} % have their species in such a set."
    if not herbarium_only:
        return held
    known = "the one species" if herbarium_only == 1 else f"the {herbarium_only:,} species"
    return (
        f"{held} For {known} known from herbarium sheets only, this is estimated from species whose photos were hidden "
        "in training, and not guaranteed."
    )


class HigherTaxa:
    """Genera and families of U species in an order, for summing probabilities."""

    def __init__(self, species: Sequence[Species]) -> None:
        self.species = tuple(species)
        self._ranks = [
            (TaxonRank.GENUS, *_numbered([s.genus for s in species])),
            (TaxonRank.FAMILY, *_numbered([s.family for s in species])),
        ]

    def roll_up(self, probabilities: FloatArray, level: float = ROLL_UP_LEVEL) -> RollUp | None:
        """The lowest taxon whose species have a summed probability of at least `level`; ``(U,)`` in, None if none.

        Species without a genus or family count for none of that rank.
        """
        first = int(probabilities.argmax())
        if probabilities[first] >= level:
            name = self.species[first].scientific_name
            return RollUp(TaxonRank.SPECIES, name, min(1.0, float(probabilities[first])), 1)
        for taxon_rank, names, number in self._ranks:
            if not names:
                continue
            # The last place gathers the species that have no taxon of this rank.
            sums = np.bincount(number, weights=probabilities, minlength=len(names) + 1)[:-1]
            best = int(sums.argmax())
            if sums[best] >= level:
                count = int((number == best).sum())
                return RollUp(taxon_rank, names[best], min(1.0, float(sums[best])), count)
        return None

    def totals(self, probabilities: FloatArray) -> dict[TaxonRank, list[tuple[str, float]]]:
        """Genera and families with the summed probabilities of their species, the likeliest first; ``(U,)`` in."""
        found = {}
        for taxon_rank, names, number in self._ranks:
            sums = np.bincount(number, weights=probabilities, minlength=len(names) + 1)[:-1]
            found[taxon_rank] = [(names[i], float(sums[i])) for i in np.argsort(-sums, kind="stable")]
        return found

    def holds(self, roll_up: RollUp, position: int) -> bool:
        """Whether the species at a position belongs to the taxon of a roll-up."""
        species = self.species[position]
        names = {
            TaxonRank.SPECIES: species.scientific_name,
            TaxonRank.GENUS: species.genus,
            TaxonRank.FAMILY: species.family,
        }
        return names[roll_up.taxon_rank] == roll_up.name


def _numbered(names: Sequence[str | None]) -> tuple[list[str], NDArray[np.intp]]:
    """Distinct names, sorted, and for each species the position of its own; their number where it has none."""
    distinct = sorted({name for name in names if name})
    position = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([position[n] if n else len(distinct) for n in names], dtype=np.intp)
