"""Image files to unit vectors: decoded ahead on threads, encoded in batches, in memory that does not grow."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from indexer.stored_images import read_stored
from models.encoder import Encoder
from models.errors import InvalidImage
from models.preprocess import Preprocessing
from models.retrieval import FloatArray

Key = TypeVar("Key")
Output = TypeVar("Output")

BATCH = 16


def embed_images(
    files: Iterable[tuple[Key, Path]],
    encoder: Encoder,
    *,
    batch: int = BATCH,
    workers: int | None = None,
    on_failure: Callable[[Key, InvalidImage], None] | None = None,
) -> Iterator[tuple[list[Key], FloatArray]]:
    """Keys and unit embeddings ``(B, D)`` of image files, batch by batch, in order.

    A file that cannot be read is told to `on_failure` and left out. Without it `InvalidImage` is raised, naming the
    file.
    """
    pixels = encoder.preprocessing
    return run_batches(files, pixels, encoder.embed, batch=batch, workers=workers, on_failure=on_failure)


def run_batches(
    files: Iterable[tuple[Key, Path]],
    preprocessing: Preprocessing,
    encode: Callable[[FloatArray], Output],
    *,
    batch: int = BATCH,
    workers: int | None = None,
    on_failure: Callable[[Key, InvalidImage], None] | None = None,
) -> Iterator[tuple[list[Key], Output]]:
    """Keys and what `encode` gives for the pixels ``(B, 3, H, W)`` of image files, batch by batch, in order.

    `on_failure` as in `embed_images`.
    While a batch is encoded the next two are decoded; no more than three are in memory.
    """
    count = workers or max(1, min(16, os.cpu_count() or 1))
    source = iter(files)
    pending: deque[tuple[list[Key], list[Future[FloatArray]]]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="decode") as pool:

        def submit() -> None:
            if chunk := list(islice(source, batch)):
                pending.append(([k for k, _ in chunk], [pool.submit(_read, p, preprocessing) for _, p in chunk]))

        try:
            for _ in range(3):
                submit()
            while pending:
                keys, futures = pending.popleft()
                read = _results(keys, futures, on_failure)
                submit()
                if read:
                    yield [key for key, _ in read], encode(np.stack([pixels for _, pixels in read]))
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()


def _results(
    keys: list[Key], futures: list[Future[FloatArray]], on_failure: Callable[[Key, InvalidImage], None] | None
) -> list[tuple[Key, FloatArray]]:
    """Keys with their pixels, without what could not be read."""
    read: list[tuple[Key, FloatArray]] = []
    for key, future in zip(keys, futures, strict=True):
        try:
            read.append((key, future.result()))
        except InvalidImage as error:
            if on_failure is None:
                raise
            on_failure(key, error)
    return read


def _read(path: Path, preprocessing: Preprocessing) -> FloatArray:
    return preprocessing.apply(read_stored(path, preprocessing.minimum_decode_side))
