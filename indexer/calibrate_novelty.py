"""A model of photos of unknown species, fitted on photos whose species was taken out of the index."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from models.reliability import NOVELTY_FEATURES, Float64Array, NoveltyModel

logger = logging.getLogger(__name__)

KNOWN_ACCEPTED = 0.95
"""Share of known photos that the threshold lets pass."""

_MIN_PHOTOS = 20
_RIDGE = 0.01
"""Draws weights to 0, relative to the mean log-likelihood of both kinds: a hundred photos decide for themselves."""


@dataclass(frozen=True)
class FittedNovelty:
    """The model, None where too few photos told it, and figures by photos that had no part in the fit."""

    model: NoveltyModel | None
    figures: dict[str, Any]


def fit_novelty(
    known: Float64Array,
    known_weights: Float64Array,
    known_fold: NDArray[np.intp],
    unknown: Float64Array,
    unknown_fold: NDArray[np.intp],
) -> FittedNovelty:
    """The model that tells features ``(M, F)`` of known from ``(H, F)`` of unknown photos.

    Known photos count by their weights ``(M,)``. The threshold is the score below which 95 % of them lie, each scored
    by a model of the other folds. With fewer than 20 of either kind there is no model.
    """
    counts = {"known_photos": len(known), "unknown_photos": len(unknown)}
    if min(len(known), len(unknown)) < _MIN_PHOTOS:
        logger.warning("%d photos of hidden species: too few to tell unknown plants", len(unknown))
        return FittedNovelty(None, counts)
    folds = np.unique(known_fold)
    known_scores, unknown_scores = np.empty(len(known)), np.empty(len(unknown))
    for number in folds:
        inside, outside = known_fold == number, unknown_fold == number
        other_known, other_unknown = ~inside, ~outside
        if not other_known.any() or not other_unknown.any():
            other_known, other_unknown = np.ones_like(inside), np.ones_like(outside)
        model = _fit(known[other_known], known_weights[other_known], unknown[other_unknown])
        known_scores[inside] = model.unknown_scores(known[inside])
        unknown_scores[outside] = model.unknown_scores(unknown[outside])
    threshold = accepting_threshold(known_scores, known_weights)
    final = _fit(known, known_weights, unknown)
    model = NoveltyModel(final.means, final.scales, final.weights, final.bias, threshold)
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    sample_weight = np.concatenate([known_weights / known_weights.sum(), np.full(len(unknown), 1.0 / len(unknown))])
    figures = {
        **counts,
        "auroc": float(
            roc_auc_score(truth, np.concatenate([known_scores, unknown_scores]), sample_weight=sample_weight)
        ),
        "known_accepted": float(known_weights @ (known_scores <= threshold) / known_weights.sum()),
        "unknown_accepted": float(np.mean(unknown_scores <= threshold)),
        "weights": dict(zip(NOVELTY_FEATURES, final.weights, strict=True)),
    }
    return FittedNovelty(model, figures)


def accepting_threshold(scores: Float64Array, weights: Float64Array, share: float = KNOWN_ACCEPTED) -> float:
    """The smallest score ``(M,)`` that at least `share` of the weight ``(M,)`` does not exceed."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) >= share * weights.sum() - 1e-12
    return float(scores[order][int(np.argmax(reached))])


def _fit(known: Float64Array, known_weights: Float64Array, unknown: Float64Array) -> NoveltyModel:
    """Logistic regression with known and unknown photos as likely as each other, and weights that are not negative."""
    rows = np.concatenate([known, unknown])
    # A feature that no photo has (no classifier, no sheets) keeps mean 0 and scale 1, and gets the weight 0.
    absent = ~np.isfinite(rows).any(axis=0)
    filled = np.where(absent, 0.0, rows)
    means, scales = np.nanmean(filled, axis=0), np.nanstd(filled, axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    deviations = np.nan_to_num((filled - means) / scales, nan=0.0)
    sign = np.repeat([1.0, -1.0], [len(known), len(unknown)])
    weights = np.concatenate([known_weights / known_weights.sum(), np.full(len(unknown), 1.0 / len(unknown))])

    def loss(values: Float64Array) -> tuple[float, Float64Array]:
        margin = sign * (deviations @ values[:-1] + values[-1])
        slope = -weights * sign * (0.5 * (1.0 - np.tanh(0.5 * margin)))
        total = weights @ np.logaddexp(0.0, -margin) + _RIDGE * values[:-1] @ values[:-1]
        return float(total), np.append(slope @ deviations + 2.0 * _RIDGE * values[:-1], slope.sum())

    size = rows.shape[1]
    bounds = [(0.0, None)] * size + [(None, None)]
    found = minimize(loss, np.zeros(size + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return NoveltyModel(
        tuple(means.tolist()), tuple(scales.tolist()), tuple(found[:-1].tolist()), float(found[-1]), 1.0
    )
