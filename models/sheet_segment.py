"""Sheets that entered a gallery together: their vectors, which sheets they are, and perhaps an approximate index.

A segment never changes once it is made, so that galleries share it, in memory and, by hard links, on disk. What changes
lies beside it: which of its rows are dead, and what follows from the metric.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from models.array_files import read_array, write_array
from models.errors import BundleCorrupt
from models.exact_search import Rows, dot_rows, nearest_rows, row_blocks
from models.index_kind import IndexKind, SearchEffort
from models.index_recall import tuned_effort
from models.metric import Metric
from models.retrieval import EmbeddingBatch, FloatArray
from models.sheet_index import INDEX_FILE, PROJECTION_FILE, Living, SheetIndex
from models.sheet_table import SheetTable
from models.specimens import Role
from models.taxonomy import SpeciesId
from models.verified_files import link_or_copy

VECTORS_FILE = "vectors.npy"
TABLE_FILE = "sheets.parquet"

NO_ROWS: Rows = np.zeros(0, dtype=np.int64)

_BLOCK_ROWS = 65_536
_SEED = 0
"""Of the samples that indexes are fitted and measured on: the same sheets give the same index."""


@dataclass(frozen=True, eq=False)
class SheetSegment:
    """``(N, D)`` unit vectors, in the order of their table; `effort` belongs to the index, if there is one.

    `folder` is where the files of a segment lie that was read from an artifact.
    """

    table: SheetTable
    vectors: FloatArray
    index: SheetIndex | None = None
    effort: SearchEffort | None = None
    folder: Path | None = None
    _opened: "SheetSegment | None" = None
    """What it shares with other galleries, kept alive."""

    @classmethod
    def of(cls, sheets: EmbeddingBatch, species_of_sheet: Sequence[SpeciesId]) -> "SheetSegment":
        """The segment of these sheets, without an index. Raises `ValueError` as `SheetTable.order` does."""
        table, order = SheetTable.order(sheets.keys, species_of_sheet)
        return cls(table, np.ascontiguousarray(sheets.vectors[order]))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def kind(self) -> IndexKind:
        """How it is searched."""
        return "flat" if self.index is None else self.index.kind

    def indexed(self, kind: IndexKind, queries: FloatArray | None) -> "SheetSegment":
        """The same sheets with an index of a kind; exact where that does not reach the least recall.

        `queries` ``(Q, D)`` are what the recall is measured with, where there are any.
        """
        if kind == "flat":
            return replace(self, index=None, effort=None)
        index = SheetIndex.build(kind, self.vectors, _SEED)
        effort = tuned_effort(index, self.vectors, queries=queries, seed=_SEED)
        return replace(self, index=None if effort is None else index, effort=effort)

    def write(self, folder: Path) -> None:
        """Put the files into a new `folder`: links to those of an artifact, if it was read from one.

        Raises `OSError`, `RuntimeError` or `BundleCorrupt`.
        """
        folder.mkdir(parents=True)
        if self.folder is not None:
            for name in self._file_names():
                link_or_copy(self.folder / name, folder / name)
            return
        write_array(folder / VECTORS_FILE, self.vectors)
        self.table.write(folder / TABLE_FILE)
        if self.index is not None:
            self.index.write(folder)

    def _file_names(self) -> list[str]:
        return _file_names(self.kind)


def read_segment(
    folder: Path, shape: tuple[int, int], kind: IndexKind, effort: SearchEffort | None, *, memory_map: bool
) -> SheetSegment:
    """The segment of ``(rows, dimensions)`` that `SheetSegment.write` wrote into `folder`.

    With `memory_map` vectors and index stay in their files, and a segment that another gallery of this process has
    open is shared with it. Raises `BundleCorrupt`.
    """
    if not memory_map:
        return _read_segment(folder, shape, kind, effort, memory_map=False)
    try:
        found = [(folder / name).stat() for name in _file_names(kind)]
    except OSError as error:
        raise BundleCorrupt(f"segment {folder.name} lacks a file ({error}); run `voucher build`") from error
    # An inode cannot become another file while a map of it is open, and an entry lives no longer than its map.
    key = (shape, kind, effort, *((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in found))
    with _open_lock:
        segment = _open_segments.get(key)
    if segment is None:
        segment = _read_segment(folder, shape, kind, effort, memory_map=True)
        with _open_lock:
            _open_segments[key] = segment
    # The folder is that of the artifact at hand: the other may have been removed.
    return replace(segment, folder=folder, _opened=segment)


_open_segments: "WeakValueDictionary[tuple[object, ...], SheetSegment]" = WeakValueDictionary()
_open_lock = threading.Lock()


def _file_names(kind: IndexKind) -> list[str]:
    more = {"flat": [], "binary": [INDEX_FILE, PROJECTION_FILE]}
    return [VECTORS_FILE, TABLE_FILE, *more.get(kind, [INDEX_FILE])]


def _read_segment(
    folder: Path, shape: tuple[int, int], kind: IndexKind, effort: SearchEffort | None, *, memory_map: bool
) -> SheetSegment:
    vectors = read_array(folder / VECTORS_FILE, shape, np.float32, memory_map=memory_map)
    table = SheetTable.read(folder / TABLE_FILE)
    if len(table) != shape[0]:
        raise BundleCorrupt(
            f"segment {folder.name} has {len(table)} sheets for {shape[0]} vectors; run `voucher build`"
        )
    index = None if kind == "flat" else SheetIndex.read(kind, folder, shape, memory_map=memory_map)
    return SheetSegment(table, vectors, index, effort, folder)


@dataclass(frozen=True, eq=False)
class LivingSegment:
    """A segment as one gallery sees it: `dead` are its rows, ascending, that do not count any more.

    `norms` ``(N,)`` are the lengths of all its vectors in the gallery's metric.
    """

    segment: SheetSegment
    dead: Rows
    norms: FloatArray

    @classmethod
    def of(cls, segment: SheetSegment, metric: Metric, dead: Rows = NO_ROWS) -> "LivingSegment":
        """With the norms in a metric."""
        norms = np.empty(len(segment), dtype=np.float32)
        for start, block in row_blocks(segment.vectors):
            norms[start : start + len(block)] = metric.norms(block, Role.SHEET)
        return cls(segment, dead, norms)

    def __len__(self) -> int:
        return len(self.segment) - len(self.dead)

    @cached_property
    def _living(self) -> Living:
        return Living.of(self.dead, len(self.segment))

    def living_rows(self) -> Rows:
        """All rows that are not dead, ascending."""
        return np.delete(np.arange(len(self.segment), dtype=np.int64), self.dead)

    def columns(self) -> pa.Table:
        """Columns `sheet_id` and `species_id` of the living rows."""
        return self.segment.table.columns().take(pa.array(self.living_rows()))

    def rows_of(self, species_id: SpeciesId) -> Rows:
        """Living rows of a species, ascending, which may be none."""
        rows = self.segment.table.rows_of(species_id)
        first, last = np.searchsorted(self.dead, (rows.start, rows.stop))
        found = np.arange(rows.start, rows.stop, dtype=np.int64)
        return found if first == last else np.delete(found, self.dead[first:last] - rows.start)

    def vectors_at(self, rows: Rows) -> FloatArray:
        """``(n, D)`` vectors of ascending rows; those that lie together, as a species' do, are not copied."""
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            return self.segment.vectors[rows[0] : rows[-1] + 1]
        return np.asarray(self.segment.vectors[rows])

    def rows_among(self, sheet_ids: pa.LargeStringArray) -> Rows:
        """Living rows whose sheet is one of `sheet_ids`, ascending."""
        rows = self.segment.table.rows_among(sheet_ids)
        return rows[~np.isin(rows, self.dead)]

    def without(self, rows: Rows) -> "LivingSegment":
        """The same with more dead rows."""
        return self if not len(rows) else replace(self, dead=np.union1d(self.dead, rows))

    def species_counts(self) -> Iterator[tuple[SpeciesId, int]]:
        """The species that have living sheets, sorted, with their number."""
        table = self.segment.table
        # starts ascend, so that a row's position among them is its species'.
        dead = np.bincount(np.searchsorted(table.starts, self.dead, side="right") - 1, minlength=len(table.species_ids))
        for species_id, count in zip(table.species_ids, (np.diff(table.starts) - dead).tolist(), strict=True):
            if count:
                yield species_id, count

    def species_of_rows(self, rows: Rows) -> set[SpeciesId]:
        """The species of some rows."""
        table = self.segment.table
        positions = np.unique(np.searchsorted(table.starts, rows, side="right") - 1)
        return {table.species_ids[i] for i in positions}

    def nearest(self, queries: FloatArray, k: int) -> list[tuple[Rows, FloatArray]]:
        """For each of ``(Q, D)`` unit queries rows, among them its `k` nearest, or all; and their cosines."""
        segment = self.segment
        if segment.index is None or segment.effort is None:
            return nearest_rows(segment.vectors, queries, k, self.dead)
        proposed = segment.index.candidates(queries, k, segment.effort.effort, self._living)
        return [self._ranked(query, rows, k) for query, rows in zip(queries, proposed, strict=True)]

    def _ranked(self, query: FloatArray, rows: Rows, k: int) -> tuple[Rows, FloatArray]:
        if len(rows) < min(k, len(self)):
            # Too few of what the index reads is living: all that are asked for must come back.
            return nearest_rows(self.segment.vectors, query[None], k, self.dead)[0]
        return rows, dot_rows(self.segment.vectors, rows, query)


def merged(segments: Sequence[LivingSegment]) -> LivingSegment:
    """One segment of the living sheets of several, without an index."""
    rows = [s.living_rows() for s in segments]
    table, order = SheetTable.order_columns(pa.concat_tables([s.columns() for s in segments]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    vectors = np.empty((len(order), segments[0].segment.dimensions), dtype=np.float32)
    norms = np.empty(len(order), dtype=np.float32)
    start = 0
    for living, of_segment in zip(segments, rows, strict=True):
        for first in range(0, len(of_segment), _BLOCK_ROWS):
            block = of_segment[first : first + _BLOCK_ROWS]
            target = place[start : start + len(block)]
            vectors[target] = living.segment.vectors[block]
            norms[target] = living.norms[block]
            start += len(block)
    return LivingSegment(SheetSegment(table, vectors), NO_ROWS, norms)


def living_columns(segments: Sequence[LivingSegment]) -> pa.Table:
    """Columns `sheet_id` and `species_id` of all living sheets, ordered by species, then sheet."""
    return ordered_columns([s.columns() for s in segments])


def ordered_columns(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of several tables in one, ordered by species, then sheet."""
    by = [("species_id", "ascending"), ("sheet_id", "ascending")]
    return pa.concat_tables(tables).sort_by(by).combine_chunks()
