"""Training of the translator from unpaired sheets and photos. Resumable at any saved step."""

import logging
import math
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from indexer.run_config import TranslationConfig
from indexer.training_state import (
    load_tensors,
    module_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
    with_prefix,
)
from indexer.translation.networks import Generator, PatchDiscriminator, PatchHeads
from indexer.translation.patch_nce import draw_positions, layers_nce
from indexer.translation.pictures import UnpairedPictures
from models.compute import Compute
from models.errors import InvalidConfig

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_SAVE_STEPS = 1000
"""Steps that a killed training loses at most, however long its epochs are."""

_BETAS = (0.5, 0.999)
_WEIGHTS, _PATCHES = 3, 4
_LOSSES = ("adversarial", "contrastive", "discriminator")


class Translator:
    """The networks of CUT and their optimizers, with random weights that depend on `seed` alone.

    Raises `InvalidConfig` when ``nce_layers`` names a stage that the generator does not have.
    """

    def __init__(self, config: TranslationConfig, seed: int, compute: Compute) -> None:
        self.config, self.compute = config, compute
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng([seed, _WEIGHTS]).integers(2**62)))
            self.generator = Generator(config.base_channels, config.residual_blocks)
            self.discriminator = PatchDiscriminator(config.base_channels)
            self.layers = self.generator.layers(config.nce_layers)
            self.heads = PatchHeads(self.generator.channels(self.layers))
        for module in self._modules().values():
            module.to(compute.device)
        drawing = [*self.generator.parameters(), *self.heads.parameters()]
        self._optimizers = {
            "drawing": torch.optim.Adam(drawing, lr=config.learning_rate, betas=_BETAS),
            "judging": torch.optim.Adam(self.discriminator.parameters(), lr=config.learning_rate, betas=_BETAS),
        }

    def step(self, sheets: Tensor, photos: Tensor, generator: np.random.Generator, rate: float) -> Tensor:
        """Learn from ``(B, 3, H, W)`` sheets and photos, at `rate` times the learning rate.

        Gives the three losses: the generator's adversarial one, its contrastive one, the discriminator's. First the
        discriminator is updated, then the generator and the heads, as in CUT; least-squares losses (Mao et al. 2017).
        """
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * self.config.learning_rate
        with self.compute.autocast():
            drawn, of_sheets = self.generator.draw(sheets, self.layers)
        judged = self._judge(drawn.detach(), photos)
        self._update("judging", judged)
        # The generator's loss reaches its drawing through the discriminator, whose weights it must leave alone.
        self.discriminator.requires_grad_(False)
        adversarial, contrastive = self._draw(drawn, of_sheets, generator)
        self._update("drawing", adversarial + self.config.nce_weight * contrastive)
        self.discriminator.requires_grad_(True)
        return torch.stack([adversarial.detach(), contrastive.detach(), judged.detach()])

    def _judge(self, drawn: Tensor, photos: Tensor) -> Tensor:
        with self.compute.autocast():
            of_drawn, of_photos = self.discriminator(drawn).float(), self.discriminator(photos).float()
        return 0.5 * (of_drawn.square().mean() + (of_photos - 1.0).square().mean())

    def _draw(self, drawn: Tensor, of_sheets: list[Tensor], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        with self.compute.autocast():
            adversarial = (self.discriminator(drawn).float() - 1.0).square().mean()
            of_drawn = self.generator.features(drawn, self.layers)
            positions = draw_positions(of_drawn, self.config.patches, generator)
            queries = self.heads(of_drawn, positions)
        # A context of its own: autocast would reuse weights that it has cast without a gradient, or keep them.
        with torch.no_grad(), self.compute.autocast():
            keys = self.heads([f.detach() for f in of_sheets], positions)
        return adversarial, layers_nce(queries, keys, self.config.temperature)

    def _update(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[name].step()

    def _modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "heads": self.heads}

    def tensors(self) -> dict[str, Tensor]:
        """State of the networks and the optimizers."""
        state: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            state |= module_tensors(name, module)
        for name, optimizer in self._optimizers.items():
            state |= {f"{name}.{key}": value for key, value in optimizer_tensors(optimizer).items()}
        return state

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        for name, module in self._modules().items():
            module.load_state_dict(with_prefix(tensors, name))
        for name, optimizer in self._optimizers.items():
            restore_optimizer(optimizer, with_prefix(tensors, name))


def train_translator(
    pictures: UnpairedPictures,
    config: TranslationConfig,
    seed: int,
    compute: Compute,
    *,
    checkpoint: Path,
    on_progress: Progress | None = None,
) -> Generator:
    """The generator after ``config.epochs``, trained on or continued from `checkpoint`.

    On a CPU, a training that was killed and continued gives what an undisturbed one gives; some of the gradients that
    CUDA computes depend on the order of its threads.
    Raises `InvalidConfig` when the losses are no longer finite and `InvalidImage` naming a file.
    """
    translator = Translator(config, seed, compute)
    per_epoch = config.steps_per_epoch or math.ceil(len(pictures) / config.batch)
    total = config.epochs * per_epoch
    done, sums = _restore(checkpoint, translator) if checkpoint.is_file() else (0, torch.zeros(len(_LOSSES)))
    sums = sums.to(compute.device)
    workers = max(1, min(8, os.cpu_count() or 1))
    with closing(pictures.batches(range(done, total), per_epoch, workers=workers)) as batches:
        for step, (sheets, photos) in enumerate(batches, done):
            positions = np.random.default_rng([seed, _PATCHES, step])
            both = sheets.to(compute.device), photos.to(compute.device)
            sums += translator.step(*both, positions, _rate(step, total))
            ends_epoch = (step + 1) % per_epoch == 0
            if ends_epoch or (step + 1) % _SAVE_STEPS == 0:
                _check_finite(sums, step + 1, total)
            if ends_epoch:
                means = ", ".join(f"{n} {v:.3f}" for n, v in zip(_LOSSES, (sums / per_epoch).tolist(), strict=True))
                logger.info("translator, epoch %d of %d: loss %s", (step + 1) // per_epoch, config.epochs, means)
                sums.zero_()
            if ends_epoch or (step + 1) % _SAVE_STEPS == 0:
                save_tensors(checkpoint, translator.tensors() | {"sums": sums}, {"steps": step + 1})
            if on_progress:
                on_progress(step + 1, total)
    return translator.generator.eval()


def _rate(step: int, total: int) -> float:
    """1 in the first half of all steps, then falling to zero in a straight line, as CUT's 200 + 200 epochs."""
    return min(1.0, 2.0 * (1.0 - step / total))


def _check_finite(sums: Tensor, step: int, total: int) -> None:
    if not bool(torch.isfinite(sums).all()):
        raise InvalidConfig(
            f"the translator's losses are not finite at step {step} of {total}; lower translation.learning_rate, or "
            "train with --precision float32"
        )


def _restore(checkpoint: Path, translator: Translator) -> tuple[int, Tensor]:
    tensors, notes = load_tensors(checkpoint)
    translator.restore(tensors)
    logger.info("continuing the translator after step %d", notes["steps"])
    return int(notes["steps"]), tensors["sums"]
