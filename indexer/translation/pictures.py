"""Sheets and photos as the translator takes them: numbers from −1 to 1, read ahead on threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from indexer.stored_images import read_stored
from models.retrieval import FloatArray

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_CROP_MARGIN = 286 / 256
"""CUT resizes to 286 pixels and cuts 256 out."""

_MOST_ELONGATED = 3.0
"""Longer by shorter side; what a panorama has beyond is cut off, since memory grows with it."""

_AHEAD_PER_WORKER = 4
_SHEET, _PHOTO, _CROP = 0, 1, 2


class UnpairedPictures:
    """Sheets and photos that need not show the same plants, in batches.

    All randomness follows from `seed` and the step, so that training can go on at any step.
    """

    def __init__(self, sheets: Sequence[Path], photos: Sequence[Path], image_size: int, batch: int, seed: int) -> None:
        self._kinds = (_Shuffled(sheets, (seed, _SHEET)), _Shuffled(photos, (seed, _PHOTO)))
        self.image_size, self.batch, self.seed = image_size, batch, seed

    def __len__(self) -> int:
        """Images of the more numerous kind."""
        return max(len(kind.files) for kind in self._kinds)

    def batches(self, steps: range, steps_per_epoch: int, *, workers: int) -> Generator[tuple[Tensor, Tensor]]:
        """Sheets and photos of each step, both ``(batch, 3, image_size, image_size)`` float32 in −1 … 1.

        Within an epoch none comes twice before all of its kind have come. Raises `InvalidImage` naming a file.
        """
        jobs = (job for step in steps for job in self._jobs(step, steps_per_epoch))
        with ThreadPoolExecutor(workers, thread_name_prefix="translator") as pool:
            ahead = workers * _AHEAD_PER_WORKER + 2 * self.batch
            with closing(read_ahead(pool, self._crop, jobs, ahead)) as crops:
                for _ in steps:
                    both = np.stack(list(islice(crops, 2 * self.batch)))
                    yield torch.from_numpy(both[: self.batch]), torch.from_numpy(both[self.batch :])

    def _jobs(self, step: int, steps_per_epoch: int) -> Iterator[tuple[Path, list[int]]]:
        epoch, first = step // steps_per_epoch, step % steps_per_epoch * self.batch
        for number, kind in enumerate(self._kinds):
            for position in range(self.batch):
                yield kind.at(epoch, first + position), [self.seed, _CROP, step, number, position]

    def _crop(self, job: tuple[Path, list[int]]) -> FloatArray:
        path, numbers = job
        return training_crop(path, self.image_size, np.random.default_rng(numbers))


class _Shuffled:
    """Files in an order that is another one each time that all have been given."""

    def __init__(self, files: Sequence[Path], seed: tuple[int, int]) -> None:
        self.files, self._seed = files, seed
        self._drawn: tuple[int, int] | None = None
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def at(self, epoch: int, position: int) -> Path:
        """The file at a position of an epoch, 0 …; beyond the last a new order begins."""
        turn, place = divmod(position, len(self.files))
        if self._drawn != (epoch, turn):
            self._order = np.random.default_rng([*self._seed, epoch, turn]).permutation(len(self.files))
            self._drawn = (epoch, turn)
        return self.files[self._order[place]]


def training_crop(path: Path, image_size: int, generator: np.random.Generator) -> FloatArray:
    """``(3, image_size, image_size)`` in −1 … 1: a random square of a stored picture, flipped half of the time."""
    picture = _resized(path, round(image_size * _CROP_MARGIN))
    left = int(generator.integers(picture.width - image_size + 1))
    top = int(generator.integers(picture.height - image_size + 1))
    crop = picture.crop((left, top, left + image_size, top + image_size))
    if generator.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_numbers(crop)


def whole_picture(path: Path, image_size: int) -> FloatArray:
    """``(3, H, W)`` in −1 … 1 of a stored picture, its shorter side of `image_size` pixels."""
    return to_numbers(_resized(path, image_size))


def to_numbers(picture: Image.Image) -> FloatArray:
    """``(3, H, W)`` float32 in −1 … 1 of an RGB picture."""
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_picture(numbers: FloatArray) -> Image.Image:
    """Inverse of `to_numbers`, rounded to whole grey levels."""
    levels = np.rint((numbers.transpose(1, 2, 0) + 1.0) * 127.5)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def read_ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Outcome], items: Iterable[Item], ahead: int
) -> Generator[Outcome]:
    """Outcomes in the order of `items`, with at most `ahead` of them under way; closing it drops the rest."""
    source = iter(items)
    pending: deque[Future[Outcome]] = deque(pool.submit(work, item) for item in islice(source, ahead))
    try:
        while pending:
            yield pending.popleft().result()
            for item in islice(source, 1):
                pending.append(pool.submit(work, item))
    finally:
        for future in pending:
            future.cancel()


def _resized(path: Path, side: int) -> Image.Image:
    """Upright picture, its shorter side of `side` pixels."""
    picture = read_stored(path, 2 * side)  # twice as many, so that a JPEG's reduced decoding does not show
    width, height = picture.size
    most = round(_MOST_ELONGATED * min(width, height))
    w, h = min(width, most), min(height, most)
    left, top = (width - w) / 2, (height - h) / 2
    scale = side / min(w, h)
    size = (max(side, round(w * scale)), max(side, round(h * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
