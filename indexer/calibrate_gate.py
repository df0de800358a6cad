"""Gates fitted on answers to photos that the answering networks had not seen; the test split cannot get here."""

import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from models.bundle import CalibrationSet
from models.errors import InvalidConfig
from models.gate import DistanceGate, Evidence, FusionGate, Gate, StreamGate, masked_log_softmax
from models.retrieval import DecisionSource, FloatArray

logger = logging.getLogger(__name__)

GateKind = Literal["auto", "distance", "fusion", "specialist", "generalist"]

_REFERENCE_THRESHOLD = 0.93
_MIN_PHOTOS = 8
_PRIOR_STRENGTH = 0.01
_MOST_CELLS = 20_000_000
"""Probabilities that a fit looks at: rows are thinned out evenly, for a handful of parameters."""


def gate_kind(name: str | None) -> GateKind | None:
    """`name` as a kind of gate. Raises `InvalidConfig`."""
    kinds: dict[str, GateKind] = {kind: kind for kind in get_args(GateKind)}
    if name is None:
        return None
    if name not in kinds:
        raise InvalidConfig(f"a gate is one of {', '.join(kinds)}, not {name!r}")
    return kinds[name]


@dataclass(frozen=True)
class FittedGate:
    """A gate, and how the candidates for it did on the calibration photos (top-1, 0 … 1, by kind)."""

    gate: Gate
    figures: dict[str, Any]


def fit_gate(calibration: CalibrationSet, herbarium_only_share: float, kind: GateKind = "auto") -> FittedGate:
    """The gate for a flora of which `herbarium_only_share` (0 … 1) of the species have sheets alone.

    Photos are weighed so that those of hidden species count for that share, since any species of the
    flora is as likely to be photographed. ``auto`` takes the kind with the lower weighted negative log-likelihood: of a
    hundred photos it tells more than the number of right first answers does. With fewer than eight photos nothing is
    fitted: the reference's distance gate at 0.93 answers.
    """
    if len(calibration) < _MIN_PHOTOS:
        logger.warning("only %d calibration photos: the gate keeps its defaults", len(calibration))
        unfitted = _of_one_stream(kind) or DistanceGate(_REFERENCE_THRESHOLD)
        return FittedGate(unfitted, {"photos": len(calibration), "fitted": False})
    weights = group_weights(calibration.hidden, herbarium_only_share)
    temperatures = (
        _fit_temperature(calibration.logits, calibration.truth, weights),
        _fit_temperature(calibration.similarities, calibration.truth, weights),
    )
    alone = _of_one_stream(kind, *temperatures)
    gates: dict[str, Gate] = (
        {kind: alone}
        if alone is not None
        else {
            "distance": _fit_distance(calibration, weights, temperatures),
            "fusion": _fit_fusion(calibration, weights, temperatures),
        }
    )
    quality = {name: _quality(gate, calibration, weights) for name, gate in gates.items()}
    chosen = kind if kind != "auto" else min(quality, key=lambda name: quality[name][1])
    figures = {
        "photos": len(calibration),
        "hidden_photos": int(calibration.hidden.sum()),
        "fitted": True,
        "kind": chosen,
        "weighted_top1": {name: top1 for name, (top1, _) in quality.items()},
        "weighted_negative_log_likelihood": {name: loss for name, (_, loss) in quality.items()},
    }
    return FittedGate(gates[chosen], figures)


def _of_one_stream(kind: GateKind, *temperatures: float) -> StreamGate | None:
    """The gate of one stream, if `kind` is one."""
    return StreamGate(DecisionSource(kind), *temperatures) if kind in ("specialist", "generalist") else None


def cross_fit_parts(calibration: CalibrationSet) -> NDArray[np.int64]:
    """``(M,)`` part of each answer: its fold, or, of a single fold, one of two halves without a species in common.

    The species that had been hidden, and the others, are dealt out separately, so that each half has both kinds.
    """
    fold = np.unique(calibration.has_field_photos, axis=0, return_inverse=True)[1].reshape(-1)
    if fold.max() > 0:
        return fold.astype(np.int64)
    half = np.zeros(len(calibration), dtype=np.int64)
    for hidden in (False, True):
        rows = calibration.hidden == hidden
        half[rows] = np.unique(calibration.truth[rows], return_inverse=True)[1].reshape(-1) % 2
    return half


def thinned(calibration: CalibrationSet) -> CalibrationSet:
    """Every k-th photo, so that the table of all species, and the fits on it, stay within `_MOST_CELLS`."""
    stride = -(-calibration.logits.size // _MOST_CELLS) or 1
    return calibration if stride == 1 else calibration.at(slice(None, None, stride))


def group_weights(hidden: NDArray[np.bool_], herbarium_only_share: float) -> NDArray[np.float64]:
    """``(M,)`` weights that sum to one; photos of hidden species have `herbarium_only_share` of it."""
    share = herbarium_only_share if hidden.any() else 0.0
    share = share if (~hidden).any() else 1.0
    weights = np.where(hidden, share / max(1, hidden.sum()), (1.0 - share) / max(1, (~hidden).sum()))
    return weights / weights.sum()


def evidence_by_fold(calibration: CalibrationSet) -> list[tuple[NDArray[np.intp], Evidence]]:
    """Evidence for the photos of each fold: those with the same seen species."""
    patterns, fold = np.unique(calibration.has_field_photos, axis=0, return_inverse=True)
    parts = []
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(fold.reshape(-1) == number)
        parts.append((rows, Evidence(calibration.logits[rows], calibration.similarities[rows], pattern)))
    return parts


def _quality(gate: Gate, calibration: CalibrationSet, weights: NDArray[np.float64]) -> tuple[float, float]:
    """Weighted top-1 and negative log-likelihood of a gate's answers."""
    top1 = loss = 0.0
    for rows, evidence in evidence_by_fold(calibration):
        probabilities = gate.probabilities(evidence)
        truth = calibration.truth[rows]
        top1 += float(weights[rows] @ (probabilities.argmax(axis=1) == truth))
        loss -= float(weights[rows] @ np.log(np.maximum(probabilities[np.arange(len(rows)), truth], 1e-9)))
    return top1, loss


def _fit_temperature(values: FloatArray, truth: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Temperature with the least weighted negative log-likelihood (Guo et al. 2017, §4.2)."""
    known = np.flatnonzero(np.isfinite(values[np.arange(len(truth)), truth]))
    values, truth, weights = values[known], truth[known], weights[known]
    rows = np.arange(len(known))

    def loss(log_temperature: float) -> float:
        return -float(weights @ masked_log_softmax(values, float(np.exp(log_temperature)))[rows, truth])

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.005), np.log(20.0)), method="bounded").x))


def _fit_distance(
    calibration: CalibrationSet, weights: NDArray[np.float64], temperatures: tuple[float, float]
) -> DistanceGate:
    """The threshold with the best weighted top-1; in the middle of the best stretch, where it is most robust."""
    distances = np.zeros(len(calibration), dtype=np.float64)
    specialist = np.zeros(len(calibration), dtype=np.intp)
    for rows, evidence in evidence_by_fold(calibration):
        distances[rows] = DistanceGate(0.0).distances(evidence)
        specialist[rows] = evidence.logits.argmax(axis=1)
    generalist = calibration.similarities.argmax(axis=1)
    order = np.argsort(distances)
    gain = weights * ((specialist == calibration.truth).astype(float) - (generalist == calibration.truth))
    totals = np.concatenate([[0.0], np.cumsum(gain[order])])
    edges = np.concatenate([[0.0], distances[order], [2.0]])
    best = np.flatnonzero(totals >= totals.max() - 1e-12)
    position = int(best[len(best) // 2])
    return DistanceGate(float((edges[position] + edges[position + 1]) / 2.0), *temperatures)


def _fit_fusion(
    calibration: CalibrationSet, weights: NDArray[np.float64], temperatures: tuple[float, float]
) -> FusionGate:
    """Weights and penalty with the least weighted negative log-likelihood, drawn slightly to an even pool."""
    parts = evidence_by_fold(calibration)
    start = np.array([0.5, 0.5, 0.0])

    def gate(values: NDArray[np.float64]) -> FusionGate:
        return FusionGate(float(values[0]), float(values[1]), float(values[2]), *temperatures)

    def loss(values: NDArray[np.float64]) -> float:
        total = _PRIOR_STRENGTH * float(((values - start) ** 2).sum())
        for rows, evidence in parts:
            # In float64: the optimiser's differences of 1e-8 would vanish in float32.
            log_probabilities = log_softmax(gate(values).log_weights(evidence), axis=1)
            total -= float(weights[rows] @ log_probabilities[np.arange(len(rows)), calibration.truth[rows]])
        return total

    bounds = [(0.0, 5.0), (0.0, 5.0), (-2.0, 10.0)]
    return gate(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)
