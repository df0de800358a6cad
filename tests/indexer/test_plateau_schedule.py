"""The rate that falls where the figures stand still."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from indexer.run_config import OptimizerConfig, RunConfig
from indexer.train import EpochRecord, Stream, Task, _plateau_factor, fit
from models.compute import Compute

STEPS = 4
BASE_RATE = 0.1


class Numbers:
    """Views of rows that are plain numbers."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def training_batch(self, rows: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        return self.values[rows]

    def plain_batch(self, rows: np.ndarray) -> torch.Tensor:
        return self.values[rows]


def task_of(
    validate: Callable[[], dict[str, float]] | None = None, loss_at: Callable[[float], float] | None = None
) -> tuple[Task, nn.Linear]:
    """A task that learns, or, with `loss_at`, has that loss wherever training is, 0 … 1."""
    module = nn.Linear(3, 2)
    values = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.weight.zero_()
        module.bias.zero_()
    groups = [{"params": list(module.parameters()), "lr": BASE_RATE, "base_rate": BASE_RATE, "weight_decay": 0.0}]

    def loss(inputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor, progress: float) -> dict[str, torch.Tensor]:
        if loss_at is not None:
            return {"only": module(inputs).sum() * 0.0 + loss_at(progress)}
        return {"only": nn.functional.cross_entropy(module(inputs), labels)}

    classes = (values[:, 0] > 0).long().numpy()
    field = np.arange(24) % 2 == 0
    return Task(
        (Stream("only", module, groups),), Numbers(values), np.arange(24), classes, field, loss, validate
    ), module


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Optimizer]:
    """The optimizers that are made while the test runs."""
    made: list[torch.optim.Optimizer] = []

    class Seen(torch.optim.AdamW):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Seen)
    return made


def run(
    task: Task,
    path: Path,
    epochs: int,
    optimizers: list[torch.optim.Optimizer],
    on_epoch: Callable[[EpochRecord], None] | None = None,
    **settings: Any,
) -> tuple[list[EpochRecord], np.ndarray]:
    """The history, and of each epoch that was run the factor ``(E, STEPS)`` of the rate in each of its steps."""
    rates: list[float] = []
    optimizer = {"schedule": "plateau", "steps_per_epoch": STEPS, "warmup_fraction": 0.0, **settings}
    history = fit(
        task,
        RunConfig.model_validate({"optimizer": optimizer}),
        Compute("cpu", None),
        epochs=epochs,
        stage=1,
        checkpoint=path / "c.safetensors",
        on_progress=lambda done, total: rates.append(optimizers[-1].param_groups[0]["lr"] / BASE_RATE),
        on_epoch=on_epoch,
    )
    return history, np.array(rates).reshape(-1, STEPS)


def slow_factors(figures: Sequence[float], patience: int, factor: float) -> list[float]:
    """The rate's factor in each epoch: lowered when more than `patience` epochs in a row brought no new best."""
    factors, rate, best, without = [], 1.0, -np.inf, 0
    for figure in figures:
        factors.append(rate)
        better = figure > best
        best, without = max(best, figure), 0 if better else without + 1
        if without > patience:
            rate, without = rate * factor, 0
    return factors


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1, 1, 1, 1, 1, 1]),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.7, 0.7], [1, 1, 1, 1, 1, 0.5, 0.5]),
        ([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 0.5]),
    ],
)
def test_the_rate_falls_after_more_epochs_without_gain_than_it_has_patience(
    tmp_path: Path, optimizers: list[torch.optim.Optimizer], figures: list[float], expected: list[float]
) -> None:
    assert slow_factors(figures, 1, 0.5) == expected
    coming = iter(figures)
    task, _ = task_of(lambda: {"only": next(coming)})
    _, factors = run(task, tmp_path, len(figures), optimizers, plateau_patience=1, plateau_factor=0.5)
    np.testing.assert_allclose(factors, np.repeat(np.array(expected)[:, None], STEPS, axis=1))


@pytest.mark.parametrize(("patience", "factor"), [(0, 0.5), (2, 0.3), (3, 0.9)])
def test_patience_and_factor_are_the_configured_ones(
    tmp_path: Path, optimizers: list[torch.optim.Optimizer], patience: int, factor: float
) -> None:
    figures = np.round(np.random.default_rng(patience).uniform(0.3, 0.9, 14), 2).tolist()
    coming = iter(figures)
    task, _ = task_of(lambda: {"only": next(coming)})
    _, factors = run(task, tmp_path, 14, optimizers, plateau_patience=patience, plateau_factor=factor)
    np.testing.assert_allclose(factors[:, 0], slow_factors(figures, patience, factor))


def test_the_mean_of_the_streams_figures_is_watched(tmp_path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    """The larger of the two falls after the first epoch, the smaller after the second, their mean after the third."""
    coming = iter([(0.1, 0.7), (0.5, 0.4), (0.3, 0.7), (0.0, 0.9), (0.0, 0.0)])
    task, _ = task_of(lambda: dict(zip(("only", "other"), next(coming), strict=True)))
    _, factors = run(task, tmp_path, 5, optimizers, plateau_patience=0, plateau_factor=0.5)
    np.testing.assert_allclose(factors[:, 0], [1.0, 1.0, 1.0, 1.0, 0.5])


@pytest.mark.parametrize(("slope", "falls"), [(-0.3, False), (0.3, True)])
def test_without_validation_the_loss_is_watched(
    tmp_path: Path, optimizers: list[torch.optim.Optimizer], slope: float, falls: bool
) -> None:
    task, _ = task_of(loss_at=lambda progress: 1.0 + slope * progress)
    _, factors = run(task, tmp_path, 6, optimizers, plateau_patience=1, plateau_factor=0.5)
    np.testing.assert_allclose(factors[:, 0], [1, 1, 1, 0.5, 0.5, 0.25] if falls else np.ones(6))


def test_the_rate_rises_first_whatever_the_figures_say(tmp_path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    task, _ = task_of(lambda: {"only": 0.0})
    settings = {"plateau_patience": 0, "plateau_factor": 0.5, "warmup_fraction": 0.5}
    _, factors = run(task, tmp_path, 4, optimizers, **settings)
    np.testing.assert_allclose(factors.flatten(), [*(np.arange(1, 9) / 8), *[0.5] * 4, *[0.25] * 4])


def test_the_cosine_schedule_does_not_ask_for_figures(tmp_path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    task, _ = task_of(lambda: {"only": 0.0})
    _, factors = run(task, tmp_path, 3, optimizers, schedule="cosine", plateau_patience=0)
    expected = [0.5 * (1 + np.cos(np.pi * step / 11)) for step in range(11)]
    np.testing.assert_allclose(factors.flatten(), [1.0, *expected], atol=1e-12)


@pytest.mark.parametrize("killed_after", [0, 2, 4])
def test_a_resumed_run_has_the_rates_and_weights_of_an_undisturbed_one(
    tmp_path: Path, optimizers: list[torch.optim.Optimizer], killed_after: int
) -> None:
    figures = [0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    settings = {"plateau_patience": 1, "plateau_factor": 0.1}

    def from_epoch(first: int) -> tuple[Task, nn.Linear]:
        coming = iter(figures[first:])
        return task_of(lambda: {"only": next(coming)})

    def die(record: EpochRecord) -> None:
        if record.epoch == killed_after:
            raise KeyboardInterrupt

    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    task, module = from_epoch(0)
    undisturbed, rates = run(task, tmp_path / "whole", 7, optimizers, **settings)
    np.testing.assert_allclose(rates[:, 0], [1, 1, 1, 1, 0.1, 0.1, 0.01])
    with pytest.raises(KeyboardInterrupt):
        run(from_epoch(0)[0], tmp_path / "killed", 7, optimizers, on_epoch=die, **settings)
    task, again = from_epoch(killed_after + 1)
    resumed, later = run(task, tmp_path / "killed", 7, optimizers, **settings)
    np.testing.assert_array_equal(later, rates[killed_after + 1 :])
    assert resumed == undisturbed
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in again.state_dict().items())
    assert float(module.weight.detach().abs().max()) > 0.0


@pytest.mark.parametrize("drift", [0.0, 5e-5])
def test_a_loss_that_stands_still_or_creeps_up_lowers_the_rate(drift: float) -> None:
    history = [EpochRecord(epoch, {"only": 0.5 * (1 + drift) ** epoch}) for epoch in range(20)]
    assert _plateau_factor(history, OptimizerConfig(schedule="plateau", plateau_patience=1, plateau_factor=0.5)) < 1.0
