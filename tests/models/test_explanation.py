from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch

from models.backbone import create_network
from models.compute import Compute
from models.encoder import Encoder
from models.explanation import cosine_gradient, explain, most_similar_photo
from models.metric import Metric
from models.preprocess import Preprocessing
from models.retrieval import FloatArray
from models.specimens import Role
from models.two_stream import NetworkShape, TwoStreamNetwork

CPU = Compute("cpu", None)
SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 4, "num_heads": 2, "patch_size": 8}
VIT = ("vit_tiny_patch16_224", 48, SMALL)
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "class token": VIT,
    "distilled": ("deit_tiny_distilled_patch16_224", 48, SMALL),
    "registers": ("vit_small_patch14_reg4_dinov2", 84, {"embed_dim": 24, "depth": 4, "num_heads": 2}),
    "mean of the patches": (*VIT[:2], {**SMALL, "global_pool": "avg"}),
    "attention pooling, no class token": (*VIT[:2], {**SMALL, "global_pool": "map", "class_token": False}),
    "ConvNeXt": ("convnext_atto", 64, {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 24)}),
    "ResNet": ("resnet10t", 64, {"channels": [8, 12, 16, 24], "stem_width": 8}),
}
PLACES = {"registers": (6, 6), "ConvNeXt": (8, 8), "ResNet": (8, 8)}


def encoder_of(
    case: str = "class token", *, generalist: Literal["tuned", "frozen"] = "tuned", last_blocks: int = 1
) -> Encoder:
    """Random weights that leave no layer at its start."""
    name, size, arguments = NETWORKS[case]
    torch.manual_seed(0)
    shape = NetworkShape(name, size, last_blocks, 3, 16, 12, arguments, "linear", generalist)
    network = TwoStreamNetwork(shape)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Encoder(network, Preprocessing(size, (0.5,) * 3, (0.25,) * 3), "space", CPU)


def metric_of(dimensions: int, seed: int = 1) -> Metric:
    generator = np.random.default_rng(seed)
    centres = 0.1 * generator.standard_normal((2, dimensions))
    matrix = np.eye(dimensions) + 0.2 * generator.standard_normal((dimensions, dimensions))
    scales = generator.uniform(0.5, 2.0, (2, dimensions))
    return Metric(*(values.astype(np.float32) for values in (centres, scales, matrix)))


def pictures(encoder: Encoder, count: int, seed: int = 2) -> list[FloatArray]:
    """Blotches, another picture for each."""
    size = encoder.preprocessing.image_size
    generator = np.random.default_rng(seed)
    coarse = generator.standard_normal((count, 3, 4, 4)).astype(np.float32)
    return list(coarse.repeat(size // 4, axis=2).repeat(size // 4, axis=3))


def similarity_of(encoder: Encoder, metric: Metric, photo: FloatArray, sheet: FloatArray) -> float:
    of_photo, of_sheet = encoder.embed(np.stack([photo, sheet]))
    return float(metric.apply(of_photo[None], Role.FIELD)[0] @ metric.apply(of_sheet[None], Role.SHEET)[0])


def slowly(encoder: Encoder, metric: Metric, photo: FloatArray, sheet: FloatArray) -> FloatArray:
    """``(2, h, w)``: by moving each place of each picture a little towards the mean and looking what is lost."""
    network: Any = encoder._network.double()
    tail, step = network.generalist_tail, 1e-5
    centres, scales, matrix = (torch.from_numpy(v).double() for v in (metric.centres, metric.scales, metric.matrix))

    def mapped(middle: torch.Tensor, row: int) -> torch.Tensor:
        # Not `embed_middle`, which normalises in float32.
        tokens = network.trunk.blocks[network.middle_block :](middle)
        for block in tail.blocks[network._middle_of_tail :]:
            tokens = block(tokens)
        x = tail.pool(tail._normalised(tokens))
        if network.projection is not None:
            x = x / x.norm()
            x = network.projection.shortcut(x) + network.projection.layers(x * x.shape[1] ** 0.5)
        moved = ((x[0] / x[0].norm() - centres[row]) / scales[row]) @ matrix
        return moved / moved.norm()

    middles = []
    for picture in (photo, sheet):
        tokens = network.trunk._stem_output(torch.from_numpy(picture)[None].double())
        blocks = [*network.trunk.blocks, *tail.blocks][: network.middle_block]
        for block in blocks:
            tokens = block(tokens)
        middles.append(tokens)
    before = [mapped(middles[0], 1), mapped(middles[1], 0)]
    found = []
    for side, row in ((0, 1), (1, 0)):
        height, width = tail.in_place(middles[side]).shape[1:3]
        lost = np.zeros((height, width))
        for i in range(height):
            for j in range(width):
                moved = middles[side].clone()
                place = tail.in_place(moved)  # a view
                place[0, i, j] += step * (place[0].mean(dim=(0, 1)) - place[0, i, j])
                lost[i, j] = float((before[side] - mapped(moved, row)) @ before[1 - side]) / step
        found.append(lost)
    network.float()
    return np.array(found, dtype=np.float32)


@pytest.mark.parametrize("generalist", ["tuned", "frozen"])
@pytest.mark.parametrize("case", NETWORKS)
@torch.no_grad()
def test_a_place_adds_what_is_lost_when_it_becomes_ordinary(case: str, generalist: Literal["tuned", "frozen"]) -> None:
    encoder = encoder_of(case, generalist=generalist)
    metric = metric_of(encoder.dimensions)
    photo, sheet = pictures(encoder, 2)
    (found,) = explain(encoder, metric, photo, [sheet])
    assert found.photo.shape == found.sheet.shape == PLACES.get(case, (6, 6))
    assert found.photo.dtype == np.float32
    expected = slowly(encoder, metric, photo, sheet)
    for values, slow in zip((found.photo, found.sheet), expected, strict=True):
        assert slow.std() > 2e-5
        np.testing.assert_allclose(values, slow, atol=2e-3 * np.abs(slow).max() + 1e-6)
    assert found.similarity == pytest.approx(similarity_of(encoder, metric, photo, sheet), abs=1e-5)


@pytest.mark.parametrize("last_blocks", [1, 2, 3, 4])
def test_it_does_not_depend_on_where_the_network_was_cut(last_blocks: int) -> None:
    name, size, arguments = VIT
    torch.manual_seed(0)
    backbone = create_network(name, image_size=size, arguments=arguments)
    found = []
    for blocks in (1, last_blocks):
        shape = NetworkShape(name, size, blocks, 3, 16, 12, arguments, "linear", "frozen")
        network = TwoStreamNetwork(shape, backbone)
        encoder = Encoder(network, Preprocessing(size, (0.5,) * 3, (0.25,) * 3), "space", CPU)
        photo, sheet = pictures(encoder, 2)
        found += explain(encoder, metric_of(encoder.dimensions), photo, [sheet])
    assert np.abs(found[0].photo).max() > 1e-6
    np.testing.assert_allclose(found[0].photo, found[1].photo, atol=1e-3 * np.abs(found[0].photo).max())


@pytest.mark.parametrize("case", NETWORKS)
def test_several_sheets_give_what_each_gives_alone(case: str) -> None:
    encoder = encoder_of(case)
    metric = metric_of(encoder.dimensions)
    photo, *sheets = pictures(encoder, 4)
    together = explain(encoder, metric, photo, sheets)
    for sheet, found in zip(sheets, together, strict=True):
        (alone,) = explain(encoder, metric, photo, [sheet])
        for name in ("photo", "sheet"):
            one, other = getattr(found, name), getattr(alone, name)
            np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max())
        assert found.similarity == pytest.approx(alone.similarity, abs=1e-5)
    assert not np.allclose(together[0].photo, together[1].photo)


def test_no_sheets_are_no_explanations() -> None:
    encoder = encoder_of()
    assert explain(encoder, metric_of(encoder.dimensions), pictures(encoder, 1)[0], []) == []


def test_a_blank_picture_has_nothing_that_counts() -> None:
    encoder = encoder_of("mean of the patches")
    photo, sheet = pictures(encoder, 2)
    # Patches of a blank picture still differ by their position; so the embedding of the position is taken away.
    encoder._network.trunk.stem.pos_embed.zero_()
    (found,) = explain(encoder, metric_of(encoder.dimensions), np.zeros_like(photo), [sheet])
    assert np.abs(found.photo).max() < 1e-6 < np.abs(found.sheet).max()


def test_the_network_answers_as_before() -> None:
    encoder = encoder_of()
    photo, sheet = pictures(encoder, 2)
    before = encoder.encode(np.stack([photo]))
    explain(encoder, metric_of(encoder.dimensions), photo, [sheet])
    after = encoder.encode(np.stack([photo]))
    np.testing.assert_array_equal(before.embeddings, after.embeddings)
    assert all(p.grad is None and not p.requires_grad for p in encoder._network.parameters())


def numerically(of: Callable[[FloatArray], float], at: FloatArray) -> FloatArray:
    step = 1e-3
    return np.array(
        [(of(at + step * row) - of(at - step * row)) / (2 * step) for row in np.eye(len(at), dtype=np.float32)]
    )


@pytest.mark.parametrize("role", [Role.SHEET, Role.FIELD])
def test_the_gradient_of_the_cosine_in_the_metric(role: Role) -> None:
    metric = metric_of(8)
    generator = np.random.default_rng(5)
    embedding, other = (v / np.linalg.norm(v) for v in generator.standard_normal((2, 8)).astype(np.float32))
    expected = numerically(lambda x: float(metric.apply(x[None].astype(np.float32), role)[0] @ other), embedding)
    found = cosine_gradient(metric, embedding, role, other)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(expected).max() > 0.1


def test_at_the_centre_of_the_metric_nothing_pulls() -> None:
    metric = metric_of(8)
    other = np.eye(8, dtype=np.float32)[0]
    assert not cosine_gradient(metric, metric.centres[1], Role.FIELD, other).any()


def test_the_photo_most_like_the_sheet_is_found_in_the_metric() -> None:
    photos = np.array([[0.8, 0.6, 0.0], [0.6, 0.8, 0.0]], dtype=np.float32)
    sheet = np.array([1.0, 0.0, 0.0], dtype=np.float32)
    plain = Metric.cosine(3)
    assert most_similar_photo(plain, photos, sheet) == 0
    centres = np.array([[0.0, 0.0, 0.0], [0.0, 0.75, 0.0]], dtype=np.float32)
    assert most_similar_photo(Metric(centres, plain.scales, plain.matrix), photos, sheet) == 1


def test_what_one_picture_shows_alone_counts_against_it() -> None:
    encoder = encoder_of("mean of the patches", generalist="frozen")
    encoder._network.trunk.stem.pos_embed.zero_()
    size = encoder.preprocessing.image_size
    leaf, stone, label = 3 * np.random.default_rng(6).standard_normal((3, 3, 8, 8)).astype(np.float32)
    photo, sheet = np.zeros((2, 3, size, size), dtype=np.float32)
    photo[:, 8:16, 32:40], photo[:, 32:40, 32:40] = leaf, stone
    sheet[:, 32:40, 8:16], sheet[:, 8:16, 16:24] = leaf, label
    (found,) = explain(encoder, Metric.cosine(encoder.dimensions), photo, [sheet])
    assert np.unravel_index(np.argmin(found.photo), found.photo.shape) == (4, 4)
    assert np.unravel_index(np.argmin(found.sheet), found.sheet.shape) == (1, 2)
    assert found.photo[4, 4] < 0 < found.photo[1, 4]
