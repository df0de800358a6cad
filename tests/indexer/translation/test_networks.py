import numpy as np
import pytest
import torch
from torch import nn

from indexer.translation.networks import BlurDown, Generator, PatchDiscriminator, PatchHeads
from models.errors import InvalidConfig


def generator(blocks: int = 2, channels: int = 4) -> Generator:
    torch.manual_seed(0)
    return Generator(channels, blocks)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 51), (33, 70), (8, 8), (9, 30)])
def test_drawings_have_the_shape_of_the_sheet_and_the_range_of_pixels(height: int, width: int) -> None:
    network = generator()
    for parameter in network.parameters():
        parameter.data.mul_(100)  # far into the ends of the range
    drawn = network(noise(2, 3, height, width))
    assert drawn.shape == (2, 3, height, width)
    assert drawn.abs().max() <= 1.0
    assert drawn.abs().max() > 0.9
    assert bool(torch.isfinite(drawn).all())


def test_halving_blurs_first_so_that_a_shift_of_one_pixel_changes_little() -> None:
    stripes = torch.zeros(1, 2, 16, 16)
    stripes[..., ::2] = 1.0
    half = BlurDown(2)(stripes)
    assert half.shape == (1, 2, 8, 8)
    torch.testing.assert_close(half, torch.full_like(half, 0.5))  # a plain stride of two would give ones
    flat = torch.full((1, 2, 7, 5), 0.3)
    torch.testing.assert_close(BlurDown(2)(flat), torch.full((1, 2, 4, 3), 0.3))


def test_halving_is_the_binomial_filter() -> None:
    pixels = noise(1, 1, 9, 9)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = sum(
        kernel[i, j] * pixels[0, 0, 2 + i - 1 : 7 + i : 2, 2 + j - 1 : 7 + j : 2] for i in range(3) for j in range(3)
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(BlurDown(1)(pixels)[0, 0, 1:4, 1:4], expected[:3, :3].float())


def test_features_are_those_met_on_the_way_to_the_drawing() -> None:
    network = generator(blocks=3)
    layers = network.layers(None)
    assert layers == ("pixels", "down1", "down2", "block1", "block2")
    sheets = noise(2, 3, 24, 20)
    drawn, met = network.draw(sheets, layers)
    torch.testing.assert_close(drawn, network(sheets))
    for one, other in zip(met, network.features(sheets, layers), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(met[0], sheets)
    assert [m.shape[1] for m in met] == network.channels(layers) == [3, 8, 16, 16, 16]
    assert [tuple(m.shape[2:]) for m in met] == [(24, 20), (24, 20), (12, 10), (6, 5), (6, 5)]


def test_channels_of_every_stage_are_known() -> None:
    network = generator()
    layers = network.layers(tuple(network.encoder))
    assert [f.shape[1] for f in network.features(noise(1, 3, 16, 16), layers)] == network.channels(layers)


def test_stages_behind_the_last_that_is_wanted_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    network = generator()

    def fail(self: nn.Module, features: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    monkeypatch.setattr("indexer.translation.networks.ResidualBlock.forward", fail)
    assert len(network.features(noise(1, 3, 16, 16), ("down1", "down2"))) == 2


def test_the_middle_block_of_nine_is_the_fifth_as_in_the_paper() -> None:
    assert generator(blocks=9, channels=1).layers(None) == ("pixels", "down1", "down2", "block1", "block5")
    assert generator(blocks=1).layers(None) == ("pixels", "down1", "down2", "block1")
    assert generator().layers(("block2", "pixels")) == ("pixels", "block2")


@pytest.mark.parametrize("layers", [("block3",), ("down1", "typo"), ()])
def test_stages_that_are_not_there_are_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(InvalidConfig, match=r"nce_layers names (block3|typo|nothing); with 2 residual blocks"):
        generator().layers(layers)


def test_the_discriminator_judges_patches() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(4)
    assert network(noise(2, 3, 32, 48)).shape[:2] == (2, 1)
    assert network(noise(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_heads_take_the_features_at_the_given_places() -> None:
    torch.manual_seed(0)
    heads = PatchHeads([3, 5], width=7)
    features = [noise(2, 3, 4, 6), noise(2, 5, 2, 2)]
    places = [torch.tensor([0, 23, 7]), torch.tensor([3, 1])]
    first, second = heads(features, places)
    assert first.shape == (2, 3, 7)
    assert second.shape == (2, 2, 7)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(2, 3))
    one = heads.heads[0](features[0][1, :, 1, 1])  # place 7 of rows of six
    torch.testing.assert_close(first[1, 2], one / one.norm())


def test_equal_seeds_give_equal_networks() -> None:
    for a, b in zip(generator().parameters(), generator().parameters(), strict=True):
        assert torch.equal(a, b)
