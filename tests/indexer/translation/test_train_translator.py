import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.run_config import TranslationConfig
from indexer.translation import train_translator as module
from indexer.translation.networks import Generator
from indexer.translation.pictures import UnpairedPictures
from indexer.translation.train_translator import Translator, train_translator
from models.compute import Compute
from models.errors import InvalidConfig

CPU = Compute("cpu", None)
SMALL = TranslationConfig(
    epochs=2, steps_per_epoch=3, image_size=32, base_channels=4, residual_blocks=1, patches=16, learning_rate=2e-3
)


def leaf(seed: int, background: tuple[int, int, int], foreground: tuple[int, int, int]) -> Image.Image:
    """A bright or dark blot at a random place."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((36, 36, 3), dtype=np.uint8)
    pixels[:] = background
    x, y = rng.integers(4, 20, 2)
    pixels[y : y + 12, x : x + 8] = foreground
    return Image.fromarray(pixels)


@pytest.fixture
def pictures(tmp_path: Path) -> UnpairedPictures:
    """Brown blots on white paper, green ones on dark ground."""
    sheets, photos = [], []
    for i in range(4):
        leaf(i, (240, 235, 220), (120, 90, 50)).save(tmp_path / f"sheet{i}.png")
        leaf(9 + i, (40, 60, 30), (90, 200, 60)).save(tmp_path / f"photo{i}.png")
        sheets.append(tmp_path / f"sheet{i}.png")
        photos.append(tmp_path / f"photo{i}.png")
    return UnpairedPictures(sheets, photos, image_size=32, batch=2, seed=1)


def trained(
    pictures: UnpairedPictures, checkpoint: Path, config: TranslationConfig = SMALL, **more: object
) -> Generator:
    return train_translator(pictures, config, 1, CPU, checkpoint=checkpoint, **more)  # type: ignore[arg-type]


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 32, 32)
    return torch.rand(shape, generator=generator) * 2 - 1, torch.rand(shape, generator=generator) - 1


def test_a_step_lowers_both_losses_on_the_same_pictures() -> None:
    translator = Translator(SMALL.model_copy(update={"learning_rate": 1e-4}), 1, CPU)
    losses = [translator.step(*batch(0), np.random.default_rng(7), 1.0) for _ in range(6)]
    assert losses[1][1] < losses[0][1]  # contrastive
    assert losses[1][2] < losses[0][2]  # discriminator
    assert losses[-1][1] < losses[1][1]


def test_the_discriminator_learns_from_its_own_loss_alone() -> None:
    """Its weights after a step are those that the least-squares loss gives, whatever the generator's part weighs."""
    after = []
    for weight in (0.1, 1000.0):
        translator = Translator(SMALL.model_copy(update={"nce_weight": weight}), 1, CPU)
        before = {k: v.clone() for k, v in translator.discriminator.state_dict().items()}
        translator.step(*batch(0), np.random.default_rng(7), 1.0)
        after.append(translator.discriminator.state_dict())
        assert not torch.equal(after[-1]["body.0.weight"], before["body.0.weight"])
    assert all(torch.equal(after[0][k], after[1][k]) for k in after[0])


def test_the_losses_are_those_of_the_paper() -> None:
    config = SMALL.model_copy(update={"nce_layers": ("down1",)})
    translator, twin = Translator(config, 1, CPU), Translator(config, 1, CPU)
    sheets, photos = batch(0)
    adversarial, contrastive, judged = translator.step(sheets, photos, np.random.default_rng(7), 0.0)
    for network in (twin.generator, twin.discriminator, twin.heads):
        network.requires_grad_(False)
    drawn = twin.generator(sheets)
    of_drawn, of_photos = twin.discriminator(drawn), twin.discriminator(photos)
    assert float(judged) == pytest.approx(float(0.5 * ((of_drawn**2).mean() + ((of_photos - 1) ** 2).mean())))
    assert float(adversarial) == pytest.approx(float(((of_drawn - 1) ** 2).mean()))
    places = torch.from_numpy(np.random.default_rng(7).permutation(32 * 32)[:16])
    queries, keys = (twin.heads(twin.generator.features(x, ("down1",)), [places])[0] for x in (drawn, sheets))
    expected = [-torch.log_softmax(queries[b] @ keys[b].T / 0.07, dim=1).diagonal().mean() for b in range(len(sheets))]
    assert float(contrastive) == pytest.approx(float(sum(expected) / 2), rel=1e-5)


def test_all_networks_learn_in_reduced_precision() -> None:
    translator = Translator(SMALL, 1, Compute("cpu", torch.bfloat16))
    before = {k: v.clone() for k, v in translator.tensors().items()}
    losses = translator.step(*batch(0), np.random.default_rng(7), 1.0)
    reference = Translator(SMALL, 1, CPU).step(*batch(0), np.random.default_rng(7), 1.0)
    torch.testing.assert_close(losses, reference, rtol=0.05, atol=0.02)
    after = translator.tensors()
    for name in before:
        if name.endswith(".weight"):
            assert not torch.equal(before[name], after[name]), name


def test_drawings_take_on_the_colours_of_photos(pictures: UnpairedPictures, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"epochs": 30, "steps_per_epoch": 4, "nce_weight": 0.5})
    generator = trained(pictures, tmp_path / "c.safetensors", config)
    sheets, photos = next(pictures.batches(range(1), 1, workers=1))
    with torch.inference_mode():
        drawn = generator(sheets)
    distance = (drawn.mean(dim=(0, 2, 3)) - photos.mean(dim=(0, 2, 3))).abs().mean()
    before = (sheets.mean(dim=(0, 2, 3)) - photos.mean(dim=(0, 2, 3))).abs().mean()
    assert distance < 0.5 * before


@pytest.mark.parametrize("killed_at", [3, 4, 5])
def test_resuming_gives_what_an_undisturbed_training_gives(
    pictures: UnpairedPictures, tmp_path: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the end of an epoch, behind it, and in the middle of one behind a save."""
    monkeypatch.setattr(module, "_SAVE_STEPS", 4)
    expected = trained(pictures, tmp_path / "whole.safetensors").state_dict()

    def die(done: int, total: int) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "killed.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(pictures, checkpoint, on_progress=die)
    steps: list[int] = []
    resumed = trained(pictures, checkpoint, on_progress=lambda done, _: steps.append(done)).state_dict()
    assert steps == list(range(4 if killed_at == 3 else 5, 7))
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    assert checkpoint.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_finished_training_is_read_back(pictures: UnpairedPictures, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    first = trained(pictures, checkpoint).state_dict()
    steps: list[int] = []
    again = trained(pictures, checkpoint, on_progress=lambda done, _: steps.append(done)).state_dict()
    assert steps == []
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_an_epoch_shows_every_image_once_unless_the_config_says_otherwise(
    pictures: UnpairedPictures, tmp_path: Path
) -> None:
    totals: set[int] = set()
    config = SMALL.model_copy(update={"steps_per_epoch": None, "batch": 2, "epochs": 1})
    trained(pictures, tmp_path / "c.safetensors", config, on_progress=lambda _, total: totals.add(total))
    assert totals == {2}


def test_the_rate_falls_in_the_second_half() -> None:
    assert [module._rate(step, 8) for step in range(8)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_losses_that_are_not_finite_stop_the_training_and_keep_the_last_state(
    pictures: UnpairedPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "c.safetensors"
    calls = iter(range(99))
    step = Translator.step

    def broken(self: Translator, *arguments: object) -> torch.Tensor:
        return step(self, *arguments) * (float("nan") if next(calls) == 4 else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr(Translator, "step", broken)
    with pytest.raises(InvalidConfig, match="not finite at step 6 of 6"):
        trained(pictures, checkpoint)
    steps: list[int] = []
    trained(pictures, checkpoint, on_progress=lambda done, _: steps.append(done))
    assert steps == [4, 5, 6]


def test_epochs_are_logged(pictures: UnpairedPictures, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        trained(pictures, tmp_path / "c.safetensors")
    assert "translator, epoch 2 of 2: loss adversarial" in caplog.text


def test_a_stage_that_the_generator_lacks_is_refused_before_anything_is_written(
    pictures: UnpairedPictures, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="block7"):
        trained(pictures, tmp_path / "c.safetensors", SMALL.model_copy(update={"nce_layers": ("block7",)}))
    assert not (tmp_path / "c.safetensors").exists()
