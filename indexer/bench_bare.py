"""The pipeline without a service: decode, preprocess, network, search and answer, in one process.

``python -m indexer.bench_bare HOME DEVICE SECONDS BATCH… -- PHOTO…`` writes photos a second as JSON. Without SECONDS
and BATCH it waits for lines with seconds and the number of a photo, and tells for each the median milliseconds of one
photo alone in that time, from that one on.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from indexer.bench_one_client import median_milliseconds
from models.compute import Compute, limit_threads
from models.cpu_cores import available_cores
from models.encoder import Encoded
from models.home import Home
from models.identifier import Identifier

_MOST_PIXELS = 50_000_000


class _Pipeline:
    """A plain loop over encoded photos."""

    def __init__(self, identifier: Identifier, photos: list[bytes]) -> None:
        self._identifier, self._photos = identifier, photos

    def pixels(self, photo: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self._identifier.preprocess(self._identifier.decode(photo, max_pixels=_MOST_PIXELS))

    def finish(self, pixels: list[np.ndarray[Any, np.dtype[np.float32]]]) -> None:
        encoded = self._identifier.encode(np.stack(pixels))
        for row in range(len(pixels)):
            rows = slice(row, row + 1)
            self._identifier.answer(Encoded(encoded.logits[rows], encoded.embeddings[rows]))

    def one(self, number: int) -> None:
        """The photo of that number, alone."""
        self.finish([self.pixels(self._photos[number % len(self._photos)])])

    def in_turn(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each batch, decoded photo after photo before the network runs."""
        took: list[float] = []
        photos, end = self._forever(), time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            self.finish([self.pixels(photo) for photo in islice(photos, batch)])
            took.append(time.perf_counter() - started)
        return took

    def overlapped(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each batch while threads decode the next one."""
        took: list[float] = []
        photos, end = self._forever(), time.perf_counter() + seconds
        with ThreadPoolExecutor(available_cores()) as threads:
            coming = [threads.submit(self.pixels, photo) for photo in islice(photos, batch)]
            while (started := time.perf_counter()) < end:
                ready = [future.result() for future in coming]
                coming = [threads.submit(self.pixels, photo) for photo in islice(photos, batch)]
                self.finish(ready)
                took.append(time.perf_counter() - started)
        return took

    def _forever(self) -> Iterator[bytes]:
        return cycle(self._photos)


def load(home: Home, device: str, files: list[Path]) -> _Pipeline:
    """The pipeline with all cores, warmed up."""
    limit_threads(available_cores())
    pipeline = _Pipeline(Identifier.load(home, Compute.resolve(device)), [f.read_bytes() for f in files])
    pipeline.in_turn(1, 0.5)
    return pipeline


def rates(pipeline: _Pipeline, seconds: float, batches: list[int]) -> dict[str, dict[str, float]]:
    """Photos a second of both ways for each size of batch."""
    pipeline.in_turn(max(batches), 0.5)
    found: dict[str, dict[str, float]] = {"in_turn": {}, "overlapped": {}}
    for batch in batches:
        for name, way in (("in_turn", pipeline.in_turn), ("overlapped", pipeline.overlapped)):
            took = way(batch, seconds)
            found[name][str(batch)] = batch * len(took) / sum(took)
    return found


def alone(pipeline: _Pipeline, orders: Iterable[str]) -> Iterator[float]:
    """For each order, seconds and the number of a photo, the median milliseconds of one photo alone."""
    for order in orders:
        seconds, first = order.split()
        yield median_milliseconds(pipeline.one, float(seconds), int(first))


if __name__ == "__main__":
    _home, _device, *_rest = sys.argv[1:]
    _split = _rest.index("--")
    _pipeline = load(Home(Path(_home)), _device, [Path(p) for p in _rest[_split + 1 :]])
    if _split:
        _seconds, *_batches = _rest[:_split]
        json.dump(rates(_pipeline, float(_seconds), [int(b) for b in _batches]), sys.stdout)
    else:
        for _milliseconds in alone(_pipeline, sys.stdin):
            sys.stdout.write(f"{_milliseconds}\n")
            sys.stdout.flush()
