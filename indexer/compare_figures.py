"""The figures of a comparison over all seeds: shares with intervals over plants, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.compare_record import PairRecord, Scored
from indexer.intervals import (
    Interval,
    PairedDifference,
    cluster_positions,
    paired_difference,
    percentile_interval,
    resample_weights,
    unanimous_interval,
)
from indexer.metrics import GROUPS

Source = Literal["test", "folds"]
"""What was scored: the test photos, or the answers of the rotating folds."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """A share, 0 … 1: the mean of those of the seeds, its 95 % interval, and each seed's own (None: no photo)."""

    value: float
    interval: Interval
    by_seed: dict[int, float | None]


@dataclass(frozen=True)
class GroupRow:
    """One recipe and group of photos. `n` counts photos over all seeds, `plants` different plants.

    `difference` is top-1 against the baseline on the photos that both answered; None for the baseline itself.
    """

    n: int
    plants: int
    top1: Share | None = None
    top5: Share | None = None
    ece: Share | None = None
    difference: PairedDifference | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {k: asdict(v) if isinstance(v, Share) else v for k, v in vars(self).items()}
        return {**values, "difference": self.difference.to_json() if self.difference else None}


@dataclass(frozen=True)
class _Pooled:
    """The photos of all seeds below each other."""

    keys: list[tuple[int, str]]
    seeds: NDArray[np.int64]
    observation: NDArray[np.str_]
    herbarium_only: NDArray[np.bool_]
    truth_position: NDArray[np.int64]

    def rows(self, group: str) -> NDArray[np.intp]:
        masks = {"overall": np.ones(len(self.keys), bool), "with_photos": ~self.herbarium_only}
        return np.flatnonzero(masks.get(group, self.herbarium_only))


def group_rows(
    records: Sequence[PairRecord], source: Source, baseline: Sequence[PairRecord] | None = None
) -> dict[str, GroupRow]:
    """Figures by group of one recipe over its seeds; seeds that were not scored are left out.

    `baseline` holds the records of the recipe to compare with. Photos of one plant move together in the bootstrap,
    also where several seeds test them.
    """
    scored = {r.seed: part for r in records if (part := _scored(r, source)) is not None}
    others = {r.seed: part for r in baseline or () if (part := _scored(r, source)) is not None}
    if not scored:
        return {group: GroupRow(0, 0) for group in GROUPS}
    pooled = _pool(scored)
    differences = _differences(pooled, _pool(others)) if others else {}
    return {group: _group_row(pooled, scored, group, differences.get(group)) for group in GROUPS}


def _scored(record: PairRecord, source: Source) -> Scored | None:
    return record.test if source == "test" else record.folds


def _pool(scored: Mapping[int, Scored]) -> _Pooled:
    photos = {seed: part.photos for seed, part in scored.items()}
    return _Pooled(
        keys=[(seed, photo_id) for seed, part in photos.items() for photo_id in part.photo_id],
        seeds=np.concatenate([np.full(len(part), seed, dtype=np.int64) for seed, part in photos.items()]),
        observation=np.array([name for part in photos.values() for name in part.observation], dtype=np.str_),
        herbarium_only=np.concatenate([part.herbarium_only for part in photos.values()]),
        truth_position=np.concatenate([part.truth_position for part in photos.values()]),
    )


def _group_row(
    pooled: _Pooled, scored: Mapping[int, Scored], group: str, difference: PairedDifference | None
) -> GroupRow:
    rows = pooled.rows(group)
    if not len(rows):
        return GroupRow(0, 0)
    clusters = cluster_positions(pooled.observation[rows], len(rows))
    place, seeds = pooled.truth_position[rows], pooled.seeds[rows]
    errors = {seed: part.ece[group] for seed, part in scored.items()}
    return GroupRow(
        n=len(rows),
        plants=int(clusters.max()) + 1,
        top1=_share(place <= 1, seeds, clusters, list(scored)),
        top5=_share(place <= 5, seeds, clusters, list(scored)),
        ece=_mean(errors),
        difference=difference,
    )


def _share(
    hits: NDArray[np.bool_], seeds: NDArray[np.int64], clusters: NDArray[np.intp], all_seeds: list[int]
) -> Share:
    by_seed = {seed: float(hits[seeds == seed].mean()) if (seeds == seed).any() else None for seed in all_seeds}
    value = float(np.mean([share for share in by_seed.values() if share is not None]))
    count = int(clusters.max()) + 1
    interval = unanimous_interval(value, count) or seed_mean_interval(hits.astype(np.float64), seeds, clusters)
    return Share(value, interval, by_seed)


def seed_mean_interval(
    values: NDArray[np.float64],
    seeds: NDArray[np.int64],
    clusters: NDArray[np.intp],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % bootstrap interval of the mean over seeds of the mean of `values` ``(N,)``, drawing whole clusters.

    A plant that several seeds test is drawn for all of them at once. A seed that a resample leaves without a photo is
    left out of that resample's mean.
    """
    count = int(clusters.max()) + 1
    numbers = np.unique(seeds, return_inverse=True)[1].reshape(-1)
    cell = numbers * count + clusters
    shape = (int(numbers.max()) + 1, count)
    sums = np.bincount(cell, weights=values, minlength=shape[0] * count).reshape(shape)
    sizes = np.bincount(cell, minlength=shape[0] * count).reshape(shape).astype(np.float64)
    means = []
    for weights in resample_weights(count, resamples, seed):
        drawn = weights @ sizes.T
        present = drawn > 0
        of_seed = np.where(present, (weights @ sums.T) / np.maximum(drawn, 1.0), 0.0)
        means.append(of_seed.sum(axis=1) / present.sum(axis=1))
    return percentile_interval(np.concatenate(means))


def _mean(by_seed: Mapping[int, float | None]) -> Share | None:
    """The mean over seeds, between the least and the greatest."""
    known = [value for value in by_seed.values() if value is not None]
    return Share(float(np.mean(known)), (min(known), max(known)), dict(by_seed)) if known else None


def _differences(pooled: _Pooled, others: _Pooled) -> dict[str, PairedDifference]:
    """Top-1 of `pooled` against `others` by group, photo by photo."""
    position = {key: row for row, key in enumerate(others.keys)}
    found: dict[str, PairedDifference] = {}
    for group in GROUPS:
        pairs = [(row, position[pooled.keys[row]]) for row in pooled.rows(group) if pooled.keys[row] in position]
        if pairs:
            mine, theirs = np.array(pairs).T
            found[group] = paired_difference(
                pooled.truth_position[mine] == 1,
                others.truth_position[theirs] == 1,
                pooled.observation[mine],
                resamples=_RESAMPLES,
            )
    return found
