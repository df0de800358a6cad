from typing import Any

import pytest
import torch

from models.backbone import (
    Tail,
    block_count,
    create_network,
    default_preprocessing,
    layer_decay_factors,
    trunk_and_tail,
    trunk_output_shape,
)
from models.errors import InvalidConfig

SMALL_VIT: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 2, "patch_size": 8}
SMALL_CONVNEXT: dict[str, Any] = {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 24)}
SMALL_DINO: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 2}
FAMILIES = [
    ("vit_tiny_patch16_224", 32, SMALL_VIT, 3),
    ("deit_tiny_patch16_224", 32, SMALL_VIT, 3),
    ("vit_small_patch14_reg4_dinov2", 42, SMALL_DINO, 3),
    ("convnext_atto", 64, SMALL_CONVNEXT, 5),
    ("resnet10t", 64, {}, 4),
]


@pytest.mark.parametrize(("name", "size", "arguments", "blocks"), FAMILIES)
def test_trunk_then_tail_equals_the_whole_network(name: str, size: int, arguments: dict[str, Any], blocks: int) -> None:
    torch.manual_seed(0)
    network = create_network(name, image_size=size, arguments=arguments).eval()
    assert block_count(network) == blocks
    pixels = torch.randn(2, 3, size, size)
    for last in range(1, blocks + 1):
        trunk, tail = trunk_and_tail(network, last)
        with torch.inference_mode():
            torch.testing.assert_close(tail.eval()(trunk.eval()(pixels)), network(pixels), rtol=1e-4, atol=1e-5)
        assert trunk_output_shape(trunk, size) == tuple(trunk(pixels).shape[1:])
        assert tail.features == network.num_features


@pytest.mark.parametrize(("name", "size", "arguments", "blocks"), FAMILIES)
def test_every_parameter_is_on_exactly_one_side_of_the_cut(
    name: str, size: int, arguments: dict[str, Any], blocks: int
) -> None:
    network = create_network(name, image_size=size, arguments=arguments)
    trunk, tail = trunk_and_tail(network, blocks - 1)
    total = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in trunk.parameters()) + sum(p.numel() for p in tail.parameters()) == total


def test_tails_are_copies_that_leave_the_network_alone() -> None:
    network = create_network("vit_tiny_patch16_224", image_size=32, arguments=SMALL_VIT)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    _, tail = trunk_and_tail(network, 2)
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter.zero_()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("last", [0, 4])
def test_a_cut_outside_the_network_is_refused(last: int) -> None:
    network = create_network("vit_tiny_patch16_224", image_size=32, arguments=SMALL_VIT)
    with pytest.raises(InvalidConfig, match="1 … 3"):
        trunk_and_tail(network, last)


def test_unknown_names_get_suggestions() -> None:
    with pytest.raises(InvalidConfig, match=r"timm knows no model 'vit_giant_typo'.*vit_"):
        create_network("vit_giant_typo")


def test_families_that_cannot_be_cut_are_named() -> None:
    with pytest.raises(InvalidConfig, match="EfficientNet"):
        create_network("test_efficientnet")


def test_a_size_that_the_patches_do_not_divide_is_refused() -> None:
    network = create_network("vit_small_patch14_reg4_dinov2", image_size=42, arguments=SMALL_DINO)
    with pytest.raises(AssertionError):
        network(torch.zeros(1, 3, 40, 40))
    with pytest.raises(InvalidConfig, match="cannot be built"):
        create_network("vit_tiny_patch16_224", arguments={"no_such_argument": 1})


def test_learning_rates_decay_towards_the_cut() -> None:
    network = create_network("vit_tiny_patch16_224", image_size=32, arguments=SMALL_VIT)
    _, tail = trunk_and_tail(network, 2)
    factors = layer_decay_factors(tail, 0.5)
    assert set(factors) == {name for name, _ in tail.named_parameters()}
    assert factors["blocks.0.mlp.fc1.weight"] == 0.25
    assert factors["blocks.1.mlp.fc1.weight"] == 0.5
    assert factors["head.norm.weight"] == 1.0


def test_preprocessing_is_the_one_of_the_pretrained_network() -> None:
    network = create_network("deit_tiny_patch16_224", image_size=32, arguments=SMALL_VIT)
    preprocessing = default_preprocessing(network, 32)
    assert preprocessing.crop_fraction == 0.9
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert default_preprocessing(network, 32, crop="squash").resized_side == 32


def test_tail_keeps_no_blocks_of_the_trunk() -> None:
    network = create_network("convnext_atto", arguments=SMALL_CONVNEXT)
    tail = Tail(network, 2)
    assert len(tail.blocks) == 2
    assert not any("stages" in name or "stem" in name for name, _ in tail.named_parameters())


def test_a_frozen_trunk_never_uses_the_statistics_of_its_batch() -> None:
    network = create_network("resnet10t", image_size=64).train()
    trunk, _ = trunk_and_tail(network, 1)
    trunk_output_shape(trunk, 64)
    trunk.train()
    assert not any(module.training for module in trunk.modules())
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    with torch.inference_mode():
        pixels = torch.randn(4, 3, 64, 64)
        torch.testing.assert_close(trunk(pixels)[:1], trunk(pixels[:1]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in trunk.state_dict().items())


def test_a_size_with_a_broken_patch_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="image_size may be 224 or 240"):
        create_network("vit_tiny_patch16_224", image_size=230)


def test_weights_that_cannot_be_had_are_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("models.backbone.timm.create_model", offline)
    with pytest.raises(InvalidConfig, match="--weights"):
        create_network("vit_tiny_patch16_224", pretrained=True)
