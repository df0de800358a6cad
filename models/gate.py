"""Which stream to believe. Pure functions of the evidence: no torch, no files, nothing learnt here."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from models.errors import InvalidConfig
from models.retrieval import DecisionSource, FloatArray, GateDecision

BoolArray = NDArray[np.bool_]

_FLOOR = -60.0
"""Log-probability below which a species counts as excluded; keeps every sum finite."""


@dataclass(frozen=True)
class Evidence:
    """What both streams say of N plants about U species; rows are plants, columns species.

    `logits` ``(N, U)``: the classifier's, ``-inf`` for a species that it has no column for.
    `similarities` ``(N, U)``: cosine to the species' prototype, ``-inf`` for one without sheets.
    `has_field_photos` ``(U,)``: whether field photos of the species were in training.
    """

    logits: FloatArray
    similarities: FloatArray
    has_field_photos: BoolArray

    def __post_init__(self) -> None:
        if self.logits.shape != self.similarities.shape or self.logits.ndim != 2:
            raise ValueError(f"logits {self.logits.shape} and similarities {self.similarities.shape} differ")
        if self.has_field_photos.shape != (self.logits.shape[1],):
            raise ValueError("one field-photo flag a species")
        if not (np.isfinite(self.logits) | np.isfinite(self.similarities)).any(axis=1).all():
            raise ValueError("a plant without any evidence")

    def at(self, row: int) -> "Evidence":
        """The evidence about one plant."""
        return Evidence(self.logits[row : row + 1], self.similarities[row : row + 1], self.has_field_photos)

    def of_one_plant(self) -> "Evidence":
        """``(1, U)``: what the photos in the rows say together of the one plant that they show: their mean.

        Product rule for looks at one object (Kittler et al. 1998, "On Combining Classifiers", eq. 9, all species being
        as likely): what a gate makes of the mean is the geometric mean of what it makes of each photo, if it is
        log-linear in logits and similarities, as `FusionGate` and `StreamGate` are. `DistanceGate` so chooses its
        stream once for the plant. A single photo's evidence stays as it is.
        """
        if len(self.logits) == 1:
            return self
        logits, similarities = (
            values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
            for values in (self.logits, self.similarities)
        )
        return Evidence(logits, similarities, self.has_field_photos)

    def among(self, positions: NDArray[np.intp]) -> "Evidence":
        """The evidence about some of the species."""
        return Evidence(self.logits[:, positions], self.similarities[:, positions], self.has_field_photos[positions])

    @property
    def in_classifier(self) -> BoolArray:
        """``(U,)``: species with a classifier column."""
        return np.asarray(np.isfinite(self.logits).any(axis=0))

    @property
    def has_prototype(self) -> BoolArray:
        """``(U,)``: species with sheets."""
        return np.asarray(np.isfinite(self.similarities).any(axis=0))


def masked_log_softmax(values: FloatArray, temperature: float) -> NDArray[np.float64]:
    """Row-wise log-softmax of ``values / temperature``; `_FLOOR` where the value is not finite."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(values.shape, _FLOOR)
    scaled = np.where(finite, values.astype(np.float64) / temperature, -np.inf)
    return np.maximum(np.where(finite, log_softmax(scaled, axis=1), _FLOOR), _FLOOR)


def _normalised(log_weights: NDArray[np.float64]) -> FloatArray:
    return np.exp(log_softmax(log_weights, axis=1)).astype(np.float32)


def stream_probabilities(evidence: Evidence, source: DecisionSource, temperature: float) -> FloatArray:
    """``(N, U)`` probabilities of one stream alone."""
    values = evidence.logits if source is DecisionSource.SPECIALIST else evidence.similarities
    return _normalised(masked_log_softmax(values, temperature))


class Gate(Protocol):
    """Turns evidence into probabilities and says who decided."""

    def probabilities(self, evidence: Evidence) -> FloatArray:
        """``(N, U)``; rows sum to one."""

    def decide(self, evidence: Evidence, row: int) -> GateDecision:
        """Who decided for one plant and why."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest, with the kind."""


@dataclass(frozen=True, slots=True)
class StreamGate:
    """One stream alone, ``specialist`` or ``generalist``; the other one answers where it has no evidence at all."""

    stream: DecisionSource
    specialist_temperature: float = 1.0
    generalist_temperature: float = 0.05

    def __post_init__(self) -> None:
        if self.stream not in (DecisionSource.SPECIALIST, DecisionSource.GENERALIST):
            raise InvalidConfig(f"a gate of one stream takes specialist or generalist, not {self.stream!r}")

    def source(self, evidence: Evidence) -> DecisionSource:
        """The stream that answers."""
        if self.stream == DecisionSource.SPECIALIST:
            return DecisionSource.SPECIALIST if evidence.in_classifier.any() else DecisionSource.GENERALIST
        return DecisionSource.GENERALIST if evidence.has_prototype.any() else DecisionSource.SPECIALIST

    def probabilities(self, evidence: Evidence) -> FloatArray:
        """``(N, U)``; rows sum to one."""
        source = self.source(evidence)
        is_specialist = source is DecisionSource.SPECIALIST
        temperature = self.specialist_temperature if is_specialist else self.generalist_temperature
        return stream_probabilities(evidence, source, temperature)

    def decide(self, evidence: Evidence, row: int) -> GateDecision:
        """Who decided for one plant and why."""
        source = self.source(evidence)
        who = "The classifier" if source is DecisionSource.SPECIALIST else "The nearest herbarium sheets"
        verb = "decides" if source is DecisionSource.SPECIALIST else "decide"
        return GateDecision(source, f"{who} alone {verb} in this bundle.", {})

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest, with the kind."""
        return {"kind": self.stream.value, **{k: v for k, v in asdict(self).items() if k != "stream"}}


@dataclass(frozen=True, slots=True)
class DistanceGate:
    """The reference gate.

    The specialist's first species is believed when the generalist's embedding lies within `threshold` of that
    species' prototype (Euclidean between unit vectors, 0 … 2); otherwise the nearest prototypes answer.
    """

    threshold: float
    specialist_temperature: float = 1.0
    generalist_temperature: float = 0.05

    def distances(self, evidence: Evidence) -> FloatArray:
        """``(N,)`` distance of each plant to the prototype of the specialist's first species."""
        best = _best_column(evidence)
        cosine = evidence.similarities[np.arange(len(best)), best]
        distance = np.sqrt(np.maximum(2.0 - 2.0 * np.where(np.isfinite(cosine), cosine, -1.0), 0.0))
        return distance.astype(np.float32)

    def trusts_specialist(self, evidence: Evidence) -> BoolArray:
        """``(N,)``: distance at most `threshold`, or no prototypes at all."""
        if not evidence.has_prototype.any():
            return np.ones(len(evidence.logits), dtype=bool)
        return (self.distances(evidence) <= self.threshold) & evidence.in_classifier.any()

    def probabilities(self, evidence: Evidence) -> FloatArray:
        """``(N, U)``: of the stream that is believed."""
        specialist = stream_probabilities(evidence, DecisionSource.SPECIALIST, self.specialist_temperature)
        generalist = stream_probabilities(evidence, DecisionSource.GENERALIST, self.generalist_temperature)
        return np.where(self.trusts_specialist(evidence)[:, None], specialist, generalist)

    def decide(self, evidence: Evidence, row: int) -> GateDecision:
        """Who decided for one plant and why."""
        distance = float(self.distances(evidence)[row])
        values = {"distance": distance, "threshold": self.threshold}
        if bool(self.trusts_specialist(evidence)[row]):
            reason = (
                f"The classifier's first species is backed by its herbarium sheets: the photo lies {distance:.2f} "
                f"from their prototype, within the limit of {self.threshold:.2f}."
            )
            return GateDecision(DecisionSource.SPECIALIST, reason, values)
        reason = (
            f"The photo lies {distance:.2f} from the sheets of the classifier's first species, beyond the limit "
            f"of {self.threshold:.2f}, so the nearest herbarium sheets decide."
        )
        return GateDecision(DecisionSource.GENERALIST, reason, values)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest, with the kind."""
        return {"kind": "distance", **asdict(self)}


@dataclass(frozen=True, slots=True)
class FusionGate:
    """Log-linear pool of both streams with a penalty on species that had field photos in training.

    ``log p = a log p_specialist + b log p_generalist − c [has field photos] + constant`` (Genest & Zidek 1986, §3,
    a logarithmic opinion pool; the penalty is calibrated stacking of Chao et al. 2016, eq. 4, which offsets a
    classifier's bias to the classes it saw in this domain). A species without a classifier column is given the mean
    log-probability of the columns that were trained on sheets alone, so that it competes on its sheets; one without
    sheets likewise the mean of the prototypes', so that it competes on its column.
    """

    specialist_weight: float
    generalist_weight: float
    field_photo_penalty: float
    specialist_temperature: float = 1.0
    generalist_temperature: float = 0.05

    def __post_init__(self) -> None:
        if min(self.specialist_weight, self.generalist_weight) < 0:
            raise InvalidConfig("a stream's weight is not negative")

    def log_weights(self, evidence: Evidence) -> NDArray[np.float64]:
        """``(N, U)`` unnormalised log-probabilities."""
        specialist = masked_log_softmax(evidence.logits, self.specialist_temperature)
        generalist = masked_log_softmax(evidence.similarities, self.generalist_temperature)
        missing = ~evidence.in_classifier
        if missing.any() and not missing.all():
            alike = evidence.in_classifier & ~evidence.has_field_photos
            alike = alike if alike.any() else evidence.in_classifier
            specialist[:, missing] = specialist[:, alike].mean(axis=1, keepdims=True)
        bare = ~evidence.has_prototype
        if bare.any() and not bare.all():
            generalist[:, bare] = generalist[:, ~bare].mean(axis=1, keepdims=True)
        pooled = self.specialist_weight * specialist + self.generalist_weight * generalist
        return pooled - self.field_photo_penalty * evidence.has_field_photos

    def probabilities(self, evidence: Evidence) -> FloatArray:
        """``(N, U)``; rows sum to one."""
        return _normalised(self.log_weights(evidence))

    def decide(self, evidence: Evidence, row: int) -> GateDecision:
        """Who decided for one plant and why."""
        answer = int(self.log_weights(evidence)[row].argmax())
        specialist = int(_best_column(evidence)[row]) if evidence.in_classifier.any() else -1
        generalist = int(evidence.similarities[row].argmax()) if evidence.has_prototype.any() else -1
        similarity = float(evidence.similarities[row, answer])
        values = {"similarity": similarity} if np.isfinite(similarity) else {}
        if answer == specialist == generalist:
            source, reason = DecisionSource.FUSION, "The classifier and the nearest herbarium sheets agree."
        elif answer == specialist:
            source = DecisionSource.SPECIALIST
            reason = "The classifier's species outweighs the one with the nearest herbarium sheets."
        elif answer == generalist:
            source = DecisionSource.GENERALIST
            reason = "The nearest herbarium sheets outweigh the classifier's species."
        else:
            source = DecisionSource.FUSION
            reason = "Neither the classifier's first species nor the nearest sheets', but the best in both views."
        return GateDecision(source, reason, values)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest, with the kind."""
        return {"kind": "fusion", **asdict(self)}


def gate_from_json(values: dict[str, Any]) -> Gate:
    """Inverse of `Gate.to_json`. Raises `InvalidConfig` for an unknown kind or wrong keys."""
    kinds: dict[str, Callable[..., Gate]] = {
        "distance": DistanceGate,
        "fusion": FusionGate,
        "specialist": partial(StreamGate, DecisionSource.SPECIALIST),
        "generalist": partial(StreamGate, DecisionSource.GENERALIST),
    }
    arguments = dict(values)
    kind = arguments.pop("kind", None)
    if kind not in kinds:
        raise InvalidConfig(f"unknown gate kind {kind!r}; this version knows {sorted(kinds)}")
    try:
        return kinds[kind](**arguments)
    except TypeError as error:
        raise InvalidConfig(f"gate of kind {kind!r} has wrong parameters: {error}") from error


def _best_column(evidence: Evidence) -> NDArray[np.intp]:
    return evidence.logits.argmax(axis=1)
