"""Pictures as the training loop sees them: one plain and several random views of each, behind the frozen part.

What the frozen part gives for a view never changes, so it is computed once and kept on disk in float16; every epoch,
both streams and every calibration refit read it from there.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from indexer.augment import random_view
from indexer.run_config import AugmentationConfig
from indexer.stored_images import read_stored
from indexer.training_set import IntArray
from models.compute import Compute
from models.durable import replace_file
from models.errors import InvalidConfig
from models.preprocess import Preprocessing
from models.retrieval import FloatArray

Progress = Callable[[int, int], None]

_PREFETCH_BATCHES = 3


class Views(Protocol):
    """Where the training loop gets its inputs from; rows are positions in the training set."""

    def training_batch(self, rows: IntArray, generator: np.random.Generator) -> Tensor:
        """A random view of each row, behind the frozen part, float32 on the device."""

    def plain_batch(self, rows: IntArray) -> Tensor:
        """The unaltered view of each row, behind the frozen part, float32 on the device."""


class PictureReader:
    """Decodes pictures and draws their views. View 0 is plain; view ``v > 0`` is random but always the same."""

    def __init__(
        self, paths: Sequence[Path], preprocessing: Preprocessing, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.paths = paths
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed

    def views(self, row: int, wanted: Sequence[int]) -> FloatArray:
        """``(len(wanted), 3, H, W)`` float32; the picture is decoded once."""
        side = self.preprocessing.minimum_decode_side  # the plain view must be the one that is served
        image = read_stored(self.paths[row], side)
        return np.stack([self._view(image, row, view) for view in wanted])

    def _view(self, image: Image.Image, row: int, view: int) -> FloatArray:
        if view == 0:
            return self.preprocessing.apply(image)
        generator = np.random.default_rng([self.seed, row, view])
        return random_view(image, self.preprocessing, self.augmentation, generator)

    @property
    def digest(self) -> str:
        """SHA-256 over everything that a view depends on but the pictures themselves."""
        settings = [self.preprocessing.to_json(), self.augmentation.model_dump(), self.seed]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class LiveViews:
    """Views computed anew each time: needs no disk, and every view is another one."""

    def __init__(self, reader: PictureReader, frozen: nn.Module, compute: Compute, *, workers: int) -> None:
        self._reader, self._frozen, self._compute = reader, frozen, compute
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="views")

    def training_batch(self, rows: IntArray, generator: np.random.Generator) -> Tensor:
        """A random view of each row, behind the frozen part, float32 on the device."""
        views = generator.integers(1, 2**31, size=len(rows))
        return self._forward([(int(r), int(v)) for r, v in zip(rows, views, strict=True)])

    def plain_batch(self, rows: IntArray) -> Tensor:
        """The unaltered view of each row, behind the frozen part, float32 on the device."""
        return self._forward([(int(r), 0) for r in rows])

    def _forward(self, wanted: list[tuple[int, int]]) -> Tensor:
        pictures = self._pool.map(lambda rv: self._reader.views(rv[0], [rv[1]])[0], wanted)
        return run_frozen(self._frozen, np.stack(list(pictures)), self._compute)


class CachedViews:
    """Views read from a memory-mapped float16 file that `fill_cache` wrote."""

    def __init__(self, values: NDArray[np.float16], compute: Compute) -> None:
        self._values, self._compute = values, compute

    def training_batch(self, rows: IntArray, generator: np.random.Generator) -> Tensor:
        """A random view of each row, behind the frozen part, float32 on the device."""
        return self._take(rows, generator.integers(1, self._values.shape[1], size=len(rows)))

    def plain_batch(self, rows: IntArray) -> Tensor:
        """The unaltered view of each row, behind the frozen part, float32 on the device."""
        return self._take(rows, np.zeros(len(rows), dtype=np.int64))

    def _take(self, rows: IntArray, views: IntArray) -> Tensor:
        return torch.from_numpy(self._values[rows, views]).to(self._compute.device).float()


@torch.no_grad()  # not inference mode, whose tensors autograd refuses as inputs
def run_frozen(frozen: nn.Module, pixels: FloatArray, compute: Compute) -> Tensor:
    """``(B, …)`` float32 on the device: what the frozen part gives for ``(B, 3, H, W)``."""
    assert not any(module.training for module in frozen.modules()), "a frozen part must be in evaluation mode"
    with compute.autocast():
        return frozen(torch.from_numpy(pixels).to(compute.device)).float()


def affordable_views(images: int, shape: Sequence[int], wanted: int, budget_bytes: int) -> int:
    """How many random views of each image the budget holds beside the plain one; -1 if not even that."""
    one = images * int(np.prod(shape)) * 2
    return min(wanted, budget_bytes // one - 1) if one else wanted


def fill_cache(
    folder: Path,
    reader: PictureReader,
    frozen: nn.Module,
    shape: Sequence[int],
    views: int,
    compute: Compute,
    *,
    key: str,
    workers: int,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> CachedViews:
    """All views behind `frozen`, computed where a killed run left off.

    `key` names the frozen weights and the images: a cache of another key in `folder` is thrown away. Rows are marked
    done only after their values are flushed, so that a torn row is computed again.
    """
    count = len(reader.paths)
    identity = json.dumps({"key": key, "reader": reader.digest, "shape": [count, views + 1, *shape]})
    note, values_file, done_file = folder / "cache.json", folder / "values.f16", folder / "done.u8"
    if not note.is_file() or note.read_text() != identity:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _reserve(values_file, count * (views + 1) * int(np.prod(shape)) * 2)
        _reserve(done_file, count)
        replace_file(note, identity.encode())
    values = np.memmap(values_file, dtype=np.float16, mode="r+", shape=(count, views + 1, *shape))
    done = np.memmap(done_file, dtype=np.uint8, mode="r+", shape=(count,))
    missing = np.flatnonzero(done == 0)
    finished = count - len(missing)
    for rows, pixels in _read_batches(reader, missing, views, batch, workers):
        flat = pixels.reshape(-1, *pixels.shape[2:])
        output = torch.cat([run_frozen(frozen, part, compute).cpu() for part in np.array_split(flat, len(rows))])
        with np.errstate(over="ignore"):
            chunk = output.numpy().reshape(len(rows), views + 1, *shape).astype(np.float16)
        if not np.isfinite(chunk).all():
            raise InvalidConfig(
                "the backbone gives values beyond float16; set cache_gib = 0 to compute without a cache"
            )
        values[rows] = chunk
        values.flush()
        done[rows] = 1
        done.flush()
        finished += len(rows)
        if on_progress:
            on_progress(finished, count)
    return CachedViews(np.memmap(values_file, dtype=np.float16, mode="r", shape=values.shape), compute)


def _reserve(path: Path, size: int) -> None:
    """A file of `size` zero bytes that really has its place on the disk.

    Writing to a mapped file on a full disk would end the process without a word. Raises `InvalidConfig`.
    """
    free = shutil.disk_usage(path.parent).free
    try:
        if free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InvalidConfig(
            f"the cache needs {size / 2**30:.1f} GiB in {path.parent}, where {free / 2**30:.1f} GiB are free "
            f"({error.strerror}); make room, or lower cache_gib in the run config"
        ) from error


def _read_batches(
    reader: PictureReader, rows: IntArray, views: int, batch: int, workers: int
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Decoded views of `rows`, read ahead by a bounded number of batches."""
    wanted = list(range(views + 1))
    size = max(1, batch // (views + 1))
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    with ThreadPoolExecutor(workers, thread_name_prefix="views") as pool:
        pending: list[tuple[IntArray, list[Future[FloatArray]]]] = []
        for position in range(len(parts) + _PREFETCH_BATCHES):
            if position < len(parts):
                part = parts[position]
                pending.append((part, [pool.submit(reader.views, int(row), wanted) for row in part]))
            if position >= _PREFETCH_BATCHES - 1 and pending:
                ready, futures = pending.pop(0)
                yield ready, np.stack([future.result() for future in futures])
