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
) -> Iterator[tuple[list[Key], FloatArray]]:
    """Keys and unit embeddings ``(B, D)`` of image files, batch by batch, in order.

    Raises `InvalidImage` naming the file.
    """
    return run_batches(files, encoder.preprocessing, encoder.embed, batch=batch, workers=workers)


def run_batches(
    files: Iterable[tuple[Key, Path]],
    preprocessing: Preprocessing,
    encode: Callable[[FloatArray], Output],
    *,
    batch: int = BATCH,
    workers: int | None = None,
) -> Iterator[tuple[list[Key], Output]]:
    """Keys and what `encode` gives for the pixels ``(B, 3, H, W)`` of image files, batch by batch, in order.

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
                pixels = np.stack([future.result() for future in futures])
                submit()
                yield keys, encode(pixels)
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()


def _read(path: Path, preprocessing: Preprocessing) -> FloatArray:
    return preprocessing.apply(read_stored(path, preprocessing.minimum_decode_side))
