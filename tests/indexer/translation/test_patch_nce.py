import math

import numpy as np
import pytest
import torch

from indexer.translation.patch_nce import draw_positions, layers_nce, patch_nce


def unit_vectors(seed: int, shape: tuple[int, ...] = (2, 5, 4)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)


def slow_patch_nce(queries: torch.Tensor, keys: torch.Tensor, temperature: float) -> float:
    """Eq. 3 of the paper, number by number."""
    losses = []
    for picture in range(queries.shape[0]):
        for patch in range(queries.shape[1]):
            terms = [
                math.exp(float(sum(a * b for a, b in zip(queries[picture, patch], key, strict=True))) / temperature)
                for key in keys[picture]
            ]
            losses.append(-math.log(terms[patch] / sum(terms)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_loss_is_that_of_the_paper(temperature: float) -> None:
    queries, keys = unit_vectors(1), unit_vectors(2)
    assert patch_nce(queries, keys, temperature).item() == pytest.approx(slow_patch_nce(queries, keys, temperature))


def test_the_gradient_pulls_a_patch_to_its_own_key_and_leaves_the_keys_alone() -> None:
    queries, keys = unit_vectors(1).requires_grad_(), unit_vectors(2).requires_grad_()
    patch_nce(queries, keys, 0.2).backward()
    assert keys.grad is None
    expected = torch.empty_like(queries)
    for i in range(queries.shape[0]):
        share = torch.softmax(queries[i].detach() @ keys[i].detach().T / 0.2, dim=1)
        # d loss / d query = (Σ share · key − own key) / τ, averaged over all patches
        expected[i] = (share @ keys[i].detach() - keys[i].detach()) / 0.2 / (queries.shape[0] * queries.shape[1])
    torch.testing.assert_close(queries.grad, expected)


def test_negatives_come_from_the_same_picture_only() -> None:
    queries, keys = unit_vectors(1), unit_vectors(2)
    alone = [patch_nce(queries[i : i + 1], keys[i : i + 1], 0.07) for i in range(2)]
    torch.testing.assert_close(patch_nce(queries, keys, 0.07), (alone[0] + alone[1]) / 2)


def test_layers_weigh_the_same_whatever_their_number_of_patches() -> None:
    a, b = (unit_vectors(1), unit_vectors(2)), (unit_vectors(3, (2, 9, 4)), unit_vectors(4, (2, 9, 4)))
    expected = (patch_nce(*a, 0.07) + patch_nce(*b, 0.07)) / 2
    torch.testing.assert_close(layers_nce([a[0], b[0]], [a[1], b[1]], 0.07), expected)


def test_positions_are_different_places_of_each_layer_and_follow_the_seed() -> None:
    features = [torch.zeros(2, 3, 6, 5), torch.zeros(2, 8, 2, 2)]
    first, second = draw_positions(features, 12, np.random.default_rng(3))
    assert (len(first), len(second)) == (12, 4)
    assert len(set(first.tolist())) == 12
    assert min(first.tolist()) >= 0
    assert max(first.tolist()) < 30
    assert set(second.tolist()) == {0, 1, 2, 3}
    assert torch.equal(first, draw_positions(features, 12, np.random.default_rng(3))[0])
    assert not torch.equal(first, draw_positions(features, 12, np.random.default_rng(4))[0])
