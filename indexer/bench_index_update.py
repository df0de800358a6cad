"""What it takes to add sheets to a large index that is served: beside a build from nothing, and under questions."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from indexer.bench_vectors import Flora
from indexer.progress import Report, silent
from models import verified_files
from models.artifacts import INDEX_KIND, read, writing
from models.gallery import Gallery
from models.index_kind import RequestedKind
from models.retrieval import FloatArray

_SPACE = "bench"
_CANDIDATES = 5
_SHEETS_PER_CANDIDATE = 3
_WARM_UP_SECONDS = 0.2
_T = TypeVar("_T")


@dataclass(frozen=True)
class Stages:
    """Seconds to make a gallery in memory, to write it as an artifact, and to verify and load that."""

    make_seconds: float
    save_seconds: float
    load_seconds: float

    @property
    def seconds(self) -> float:
        """All stages."""
        return self.make_seconds + self.save_seconds + self.load_seconds


@dataclass(frozen=True)
class Gaps:
    """Milliseconds between answers of a thread that asks all the time: at rest, and while galleries take over."""

    usual_p50_ms: float
    usual_p99_ms: float
    usual_longest_ms: float
    swaps: int
    longest_while_swapping_ms: float


@dataclass(frozen=True)
class UpdateBench:
    """Adding sheets to an index, from vectors to a verified, loaded gallery; embedding has no part in it.

    `ratio` is adding / building from nothing. `cold_seconds` are what a process adds to this that has not yet hashed
    and opened the index it continues. `shared_bytes` of the new artifact are the old one's files, `new_bytes` its own.
    """

    rows: int
    dimensions: int
    kind: str
    added: int
    from_nothing: Stages
    from_nothing_seconds: float
    adding: Stages
    adding_seconds: float
    ratio: float
    cold_seconds: float
    shared_bytes: int
    new_bytes: int
    gaps: Gaps


def bench_update(
    rows: int,
    dimensions: int,
    *,
    added: int = 1_000,
    kind: RequestedKind = "auto",
    seconds: float = 3.0,
    swaps: int = 10,
    seed: int = 0,
    folder: Path | None = None,
    report: Report = silent,
) -> UpdateBench:
    """Build an index of `rows` sheets, add some, and swap one for the other under questions, `swaps` times."""
    flora = Flora(rows, dimensions, seed)
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-index-") as place:
        home = Path(place)
        report("add sheets", 0, 3)
        from_nothing = _build(home, flora, kind)
        report("add sheets", 1, 3)
        # Files are remembered by their hashes once they are old enough, as those of a served index are.
        time.sleep(verified_files.SETTLED_SECONDS)
        verified_files.forget()
        cold, base = _timed(lambda: _load(home, "base"))
        adding = _add(home, flora, base, added)
        report("add sheets", 2, 3)
        gaps = _swap_under_questions(home, base, flora, seconds, swaps)
        shared, new = _bytes_of(home / "more")
        report("add sheets", 3, 3)
        return UpdateBench(
            rows=rows,
            dimensions=dimensions,
            kind=base.parts.segments[0].segment.kind,
            added=added,
            from_nothing=from_nothing,
            from_nothing_seconds=from_nothing.seconds,
            adding=adding,
            adding_seconds=adding.seconds,
            ratio=adding.seconds / from_nothing.seconds,
            cold_seconds=cold,
            shared_bytes=shared,
            new_bytes=new,
            gaps=gaps,
        )


def _build(home: Path, flora: Flora, kind: RequestedKind) -> Stages:
    sheets, species = flora.sheets(_SPACE)
    make, gallery = _timed(lambda: Gallery.build(sheets, species, kind=kind))
    save, _ = _timed(lambda: _save(home, "base", gallery))
    load, _ = _timed(lambda: _load(home, "base"))
    return Stages(make, save, load)


def _add(home: Path, flora: Flora, base: Gallery, added: int) -> Stages:
    more, of_species = flora.more_sheets(added, _SPACE)
    make, gallery = _timed(lambda: base.updated(more, of_species))
    save, _ = _timed(lambda: _save(home, "more", gallery))
    load, loaded = _timed(lambda: _load(home, "more"))
    if loaded.sheet_count != flora.rows + added:
        raise RuntimeError(f"{loaded.sheet_count} sheets instead of {flora.rows + added}")
    return Stages(make, save, load)


def _save(home: Path, name: str, gallery: Gallery) -> None:
    with writing(home, kind=INDEX_KIND, artifact_id=name, metadata={}) as folder:
        gallery.save(folder)


def _load(home: Path, name: str) -> Gallery:
    """Verified, as activation and the service do."""
    return Gallery.load(read(home / name, kind=INDEX_KIND).root, expected_space_id=_SPACE)


def _timed(action: Callable[[], _T]) -> tuple[float, _T]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def _bytes_of(root: Path) -> tuple[int, int]:
    """Of an artifact's files: those that it shares with another, and its own."""
    found = [path.stat() for path in root.rglob("*") if path.is_file()]
    return sum(s.st_size for s in found if s.st_nlink > 1), sum(s.st_size for s in found if s.st_nlink == 1)


class _Asking:
    """A thread that asks the gallery at hand, one question after the other, and notes when each was answered."""

    def __init__(self, gallery: Gallery, queries: FloatArray) -> None:
        self.gallery = gallery
        self._queries = queries
        self._times: list[float] = []
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                query = self._queries[len(self._times) % len(self._queries)]
                gallery = self.gallery
                similarities = gallery.prototype_similarities(query[None])[0]
                for row in np.argpartition(similarities, -min(_CANDIDATES, len(similarities)))[-_CANDIDATES:]:
                    gallery.supporting_sheets(query, gallery.species_ids[row], _SHEETS_PER_CANDIDATE)
                self._times.append(time.perf_counter())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            self._failure = error

    def gaps(self, start: float, stop: float) -> FloatArray:
        """Seconds between consecutive answers of which one fell between two moments."""
        times = np.array(self._times)
        return np.diff(times)[(times[1:] >= start) & (times[:-1] <= stop)].astype(np.float32)


def _swap_under_questions(home: Path, base: Gallery, flora: Flora, seconds: float, swaps: int) -> Gaps:
    """Gaps between answers at rest, and the longest one while a gallery is loaded and takes over."""
    with _Asking(base, flora.photos(200)) as asking:
        time.sleep(_WARM_UP_SECONDS)
        start = time.perf_counter()
        time.sleep(seconds)
        at_rest = (start, time.perf_counter())
        windows = []
        for turn in range(swaps):
            start = time.perf_counter()
            asking.gallery = _load(home, "base" if turn % 2 else "more")
            # The first answers of the new one belong to the swap.
            time.sleep(_WARM_UP_SECONDS)
            windows.append((start, time.perf_counter()))
    usual = 1e3 * asking.gaps(*at_rest)
    longest = max((1e3 * float(asking.gaps(*window).max(initial=0.0)) for window in windows), default=0.0)
    p50, p99 = (float(np.quantile(usual, q)) for q in (0.5, 0.99))
    return Gaps(p50, p99, float(usual.max()), swaps, longest)
