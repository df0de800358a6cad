from typing import Any

import numpy as np
import pytest
import torch

from indexer.stream_outputs import FrozenStreams, PrecomputedStreams
from indexer.streams import embeddings_of, features_of, outputs
from models.classifiers import RbfSvm, StandardisedLinear
from models.compute import Compute
from models.two_stream import NetworkShape, SpecialistKind, TwoStreamNetwork

CPU = Compute("cpu", None)
SMALL_VIT: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
CLASSES = 4


class Rows:
    """Views whose plain batches are rows of a table."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def plain_batch(self, rows: np.ndarray) -> torch.Tensor:
        return self.values[rows]

    def training_batch(self, rows: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        return self.values[rows]


def network_of(specialist: SpecialistKind, dct_frequencies: int) -> TwoStreamNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = NetworkShape(
            "vit_tiny_patch16_224",
            32,
            1,
            CLASSES,
            8,
            8,
            SMALL_VIT,
            specialist,
            "frozen",
            dct_frequencies=dct_frequencies,
        )
        return TwoStreamNetwork(shape).eval()


def put_classifier(network: TwoStreamNetwork, specialist: SpecialistKind, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = network.specialist_features
    head = StandardisedLinear(features, CLASSES) if specialist == "linear" else RbfSvm(features, CLASSES, CLASSES)
    with torch.no_grad():
        if isinstance(head, StandardisedLinear):
            head.weight.normal_(generator=generator)
        else:
            head.gamma.fill_(0.01)
            head.support_classes.copy_(torch.arange(CLASSES))
            head.support_vectors.normal_(generator=generator)
            head.coefficients.normal_(generator=generator)
    network.set_classifier(head.eval())


def pictures(count: int = 70) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dct_frequencies", [0, 2])
@pytest.mark.parametrize("specialist", ["linear", "svm"])
def test_kept_outputs_answer_as_the_network_does(specialist: SpecialistKind, dct_frequencies: int) -> None:
    """More rows than are asked at a time, kept in float16 as the cache keeps them."""
    network = network_of(specialist, dct_frequencies)
    frozen = FrozenStreams(network)
    pixels, rows = pictures(), np.arange(70)[::-1].copy()
    with torch.no_grad():
        exact = frozen(pixels)
        tokens = network.trunk(pixels)
    assert exact.shape == (70, frozen.width)
    assert frozen.width == network.specialist_features + network.dimensions
    kept = PrecomputedStreams(network)
    views = Rows(exact.half().float())
    put_classifier(network, specialist, seed=2)  # after the cache was filled, as in a run
    expected_logits, expected_embeddings = outputs(network, Rows(tokens), rows, CPU)
    logits, embeddings = outputs(kept, views, rows, CPU)
    float16 = 2.0**-11
    np.testing.assert_allclose(embeddings, expected_embeddings, atol=float16)
    np.testing.assert_allclose(embeddings_of(kept, views, rows, CPU), embeddings)
    expected_features = features_of(network, Rows(tokens), rows, CPU)
    np.testing.assert_allclose(features_of(kept, views, rows, CPU), expected_features, rtol=float16, atol=1e-4)
    assert np.abs(logits - expected_logits).max() < 0.02 * np.abs(expected_logits).max()
    exactly, _ = outputs(kept, Rows(exact), rows, CPU)
    np.testing.assert_allclose(exactly, expected_logits, rtol=1e-4, atol=1e-4)


def test_the_head_is_the_one_that_the_network_has_now() -> None:
    network = network_of("linear", 0)
    kept = PrecomputedStreams(network)
    values = torch.randn(3, FrozenStreams(network).width, generator=torch.Generator().manual_seed(0))
    answers = []
    for seed in (0, 1):
        put_classifier(network, "linear", seed)
        logits, features = kept.classify_tokens(values)
        torch.testing.assert_close(logits, network.specialist_head(values[:, :24]))
        assert torch.equal(features, values[:, :24])
        answers.append(logits)
    assert not torch.allclose(*answers)


def test_sizes_are_those_of_the_network() -> None:
    network = network_of("svm", 2)
    kept = PrecomputedStreams(network)
    assert (kept.classes, kept.dimensions, kept.specialist_features) == (CLASSES, 24, 24 * 4)


def test_what_is_kept_is_computed_in_evaluation_mode() -> None:
    network = network_of("linear", 0).train()
    frozen = FrozenStreams(network)
    assert not any(module.training for module in frozen.modules())
    network.train()
    PrecomputedStreams(network).eval()
    assert not any(module.training for module in network.modules())
