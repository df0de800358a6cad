"""The searchable herbarium: every sheet's vector and every species' prototype. The only file that imports FAISS.

Similarities are cosines: inner products of unit vectors. Sheets are kept as they were embedded, so that adding some
changes no other; prototypes, and a photo's similarity to a species or to the sheets that vouch for it, are taken in the
gallery's `Metric`. The index on the CPU is the master and what is saved; a GPU searches a copy of it.
"""

import importlib.metadata
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from models.compute import Compute
from models.errors import BundleCorrupt, BundleError, EmbeddingSpaceMismatch, InsufficientData, InvalidConfig
from models.manifest import parse_object
from models.metric import Metric
from models.retrieval import EmbeddingBatch, FloatArray, Prototype, SheetMatch
from models.sheet_table import SheetTable
from models.specimens import Role
from models.taxonomy import SpeciesId
from models.unit_vectors import are_unit_rows, unit_mean

logger = logging.getLogger(__name__)

SHEETS_FILE = "sheets.faiss"
PROTOTYPES_FILE = "prototypes.faiss"
TABLE_FILE = "sheets.parquet"
GALLERY_FILE = "gallery.json"
METRIC_FILE = "metric.safetensors"

_SHEET_NORMS = "sheet_norms"
_REBUILD = "run `voucher build` to make a new index"
_FAISS_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu11", "faiss-gpu-cu12")
_GPU_MAX_K = 2_048
"""FAISS's GPU kernels select no more."""
_GPU_SCRATCH_BYTES = 256 << 20
"""FAISS would take 1.5 GiB, which the network beside it may need."""
_BLOCK_ROWS = 65_536
_FLAT_HEADER_BYTES = 64
"""Room for what FAISS writes before the vectors of a flat index (45 bytes in 1.15)."""
_MAX_READ_LOOPS = 1 << 24
_READ_LOCK = threading.Lock()


class Gallery:
    """Sheets and prototypes of one embedding space; safe to search from several threads.

    `species_ids` is sorted, one per prototype; sheets are rows ordered by species, then sheet.
    """

    def __init__(
        self,
        space_id: str,
        table: SheetTable,
        sheets: Any,
        prototypes: Any,
        metric: Metric,
        sheet_norms: FloatArray,
        compute: Compute | None,
    ) -> None:
        require_one_faiss()
        self.space_id = space_id
        self.metric = metric
        self._sheet_norms = sheet_norms
        self.dimensions = int(sheets.d)
        self.species_ids = table.species_ids
        self.sheet_count = len(table)
        self._table = table
        self._sheets = sheets
        self._prototypes = prototypes
        # One copy for the matrix product over all species; the index itself holds no aligned array.
        self._prototype_matrix: FloatArray = prototypes.reconstruct_n(0, prototypes.ntotal)
        self._prototype_matrix.flags.writeable = False
        gpu = _Gpu.of(compute)
        self._sheet_search = _Searcher(sheets, gpu)
        self._prototype_search = _Searcher(prototypes, gpu)

    @classmethod
    def build(
        cls,
        sheets: EmbeddingBatch,
        species_of_sheet: Sequence[SpeciesId],
        *,
        metric: Metric | None = None,
        compute: Compute | None = None,
    ) -> "Gallery":
        """The gallery of these sheets; a prototype is the unit mean of its species' sheet vectors in the metric.

        Where the mean has no direction, the species' medoid stands in for it.

        Raises `InsufficientData` without sheets, `ValueError` when a sheet appears twice or the lengths
        differ.
        """
        require_one_faiss()
        table, order = SheetTable.order(sheets.keys, species_of_sheet)
        if not len(table):
            raise InsufficientData("an index needs at least one sheet, found none; import sheets first")
        index = new_index(sheets.dimensions, len(table))
        for start in range(0, len(table), _BLOCK_ROWS):
            index.add(np.ascontiguousarray(sheets.vectors[order[start : start + _BLOCK_ROWS]]))
        metric = metric or Metric.cosine(sheets.dimensions)
        means = np.empty((len(table.species_ids), sheets.dimensions), dtype=np.float32)
        norms = np.empty(len(table), dtype=np.float32)
        for i, (start, stop) in enumerate(zip(table.starts[:-1], table.starts[1:], strict=True)):
            vectors = sheets.vectors[order[start:stop]]
            means[i] = unit_mean(metric.apply(vectors, Role.SHEET))
            norms[start:stop] = metric.norms(vectors, Role.SHEET)
        prototypes = new_index(sheets.dimensions, len(means))
        prototypes.add(means)
        return cls(sheets.space_id, table, index, prototypes, metric, norms, compute)

    def prototypes(self) -> Iterator[Prototype]:
        """The prototypes, in the order of `species_ids`."""
        counts = np.diff(self._table.starts)
        for species_id, vector, count in zip(self.species_ids, self._prototype_matrix, counts, strict=True):
            yield Prototype(species_id, vector, int(count))

    def prototype_matrix(self) -> FloatArray:
        """``(S, D)`` unit rows in the order of `species_ids`; read-only."""
        return self._prototype_matrix

    def prototype_similarities(self, queries: FloatArray) -> FloatArray:
        """``(N, S)`` cosines in the metric of ``(N, D)`` unit embeddings of photos with every prototype, exact."""
        self._check_queries(queries)
        similarities: FloatArray = self.metric.apply(queries, Role.FIELD) @ self._prototype_matrix.T
        return np.clip(similarities, -1.0, 1.0, out=similarities)

    def nearest_prototypes(self, queries: FloatArray, k: int) -> list[list[tuple[SpeciesId, float]]]:
        """For each of ``(N, D)`` unit embeddings of photos the `k` most similar species in the metric, or all.

        Equal similarities are ordered by species id.
        """
        self._check_queries(queries)
        found = self._prototype_search(self.metric.apply(queries, Role.FIELD), k)
        return [[(self.species_ids[row], similarity) for row, similarity in matches] for matches in found]

    def nearest_sheets(self, queries: FloatArray, k: int) -> list[list[SheetMatch]]:
        """For each of ``(N, D)`` unit queries the `k` sheets of highest cosine, or all; the metric has no part in it.

        Equal similarities are ordered by species id, then sheet id.
        """
        self._check_queries(queries)
        return [[self._match(*m) for m in matches] for matches in self._sheet_search(queries, k)]

    def supporting_sheets(self, query: FloatArray, species_id: SpeciesId, k: int) -> tuple[SheetMatch, ...]:
        """The `k` sheets of one species most similar in the metric to a photo's ``(D,)`` unit embedding, best first.

        Raises `UnknownSpecies` when the species has no sheets here.
        """
        _check_k(k)
        if not isinstance(query, np.ndarray) or query.ndim != 1:
            raise ValueError(f"expected one query of shape ({self.dimensions},)")
        self._check_queries(query[None])
        rows = self._table.rows_of(species_id)
        similarities = self.metric.similarities(
            self.sheet_vectors(rows.start, len(rows)),
            self._sheet_norms[rows.start : rows.stop],
            Role.SHEET,
            self.metric.apply(query[None], Role.FIELD)[0],
        )
        similarities = np.clip(similarities, -1.0, 1.0)
        best = np.argsort(-similarities, kind="stable")[:k]
        return tuple(self._match(rows.start + int(i), float(similarities[i])) for i in best)

    def sheet_vectors(self, start: int, count: int) -> FloatArray:
        """``(count, D)`` vectors of consecutive rows. Raises `IndexError` outside the gallery."""
        if start < 0 or count < 0 or start + count > self.sheet_count:
            raise IndexError(f"rows {start} … {start + count - 1} of {self.sheet_count}")
        vectors: FloatArray = self._sheets.reconstruct_n(start, count)
        return vectors

    def sheet_at(self, row: int) -> tuple[str, SpeciesId]:
        """Sheet id and species of a row, ``0 … sheet_count - 1``."""
        if not 0 <= row < self.sheet_count:
            raise IndexError(f"row {row} of {self.sheet_count}")
        return self._table.sheet_id(row), self._table.species_of(row)

    def rows_of(self, species_id: SpeciesId) -> range:
        """Rows of the species' sheets. Raises `UnknownSpecies`."""
        return self._table.rows_of(species_id)

    def save(self, folder: Path) -> None:
        """Write the files of a gallery into `folder`, an artifact's staging folder."""
        try:
            faiss.write_index(self._sheets, str(folder / SHEETS_FILE))
            faiss.write_index(self._prototypes, str(folder / PROTOTYPES_FILE))
        except RuntimeError as error:
            raise BundleError(f"cannot write the index to {folder} ({error}); is the disk full?") from error
        self._table.write(folder / TABLE_FILE)
        save_arrays({**self.metric.arrays(), _SHEET_NORMS: self._sheet_norms}, folder / METRIC_FILE)
        description = {
            "space_id": self.space_id,
            "dimensions": self.dimensions,
            "sheet_count": self.sheet_count,
            "species_count": len(self.species_ids),
            "faiss_version": faiss.__version__,
        }
        (folder / GALLERY_FILE).write_text(json.dumps(description, indent=1), encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        expected_space_id: str,
        compute: Compute | None = None,
        memory_map: bool = True,
    ) -> "Gallery":
        """The gallery that `save` wrote, from a folder whose hashes `artifacts.read` has verified.

        With `memory_map` the sheets' vectors stay in the file and are read as searches touch them, so
        that several processes share them; the file must not be changed while it is open.

        Raises `EmbeddingSpaceMismatch` when the vectors are of another space than the network that
        makes the queries, and `BundleCorrupt` when the files are damaged or do not fit each other.
        """
        require_one_faiss()
        description = _read_description(folder / GALLERY_FILE)
        if description["space_id"] != expected_space_id:
            raise EmbeddingSpaceMismatch(
                f"the index holds vectors of space {description['space_id']}, the model makes vectors of "
                f"{expected_space_id}; {_REBUILD} with this model"
            )
        table = SheetTable.read(folder / TABLE_FILE)
        if (len(table), len(table.species_ids)) != (description["sheet_count"], description["species_count"]):
            raise BundleCorrupt(f"{TABLE_FILE} and {GALLERY_FILE} disagree about the number of sheets; {_REBUILD}")
        shape = len(table), description["dimensions"]
        sheets = read_index(folder / SHEETS_FILE, shape, memory_map=memory_map)
        # Few and always read whole: mapping would gain nothing.
        prototypes = read_index(folder / PROTOTYPES_FILE, (len(table.species_ids), shape[1]), memory_map=False)
        metric, norms = _read_metric(folder, shape)
        gallery = cls(description["space_id"], table, sheets, prototypes, metric, norms, compute)
        if not are_unit_rows(gallery.prototype_matrix()):
            raise BundleCorrupt(f"{PROTOTYPES_FILE} holds vectors that are not of unit length; {_REBUILD}")
        return gallery

    def _match(self, row: int, similarity: float) -> SheetMatch:
        return SheetMatch(self._table.sheet_id(row), self._table.species_of(row), similarity)

    def _check_queries(self, queries: FloatArray) -> None:
        """Raises `ValueError` unless these are ``(N, D)`` float32 unit rows."""
        if not isinstance(queries, np.ndarray) or queries.dtype != np.float32:
            raise ValueError(f"expected float32 queries, got {getattr(queries, 'dtype', type(queries))}")
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise ValueError(f"expected queries of shape (N, {self.dimensions}), got {queries.shape}")
        if not are_unit_rows(queries):
            raise ValueError("queries must be finite and of unit length")


class _Gpu:
    """One GPU's scratch memory, and the lock that its searches share."""

    def __init__(self, device_index: int) -> None:
        self.device_index = device_index
        self.resources = faiss.StandardGpuResources()
        self.resources.setTempMemory(_GPU_SCRATCH_BYTES)
        # FAISS's CPU indexes may be searched from several threads at once, its GPU indexes may not.
        self.lock = threading.Lock()

    @classmethod
    def of(cls, compute: Compute | None) -> "_Gpu | None":
        """The GPU of `compute`, or None where it has none or this FAISS cannot use it."""
        wanted = None if compute is None else compute.cuda_index
        if wanted is None:
            return None
        if wanted >= faiss.get_num_gpus():
            logger.info("searching on the CPU: this FAISS build sees %d GPUs", faiss.get_num_gpus())
            return None
        return cls(wanted)


class _Searcher:
    """Searches an index, on the GPU where there is one."""

    def __init__(self, index: Any, gpu: _Gpu | None) -> None:
        self._index = index
        # FAISS keeps a bare pointer to the resources: this object keeps them alive.
        self._gpu = gpu
        self._gpu_copy = None if gpu is None else faiss.index_cpu_to_gpu(gpu.resources, gpu.device_index, index)

    def __call__(self, queries: FloatArray, k: int) -> list[list[tuple[int, float]]]:
        """For each query up to `k` pairs of row and cosine, by falling cosine, then row."""
        _check_k(k)
        k = min(k, self._index.ntotal)
        queries = np.ascontiguousarray(queries)
        if self._gpu is not None and self._gpu_copy is not None and k <= _GPU_MAX_K:
            with self._gpu.lock:
                similarities, rows = self._gpu_copy.search(queries, k)
        else:
            similarities, rows = self._index.search(queries, k)
        return [_ordered(r, np.clip(s, -1.0, 1.0)) for r, s in zip(rows, similarities, strict=True)]


def _ordered(rows: NDArray[np.int64], similarities: FloatArray) -> list[tuple[int, float]]:
    """Pairs without FAISS's -1 rows, which mean "nothing found", in an order that ties do not change."""
    found = rows >= 0
    rows, similarities = rows[found], similarities[found]
    best = np.lexsort((rows, -similarities))
    return [(int(rows[i]), float(similarities[i])) for i in best]


def new_index(dimensions: int, rows: int) -> Any:
    """An empty FAISS index for this many unit vectors: the one place where its kind is chosen."""
    return faiss.IndexFlatIP(dimensions)


def read_index(path: Path, shape: tuple[int, int], *, memory_map: bool) -> Any:
    """The FAISS index in `path`, which must be one that `new_index` makes, of ``(rows, dimensions)``.

    Raises `BundleCorrupt` for anything else.
    """
    rows, dimensions = shape
    # IO_FLAG_MMAP maps inverted lists only and copies a flat index; IO_FLAG_MMAP_IFC maps both.
    flags = getattr(faiss, "IO_FLAG_MMAP_IFC", 0) if memory_map else 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(4)
        # FAISS would follow other kinds of index into code (and files) that are not needed here.
        if magic != b"IxFI" or not 0 <= size - rows * dimensions * 4 <= _FLAT_HEADER_BYTES:
            raise BundleCorrupt(f"{path.name} is no index of {rows} vectors of {dimensions}; {_REBUILD}")
        with _read_limits(size):
            index = faiss.read_index(str(path), flags)
    except (OSError, RuntimeError, MemoryError) as error:
        raise BundleCorrupt(f"{path.name} cannot be read ({error}); {_REBUILD}") from error
    metric = faiss.METRIC_INNER_PRODUCT
    if type(index) is not type(new_index(dimensions, rows)) or (index.ntotal, index.d, index.metric_type) != (
        rows,
        dimensions,
        metric,
    ):
        raise BundleCorrupt(f"{path.name} is no index of {rows} vectors of {dimensions}; {_REBUILD}")
    return index


@contextmanager
def _read_limits(file_bytes: int) -> Iterator[None]:
    """FAISS refuses to allocate more than the file could hold. The limits are the process's, hence the lock."""
    with _READ_LOCK:
        limits = []
        for name, limit in (("vector_byte", file_bytes + 1), ("loop", _MAX_READ_LOOPS)):
            # Older FAISS has no limits; the sizes are checked above and the hashes before.
            if hasattr(faiss, f"set_deserialization_{name}_limit"):
                setter = getattr(faiss, f"set_deserialization_{name}_limit")
                limits.append((setter, getattr(faiss, f"get_deserialization_{name}_limit")()))
                setter(limit)
        try:
            yield
        finally:
            for setter, before in limits:
                setter(before)


def _read_metric(folder: Path, shape: tuple[int, int]) -> tuple[Metric, FloatArray]:
    """The metric, and the length ``(N,)`` of every sheet in it."""
    rows, dimensions = shape
    try:
        arrays = load_arrays(folder / METRIC_FILE)
        norms = arrays.pop(_SHEET_NORMS)
        metric = Metric.from_arrays(arrays)
    except (KeyError, OSError, TypeError, ValueError, SafetensorError) as error:
        raise BundleCorrupt(f"{METRIC_FILE} cannot be read ({error}); {_REBUILD}") from error
    if metric.dimensions != dimensions or norms.shape != (rows,) or not (norms > 0.0).all():
        raise BundleCorrupt(f"{METRIC_FILE} is not for {rows} sheets of {dimensions} dimensions; {_REBUILD}")
    return metric, norms


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{path.name} cannot be read ({error}); {_REBUILD}") from error
    if not isinstance(description.get("space_id"), str) or not description["space_id"]:
        raise BundleCorrupt(f"{path.name} names no embedding space; {_REBUILD}")
    for key in ("dimensions", "sheet_count", "species_count"):
        if type(description.get(key)) is not int or description[key] < 1:
            raise BundleCorrupt(f"{path.name} has no usable {key}; {_REBUILD}")
    return description


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def installed_faiss_packages() -> list[str]:
    """Names of the installed distributions that provide the module `faiss`."""
    installed = (d.metadata["Name"] for d in importlib.metadata.distributions())
    return sorted({name.lower().replace("_", "-") for name in installed if name} & set(_FAISS_PACKAGES))


@lru_cache(maxsize=1)
def require_one_faiss() -> None:
    """Raises `InvalidConfig` when several FAISS packages are installed.

    They overwrite each other's files, so that the GPU is lost, or worse, without any complaint from pip.
    """
    found = installed_faiss_packages()
    if len(found) > 1:
        raise InvalidConfig(
            f"expected one FAISS package, found {' and '.join(found)}, which overwrite each other; "
            f"uninstall them all, then install one extra: voucher[cpu] or voucher[gpu]"
        )
