"""The files of a gallery inside an index artifact.

``segments/<name>/`` are immutable and may be shared with other artifacts. Beside them, of this gallery alone:
``removed/<name>.npy`` (dead rows), ``norms/<name>.npy`` and ``prototypes.npy`` (which follow from the metric),
``metric.safetensors``, and ``gallery.json``, which counts everything and holds the measured recall.
"""

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from models.array_files import read_array, write_array
from models.errors import BundleCorrupt, BundleError, EmbeddingSpaceMismatch, InvalidConfig
from models.exact_search import Rows
from models.gallery_parts import GalleryParts, species_counts
from models.index_kind import RECALL_AT, RECALL_FLOOR, IndexKind, SearchEffort, check_kind
from models.manifest import parse_object
from models.metric import Metric
from models.retrieval import FloatArray
from models.sheet_index import FAISS_VERSION
from models.sheet_segment import (
    NO_ROWS,
    TABLE_FILE,
    LivingSegment,
    SheetSegment,
    living_columns,
    ordered_columns,
    read_segment,
)
from models.sheet_table import SheetTable
from models.unit_vectors import are_unit_rows

GALLERY_FILE = "gallery.json"
PROTOTYPES_FILE = "prototypes.npy"
METRIC_FILE = "metric.safetensors"
SEGMENTS_FOLDER = "segments"
REMOVED_FOLDER = "removed"
NORMS_FOLDER = "norms"

_REBUILD = "run `voucher build` to make a new index"
_SEGMENT_NAME = re.compile(r"[0-9a-f]{16}")


def write_gallery(folder: Path, parts: GalleryParts) -> None:
    """Write the files of a gallery into `folder`, an artifact's staging folder. Raises `BundleError`."""
    try:
        _write(folder, parts)
    except (OSError, RuntimeError, pa.ArrowException, SafetensorError) as error:
        raise BundleError(f"cannot write the index to {folder} ({error}); is the disk full?") from error


def _write(folder: Path, parts: GalleryParts) -> None:
    named = [(_name_of(living.segment), living) for living in parts.segments]
    for subfolder in (SEGMENTS_FOLDER, REMOVED_FOLDER, NORMS_FOLDER):
        (folder / subfolder).mkdir()
    for name, living in named:
        living.segment.write(folder / SEGMENTS_FOLDER / name)
        write_array(folder / NORMS_FOLDER / f"{name}.npy", living.norms)
        if len(living.dead):
            write_array(folder / REMOVED_FOLDER / f"{name}.npy", living.dead)
    write_array(folder / PROTOTYPES_FILE, parts.prototypes)
    save_arrays(parts.metric.arrays(), folder / METRIC_FILE)
    description = {
        "space_id": parts.space_id,
        "dimensions": parts.dimensions,
        "sheet_count": parts.sheet_count,
        "species_count": len(parts.counts),
        "requested_kind": parts.requested_kind,
        "recall": {"at": RECALL_AT, "floor": RECALL_FLOOR},
        "segments": [_described(name, living) for name, living in named],
        "faiss_version": FAISS_VERSION,
    }
    (folder / GALLERY_FILE).write_text(json.dumps(description, indent=1), encoding="utf-8")


def _name_of(segment: SheetSegment) -> str:
    return secrets.token_hex(8) if segment.folder is None else segment.folder.name


def _described(name: str, living: LivingSegment) -> dict[str, Any]:
    effort = living.segment.effort
    return {
        "name": name,
        "rows": len(living.segment),
        "removed": len(living.dead),
        "kind": living.segment.kind,
        "search": None if effort is None else effort.to_json(),
    }


@dataclass(frozen=True)
class _Described:
    """A segment as ``gallery.json`` tells of it."""

    name: str
    rows: int
    removed: int
    kind: IndexKind
    search: SearchEffort | None

    @classmethod
    def from_json(cls, value: Any) -> "_Described":
        """Raises `KeyError`, `TypeError` or `ValueError` for anything but what `_described` makes."""
        name, rows, removed, kind = (value[key] for key in ("name", "rows", "removed", "kind"))
        if not isinstance(name, str) or not _SEGMENT_NAME.fullmatch(name):
            raise ValueError(f"segment {name!r}")
        if type(rows) is not int or type(removed) is not int or not 0 <= removed < rows:
            raise ValueError(f"{removed!r} of {rows!r} rows of segment {name} are removed")
        if kind not in get_args(IndexKind) or (kind == "flat") != (value["search"] is None):
            raise ValueError(f"kind {kind!r} of segment {name}")
        return cls(name, rows, removed, kind, None if kind == "flat" else SearchEffort.from_json(value["search"]))


def read_gallery(folder: Path, *, expected_space_id: str, memory_map: bool) -> GalleryParts:
    """What `write_gallery` wrote, from verified files. Raises `EmbeddingSpaceMismatch` and `BundleCorrupt`."""
    description = _read_description(folder / GALLERY_FILE)
    if description["space_id"] != expected_space_id:
        raise EmbeddingSpaceMismatch(
            f"the index holds vectors of space {description['space_id']}, the model makes vectors of "
            f"{expected_space_id}; {_REBUILD} with this model"
        )
    dimensions = description["dimensions"]
    metric = _read_metric(folder / METRIC_FILE, dimensions)
    segments = tuple(_read_living(folder, d, dimensions, memory_map=memory_map) for d in description["segments"])
    _check_sheets_differ(segments)
    counts = species_counts(segments)
    if (sum(counts.values()), len(counts)) != (description["sheet_count"], description["species_count"]):
        raise BundleCorrupt(f"{GALLERY_FILE} and the segments disagree about the number of sheets; {_REBUILD}")
    # Few, and read whole by every question: mapping would gain nothing.
    prototypes = read_array(folder / PROTOTYPES_FILE, (len(counts), dimensions), np.float32)
    if not are_unit_rows(prototypes):
        raise BundleCorrupt(f"{PROTOTYPES_FILE} holds vectors that are not of unit length; {_REBUILD}")
    return GalleryParts(expected_space_id, metric, description["requested_kind"], segments, counts, prototypes)


def read_sheet_columns(folder: Path) -> pa.Table:
    """Columns `sheet_id` and `species_id` of a saved gallery, without its vectors; as `Gallery.sheet_columns`.

    Raises `BundleCorrupt`.
    """
    parts = []
    for described in _read_description(folder / GALLERY_FILE)["segments"]:
        table = SheetTable.read(folder / SEGMENTS_FOLDER / described.name / TABLE_FILE)
        if len(table) != described.rows:
            raise BundleCorrupt(f"{GALLERY_FILE} and segment {described.name} disagree; {_REBUILD}")
        dead = _read_dead(folder, described)
        rows = np.delete(np.arange(len(table), dtype=np.int64), dead)
        parts.append(table.columns().take(pa.array(rows)))
    return ordered_columns(parts)


def _read_living(folder: Path, described: _Described, dimensions: int, *, memory_map: bool) -> LivingSegment:
    name, rows = described.name, described.rows
    segment = read_segment(
        folder / SEGMENTS_FOLDER / name,
        (rows, dimensions),
        described.kind,
        described.search,
        memory_map=memory_map,
    )
    norms: FloatArray = read_array(folder / NORMS_FOLDER / f"{name}.npy", (rows,), np.float32)
    if not (np.isfinite(norms) & (norms > 0.0)).all():
        raise BundleCorrupt(f"{NORMS_FOLDER}/{name}.npy holds lengths that are none; {_REBUILD}")
    return LivingSegment(segment, _read_dead(folder, described), norms)


def _read_dead(folder: Path, described: _Described) -> Rows:
    if not described.removed:
        return NO_ROWS
    dead: Rows = read_array(folder / REMOVED_FOLDER / f"{described.name}.npy", (described.removed,), np.int64)
    if dead[0] < 0 or dead[-1] >= described.rows or (np.diff(dead) <= 0).any():
        raise BundleCorrupt(f"{REMOVED_FOLDER}/{described.name}.npy names rows that are none; {_REBUILD}")
    return dead


def _check_sheets_differ(segments: tuple[LivingSegment, ...]) -> None:
    """Raises `BundleCorrupt` when a sheet lives in two segments; within one its table has looked."""
    if len(segments) < 2:
        return
    base, *others = segments
    ids = living_columns(others)["sheet_id"].combine_chunks()
    if pc.count_distinct(ids).as_py() != len(ids) or len(base.rows_among(ids)):
        raise BundleCorrupt(f"a sheet is in two segments of the index; {_REBUILD}")


def _read_metric(path: Path, dimensions: int) -> Metric:
    try:
        metric = Metric.from_arrays(load_arrays(path))
    except (KeyError, OSError, TypeError, ValueError, SafetensorError) as error:
        raise BundleCorrupt(f"{path.name} cannot be read ({error}); {_REBUILD}") from error
    if metric.dimensions != dimensions:
        raise BundleCorrupt(f"{path.name} is not for vectors of {dimensions} dimensions; {_REBUILD}")
    return metric


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = parse_object(path.read_bytes())
        check_kind(description["requested_kind"])
        segments = [_Described.from_json(value) for value in description["segments"]]
    except (OSError, KeyError, TypeError, ValueError, InvalidConfig) as error:
        raise BundleCorrupt(f"{path.name} cannot be read ({error}); {_REBUILD}") from error
    if not segments or len({s.name for s in segments}) != len(segments):
        raise BundleCorrupt(f"{path.name} names no segments, or one of them twice; {_REBUILD}")
    if not isinstance(description.get("space_id"), str) or not description["space_id"]:
        raise BundleCorrupt(f"{path.name} names no embedding space; {_REBUILD}")
    for key in ("dimensions", "sheet_count", "species_count"):
        if type(description.get(key)) is not int or description[key] < 1:
            raise BundleCorrupt(f"{path.name} has no usable {key}; {_REBUILD}")
    return {**description, "segments": segments}
