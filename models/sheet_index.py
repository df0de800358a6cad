"""Approximate indexes over the vectors of one segment, by FAISS: they propose rows, whose cosines the caller takes.

FAISS's ``-1`` rows, which mean "nothing found", stop here. `gpu_search` is the only other file that imports FAISS.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from models.array_files import read_array, write_array
from models.binary_codes import BinaryProjection
from models.errors import BundleCorrupt
from models.exact_search import Rows, row_blocks
from models.index_kind import RECALL_AT
from models.retrieval import FloatArray

ApproximateKind = Literal["hnsw", "ivf-sq8", "binary"]

INDEX_FILE = "index.faiss"
PROJECTION_FILE = "projection.npy"

_faiss: Any = faiss
"""FAISS's type stubs describe its C++ signatures, not what its Python wrappers take."""
FAISS_VERSION: str = faiss.__version__

_REBUILD = "run `voucher build` to make a new index"
_MAGIC = {"ivf-sq8": (b"IwSq",), "hnsw": (b"IHNs",), "binary": (b"IBxF", b"IBwF")}
_FIRST_EFFORT = {"ivf-sq8": 8, "hnsw": 64, "binary": 200}
_MOST_EFFORT = {"ivf-sq8": 1 << 16, "hnsw": 1_024, "binary": 20_000}
_RERANK = 4
"""Candidates of 8-bit codes for each result: what rounding to eight bits may have put out of order."""
_SPARE = 1.5
"""Candidates of binary codes are found with dead ones among them: so many times more than their share would need."""
_STRETCHES = (1, 4, 16, 64)
"""Of the effort, until enough living rows are found; after that exact search is no slower."""
_POINTS_PER_LIST = 64
_KMEANS_ROUNDS = 10
_HNSW_LINKS = 32
_HNSW_CONSTRUCTION = 80
_BINARY_FLAT_ROWS = 10_000_000
"""Codes of 384 bits of so many rows are read in 50 ms; above, they are put in inverted lists too."""
_BINARY_LISTS_READ = 16
"""One list in so many is read."""
_MAX_READ_LOOPS = 1 << 24
_READ_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class SheetIndex:
    """An approximate index of `rows` vectors; safe to search from several threads."""

    kind: ApproximateKind
    rows: int
    _index: Any
    _projection: BinaryProjection | None = None

    @classmethod
    def build(cls, kind: ApproximateKind, vectors: FloatArray, seed: int) -> "SheetIndex":
        """The index of ``(N, D)`` unit vectors. The same for the same seed, but for ``hnsw``, built by many threads."""
        if kind == "binary":
            projection = BinaryProjection.fit(vectors, seed)
            return cls(kind, len(vectors), _binary(projection.encode(vectors), projection.bits, seed), projection)
        index = _hnsw(vectors, seed) if kind == "hnsw" else _inverted_lists(vectors, seed)
        for _, block in row_blocks(vectors):
            index.add(np.ascontiguousarray(block))
        return cls(kind, len(vectors), index)

    def efforts(self) -> Iterator[int]:
        """Efforts to try, from the least up, each twice the one before; `SearchEffort` tells what they count."""
        most = _MOST_EFFORT[self.kind]
        most = min(most, max(1, self._index.nlist)) if self.kind == "ivf-sq8" else min(most, max(1, self.rows))
        effort = min(_FIRST_EFFORT[self.kind], most)
        while effort < most:
            yield effort
            effort *= 2
        yield most

    def living(self, dead: Rows) -> "Living":
        """What a search needs to leave out some rows."""
        return Living.of(dead, self.rows)

    def candidates(self, queries: FloatArray, k: int, effort: int, living: "Living") -> list[Rows]:
        """For each of ``(Q, D)`` unit queries living rows that are likely to hold its `k` nearest.

        None at all where the index finds too few among dead ones: such a query is better asked of all vectors.
        """
        effort *= -(-k // RECALL_AT)
        depth = effort if self._projection is not None else max(_RERANK * k, _RERANK * RECALL_AT)
        depth = min(depth, self.rows - living.dead_count)
        found: list[Rows] = [living.dead[:0]] * len(queries)
        thin = list(range(len(queries)))
        # Around a query whose nearest sheets were removed the index must look further than it was measured to.
        for stretch in _STRETCHES:
            for i, rows in zip(thin, self._search(queries[thin], depth, effort, stretch, living), strict=True):
                found[i] = living.among(rows)
            thin = [i for i in thin if len(found[i]) < depth]
            if not thin:
                break
        for i in thin:
            found[i] = living.dead[:0]
        return found

    def _search(self, queries: FloatArray, depth: int, effort: int, stretch: int, living: "Living") -> Any:
        queries = np.ascontiguousarray(queries)
        if self.kind == "ivf-sq8":
            chosen = {} if living.selector is None else {"sel": living.selector}
            lists = min(effort * stretch, self._index.nlist)
            return self._index.search(queries, depth, params=_faiss.SearchParametersIVF(nprobe=lists, **chosen))[1]
        # A graph that may not answer with dead rows still spends its effort on them, and ends among worse ones; codes
        # know nothing of dead rows. Both answer with more rows instead, of which the dead are taken away.
        share = 1.0 - living.dead_count / self.rows
        wanted = min(self.rows, depth if living.selector is None else int(_SPARE * depth * stretch / share))
        if self._projection is not None:
            return self._index.search(self._projection.encode(queries), wanted)[1]
        thorough = _faiss.SearchParametersHNSW(efSearch=max(effort * stretch, wanted))
        return self._index.search(queries, wanted, params=thorough)[1]

    def write(self, folder: Path) -> None:
        """Write `INDEX_FILE` and, for binary codes, `PROJECTION_FILE`. Raises `RuntimeError` or `OSError`."""
        path = str(folder / INDEX_FILE)
        if self._projection is None:
            _faiss.write_index(self._index, path)
        else:
            _faiss.write_index_binary(self._index, path)
            write_array(folder / PROJECTION_FILE, self._projection.matrix)

    @classmethod
    def read(
        cls, kind: ApproximateKind, folder: Path, shape: tuple[int, int], *, memory_map: bool = True
    ) -> "SheetIndex":
        """The index of ``(rows, dimensions)`` that `write` wrote; mapped where FAISS can.

        Raises `BundleCorrupt` for anything else.
        """
        rows, dimensions = shape
        projection, reader, bits = None, _faiss.read_index, dimensions
        if kind == "binary":
            reader, bits = _faiss.read_index_binary, -(-dimensions // 8) * 8
            projection = BinaryProjection(read_array(folder / PROJECTION_FILE, (dimensions + 1, bits), np.float32))
        index = _read(folder / INDEX_FILE, reader, _MAGIC[kind], memory_map=memory_map)
        if (index.ntotal, index.d) != (rows, bits) or not _is_ours(kind, index):
            raise BundleCorrupt(f"{INDEX_FILE} is no {kind} index of {rows} vectors of {dimensions}; {_REBUILD}")
        return cls(kind, rows, index, projection)


@dataclass(frozen=True, eq=False)
class Living:
    """Which rows are not dead, as numbers and as FAISS's selector, which holds a bare pointer to `bits`."""

    dead: Rows
    rows: int
    bits: NDArray[np.uint8] | None
    selector: Any

    @classmethod
    def of(cls, dead: Rows, rows: int) -> "Living":
        """All of `rows` but the sorted `dead`."""
        if not len(dead):
            return cls(dead, rows, None, None)
        flags = np.ones(rows, dtype=bool)
        flags[dead] = False
        bits = np.packbits(flags, bitorder="little")
        return cls(dead, rows, bits, _faiss.IDSelectorBitmap(bits))

    @property
    def dead_count(self) -> int:
        """How many rows are left out."""
        return len(self.dead)

    def among(self, rows: Rows) -> Rows:
        """Those of FAISS's `rows` that exist and live."""
        rows = rows[(rows >= 0) & (rows < self.rows)]
        if not len(self.dead):
            return rows
        at = np.searchsorted(self.dead, rows)
        return rows[self.dead[np.minimum(at, len(self.dead) - 1)] != rows]


def _inverted_lists(vectors: FloatArray, seed: int) -> Any:
    dimensions = vectors.shape[1]
    lists, sample = _sample(vectors, seed)
    quantizer = _faiss.IndexFlatIP(dimensions)
    kind = _faiss.ScalarQuantizer.QT_8bit
    index = _faiss.IndexIVFScalarQuantizer(quantizer, dimensions, lists, kind, _faiss.METRIC_INNER_PRODUCT)
    _set_clustering(index.cp, seed)
    index.train(sample)
    return index


def _hnsw(vectors: FloatArray, seed: int) -> Any:
    kind = _faiss.ScalarQuantizer.QT_8bit
    index = _faiss.IndexHNSWSQ(vectors.shape[1], kind, _HNSW_LINKS, _faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _HNSW_CONSTRUCTION
    index.train(_sample(vectors, seed)[1])
    return index


def _binary(codes: NDArray[np.uint8], bits: int, seed: int) -> Any:
    if len(codes) <= _BINARY_FLAT_ROWS:
        index = _faiss.IndexBinaryFlat(bits)
    else:
        lists, sample = _sample(codes, seed)
        index = _faiss.IndexBinaryIVF(_faiss.IndexBinaryFlat(bits), bits, lists)
        _set_clustering(index.cp, seed)
        index.train(sample)
        index.nprobe = -(-lists // _BINARY_LISTS_READ)
    index.add(codes)
    return index


def _sample(vectors: NDArray[Any], seed: int) -> tuple[int, Any]:
    """How many lists these rows get, about √N, and the rows, 64 for each list, that they are learnt from."""
    lists = max(1, min(round(len(vectors) ** 0.5), len(vectors) // _POINTS_PER_LIST))
    count = min(len(vectors), _POINTS_PER_LIST * lists)
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))
    return lists, np.ascontiguousarray(vectors[rows])


def _set_clustering(parameters: Any, seed: int) -> None:
    parameters.seed = seed % (1 << 31)
    parameters.niter = _KMEANS_ROUNDS
    parameters.max_points_per_centroid = _POINTS_PER_LIST
    parameters.min_points_per_centroid = 1


def _is_ours(kind: ApproximateKind, index: Any) -> bool:
    """Whether the parts of an index are those that `SheetIndex.build` makes."""
    if kind == "binary":
        if type(index) is _faiss.IndexBinaryFlat:
            return True
        lists = index.invlists
        return type(index) is _faiss.IndexBinaryIVF and lists is not None and lists.compute_ntotal() == index.ntotal
    if index.metric_type != _faiss.METRIC_INNER_PRODUCT:
        return False
    if kind == "hnsw":
        storage = _faiss.downcast_index(index.storage)
        return type(storage) is _faiss.IndexScalarQuantizer and storage.ntotal == index.ntotal
    quantizer, lists = _faiss.downcast_index(index.quantizer), index.invlists
    return (
        type(quantizer) in (_faiss.IndexFlatIP, _faiss.IndexFlat)
        and (quantizer.ntotal, quantizer.d) == (index.nlist, index.d)
        and index.sq.qtype == _faiss.ScalarQuantizer.QT_8bit
        and (lists.nlist, lists.code_size) == (index.nlist, index.d)
        and lists.compute_ntotal() == index.ntotal
    )


def _read(path: Path, reader: Callable[[str, int], Any], magic: tuple[bytes, ...], *, memory_map: bool) -> Any:
    # IO_FLAG_MMAP maps inverted lists only and copies a flat index; IO_FLAG_MMAP_IFC maps both.
    flags = getattr(_faiss, "IO_FLAG_MMAP_IFC", 0) if memory_map else 0
    try:
        with path.open("rb") as file:
            found = file.read(4)
        # FAISS would follow other kinds of index into code (and files) that are not needed here.
        if found not in magic:
            raise BundleCorrupt(f"{path.name} is an index of another kind; {_REBUILD}")
        with _read_limits(path.stat().st_size):
            return reader(str(path), flags)
    except (OSError, RuntimeError, MemoryError) as error:
        raise BundleCorrupt(f"{path.name} cannot be read ({error}); {_REBUILD}") from error


@contextmanager
def _read_limits(file_bytes: int) -> Iterator[None]:
    """FAISS refuses to allocate more than the file could hold. The limits are the process's, hence the lock."""
    with _READ_LOCK:
        limits = []
        for name, limit in (("vector_byte", file_bytes + 1), ("loop", _MAX_READ_LOOPS)):
            # Older FAISS has no limits; the hashes were checked before.
            if hasattr(_faiss, f"set_deserialization_{name}_limit"):
                setter = getattr(_faiss, f"set_deserialization_{name}_limit")
                limits.append((setter, getattr(_faiss, f"get_deserialization_{name}_limit")()))
                setter(limit)
        try:
            yield
        finally:
            for setter, before in limits:
                setter(before)
