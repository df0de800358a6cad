"""The training loop that one would write without voucher: no cache, two networks, each with a trunk of its own.

Written independently of `train.fit`, so that equal losses say something about both.
"""

import math
import time
from collections import ChainMap, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from indexer.bench_networks import WholeNetwork, separate_networks
from indexer.progress import Report
from indexer.run_config import OptimizerConfig, RunConfig
from indexer.sampling import CrossDomainSampler
from indexer.streams import stream_task
from indexer.train import Stream
from indexer.training_set import IntArray, TrainingSet
from indexer.views import LiveViews, PictureReader
from models.compute import Compute
from models.losses import CrossDomainTripletLoss, SpecialistLoss
from models.retrieval import FloatArray
from models.two_stream import TwoStreamNetwork

_READ_AHEAD = 3
"""Batches that are decoded while the networks work, so that a GPU does not wait for them more than it must."""


@dataclass(frozen=True)
class Work:
    """What both ways are given; ``optimizer.steps_per_epoch`` is set."""

    training_set: TrainingSet
    reader: PictureReader
    config: RunConfig
    compute: Compute
    workers: int
    report: Report

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        assert self.config.optimizer.steps_per_epoch is not None
        return self.config.optimizer.steps_per_epoch


@dataclass(frozen=True)
class _Learner:
    """A whole network, what of it learns and at which rates, and the loss of what it gives."""

    stream: Stream
    network: WholeNetwork
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain_loop(
    network: TwoStreamNetwork, work: Work, *, stage: int, epochs: int, apart: bool
) -> tuple[float, list[dict[str, float]]]:
    """Seconds, and the mean loss of each stream in each of the first `epochs` epochs of the run.

    Trains the tails and heads of `network`. `apart`: one network after the other, each reading the pictures for
    itself; otherwise both learn from the same decoded batch.
    """
    learners = _learners(network, work)
    runs = [[learner] for learner in learners] if apart else [learners]
    start = time.perf_counter()
    histories = [_train(run, work, stage, epochs) for run in runs]
    seconds = time.perf_counter() - start
    return seconds, [dict(ChainMap(*parts)) for parts in zip(*histories, strict=True)]


def _learners(network: TwoStreamNetwork, work: Work) -> list[_Learner]:
    """Both streams, with the rates that voucher's own way gives them."""
    config, rows = work.config, np.arange(len(work.training_set))
    unused = LiveViews(work.reader, network.trunk, work.compute, workers=1)
    task = stream_task(network, work.training_set, unused, rows, rows[:0], config, work.compute)
    streams = {stream.name: stream for stream in task.streams}
    specialist, generalist = separate_networks(network)
    classify = SpecialistLoss(
        margin=config.specialist.margin,
        triplet_weight=config.specialist.triplet_weight,
        label_smoothing=config.specialist.label_smoothing,
    )
    compare = CrossDomainTripletLoss(margin=config.generalist.margin, mining=config.generalist.mining)
    return [
        _Learner(streams["specialist"], specialist, lambda logits, features, c, _: classify(logits, features, c)),
        _Learner(streams["generalist"], generalist, lambda embeddings, _, c, field: compare(embeddings, c, field)),
    ]


def _train(learners: list[_Learner], work: Work, stage: int, epochs: int) -> list[dict[str, float]]:
    config, compute = work.config.optimizer, work.compute
    total = config.epochs * work.steps
    optimizer = torch.optim.AdamW([group for learner in learners for group in learner.stream.parameter_groups])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_factor(step, total, config))
    history: list[dict[str, float]] = [{learner.stream.name: 0.0 for learner in learners} for _ in range(epochs)]
    for learner in learners:
        learner.network.train()
    for step, (rows, pictures) in enumerate(_batches(work, stage, epochs)):
        pixels = torch.from_numpy(pictures).to(compute.device)
        classes = torch.from_numpy(work.training_set.classes[rows]).to(compute.device)
        is_field = torch.from_numpy(work.training_set.is_field[rows]).to(compute.device)
        optimizer.zero_grad(set_to_none=True)
        for learner in learners:
            with compute.autocast():
                output, features = learner.network(pixels)
                loss = learner.loss(output, features, classes, is_field)
            loss.backward()
            clip_grad_norm_(learner.stream.module.parameters(), config.gradient_clip)
            history[step // work.steps][learner.stream.name] += float(loss.detach()) / work.steps
        optimizer.step()
        schedule.step()
        work.report("training the plain way", step + 1, epochs * work.steps)
    return history


def _rate_factor(step: int, total: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warmup = max(1, round(config.warmup_fraction * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _batches(work: Work, stage: int, epochs: int) -> Iterator[tuple[IntArray, FloatArray]]:
    """Rows ``(B,)`` and their pictures ``(B, 3, H, W)``, decoded ahead in threads, as voucher decodes for its cache."""
    with ThreadPoolExecutor(work.workers, thread_name_prefix="plain") as pool:
        waiting: deque[tuple[IntArray, list[Future[FloatArray]]]] = deque()
        for rows, views in _plan(work, stage, epochs):
            futures = [pool.submit(work.reader.views, int(r), [int(v)]) for r, v in zip(rows, views, strict=True)]
            waiting.append((rows, futures))
            if len(waiting) > _READ_AHEAD:
                yield _ready(*waiting.popleft())
        while waiting:
            yield _ready(*waiting.popleft())


def _ready(rows: IntArray, futures: list[Future[FloatArray]]) -> tuple[IntArray, FloatArray]:
    return rows, np.concatenate([future.result() for future in futures])


def _plan(work: Work, stage: int, epochs: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows and views of every batch: the numbers that `train.fit` and `views.CachedViews` draw."""
    data, config = work.training_set, work.config
    rows = np.arange(len(data))
    for epoch in range(epochs):
        generator = np.random.default_rng([config.seed, stage, epoch])
        generator.integers(2**62)  # torch's seed there
        sampler = CrossDomainSampler(rows, data.classes, data.is_field, config.sampling, generator)
        for _ in range(work.steps):
            batch = sampler.batch()
            yield batch, generator.integers(1, config.augmentation.views + 1, size=len(batch))
