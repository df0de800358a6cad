"""What the cached, shared trunk saves in training: voucher's way beside a plain loop that arrives at the same losses.

Plain: two networks, each with a trunk of its own, and every picture decoded, augmented and run whole through them
whenever a batch shows it; voucher's tails compute their last block for the class token alone, if that is pooled. Both
ways begin with the same weights and see the same rows and views in the same order, under the same losses, optimizer,
schedule, clipping and precision. What is left between them is the rounding of the trunk's output to float16, and the
order of sums; in the end their losses must agree all the same, or there is no figure. Counted against voucher's way:
it saves its state every epoch, and the plain loop does not.
"""

import copy
import dataclasses
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from indexer.bench_networks import shared_network
from indexer.bench_plain_loop import Work, plain_loop
from indexer.import_dataset import import_dataset
from indexer.progress import Report, of_stage, silent
from indexer.run_config import RunConfig
from indexer.sampling import CrossDomainSampler
from indexer.streams import shared_classes, stream_task
from indexer.train import EpochRecord, fit
from indexer.training_set import IntArray, TrainingSet, catalogue_splits, read_training_set
from indexer.views import PictureReader, fill_cache
from models.backbone import trunk_output_shape
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import InsufficientData, InvalidConfig, VoucherError
from models.home import Home
from models.two_stream import TwoStreamNetwork

_STAGE = 1
_LEAST_LOSS = 0.05
"""Losses below this are compared as if they were this large: a few hard triplets decide them."""


@dataclass(frozen=True)
class TrainBench:
    """Seconds of both ways over the same training, and the losses they arrive at.

    `cached_seconds` is `cache_seconds` (decoding, augmenting and the trunk, once a view, plain view included) and
    `fit_seconds`; `ratio` is plain / cached. `ratio_of_refit` leaves filling the cache out, as in the calibration
    refits, which find it full. Where `plain_is_extrapolated`, the plain loop ran `plain_epochs` of `epochs` and its
    seconds are multiplied up; the losses, by stream, are those of epoch `plain_epochs` of both ways. They differ by
    `loss_difference` there and by up to `largest_loss_difference` in the epochs before, both relative.
    """

    device: str
    images: int
    species: int
    blocks: int
    last_blocks: int
    views: int
    epochs: int
    steps: int
    images_in_steps: int
    cache_bytes: int
    cache_seconds: float
    fit_seconds: float
    cached_seconds: float
    plain_seconds: float
    plain_epochs: int
    plain_is_extrapolated: bool
    plain_networks_apart: bool
    ratio: float
    ratio_of_refit: float
    cached_losses: dict[str, float]
    plain_losses: dict[str, float]
    loss_difference: float
    largest_loss_difference: float
    loss_tolerance: float


@dataclass(frozen=True)
class _Cached:
    """What voucher's own way took and gave."""

    cache_seconds: float
    fit_seconds: float
    cache_bytes: int
    history: list[EpochRecord]


def bench_train(
    path: Path,
    config: RunConfig,
    compute: Compute,
    *,
    images: int,
    plain_epochs: int | None = None,
    apart: bool = False,
    tolerance: float = 0.02,
    report: Report = silent,
) -> TrainBench:
    """Both ways over `images` training images of a dataset or home at `path`, voucher's first.

    `plain_epochs` shortens the plain loop; `apart` trains its two networks one after the other, each reading the
    pictures for itself. `tolerance` is relative, and of the last epoch's mean losses, since an epoch of few steps has
    few triplets. Raises `InsufficientData`, `InvalidConfig`, `VoucherError` when the losses differ by more, and what
    the import raises.
    """
    if (config.specialist.kind, config.generalist.kind) != ("tuned", "tuned"):
        raise InvalidConfig(
            "what is compared is the training of both streams: specialist.kind and generalist.kind must be tuned, not "
            f"{config.specialist.kind} and {config.generalist.kind}"
        )
    if compute.autocast_dtype is torch.float16:  # as in a training run
        compute = Compute(compute.device, None)
    with tempfile.TemporaryDirectory(prefix="voucher-bench-") as folder:
        scratch = Path(folder)
        training_set = _some_images(_training_set(path, scratch, config, report), images)
        config, images_in_steps = _with_steps(training_set, config)
        network, preprocessing = shared_network(config, len(training_set.taxonomy), compute)
        reader = PictureReader(training_set.paths, preprocessing, config.augmentation, config.seed)
        work = Work(training_set, reader, config, compute, max(1, min(8, os.cpu_count() or 1)), report)
        _warm_up(copy.deepcopy(network), work)
        plain_network = copy.deepcopy(network)
        ran = min(plain_epochs or config.optimizer.epochs, config.optimizer.epochs)
        cached = _voucher_way(network, work, scratch)
        plain_seconds, plain_losses = plain_loop(plain_network, work, stage=_STAGE, epochs=ran, apart=apart)
    blocks = len(network.trunk.blocks) + len(network.specialist_tail.blocks)
    return _result(work, blocks, images_in_steps, cached, plain_seconds, plain_losses, apart, tolerance)


def _result(
    work: Work,
    blocks: int,
    images_in_steps: int,
    cached: _Cached,
    plain_seconds: float,
    plain_losses: list[dict[str, float]],
    apart: bool,
    tolerance: float,
) -> TrainBench:
    """Both ways side by side. Raises `VoucherError` if they are no two ways to the same losses."""
    epochs, ran = work.config.optimizer.epochs, len(plain_losses)
    last = cached.history[ran - 1].losses
    differences = _differences(cached.history[:ran], plain_losses)
    if not differences[-1] <= tolerance:  # nor if it is not a number
        raise VoucherError(
            f"both ways must arrive at the same losses, within {tolerance:.1%}, but they differ by "
            f"{differences[-1]:.1%}: {last} from the cache and {plain_losses[-1]} the plain way. A ratio of times "
            "would say nothing; with --precision float32 rounding weighs less, with more --images a loss is steadier"
        )
    cached_seconds = cached.cache_seconds + cached.fit_seconds
    plain_seconds *= epochs / ran
    return TrainBench(
        device=work.compute.describe(),
        images=len(work.training_set),
        species=len(work.training_set.taxonomy),
        blocks=blocks,
        last_blocks=work.config.backbone.last_blocks,
        views=work.config.augmentation.views,
        epochs=epochs,
        steps=epochs * work.steps,
        images_in_steps=images_in_steps,
        cache_bytes=cached.cache_bytes,
        cache_seconds=cached.cache_seconds,
        fit_seconds=cached.fit_seconds,
        cached_seconds=cached_seconds,
        plain_seconds=plain_seconds,
        plain_epochs=ran,
        plain_is_extrapolated=ran < epochs,
        plain_networks_apart=apart,
        ratio=plain_seconds / cached_seconds,
        ratio_of_refit=plain_seconds / cached.fit_seconds,
        cached_losses=last,
        plain_losses=plain_losses[-1],
        loss_difference=differences[-1],
        largest_loss_difference=max(differences),
        loss_tolerance=tolerance,
    )


def _training_set(path: Path, scratch: Path, config: RunConfig, report: Report) -> TrainingSet:
    """The training images of a home, which is only read, or of a dataset, imported into `scratch`."""
    home = Home(path)
    if not home.catalogue_file.is_file():
        home = Home(scratch / "home")
        import_dataset(path, home, on_conflict="skip", on_progress=of_stage(report, "checking images"))
    with Catalogue.open(home) as catalogue:
        splits = catalogue_splits(catalogue, config.split, np.random.default_rng([config.seed]))
        return read_training_set(catalogue, splits)


def _some_images(training_set: TrainingSet, images: int) -> TrainingSet:
    """At most `images` of the training split, evenly from every species' sheets and photos."""
    rows = np.flatnonzero(~training_set.is_validation)
    kind = 2 * training_set.classes[rows] + training_set.is_field[rows]
    ordered = np.argsort(kind, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(kind[ordered]) != 0))
    position = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    chosen: IntArray = np.sort(rows[ordered[np.argsort(position, kind="stable")[:images]]])
    if len(shared_classes(training_set, chosen)) < 2:
        raise InsufficientData(
            f"expected at least 2 species with sheets and field photos among {len(chosen)} images, found "
            f"{len(shared_classes(training_set, chosen))}; the generalist learns from such species alone. "
            "Raise --images, or give another dataset"
        )
    return dataclasses.replace(
        training_set,
        image_ids=tuple(training_set.image_ids[i] for i in chosen),
        paths=tuple(training_set.paths[i] for i in chosen),
        classes=training_set.classes[chosen],
        is_field=training_set.is_field[chosen],
        groups=training_set.groups[chosen],
        is_validation=training_set.is_validation[chosen],
        is_synthetic=training_set.is_synthetic[chosen],
    )


def _with_steps(training_set: TrainingSet, config: RunConfig) -> tuple[RunConfig, int]:
    """`config` with its steps an epoch written out, and how many pictures all batches hold together."""
    rows = np.arange(len(training_set))
    generator = np.random.default_rng(config.seed)
    sampler = CrossDomainSampler(rows, training_set.classes, training_set.is_field, config.sampling, generator)
    steps = config.optimizer.steps_per_epoch or max(1, math.ceil(len(rows) / sampler.expected_batch))
    optimizer = config.optimizer.model_copy(update={"steps_per_epoch": steps})
    return config.model_copy(update={"optimizer": optimizer}), steps * optimizer.epochs * sampler.expected_batch


def _warm_up(network: TwoStreamNetwork, work: Work) -> None:
    """One plain step, untimed: kernels are chosen and memory is taken in the first."""
    optimizer = work.config.optimizer.model_copy(update={"epochs": 1, "steps_per_epoch": 1})
    once = dataclasses.replace(work, config=work.config.model_copy(update={"optimizer": optimizer}), report=silent)
    plain_loop(network, once, stage=_STAGE, epochs=1, apart=False)


def _voucher_way(network: TwoStreamNetwork, work: Work, scratch: Path) -> _Cached:
    """The cache filled and both tails trained from it, as a training run does."""
    folder, rows = scratch / "cache", np.arange(len(work.training_set))
    shape = trunk_output_shape(network.trunk, work.reader.preprocessing.image_size)
    start = time.perf_counter()
    views = fill_cache(
        folder,
        work.reader,
        network.trunk,
        shape,
        work.config.augmentation.views,
        work.compute,
        key="bench",
        workers=work.workers,
        on_progress=of_stage(work.report, "filling the cache"),
    )
    filled = time.perf_counter()
    history = fit(
        stream_task(network, work.training_set, views, rows, rows[:0], work.config, work.compute),
        work.config,
        work.compute,
        epochs=work.config.optimizer.epochs,
        stage=_STAGE,
        checkpoint=scratch / "fit.safetensors",
        on_progress=of_stage(work.report, "training from the cache"),
    )
    done = time.perf_counter()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return _Cached(filled - start, done - filled, size, history)


def _differences(cached: list[EpochRecord], plain: list[dict[str, float]]) -> list[float]:
    """Of each epoch's mean losses, relative to the plain loop's; the larger one of the streams."""
    return [
        float(np.max([abs(record.losses[name] - loss) / max(abs(loss), _LEAST_LOSS) for name, loss in losses.items()]))
        for record, losses in zip(cached, plain, strict=True)
    ]
