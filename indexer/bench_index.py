"""How fast, how large and how good each kind of sheet index is, on synthetic vectors."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from indexer.bench_vectors import Flora
from indexer.progress import Report, silent
from models.errors import InvalidConfig, VoucherError
from models.index_kind import IndexKind, choose_kind

_THREADS = {"one": 1, "all": 0}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Latency:
    """Of single queries for ten sheets, with so many threads (0: all)."""

    threads: int
    p50_ms: float
    p99_ms: float
    searches: int


@dataclass(frozen=True)
class KindFigures:
    """One kind of index over the same vectors.

    `index_bytes` are its files without the vectors, which every kind needs. `own_bytes` of memory belong to the process
    that searches; `mapped_bytes` are of files that it touched, and shared between processes. `kind` is ``flat`` where
    the kind that was asked for did not reach the least recall; `automatic` is the kind that size would choose.
    """

    asked: IndexKind
    kind: IndexKind
    automatic: bool
    build_seconds: float
    write_seconds: float
    index_bytes: int
    own_bytes: int
    mapped_bytes: int
    effort: int | None
    recall_at_build: float
    recall_at_10: float
    latencies: tuple[Latency, ...]


@dataclass(frozen=True)
class SizeFigures:
    """All kinds over `rows` vectors. `scan_limits_ms` is how long reading all of them takes at least, by threads."""

    rows: int
    dimensions: int
    vectors_bytes: int
    bandwidth_bytes_per_second: dict[str, float]
    scan_limits_ms: dict[str, float]
    kinds: tuple[KindFigures, ...]


def bench_index(
    rows: Sequence[int],
    dimensions: int,
    kinds: Sequence[IndexKind],
    *,
    seconds: float = 3.0,
    seed: int = 0,
    folder: Path | None = None,
    report: Report = silent,
) -> list[SizeFigures]:
    """Each kind at each size, every one in processes of its own; `seconds` for each latency, files below `folder`."""
    sizes = []
    steps, done = len(rows) * (1 + len(kinds)), 0
    for count in rows:
        flora = Flora(count, dimensions, seed)
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-index-") as place:
            path = Path(place)
            report("index kinds", done, steps)
            flora.write(path / "vectors.npy")
            bytes_per_second = {
                name: float(_child(path, flora, "bandwidth", threads, seconds=seconds)["bytes_per_second"])
                for name, threads in _THREADS.items()
            }
            done += 1
            figures = []
            for kind in kinds:
                report("index kinds", done, steps)
                figures.append(_kind(path, flora, kind, seconds))
                done += 1
            size = count * dimensions * 4
            limits = {name: 1e3 * size / found for name, found in bytes_per_second.items()}
            sizes.append(SizeFigures(count, dimensions, size, bytes_per_second, limits, tuple(figures)))
    report("index kinds", steps, steps)
    return sizes


def checked_kinds(names: Sequence[str]) -> list[IndexKind]:
    """The kinds of these names, or all for none. Raises `InvalidConfig`."""
    known = get_args(IndexKind)
    if unknown := [name for name in names if name not in known]:
        raise InvalidConfig(f"the kinds of index are {', '.join(known)}, not {unknown[0]!r}")
    return [kind for kind in known if kind in names or not names]


def rows_of_table(sizes: Sequence[SizeFigures]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows for people; a row each for what reading all vectors takes at least, and for each kind."""
    columns = ["sheets", "kind", "build s", "index MB", "own MB", "mapped MB", "effort", "recall@10"]
    columns += ["p50 ms, 1 thread", "p99 ms", "p50 ms, all threads", "p99 ms"]
    rows: list[tuple[str, ...]] = []
    for size in sizes:
        limits = [f"{size.scan_limits_ms[name]:.2f}" for name in _THREADS]
        read = f"{size.vectors_bytes / 1e6:.0f}"
        rows.append((f"{size.rows}", "(reading all)", "", "", "", read, "", "", limits[0], "", limits[1], ""))
        for k in size.kinds:
            times = [f"{ms:.2f}" for latency in k.latencies for ms in (latency.p50_ms, latency.p99_ms)] or ["left out"]
            sizes_mb = [f"{b / 1e6:.0f}" for b in (k.index_bytes, k.own_bytes, k.mapped_bytes)]
            name = f"{k.asked} *" if k.automatic else k.asked
            figures = [f"{k.build_seconds:.2f}", *sizes_mb, f"{k.effort or ''}", f"{k.recall_at_10:.3f}"]
            rows.append((f"{size.rows}", name, *figures, *(times + [""] * (4 - len(times)))))
    return columns, rows


def _kind(folder: Path, flora: Flora, kind: IndexKind, seconds: float) -> KindFigures:
    built = _child(folder, flora, "build", 0, kind=kind)
    found: IndexKind = built["kind"]
    if found != kind:
        # Nothing to search: the exact index is measured under its own name.
        (folder / kind).rename(folder / f"{kind}-left-out")
        return _left_out(flora, kind, built)
    searched = {
        name: _child(folder, flora, "search", threads, kind=kind, effort=built["effort"], seconds=seconds)
        for name, threads in _THREADS.items()
    }
    alone = searched["one"]
    return KindFigures(
        asked=kind,
        kind=found,
        automatic=choose_kind(flora.rows, flora.dimensions) == kind,
        build_seconds=built["build_seconds"],
        write_seconds=built["write_seconds"],
        index_bytes=built["index_bytes"],
        own_bytes=alone["own_bytes"],
        mapped_bytes=alone["mapped_bytes"],
        effort=None if built["effort"] is None else built["effort"]["effort"],
        recall_at_build=1.0 if built["effort"] is None else built["effort"]["recall"],
        recall_at_10=alone["recall_at_10"],
        latencies=tuple(
            Latency(_THREADS[name], one["p50_ms"], one["p99_ms"], one["searches"]) for name, one in searched.items()
        ),
    )


def _left_out(flora: Flora, kind: IndexKind, built: dict[str, Any]) -> KindFigures:
    automatic = choose_kind(flora.rows, flora.dimensions) == kind
    seconds = (built["build_seconds"], built["write_seconds"])
    return KindFigures(kind, "flat", automatic, *seconds, 0, 0, 0, None, 1.0, 1.0, ())


def _child(folder: Path, flora: Flora, what: str, threads: int, **more: Any) -> dict[str, Any]:
    """What a process of `bench_index_child` found. Raises `VoucherError` when it failed."""
    environment = {**os.environ, **(dict.fromkeys(_THREAD_VARIABLES, str(threads)) if threads else {})}
    asked = {"what": what, "folder": str(folder), "flora": asdict(flora), **more}
    finished = subprocess.run(
        [sys.executable, "-m", "indexer.bench_index_child"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).resolve().parents[1],
        check=False,
    )
    if finished.returncode != 0:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise VoucherError(f"measuring {what} of {flora.rows} rows failed with {finished.returncode}: {last}")
    result: dict[str, Any] = json.loads(finished.stdout)
    return result
