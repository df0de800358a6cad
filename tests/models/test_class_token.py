import copy
from typing import Any

import pytest
import torch
from timm.layers import SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.backbone import Tail, create_network, trunk_and_tail
from models.class_token import class_token_output
from models.two_stream import NetworkShape, TwoStreamNetwork

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 2}
VIT = ("vit_tiny_patch16_224", 48, {**SMALL, "patch_size": 8})
KNOWN: dict[str, tuple[str, int, dict[str, Any]]] = {
    "deit": ("deit_tiny_patch16_224", 48, {**SMALL, "patch_size": 8}),
    "registers and layer scale": ("vit_small_patch14_reg4_dinov2", 84, SMALL),
    "layer scale": ("vit_small_patch14_dinov2", 84, SMALL),
    "packed SwiGLU": ("vit_giant_patch14_dinov2", 84, SMALL),
    "SwiGLU": (*VIT[:2], {**VIT[2], "mlp_layer": SwiGLU}),
    "no biases": (*VIT[:2], {**VIT[2], "qkv_bias": False, "proj_bias": False}),
    "queries and keys normalised": (*VIT[:2], {**VIT[2], "qk_norm": True}),
    "attention and MLP normalised": (*VIT[:2], {**VIT[2], "scale_attn_norm": True, "scale_mlp_norm": True}),
    "RMS norms": (*VIT[:2], {**VIT[2], "norm_layer": "rmsnorm"}),
    "another activation": (*VIT[:2], {**VIT[2], "act_layer": "quick_gelu", "pre_norm": True}),
    "drop path": (*VIT[:2], {**VIT[2], "drop_path_rate": 0.5}),
}
FALLS_BACK: dict[str, tuple[str, int, dict[str, Any]]] = {
    "norms after": (*VIT[:2], {**VIT[2], "block_fn": ResPostBlock}),
    "attention beside the MLP": (*VIT[:2], {**VIT[2], "block_fn": ParallelScalingBlock}),
    "another attention": (*VIT[:2], {**VIT[2], "attn_layer": "diff"}),
    "mean of the patches": (*VIT[:2], {**VIT[2], "global_pool": "avg"}),
    "all tokens' maximum": (*VIT[:2], {**VIT[2], "global_pool": "max"}),
    "attention pooling": (*VIT[:2], {**VIT[2], "global_pool": "map", "class_token": False}),
    "two tokens": ("deit_tiny_distilled_patch16_224", 48, {**SMALL, "patch_size": 8}),
    "a map": ("convnext_atto", 64, {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 24)}),
}


def tail_and_tokens(name: str, size: int, arguments: dict[str, Any], pictures: int = 3) -> tuple[Tail, Tensor]:
    """With random weights that leave no layer at its start, where biases are 0 and layer scales tiny."""
    torch.manual_seed(0)
    network = create_network(name, image_size=size, arguments=arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    trunk, tail = trunk_and_tail(network, 2)
    with torch.no_grad():
        tokens = trunk(torch.randn(pictures, 3, size, size))
    return tail, tokens


def plainly(tail: Tail, tokens: Tensor) -> Tensor:
    return tail.pool(tail.last_tokens(tokens))


def operations(of: nn.Module | Any, tokens: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        of(tokens)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("training", [False, True], ids=["serving", "training"])
@pytest.mark.parametrize("case", KNOWN)
def test_features_and_gradients_are_those_of_all_tokens(case: str, training: bool) -> None:
    tail, tokens = tail_and_tokens(*KNOWN[case])
    tail.train(training)
    got = []
    for way in (lambda t, x: t(x), plainly):
        copied, inputs = copy.deepcopy(tail), tokens.clone().requires_grad_()
        torch.manual_seed(1)  # drop path draws one number a picture, whatever the number of tokens
        features = way(copied, inputs)
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        got.append([features, inputs.grad, *(p.grad for p in copied.parameters())])
    for one, other in zip(*got, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(got[0]) == 2 + len(list(tail.parameters()))
    assert float(got[1][0].detach().std()) > 0.1


@pytest.mark.parametrize("case", KNOWN)
def test_the_last_block_costs_a_part_of_itself(case: str) -> None:
    tail, tokens = tail_and_tokens(*KNOWN[case], pictures=1)
    block = tail.eval().blocks[-1]
    alone, whole = operations(lambda x: class_token_output(block, x), tokens), operations(block, tokens)
    assert alone < 0.3 * whole
    assert operations(tail, tokens) < 0.7 * operations(lambda x: plainly(tail, x), tokens)


@pytest.mark.parametrize("case", FALLS_BACK)
def test_what_is_not_known_runs_as_it_is(case: str) -> None:
    tail, tokens = tail_and_tokens(*FALLS_BACK[case])
    tail.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(tail.eval()(tokens), plainly(tail, tokens))
    assert operations(tail, tokens) == operations(lambda x: plainly(tail, x), tokens)


class Shift(nn.Module):
    """A part that mixes tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("replaced", ["mlp", "attn.qkv", "attn.proj", "ls1", "norm2", "extra"])
def test_a_block_with_a_replaced_part_runs_as_it_is(replaced: str) -> None:
    tail, tokens = tail_and_tokens(*VIT)
    block: Any = tail.eval().blocks[-1]
    parent, _, name = replaced.rpartition(".")
    owner = block.get_submodule(parent) if parent else block
    present = getattr(owner, name, nn.Identity())
    owner.add_module(name, nn.Sequential(present, Shift()))
    with torch.no_grad():
        torch.testing.assert_close(class_token_output(block, tokens), block(tokens)[:, :1], rtol=0, atol=0)


def test_dropout_has_the_same_mean_and_spread() -> None:
    arguments = {**VIT[2], "attn_drop_rate": 0.3, "proj_drop_rate": 0.3}
    tail, tokens = tail_and_tokens(*VIT[:2], arguments, pictures=1)
    many = tokens.expand(6000, -1, -1)[:, :8]
    block = tail.train().blocks[-1]
    with torch.no_grad():
        alone, whole = class_token_output(block, many)[:, 0], block(many)[:, 0]
    spread = whole.std(dim=0)
    assert float(spread.min()) > 0.01
    assert float(((alone.mean(dim=0) - whole.mean(dim=0)) / spread).abs().max()) < 0.07
    torch.testing.assert_close(alone.std(dim=0), spread, rtol=0.06, atol=0)


def test_patch_tokens_are_there_when_asked_for() -> None:
    tail, tokens = tail_and_tokens(*KNOWN["registers and layer scale"])
    tail.eval()
    height, width, before = tail.patch_grid()
    with torch.no_grad():
        last = tail.last_tokens(tokens)
    assert last.shape == (3, before + height * width, tail.features)
    assert (height, width, before) == (6, 6, 5)
    torch.testing.assert_close(last[:, 0], tail(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("generalist", ["tuned", "frozen"])
@pytest.mark.parametrize("frequencies", [0, 3])
def test_both_streams_are_those_of_all_tokens(generalist: Any, frequencies: int) -> None:
    torch.manual_seed(0)
    name, size, arguments = VIT
    specialist: Any = "tuned" if generalist == "tuned" else "linear"
    shape = NetworkShape(name, size, 1, 5, 16, 8, arguments, specialist, generalist, dct_frequencies=frequencies)
    network = TwoStreamNetwork(shape).eval()
    with torch.no_grad():
        tokens = network.trunk(torch.randn(3, 3, size, size))
        features, embeddings = network.outputs(tokens)
        pooled = plainly(network.specialist_tail, tokens)
        torch.testing.assert_close(features[:, : pooled.shape[1]], pooled, rtol=1e-5, atol=1e-5)
        raw = plainly(network.generalist_tail, tokens)
        expected = nn.functional.normalize(raw) if network.projection is None else network.projection(raw)
    torch.testing.assert_close(embeddings, expected, rtol=1e-5, atol=1e-5)
    assert features.shape[1] == 24 * (1 + frequencies * (frequencies + 1) // 2)


def test_reduced_precision_stays_as_close_as_before() -> None:
    tail, tokens = tail_and_tokens(*VIT)
    with torch.no_grad():
        exact = plainly(tail.eval(), tokens)
        with torch.autocast("cpu", torch.bfloat16):
            alone, whole = tail(tokens), plainly(tail, tokens)
    assert alone.dtype == whole.dtype
    lost = [float((1 - nn.functional.cosine_similarity(x.float(), exact)).max()) for x in (alone, whole)]
    assert lost[0] < 2 * lost[1] + 1e-5
