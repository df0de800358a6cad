"""What a gallery consists of, made from nothing or from another gallery by what changed."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from models.errors import EmbeddingSpaceMismatch, InsufficientData
from models.index_kind import RequestedKind, check_kind, choose_kind
from models.metric import Metric
from models.retrieval import EmbeddingBatch, FloatArray
from models.segment_merging import first_to_merge
from models.sheet_segment import LivingSegment, SheetSegment, merged
from models.specimens import Role
from models.taxonomy import SpeciesId
from models.unit_vectors import unit_mean

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class GalleryParts:
    """Segments, the largest first, and what follows from them in the metric.

    `counts` are the sheets of every species, sorted by species; `prototypes` is ``(S, D)`` in that order, read-only.
    """

    space_id: str
    metric: Metric
    requested_kind: RequestedKind
    segments: tuple[LivingSegment, ...]
    counts: Mapping[SpeciesId, int]
    prototypes: FloatArray

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return self.segments[0].segment.dimensions

    @property
    def sheet_count(self) -> int:
        """Living sheets."""
        return sum(len(s) for s in self.segments)

    @classmethod
    def build(
        cls,
        sheets: EmbeddingBatch,
        species_of_sheet: Sequence[SpeciesId],
        metric: Metric,
        kind: RequestedKind,
        queries: FloatArray | None,
    ) -> "GalleryParts":
        """Of these sheets alone. Raises as `Gallery.build` does."""
        check_kind(kind)
        segment = SheetSegment.of(sheets, species_of_sheet)
        _require_sheets(len(segment))
        segment = segment.indexed(choose_kind(len(segment), segment.dimensions, kind), queries)
        return assembled(sheets.space_id, metric, kind, (LivingSegment.of(segment, metric),))

    def updated(
        self,
        added: EmbeddingBatch | None,
        species_of_added: Sequence[SpeciesId],
        removed: Collection[str],
        metric: Metric,
        kind: RequestedKind,
        queries: FloatArray | None,
    ) -> "GalleryParts":
        """What `build` would make of the sheets after the change. Raises as `Gallery.updated` does."""
        check_kind(kind)
        segments, changed = _without(self.segments, removed)
        if added is not None and len(added):
            self._check_added(added, segments)
            new = SheetSegment.of(added, species_of_added)
            segments += [LivingSegment.of(new, self.metric)]
            changed |= set(new.table.species_ids)
        _require_sheets(sum(len(s) for s in segments))
        old = {id(s.segment) for s in self.segments}
        segments = _merged_where_needed(segments, everything=kind != self.requested_kind)
        segments = [
            s if id(s.segment) in old else _indexed(s, kind, queries, is_base=i == 0) for i, s in enumerate(segments)
        ]
        if not same_metric(metric, self.metric):
            logger.info("the metric has changed: prototypes and norms of all sheets are computed anew")
            segments = [LivingSegment.of(s.segment, metric, s.dead) for s in segments]
            return assembled(self.space_id, metric, kind, tuple(segments))
        return assembled(self.space_id, self.metric, kind, tuple(segments), before=self, changed=changed)

    def _check_added(self, added: EmbeddingBatch, segments: Sequence[LivingSegment]) -> None:
        if added.space_id != self.space_id:
            raise EmbeddingSpaceMismatch(
                f"the index holds vectors of space {self.space_id}, the sheets to add are of {added.space_id}; "
                "run `voucher build` to make a new index of all sheets with this model"
            )
        if added.dimensions != self.dimensions:
            raise ValueError(f"{added.dimensions} dimensions to add to {self.dimensions}")
        keys = pa.array(added.keys, pa.large_string())
        for segment in segments:
            if len(rows := segment.rows_among(keys)):
                (known,) = segment.segment.table.sheet_ids(rows[:1])
                raise ValueError(f"a sheet appears twice: {known} is in the index, and not removed from it")


def assembled(
    space_id: str,
    metric: Metric,
    kind: RequestedKind,
    segments: tuple[LivingSegment, ...],
    before: GalleryParts | None = None,
    changed: Collection[SpeciesId] = (),
) -> GalleryParts:
    """The parts with prototypes of all species; those that did not change are taken from the gallery `before`."""
    counts = species_counts(segments)
    prototypes = np.empty((len(counts), segments[0].segment.dimensions), dtype=np.float32)
    row_before = {} if before is None else {s: i for i, s in enumerate(before.counts) if s not in changed}
    kept = [(i, row_before[s]) for i, s in enumerate(counts) if s in row_before]
    if before is not None and kept:
        targets, sources = np.array(kept).T
        prototypes[targets] = before.prototypes[sources]
    anew = [(i, s) for i, s in enumerate(counts) if s not in row_before]
    for i, prototype in _prototypes(segments, anew, metric):
        prototypes[i] = prototype
    prototypes.flags.writeable = False
    return GalleryParts(space_id, metric, kind, segments, counts, prototypes)


def _prototypes(
    segments: Sequence[LivingSegment], species: Sequence[tuple[int, SpeciesId]], metric: Metric
) -> Iterator[tuple[int, FloatArray]]:
    """The number of each species, and the unit mean of its sheets in the metric."""
    for block in _in_blocks((i, species_vectors(segments, s)[1]) for i, s in species):
        # One product for many species: a thousand small ones wait for each other's threads on a busy machine.
        mapped = metric.apply(np.concatenate([vectors for _, vectors in block]), Role.SHEET)
        starts = np.cumsum([0, *(len(vectors) for _, vectors in block)])
        for (i, _), start, stop in zip(block, starts[:-1], starts[1:], strict=True):
            yield i, unit_mean(mapped[start:stop])


def _in_blocks(of_species: Iterable[tuple[int, FloatArray]]) -> Iterator[list[tuple[int, FloatArray]]]:
    """Consecutive species with their vectors, gathered until those are many rows."""
    block: list[tuple[int, FloatArray]] = []
    rows = 0
    for i, vectors in of_species:
        block.append((i, vectors))
        rows += len(vectors)
        if rows >= _BLOCK_ROWS:
            yield block
            block, rows = [], 0
    if block:
        yield block


def species_counts(segments: Sequence[LivingSegment]) -> dict[SpeciesId, int]:
    """Living sheets of every species that has any, sorted by species."""
    counts: dict[SpeciesId, int] = {}
    for segment in segments:
        for species_id, count in segment.species_counts():
            counts[species_id] = counts.get(species_id, 0) + count
    return dict(sorted(counts.items()))


def species_vectors(segments: Sequence[LivingSegment], species_id: SpeciesId) -> tuple[tuple[str, ...], FloatArray]:
    """The living sheets of a species, by sheet id, and their ``(n, D)`` vectors, whatever segments they lie in."""
    ids: list[str] = []
    parts: list[FloatArray] = []
    for living in segments:
        if len(rows := living.rows_of(species_id)):
            ids += living.segment.table.sheet_ids(rows)
            parts.append(living.vectors_at(rows))
    if len(parts) == 1:
        return tuple(ids), parts[0]
    # A mean of vectors in another order differs in its last bits; and a medoid is the first of equals.
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return tuple(ids[i] for i in order), np.concatenate(parts)[order]


def same_metric(a: Metric, b: Metric) -> bool:
    """Whether two metrics are the same, bit by bit."""
    return a is b or all(np.array_equal(part, b.arrays()[name]) for name, part in a.arrays().items())


def _require_sheets(count: int) -> None:
    if not count:
        raise InsufficientData("an index needs at least one sheet, found none; import sheets first")


def _without(segments: Sequence[LivingSegment], removed: Collection[str]) -> tuple[list[LivingSegment], set[SpeciesId]]:
    """The segments with the rows of removed sheets dead, and the species that lost some."""
    ids = pa.array(list(removed), pa.large_string())
    left, changed, found = [], set(), 0
    for segment in segments:
        rows = segment.rows_among(ids)
        found += len(rows)
        changed |= segment.species_of_rows(rows)
        left.append(segment.without(rows))
    if found < len(ids):
        logger.info("%d of %d sheets to remove are not in the index", len(ids) - found, len(ids))
    return left, changed


def _merged_where_needed(segments: list[LivingSegment], *, everything: bool) -> list[LivingSegment]:
    """The segments that are left, the largest first, with those made one that the policy says."""
    segments = sorted((s for s in segments if len(s)), key=len, reverse=True)
    first = 0 if everything else first_to_merge([len(s.segment) for s in segments], [len(s) for s in segments])
    if first is None:
        return segments
    kept, rest = segments[:first], merged(segments[first:])
    logger.info("%d segments are written together, %d sheets", len(segments) - first, len(rest))
    return sorted([*kept, rest], key=len, reverse=True)


def _indexed(living: LivingSegment, kind: RequestedKind, queries: FloatArray | None, *, is_base: bool) -> LivingSegment:
    """With the index that a new segment gets; what was asked for is for the largest, the others go by their size."""
    segment = living.segment
    wanted = kind if is_base or kind == "flat" else "auto"
    chosen = choose_kind(len(segment), segment.dimensions, wanted)
    return living if chosen == "flat" else replace(living, segment=segment.indexed(chosen, queries))
