"""What answers are worth on test photos: calibration, prediction sets, roll-up, novelty, several photos. NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.intervals import cluster_positions, mean_intervals, paired_difference
from indexer.metrics import GROUPS, expected_calibration_error
from models.gate import BoolArray
from models.reliability import COVERAGE, ROLL_UP_LEVEL, Float64Array, HigherTaxa, Reliability
from models.retrieval import FloatArray, Outcome

_RESAMPLES = 1000


@dataclass(frozen=True)
class ServedAnswers:
    """N test photos and their served answers.

    `probabilities` ``(N, S)`` are calibrated, `gate_confidence` ``(N,)`` the first species' before; `truth` ``(N,)``
    are positions among the S species, `has_field_photos` ``(S,)`` is of the species, `observation` ``(N,)`` names the
    plant; `unknown_scores` ``(N,)`` is None without a novelty model.
    """

    probabilities: FloatArray
    gate_confidence: FloatArray
    truth: NDArray[np.int64]
    has_field_photos: BoolArray
    observation: NDArray[np.generic]
    unknown_scores: Float64Array | None

    @property
    def first(self) -> NDArray[np.intp]:
        """``(N,)`` position of the first species."""
        return self.probabilities.argmax(axis=1)

    def groups(self) -> dict[str, BoolArray]:
        """Rows of each group of the protocol, by the true species."""
        with_photos = self.has_field_photos[self.truth]
        return dict(zip(GROUPS, (np.ones_like(with_photos), with_photos, ~with_photos), strict=True))


def reliability_figures(photos: ServedAnswers, reliability: Reliability, taxa: HigherTaxa) -> dict[str, Any]:
    """Figures by group, each with its count and 95 % intervals that draw whole plants.

    "calibration" by the true species' group, and "calibration_by_answer" by that of the species that was answered, the
    only group that a user sees. "prediction_sets", "novelty" and "answers": see there.
    """
    groups = photos.groups()
    answered_with_photos = photos.has_field_photos[photos.first]
    by_answer = {"with_photos": answered_with_photos, "herbarium_only": ~answered_with_photos}
    return {
        "fitted": reliability.fitted,
        "calibration": {name: _calibration(photos, rows) for name, rows in groups.items()},
        "calibration_by_answer": {name: _calibration(photos, rows) for name, rows in by_answer.items()},
        "prediction_sets": _prediction_sets(photos, reliability, groups),
        "novelty": _novelty(photos, reliability, groups),
        "answers": _answers(photos, reliability, taxa),
    }


def share_with_interval(values: BoolArray, observation: NDArray[np.generic]) -> dict[str, Any]:
    """Count, share of true `values` ``(N,)`` and its interval; None for the share of nothing."""
    if not len(values):
        return {"n": 0, "share": None, "interval": None}
    clusters = cluster_positions(observation, len(values))
    interval = mean_intervals(values[:, None].astype(np.float64), clusters, resamples=_RESAMPLES, seed=0)[0]
    return {"n": len(values), "share": float(values.mean()), "interval": list(interval)}


def _calibration(photos: ServedAnswers, rows: BoolArray) -> dict[str, Any]:
    """Expected calibration errors before and after, and what a perfectly calibrated answer would have."""
    if not rows.any():
        return {"n": 0, "ece": None, "ece_before": None, "ece_if_perfect": None, "ece_if_perfect_95": None}
    confidence = photos.probabilities[rows].max(axis=1)
    correct = photos.first[rows] == photos.truth[rows]
    # With few photos a bin's share scatters about its confidence: this much error is no fault of the answer.
    generator = np.random.default_rng(0)
    perfect = [
        expected_calibration_error(confidence, generator.random(len(confidence)) < confidence) for _ in range(200)
    ]
    return {
        "n": int(rows.sum()),
        "mean_confidence": float(confidence.mean()),
        "top1": float(correct.mean()),
        "ece": expected_calibration_error(confidence, correct),
        "ece_before": expected_calibration_error(photos.gate_confidence[rows], correct),
        "ece_if_perfect": float(np.mean(perfect)),
        "ece_if_perfect_95": float(np.quantile(perfect, 0.95)),
    }


def _prediction_sets(photos: ServedAnswers, reliability: Reliability, groups: dict[str, BoolArray]) -> Any:
    """Coverage and size of the sets by group; None where none are given."""
    if not reliability.gives_sets(photos.has_field_photos):
        return None
    covered = np.empty(len(photos.truth), dtype=bool)
    size = np.empty(len(photos.truth), dtype=np.int64)
    # Row by row: a table of N × S flags would double the memory of the evaluation.
    for row, probabilities in enumerate(photos.probabilities):
        members = reliability.in_set(probabilities[None], photos.has_field_photos)[0]
        covered[row], size[row] = members[photos.truth[row]], members.sum()
    return {
        "stated_coverage": COVERAGE,
        **{
            name: {
                **share_with_interval(covered[rows], photos.observation[rows]),
                "mean_size": float(size[rows].mean()) if rows.any() else None,
                "median_size": float(np.median(size[rows])) if rows.any() else None,
                "empty": float((size[rows] == 0).mean()) if rows.any() else None,
            }
            for name, rows in groups.items()
        },
    }


def _novelty(photos: ServedAnswers, reliability: Reliability, groups: dict[str, BoolArray]) -> Any:
    """Share of these known photos that are taken for known, by group; None without a model."""
    if reliability.novelty is None or photos.unknown_scores is None:
        return None
    accepted = photos.unknown_scores <= reliability.novelty.threshold
    return {
        "threshold": reliability.novelty.threshold,
        "known_accepted": {
            name: share_with_interval(accepted[rows], photos.observation[rows]) for name, rows in groups.items()
        },
    }


def _answers(photos: ServedAnswers, reliability: Reliability, taxa: HigherTaxa) -> dict[str, Any]:
    """How often an answer ends at which rank, and how often it is right there; "named": at any rank."""
    outcomes = np.full(len(photos.truth), Outcome.UNDECIDED.value, dtype=object)
    right = np.zeros(len(photos.truth), dtype=bool)
    for row, probabilities in enumerate(photos.probabilities):
        if (roll_up := taxa.roll_up(probabilities)) is not None:
            outcomes[row] = roll_up.taxon_rank.value
            right[row] = taxa.holds(roll_up, int(photos.truth[row]))
    if reliability.novelty is not None and photos.unknown_scores is not None:
        outcomes[photos.unknown_scores > reliability.novelty.threshold] = Outcome.NONE_OF_THESE.value
    named = np.isin(outcomes, (Outcome.SPECIES.value, Outcome.GENUS.value, Outcome.FAMILY.value))
    counted: dict[str, Any] = {
        outcome.value: {"n": int((outcomes == outcome.value).sum())}
        for outcome in (Outcome.UNDECIDED, Outcome.NONE_OF_THESE)
    }
    for rank in (Outcome.SPECIES, Outcome.GENUS, Outcome.FAMILY):
        rows = outcomes == rank.value
        counted[rank.value] = share_with_interval(right[rows], photos.observation[rows])
    return {"level": ROLL_UP_LEVEL, "named": share_with_interval(right[named], photos.observation[named]), **counted}


def several_photos_figures(
    probabilities: FloatArray, truth: NDArray[np.int64], combined: FloatArray, plants: Sequence[NDArray[np.intp]]
) -> dict[str, Any] | None:
    """Answers from all photos of a plant against those from one; None when no plant has several test photos.

    `probabilities` ``(N, S)`` are of single photos, `combined` ``(K, S)`` of K plants, whose photos' rows `plants`
    lists. "best_single" is the photo whose own answer is the most confident, the best that a user could pick without
    the truth; "mean_single" a photo at random. Differences are of top-1, combined minus single.
    """
    if not plants:
        return None
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    combined_right = combined.argmax(axis=1) == truth[[rows[0] for rows in plants]]
    best_right = np.array([right[rows[confidence[rows].argmax()]] for rows in plants])
    photo_rows = np.concatenate(plants)
    plant_of_photo = np.repeat(np.arange(len(plants)), [len(rows) for rows in plants])
    every_plant = np.arange(len(plants))
    return {
        "plants": len(plants),
        "photos": len(photo_rows),
        "combined": share_with_interval(combined_right, every_plant),
        "best_single": share_with_interval(best_right, every_plant),
        "mean_single": share_with_interval(right[photo_rows], plant_of_photo),
        "combined_minus_best_single": paired_difference(combined_right, best_right).to_json(),
        "combined_minus_mean_single": _without_test(
            paired_difference(combined_right[plant_of_photo], right[photo_rows], plant_of_photo).to_json()
        ),
    }


def _without_test(values: dict[str, object]) -> dict[str, object]:
    """A difference without McNemar's test, which takes photos of one plant as independent."""
    return {name: value for name, value in values.items() if name != "p_value"}
