"""One measurement of an index in a process of its own, whose memory and threads are then its own too.

Reads a JSON object from the input stream and writes one to the output stream.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from indexer.bench_vectors import Flora
from models.array_files import read_array
from models.index_kind import RECALL_AT, IndexKind, SearchEffort
from models.retrieval import FloatArray
from models.sheet_segment import NO_ROWS, LivingSegment, SheetSegment, read_segment
from models.sheet_table import SheetTable

_QUERIES = 200
_FEWEST_SEARCHES = 20


def build(folder: Path, flora: Flora, kind: IndexKind) -> dict[str, Any]:
    """Seconds and bytes of making and writing an index of the vectors in ``vectors.npy``, without the vectors."""
    vectors: FloatArray = read_array(
        folder / "vectors.npy", (flora.rows, flora.dimensions), np.float32, memory_map=True
    )
    float(vectors.sum())  # what is read from the disk is not the index's time
    table, _ = SheetTable.order([f"{row:012d}" for row in range(flora.rows)], flora.species_of_rows(0, flora.rows))
    start = time.perf_counter()
    segment = SheetSegment(table, vectors).indexed(kind, None)
    built = time.perf_counter()
    segment.write(folder / kind)
    written = time.perf_counter()
    files = {path.name: path.stat().st_size for path in (folder / kind).iterdir()}
    return {
        "kind": segment.kind,
        "effort": None if segment.effort is None else segment.effort.to_json(),
        "build_seconds": built - start,
        "write_seconds": written - built,
        "index_bytes": sum(files.values()) - files["vectors.npy"] - files["sheets.parquet"],
        "vectors_bytes": files["vectors.npy"],
    }


def search(
    folder: Path, flora: Flora, kind: IndexKind, effort: dict[str, Any] | None, seconds: float
) -> dict[str, Any]:
    """Latency, recall and memory of single queries on the index that `build` wrote, mapped from its files."""
    queries = flora.photos(_QUERIES)
    before = resident_bytes()
    found = None if effort is None else SearchEffort.from_json(effort)
    shape = (flora.rows, flora.dimensions)
    segment = read_segment(folder / kind, shape, kind, found, memory_map=True)
    living = LivingSegment(segment, NO_ROWS, np.ones(flora.rows, dtype=np.float32))
    best = [_ten_best(*living.nearest(query[None], RECALL_AT)[0]) for query in queries[:_FEWEST_SEARCHES]]
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _FEWEST_SEARCHES:
        query = queries[len(times) % _QUERIES][None]
        start = time.perf_counter()
        living.nearest(query, RECALL_AT)
        times.append(time.perf_counter() - start)
    after = resident_bytes()
    best += [_ten_best(*living.nearest(query[None], RECALL_AT)[0]) for query in queries[_FEWEST_SEARCHES:]]
    exact = LivingSegment(SheetSegment(segment.table, segment.vectors), NO_ROWS, living.norms).nearest(
        queries, RECALL_AT
    )
    recall = np.mean([len(np.intersect1d(a, _ten_best(*b))) / len(a) for a, b in zip(best, exact, strict=True)])
    return {
        "searches": len(times),
        "p50_ms": 1e3 * float(np.quantile(times, 0.5)),
        "p99_ms": 1e3 * float(np.quantile(times, 0.99)),
        "recall_at_10": float(recall),
        "own_bytes": after["own"] - before["own"],
        "mapped_bytes": after["mapped"] - before["mapped"],
    }


def _ten_best(rows: Any, similarities: FloatArray) -> Any:
    return rows[np.argsort(-similarities, kind="stable")[:RECALL_AT]]


def bandwidth(folder: Path, flora: Flora, seconds: float) -> dict[str, Any]:
    """Bytes a second at which the vectors are read from memory, at best, by a sum and by a product with a vector."""
    vectors = np.array(np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False))
    query = flora.photos(1)[0]
    best = 0.0
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < 3:
        for reading in (vectors.sum, lambda: vectors @ query):
            start = time.perf_counter()
            reading()
            best = max(best, vectors.nbytes / (time.perf_counter() - start))
        rounds += 1
    return {"bytes_per_second": best}


def resident_bytes() -> dict[str, int]:
    """Memory of this process: `own` pages, and `mapped` ones of files, which processes share."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return {"own": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "mapped": 0}
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: 1024 * int(fields[key].split()[0]) for name, key in (("own", "RssAnon"), ("mapped", "RssFile"))}


def main() -> None:
    """Do what the input says."""
    asked = json.loads(sys.stdin.read())
    folder, flora = Path(asked["folder"]), Flora(**asked["flora"])
    if asked["what"] == "build":
        result = build(folder, flora, asked["kind"])
    elif asked["what"] == "search":
        result = search(folder, flora, asked["kind"], asked["effort"], asked["seconds"])
    else:
        result = bandwidth(folder, flora, asked["seconds"])
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
