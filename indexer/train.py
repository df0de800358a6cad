"""The training loop, and nothing else."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from indexer.run_config import OptimizerConfig, RunConfig
from indexer.sampling import CrossDomainSampler
from indexer.training_set import BoolArray, IntArray
from indexer.training_state import (
    load_tensors,
    module_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
    with_prefix,
)
from indexer.views import Views
from models.compute import Compute
from models.errors import InvalidConfig

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch gave; losses are means over its steps, `validation` figures by name, 0 … 1."""

    epoch: int
    losses: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """One thing that learns; the validation figure of its name chooses its epoch."""

    name: str
    module: nn.Module
    parameter_groups: list[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What `fit` works on.

    `loss` gets a batch's inputs, classes and field flags and how far training is, 0 … 1; it gives one loss a stream.
    """

    streams: tuple[Stream, ...]
    views: Views
    rows: IntArray
    classes: IntArray
    is_field: BoolArray
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], dict[str, torch.Tensor]]
    validate: Callable[[], dict[str, float]] | None = None


def fit(
    task: Task,
    config: RunConfig,
    compute: Compute,
    *,
    epochs: int,
    stage: int,
    checkpoint: Path,
    on_progress: Progress | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train the task's streams for `epochs` and leave each in the state of its best epoch.

    The best epoch is the one with the highest figure of the stream's name in ``task.validate()``, the later one of
    equals; without validation it is the last. All randomness follows from ``config.seed``, `stage` and the epoch, so
    a run that was killed and continues from `checkpoint` gives what an undisturbed one gives.
    """
    optimizer = torch.optim.AdamW([group for stream in task.streams for group in stream.parameter_groups])
    history: list[EpochRecord] = []
    best = _Best(task.streams)
    if checkpoint.is_file():
        history = _restore(checkpoint, task.streams, optimizer, best)
    steps = _steps_per_epoch(task, config)
    for epoch in range(len(history), epochs):
        generator = np.random.default_rng([config.seed, stage, epoch])
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(int(generator.integers(2**62)))
            rate = _Rate(config.optimizer, epochs * steps, _plateau_factor(history, config.optimizer))
            losses = _run_epoch(task, config, compute, optimizer, generator, epoch * steps, rate, on_progress)
        record = EpochRecord(epoch, losses, task.validate() if task.validate else {})
        history.append(record)
        best.update(record)
        _save(checkpoint, task.streams, optimizer, best, history)
        if on_epoch:
            on_epoch(record)
    best.restore()
    return history


def _run_epoch(
    task: Task,
    config: RunConfig,
    compute: Compute,
    optimizer: torch.optim.Optimizer,
    generator: np.random.Generator,
    step: int,
    rate: "_Rate",
    on_progress: Progress | None,
) -> dict[str, float]:
    sampler = CrossDomainSampler(task.rows, task.classes, task.is_field, config.sampling, generator)
    steps, total = _steps_per_epoch(task, config), rate.total
    sums: dict[str, float] = {stream.name: 0.0 for stream in task.streams}
    for stream in task.streams:
        stream.module.train()
    for position in range(steps):
        factor = rate.factor(step + position)
        for group in optimizer.param_groups:
            group["lr"] = group["base_rate"] * factor
        rows = sampler.batch()
        inputs = task.views.training_batch(rows, generator)
        classes = torch.from_numpy(task.classes[rows]).to(compute.device)
        is_field = torch.from_numpy(task.is_field[rows]).to(compute.device)
        with compute.autocast():
            losses = task.loss(inputs, classes, is_field, (step + position) / total)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        for stream in task.streams:
            norm = clip_grad_norm_(stream.module.parameters(), config.optimizer.gradient_clip)
            if not bool(torch.isfinite(norm)):
                raise InvalidConfig(
                    f"the {stream.name}'s gradient is not finite at step {step + position + 1} of {total}; "
                    "lower optimizer.learning_rate, or train with --precision float32"
                )
            sums[stream.name] += float(losses[stream.name].detach())
        optimizer.step()
        if on_progress:
            on_progress(step + position + 1, total)
    return {name: value / steps for name, value in sums.items()}


def _steps_per_epoch(task: Task, config: RunConfig) -> int:
    if config.optimizer.steps_per_epoch is not None:
        return config.optimizer.steps_per_epoch
    sampler = CrossDomainSampler(
        task.rows, task.classes, task.is_field, config.sampling, np.random.default_rng(config.seed)
    )
    return max(1, math.ceil(len(task.rows) / sampler.expected_batch))


@dataclass(frozen=True, slots=True)
class _Rate:
    """The factor of every group's own rate in each of `total` steps; `plateau` is what the figures made of it."""

    config: OptimizerConfig
    total: int
    plateau: float

    def factor(self, step: int) -> float:
        """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, eq. 5), or `plateau`."""
        warmup = max(1, round(self.config.warmup_fraction * self.total))
        if step < warmup:
            return (step + 1) / warmup
        if self.config.schedule == "plateau":
            return self.plateau
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, self.total - warmup)))


def _plateau_factor(history: list[EpochRecord], config: OptimizerConfig) -> float:
    """What `ReduceLROnPlateau` makes of a rate of one after these epochs; a resumed run goes through them again.

    It watches the mean validation figure, or, without validation, the loss.
    """
    if config.schedule != "plateau":
        return 1.0
    watched = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        watched, mode="max", threshold_mode="abs", factor=config.plateau_factor, patience=config.plateau_patience
    )
    for record in history:
        figures = list(record.validation.values())
        scheduler.step(sum(figures) / len(figures) if figures else -sum(record.losses.values()))
    return float(watched.param_groups[0]["lr"])


class _Best:
    """The best state of each stream so far."""

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self.streams = streams
        self.figures: dict[str, float] = {stream.name: -math.inf for stream in streams}
        self.states: dict[str, dict[str, torch.Tensor]] = {}

    def update(self, record: EpochRecord) -> None:
        for stream in self.streams:
            figure = record.validation.get(stream.name, float(record.epoch))
            if figure >= self.figures[stream.name]:
                self.figures[stream.name] = figure
                self.states[stream.name] = {k: v.detach().cpu().clone() for k, v in stream.module.state_dict().items()}

    def restore(self) -> None:
        for stream in self.streams:
            stream.module.load_state_dict(self.states[stream.name])


def _save(
    path: Path, streams: tuple[Stream, ...], optimizer: torch.optim.Optimizer, best: _Best, history: list[EpochRecord]
) -> None:
    tensors = optimizer_tensors(optimizer)
    for stream in streams:
        tensors |= module_tensors(f"now.{stream.name}", stream.module)
        tensors |= {f"best.{stream.name}.{name}": value for name, value in best.states[stream.name].items()}
    notes = {
        "history": [{"epoch": r.epoch, "losses": r.losses, "validation": r.validation} for r in history],
        "figures": best.figures,
    }
    save_tensors(path, tensors, notes)


def _restore(
    path: Path, streams: tuple[Stream, ...], optimizer: torch.optim.Optimizer, best: _Best
) -> list[EpochRecord]:
    tensors, notes = load_tensors(path)
    restore_optimizer(optimizer, tensors)
    for stream in streams:
        stream.module.load_state_dict(with_prefix(tensors, f"now.{stream.name}"))
        best.states[stream.name] = with_prefix(tensors, f"best.{stream.name}")
    best.figures = {name: float(value) for name, value in notes["figures"].items()}
    logger.info("continuing after epoch %d", len(notes["history"]))
    return [EpochRecord(**values) for values in notes["history"]]
