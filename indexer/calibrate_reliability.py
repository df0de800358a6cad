"""What the gate's answers are worth, learnt on photos that the answering networks had not seen; never on test photos.

Each fold's photos are answered by a gate fitted on the other folds, so that nothing is judged by what it was fitted on.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin

from indexer.calibrate_gate import cross_fit_parts, group_weights
from indexer.calibrate_novelty import fit_novelty
from models.bundle import CalibrationSet
from models.gate import BoolArray, Evidence, Gate
from models.reliability import (
    COVERAGE,
    NOVELTY_FEATURES,
    ByGroup,
    Float64Array,
    Reliability,
    novelty_features,
    tempered,
)
from models.retrieval import FloatArray

logger = logging.getLogger(__name__)

Refit = Callable[[CalibrationSet], Gate]
"""Fits a gate as the bundle's was fitted, on a part of the calibration set."""

_MIN_PHOTOS = 20
"""Photos of a group from which a limit is taken: the coverage it gives scatters by 6 points then (Vovk 2012)."""
_PRIOR_PHOTOS = 5.0
"""How many photos' worth a group's temperature is drawn to that of all."""


@dataclass(frozen=True)
class FittedReliability:
    """The reliability, and figures of its fit by photos that had no part in it."""

    reliability: Reliability
    figures: dict[str, Any]


@dataclass(frozen=True)
class _Unseen:
    """Answers by gates that had not seen the photos: probabilities ``(M, C)``, fold number and gate of each fold."""

    probabilities: FloatArray
    first_has_photos: BoolArray
    fold: NDArray[np.intp]
    gates: list[Gate]
    evidence: list[tuple[NDArray[np.intp], Evidence]]


def fit_reliability(
    calibration: CalibrationSet, herbarium_only_share: float, gate: Gate, refit: Refit
) -> FittedReliability:
    """Temperatures, limits of prediction sets and a novelty model for answers of `gate`.

    Photos of hidden species stand for herbarium-only species, which make up `herbarium_only_share` (0 … 1) of the
    flora. With fewer than 20 photos nothing is fitted and nothing promised; the same holds for each group alone.
    """
    if len(calibration) < _MIN_PHOTOS:
        logger.warning("only %d calibration photos: no prediction sets, no answer `none of these`", len(calibration))
        return FittedReliability(Reliability(), {"photos": len(calibration), "fitted": False})
    weights = group_weights(calibration.hidden, herbarium_only_share)
    unseen = _unseen_answers(calibration, gate, refit)
    chosen, calibrated, losses = _temperatures(unseen, calibration, weights)
    of_truth = calibrated[np.arange(len(calibration)), calibration.truth]
    limits = [conformal_limit(of_truth[rows]) for rows in (~calibration.hidden, calibration.hidden)]
    features = np.empty((len(calibration), len(NOVELTY_FEATURES)))
    for rows, evidence in unseen.evidence:
        features[rows] = novelty_features(evidence, calibrated[rows])
    without, fold = _without_their_species(unseen, calibration, chosen)
    novelty = fit_novelty(features, weights, unseen.fold, without, fold)
    figures = {
        "photos": len(calibration),
        "hidden_photos": int(calibration.hidden.sum()),
        "fitted": True,
        "folds": len(unseen.gates),
        **losses,
        "novelty": novelty.figures,
    }
    return FittedReliability(Reliability(chosen, ByGroup(*limits), novelty.model, fitted=True), figures)


def conformal_limit(of_truth: FloatArray) -> float | None:
    """The probability from which a species is in the set, by the probabilities ``(M,)`` of the photos' true species.

    None for too few photos. MAPIE takes the ⌈(M + 1) · 0.9⌉-th smallest of the scores 1 − p.
    """
    if len(of_truth) < _MIN_PHOTOS:
        return None
    # The score of a photo depends on its true species alone: two columns tell the same as the table of all species.
    table = np.stack([of_truth, 1.0 - of_truth.astype(np.float64)], axis=1)
    classifier = SplitConformalClassifier(_Lookup(), confidence_level=COVERAGE, conformity_score="lac", prefit=True)
    with warnings.catch_warnings():
        # The second column is never true.
        warnings.filterwarnings("ignore", message="WARNING: your conformalization dataset has less labels")
        classifier.conformalize(table, np.zeros(len(table), dtype=np.int64))
    _, sets = classifier.predict_set(table)
    return float(of_truth[sets[:, 0, 0]].min())


class _Lookup(ClassifierMixin, BaseEstimator):
    """A fitted classifier, in the eyes of a library, whose inputs are the probabilities themselves."""

    classes_ = np.array([0, 1])

    def fit(self, rows: Float64Array, truth: NDArray[np.int64]) -> "_Lookup":
        """Itself; there is nothing to fit."""
        return self

    def predict_proba(self, rows: Float64Array) -> Float64Array:
        """The rows."""
        return rows

    def predict(self, rows: Float64Array) -> NDArray[np.int64]:
        """``(M,)`` the likelier column."""
        return np.asarray(rows.argmax(axis=1))

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _unseen_answers(calibration: CalibrationSet, gate: Gate, refit: Refit) -> _Unseen:
    """Every part answered by the gate of the other parts; by `gate` itself where these are too few."""
    fold = cross_fit_parts(calibration)
    probabilities = np.empty(calibration.logits.shape, dtype=np.float32)
    first_has_photos = np.zeros(len(calibration), dtype=bool)
    gates: list[Gate] = []
    parts = []
    for number in range(int(fold.max()) + 1):
        rows = np.flatnonzero(fold == number)
        pattern = calibration.has_field_photos[rows[0]]
        others = calibration.at(fold != number)
        gates.append(refit(others) if len(others) >= _MIN_PHOTOS else gate)
        evidence = Evidence(calibration.logits[rows], calibration.similarities[rows], pattern)
        probabilities[rows] = gates[-1].probabilities(evidence)
        first_has_photos[rows] = pattern[probabilities[rows].argmax(axis=1)]
        parts.append((rows, evidence))
    return _Unseen(probabilities, first_has_photos, fold, gates, parts)


def _temperatures(
    unseen: _Unseen, calibration: CalibrationSet, weights: Float64Array
) -> tuple[ByGroup, FloatArray, dict[str, float]]:
    """Temperatures by group, the photos' probabilities by those of the other folds, and the loss without and with.

    Where photos that had no part in the fit are not answered with a better likelihood, the temperatures stay 1.
    """
    before, truth = unseen.probabilities, calibration.truth
    after = np.empty_like(before)
    folds = np.unique(unseen.fold)
    for number in folds:
        rows = unseen.fold == number
        others = ~rows if len(folds) > 1 else rows
        found = _fit_temperatures(before[others], truth[others], unseen.first_has_photos[others], weights[others])
        after[rows] = tempered(before[rows], found.of(unseen.first_has_photos[rows]))
    losses = [_loss(table, truth, weights) for table in (before, after)]
    better = losses[1] < losses[0]
    figures = {"negative_log_likelihood_before": losses[0], "negative_log_likelihood": min(losses)}
    if not better:
        return ByGroup(1.0, 1.0), before, figures
    return _fit_temperatures(before, truth, unseen.first_has_photos, weights), after, figures


def _fit_temperatures(
    probabilities: FloatArray, truth: NDArray[np.int64], has_photos: BoolArray, weights: Float64Array
) -> ByGroup:
    """Temperatures with the least weighted negative log-likelihood by the group of the answered species."""
    log_p = np.log(np.maximum(probabilities, 1e-30, dtype=np.float64))
    of_truth = log_p[np.arange(len(truth)), truth]

    def fit(rows: BoolArray, centre: float, prior: float) -> float:
        total = weights[rows].sum()
        if total <= 0:
            return centre

        def loss(log_temperature: float) -> float:
            scale = np.exp(-log_temperature)
            nll = logsumexp(scale * log_p[rows], axis=1) - scale * of_truth[rows]
            return float(weights[rows] @ nll / total + prior / rows.sum() * (log_temperature - centre) ** 2)

        return float(minimize_scalar(loss, bounds=(np.log(0.1), np.log(100.0)), method="bounded").x)

    common = fit(np.ones(len(truth), dtype=bool), 0.0, 0.0)
    return ByGroup(*(float(np.exp(fit(rows, common, _PRIOR_PHOTOS))) for rows in (has_photos, ~has_photos)))


def _loss(probabilities: FloatArray, truth: NDArray[np.int64], weights: Float64Array) -> float:
    of_truth = probabilities[np.arange(len(truth)), truth]
    return -float(weights @ np.log(np.maximum(of_truth, 1e-30, dtype=np.float64))) / float(weights.sum())


def _without_their_species(
    unseen: _Unseen, calibration: CalibrationSet, temperatures: ByGroup
) -> tuple[Float64Array, NDArray[np.intp]]:
    """Novelty features ``(H, F)`` and folds of the hidden photos as an index without their species would see them."""
    reliability = Reliability(temperatures)
    features: list[Float64Array] = []
    folds: list[NDArray[np.intp]] = []
    for number, (rows, evidence) in enumerate(unseen.evidence):
        hidden = calibration.hidden[rows]
        for species in np.unique(calibration.truth[rows[hidden]]):
            here = np.flatnonzero(hidden & (calibration.truth[rows] == species))
            kept = np.arange(evidence.logits.shape[1]) != species
            rest = _reduced(evidence, here, kept)
            if rest is None:
                continue
            probabilities = reliability.calibrate(unseen.gates[number].probabilities(rest), rest.has_field_photos)
            features.append(novelty_features(rest, probabilities))
            folds.append(np.full(len(probabilities), number, dtype=np.intp))
    if not features:
        return np.empty((0, len(NOVELTY_FEATURES))), np.empty(0, dtype=np.intp)
    return np.concatenate(features), np.concatenate(folds)


def _reduced(evidence: Evidence, rows: NDArray[np.intp], kept: BoolArray) -> Evidence | None:
    """The evidence about some plants over some species; None when it says nothing about one of them."""
    logits, similarities = evidence.logits[rows][:, kept], evidence.similarities[rows][:, kept]
    if not (np.isfinite(logits) | np.isfinite(similarities)).any(axis=1).all():
        return None
    return Evidence(logits, similarities, evidence.has_field_photos[kept])
