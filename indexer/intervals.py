"""Bootstrap intervals over plants, and tests for paired answers. NumPy only."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
"""Lower and upper bound."""

LEVEL = 0.95
"""Coverage that every interval aims at."""

_CELLS_PER_CHUNK = 4_000_000
"""Weights held at once (32 MB), so that memory does not grow with resamples × plants."""


def cluster_positions(groups: NDArray[np.generic] | None, rows: int) -> NDArray[np.intp]:
    """``(rows,)`` cluster number of each row, 0 … C - 1; every row is its own cluster when `groups` is None.

    Raises `ValueError` when `groups` has another length.
    """
    if groups is None:
        return np.arange(rows)
    if groups.shape != (rows,):
        raise ValueError(f"expected one group for each of the {rows} rows, got an array of shape {groups.shape}")
    return np.unique(groups, return_inverse=True)[1].reshape(rows)


def resample_weights(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Chunks ``(r, clusters)`` of how often each cluster was drawn; the chunks' r sum to `resamples`."""
    generator = np.random.default_rng(seed)
    per_chunk = max(1, _CELLS_PER_CHUNK // clusters)
    for start in range(0, resamples, per_chunk):
        r = min(per_chunk, resamples - start)
        drawn = generator.integers(0, clusters, size=(r, clusters))
        drawn += np.arange(r)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=r * clusters)
        yield counts.reshape(r, clusters).astype(np.float64)


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """Central 95 % of resampled `values`; NaN (a resample without a value) is left out."""
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.nanpercentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def unanimous_interval(value: float, clusters: int) -> Interval | None:
    """The interval where resampling cannot give one, or None where it can.

    When all plants are right, or all wrong, every resample repeats that and the bootstrap would claim
    certainty; the exact binomial (Clopper–Pearson) bound is used instead. One plant alone that is
    partly right says nothing: 0 … 1.
    """
    bound = ((1.0 - LEVEL) / 2.0) ** (1.0 / clusters)
    if value <= 0.0:
        return 0.0, 1.0 - bound
    if value >= 1.0:
        return bound, 1.0
    return (0.0, 1.0) if clusters == 1 else None


def mean_intervals(
    values: NDArray[np.float64], clusters: NDArray[np.intp], *, resamples: int, seed: int
) -> list[Interval]:
    """One 95 % interval for the mean of each column of `values` ``(N, K)``, each value 0 … 1.

    Whole clusters are drawn, so that photos of one plant move together. N must be at least one.
    """
    count = int(clusters.max()) + 1
    sums = np.stack([np.bincount(clusters, weights=column, minlength=count) for column in values.T], axis=1)
    sizes = np.bincount(clusters, minlength=count).astype(np.float64)
    means = np.concatenate([(w @ sums) / (w @ sizes)[:, None] for w in resample_weights(count, resamples, seed)])
    return [
        unanimous_interval(float(values[:, k].mean()), count) or percentile_interval(means[:, k])
        for k in range(values.shape[1])
    ]


def balanced_interval(
    correct: NDArray[np.bool_],
    truth: NDArray[np.intp],
    clusters: NDArray[np.intp],
    *,
    resamples: int,
    seed: int,
) -> Interval:
    """95 % interval of the mean over species of the share of `correct` rows, drawing whole clusters.

    A species that a resample does not contain is left out of that resample's mean.
    """
    count = int(clusters.max()) + 1
    # One cell for each (species, plant): a plant is normally of one species, so cells ≈ plants.
    cells, cell_of_row = np.unique(truth * np.intp(count) + clusters, return_inverse=True)
    hits = np.bincount(cell_of_row.reshape(-1), weights=correct.astype(np.float64))
    sizes = np.bincount(cell_of_row.reshape(-1)).astype(np.float64)
    cell_cluster = cells % count
    starts = np.flatnonzero(np.diff(cells // count, prepend=-1))
    means = []
    for weights in resample_weights(count, resamples, seed):
        drawn = weights[:, cell_cluster]
        present = np.add.reduceat(drawn * sizes, starts, axis=1)
        right = np.add.reduceat(drawn * hits, starts, axis=1)
        recall = right / np.maximum(present, 1.0)
        means.append(recall.sum(axis=1) / (present > 0).sum(axis=1))
    observed = float((np.add.reduceat(hits, starts) / np.add.reduceat(sizes, starts)).mean())
    return unanimous_interval(observed, count) or percentile_interval(np.concatenate(means))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more often A is right than B on the same photos.

    `difference` is the accuracy of A minus that of B, -1 … 1; `only_a` and `only_b` count photos that
    only one of them got right; `p_value` is McNemar's exact two-sided test of those two counts.
    """

    n: int
    difference: float
    interval: Interval
    only_a: int
    only_b: int
    p_value: float

    def to_json(self) -> dict[str, object]:
        """The fields under their own names."""
        return {
            "n": self.n,
            "difference": self.difference,
            "interval": list(self.interval),
            "only_a": self.only_a,
            "only_b": self.only_b,
            "p_value": self.p_value,
        }


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided probability of so uneven a pair of counts when both are equally likely (McNemar 1947)."""
    discordant = only_a + only_b
    if discordant == 0:
        return 1.0
    # In logarithms: 2**-n underflows from n = 1075 on.
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, discordant + 1)))])
    k = np.arange(min(only_a, only_b) + 1)
    log_terms = log_factorial[-1] - log_factorial[k] - log_factorial[discordant - k]
    tail = np.exp(np.logaddexp.reduce(log_terms) - discordant * np.log(2.0))
    return float(min(1.0, 2.0 * tail))


def paired_difference(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    groups: NDArray[np.generic] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Difference in accuracy of two recipes on the same ``(N,)`` photos, with its 95 % interval.

    `groups` names the plant of each photo; the interval draws whole plants. McNemar's test takes
    photos as independent, so with several photos a plant trust the interval. Where no photo, or the
    same share of every plant, tells the two apart, the interval has no width. Raises `ValueError`
    when the lengths differ or there are no photos.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1 or not len(correct_a):
        raise ValueError(f"expected two equally long rows, got {correct_a.shape} and {correct_b.shape}")
    n = len(correct_a)
    clusters = cluster_positions(groups, n)
    count = int(clusters.max()) + 1
    gain = correct_a.astype(np.float64) - correct_b.astype(np.float64)
    sums = np.bincount(clusters, weights=gain, minlength=count)
    sizes = np.bincount(clusters, minlength=count).astype(np.float64)
    differences = np.concatenate([(w @ sums) / (w @ sizes) for w in resample_weights(count, resamples, seed)])
    only_a, only_b = int((gain > 0).sum()), int((gain < 0).sum())
    return PairedDifference(
        n, float(gain.mean()), percentile_interval(differences), only_a, only_b, mcnemar_exact(only_a, only_b)
    )
