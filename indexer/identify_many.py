"""Many plants to their answers: photos are decoded in parallel, and the network gets them in batches."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.candidate_filter import CandidateFilter
from models.encoder import Encoded
from models.errors import InvalidImage
from models.identifier import Identifier
from models.retrieval import FloatArray, Identification

BATCH_SIZE = 16
MAX_PIXELS = 250_000_000


@dataclass(frozen=True, slots=True)
class Plant:
    """Photos of one plant, and the name that its row has; `error` says why nothing can be asked of it."""

    name: str
    photos: tuple[Path, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A plant with its answer, or why there is none."""

    plant: Plant
    answer: Identification | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about every plant."""

    top_k: int = 5
    sheets_per_candidate: int = 0
    within: CandidateFilter | None = None
    max_pixels: int = MAX_PIXELS


def default_decoders() -> int:
    """Threads that decode at one time where nothing else is said: one for each core, at most eight."""
    return min(8, os.cpu_count() or 1)


def identify_many(
    identifier: Identifier,
    plants: Iterable[Plant],
    asked: Asked,
    *,
    batch_size: int = BATCH_SIZE,
    decoders: int | None = None,
) -> Iterator[list[Named]]:
    """Answers in the order of `plants`, as many at a time as one pass of the network gave.

    The network gets about `batch_size` photos at once; photos of one plant are never parted. At most three such batches
    are in memory, decoded. A photo that cannot be used is its plant's error. Raises `InvalidCandidateFilter`.
    """
    if asked.within is not None:
        asked.within.positions(identifier.species)
    workers = decoders or default_decoders()
    ahead = 2 * batch_size + workers
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Plant, list[Future[FloatArray]]]] = deque()
        source = iter(plants)
        pending, is_over = 0, False
        try:
            while True:
                while not is_over and pending < ahead and len(waiting) < ahead:
                    plant = next(source, None)
                    if plant is None:
                        is_over = True
                        break
                    photos = () if plant.error else plant.photos
                    waiting.append((plant, [pool.submit(_pixels, identifier, p, asked.max_pixels) for p in photos]))
                    pending += len(photos)
                if not waiting:
                    return
                taken = _take(waiting, batch_size)
                pending -= sum(len(futures) for _, futures in taken)
                yield _answers(identifier, taken, asked)
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _take(
    waiting: deque[tuple[Plant, list[Future[FloatArray]]]], batch_size: int
) -> list[tuple[Plant, list[Future[FloatArray]]]]:
    """The first plants with about as many photos as one batch has; at least one plant, at most as many as photos."""
    taken = [waiting.popleft()]
    count = len(taken[0][1])
    while waiting and len(taken) < batch_size and count + len(waiting[0][1]) <= batch_size:
        taken.append(waiting.popleft())
        count += len(taken[-1][1])
    return taken


def _pixels(identifier: Identifier, photo: Path, max_pixels: int) -> FloatArray:
    return identifier.preprocess(identifier.decode(photo, max_pixels=max_pixels))


def _answers(
    identifier: Identifier, taken: Sequence[tuple[Plant, list[Future[FloatArray]]]], asked: Asked
) -> list[Named]:
    found = [(plant, *_decoded(plant, futures)) for plant, futures in taken]
    stack = [pixels for _, photos, error in found if error is None for pixels in photos]
    encoded = identifier.encode(np.stack(stack)) if stack else None
    named, start = [], 0
    for plant, photos, error in found:
        if error is not None or encoded is None:
            named.append(Named(plant, None, error or "there is no photo of it"))
            continue
        rows = slice(start, start + len(photos))
        start = rows.stop
        answer = identifier.answer(
            Encoded(encoded.logits[rows], encoded.embeddings[rows]),
            top_k=asked.top_k,
            sheets_per_candidate=asked.sheets_per_candidate,
            within=asked.within,
        )
        named.append(Named(plant, answer))
    return named


def _decoded(plant: Plant, futures: Sequence[Future[FloatArray]]) -> tuple[list[FloatArray], str | None]:
    """Pixels of all photos of a plant, or what is wrong with the first that cannot be used."""
    photos: list[FloatArray] = []
    error = plant.error or (None if futures else "there is no photo of it")
    for position, future in enumerate(futures, 1):
        try:
            photos.append(future.result())
        except InvalidImage as problem:
            error = error or (f"photo {position}: {problem}" if len(futures) > 1 else str(problem))
    return photos, error
