"""The figures of the protocol, as pure functions of probabilities and true species. NumPy only.

Positions among equal probabilities: the species that comes first in the class list goes first, which
is what `argmax` does. So top-1, the confusion table and the order of an answer always agree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.intervals import (
    Interval,
    PairedDifference,
    balanced_interval,
    cluster_positions,
    mean_intervals,
    paired_difference,
)

__all__ = [
    "GROUPS",
    "Confusion",
    "GroupFigures",
    "PairedDifference",
    "ScoredPhotos",
    "confusion_counts",
    "expected_calibration_error",
    "group_figures",
    "paired_difference",
    "protocol_figures",
    "reliability_bins",
    "risk_coverage",
    "score_photos",
]

GROUPS = ("overall", "with_photos", "herbarium_only")
"""Groups of the protocol, in the order they are reported."""

_CELLS_PER_CHUNK = 4_000_000
"""Probabilities compared at once, so that 10,000 photos × 10,000 species need no second table."""


@dataclass(frozen=True)
class ScoredPhotos:
    """What one stream made of N photos; all arrays are ``(N,)``.

    `truth` and `predicted` are positions in the class list of `species_count` species;
    `truth_position` is the place of the true species in the answer, from 1; `confidence` is the
    probability of `predicted`, `truth_probability` that of `truth`.
    """

    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    truth_position: NDArray[np.intp]
    confidence: NDArray[np.float64]
    truth_probability: NDArray[np.float64]
    species_count: int

    def __len__(self) -> int:
        return len(self.truth)

    def at(self, rows: NDArray[np.bool_]) -> "ScoredPhotos":
        """The photos where `rows` is true."""
        return ScoredPhotos(
            self.truth[rows],
            self.predicted[rows],
            self.truth_position[rows],
            self.confidence[rows],
            self.truth_probability[rows],
            self.species_count,
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(N,)`` whether the first species is the true one."""
        return self.truth_position == 1


def score_photos(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> ScoredPhotos:
    """Places and confidences of `probabilities` ``(N, S)`` against `truth` ``(N,)``, without sorting S.

    Raises `ValueError` for other shapes, a position outside the S species, or a value that is no
    probability.
    """
    if probabilities.ndim != 2 or truth.shape != (len(probabilities),):
        raise ValueError(f"expected (N, S) and (N,), got {probabilities.shape} and {truth.shape}")
    rows, species_count = probabilities.shape
    if rows and (truth.min() < 0 or truth.max() >= species_count):
        raise ValueError(f"a true species lies outside the {species_count} columns")
    predicted = np.zeros(rows, np.intp)
    truth_position = np.zeros(rows, np.intp)
    confidence = np.zeros(rows)
    truth_probability = np.zeros(rows)
    columns = np.arange(species_count)
    step = max(1, _CELLS_PER_CHUNK // max(1, species_count))
    for start in range(0, rows, step):
        chunk, here = probabilities[start : start + step], slice(start, start + step)
        # Written so that NaN fails too.
        if not (np.all(chunk >= 0.0) and np.all(chunk <= 1.0 + 1e-5)):
            raise ValueError("probabilities must be finite and within 0 … 1")
        of_truth = np.take_along_axis(chunk, truth[here, None], axis=1)
        earlier = columns < truth[here, None]
        truth_position[here] = 1 + (chunk > of_truth).sum(axis=1) + ((chunk == of_truth) & earlier).sum(axis=1)
        predicted[here] = chunk.argmax(axis=1)
        confidence[here] = np.minimum(chunk.max(axis=1), 1.0)
        truth_probability[here] = np.minimum(of_truth[:, 0], 1.0)
    return ScoredPhotos(truth.astype(np.intp), predicted, truth_position, confidence, truth_probability, species_count)


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Figures of one group of photos; all but the counts are None when the group is empty.

    `species` counts the true species of the group; macro figures average over these, so that macro
    recall and balanced accuracy are one number. Shares are 0 … 1, intervals 95 %. `ece` is the
    expected calibration error, `aurc` the area under the risk–coverage curve (both: lower is better).
    """

    n: int
    species: int
    top1: float | None = None
    top1_interval: Interval | None = None
    top5: float | None = None
    top5_interval: Interval | None = None
    mrr: float | None = None
    mrr_interval: Interval | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    balanced_accuracy_interval: Interval | None = None
    ece: float | None = None
    aurc: float | None = None

    def to_json(self) -> dict[str, object]:
        """The fields under their own names; intervals as two-element lists, never NaN."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def figures_of(
    scored: ScoredPhotos,
    groups: NDArray[np.generic] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> GroupFigures:
    """Figures of photos that are already scored; `groups` names the plant of each for the intervals."""
    n = len(scored)
    if n == 0:
        return GroupFigures(n=0, species=0)
    clusters = cluster_positions(groups, n)
    found = np.stack(
        [scored.truth_position == 1, scored.truth_position <= 5, 1.0 / scored.truth_position], axis=1
    ).astype(np.float64)
    top1, top5, mrr = found.mean(axis=0).tolist()
    intervals = mean_intervals(found, clusters, resamples=resamples, seed=seed)
    precision, recall, f1 = _macro(scored)
    return GroupFigures(
        n=n,
        species=len(np.unique(scored.truth)),
        top1=top1,
        top1_interval=intervals[0],
        top5=top5,
        top5_interval=intervals[1],
        mrr=mrr,
        mrr_interval=intervals[2],
        macro_precision=precision,
        macro_recall=recall,
        macro_f1=f1,
        balanced_accuracy=recall,
        balanced_accuracy_interval=balanced_interval(
            scored.correct, scored.truth, clusters, resamples=resamples, seed=seed
        ),
        ece=expected_calibration_error(scored.confidence, scored.correct),
        aurc=float(risk_coverage(scored.confidence, scored.correct)[1].mean()),
    )


def group_figures(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    *,
    groups: NDArray[np.generic] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> GroupFigures:
    """Figures of `probabilities` ``(N, S)`` against `truth` ``(N,)``, positions among the S species.

    `groups` ``(N,)`` names the observation (plant) of each photo: the bootstrap draws whole plants.
    Raises `ValueError` as `score_photos` does.
    """
    return figures_of(score_photos(probabilities, truth), groups, resamples=resamples, seed=seed)


def protocol_figures(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    herbarium_only: NDArray[np.bool_],
    observation: NDArray[np.generic],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, GroupFigures]:
    """Figures by group: "overall", "with_photos", "herbarium_only".

    `herbarium_only` ``(N,)`` tells for each photo whether its true species had no field photos in
    training, `observation` ``(N,)`` names its plant. Answers of a group may be any of the S species.
    """
    scored = score_photos(probabilities, truth)
    if herbarium_only.shape != (len(scored),) or herbarium_only.dtype != np.bool_:
        raise ValueError(f"expected ({len(scored)},) bool, got {herbarium_only.shape} {herbarium_only.dtype}")
    masks = (np.ones(len(scored), bool), ~herbarium_only, herbarium_only)
    return {
        name: figures_of(scored.at(rows), observation[rows], resamples=resamples, seed=seed)
        for name, rows in zip(GROUPS, masks, strict=True)
    }


def _macro(scored: ScoredPhotos) -> tuple[float, float, float]:
    """Macro precision, recall and F1 over the species that are true somewhere in the group.

    scikit-learn's default would also average over species that were only answered, as zeros; in a
    group of some species that mostly counts how many others there are. A species that was never
    answered has precision 0.
    """
    bins = scored.species_count
    true = np.bincount(scored.truth, minlength=bins)
    seen = true > 0
    true = true[seen]
    hits = np.bincount(scored.truth[scored.correct], minlength=bins)[seen]
    predicted = np.bincount(scored.predicted, minlength=bins)[seen]
    precision = hits / np.maximum(predicted, 1)
    return float(precision.mean()), float((hits / true).mean()), float((2.0 * hits / (true + predicted)).mean())


def risk_coverage(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage ``(N,)`` from 1/N to 1, and the share of wrong answers among that many most confident ones.

    Equal confidences count as if in random order (their mean), so that the order of photos is no matter.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = 1.0 - _mean_among_equals(confidence[order], correct[order])
    answered = np.arange(1, len(order) + 1)
    return answered / max(1, len(order)), np.cumsum(wrong) / answered


def reliability_bins(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15
) -> NDArray[np.float64]:
    """``(B, 3)`` count, mean confidence and share correct of B ≤ `bins` bins of equally many photos."""
    order = np.argsort(confidence, kind="stable")
    right = _mean_among_equals(confidence[order], correct[order])
    parts = zip(np.array_split(confidence[order].astype(np.float64), bins), np.array_split(right, bins), strict=True)
    return np.array([(len(c), c.mean(), r.mean()) for c, r in parts if len(c)]).reshape(-1, 3)


def expected_calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance between confidence and share correct over bins of equal mass, 0 … 1.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning" (adaptive bins). Biased upwards
    for few photos: a perfectly calibrated model does not reach 0. Raises `ValueError` without photos.
    """
    if not len(confidence):
        raise ValueError("a calibration error needs at least one photo")
    table = reliability_bins(confidence, correct, bins)
    return float(np.average(np.abs(table[:, 1] - table[:, 2]), weights=table[:, 0]))


def _mean_among_equals(ordered_confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`correct` as shares, with each run of equal confidences replaced by its mean."""
    if not len(correct):
        return np.zeros(0)
    starts = np.concatenate([[True], ordered_confidence[1:] != ordered_confidence[:-1]])
    run = np.cumsum(starts) - 1
    return (np.bincount(run, weights=correct.astype(np.float64)) / np.bincount(run))[run]


@dataclass(frozen=True)
class Confusion:
    """Which species was answered for which, in long form; ``(M,)`` each, only pairs that occur."""

    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    count: NDArray[np.intp]


def confusion_counts(truth: NDArray[np.integer], predicted: NDArray[np.integer], species_count: int) -> Confusion:
    """Pairs of true and predicted species with their counts, ordered by truth, then prediction."""
    pairs, count = np.unique(truth.astype(np.intp) * species_count + predicted.astype(np.intp), return_counts=True)
    return Confusion(pairs // species_count, pairs % species_count, count)
