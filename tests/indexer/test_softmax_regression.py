import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

import indexer.softmax_regression
from indexer.softmax_regression import fit_softmax_regression
from models.classifiers import StandardisedLinear

Features = NDArray[np.float32]
Integers = NDArray[np.int64]


def overlapping(classes: int = 4, seed: int = 0) -> tuple[Features, Integers]:
    """Classes that overlap, of 10, 15, 20, … images."""
    generator = np.random.default_rng(seed)
    owner = generator.permutation(np.repeat(np.arange(classes), 10 + 5 * np.arange(classes)))
    x = generator.normal(size=(classes, 6))[owner] * 2 + generator.normal(size=(len(owner), 6)) * 3
    return x.astype(np.float32), owner


def fitted(x: Features, owner: Integers, classes: int, strength: float) -> StandardisedLinear:
    model = StandardisedLinear(x.shape[1], classes)
    model.known.copy_(torch.from_numpy(np.isin(np.arange(classes), owner)))
    model.mean.copy_(torch.from_numpy(x.mean(axis=0)))
    model.scale.copy_(torch.from_numpy(x.std(axis=0)))
    fit_softmax_regression(model, x, owner, np.arange(len(x)), strength)
    return model.requires_grad_(False)


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_probabilities_equal_scikit_learn(strength: float) -> None:
    x, owner = overlapping()
    model = fitted(x, owner, 4, strength)
    reference = LogisticRegression(C=strength, class_weight="balanced", tol=1e-8, max_iter=10_000)
    reference.fit((x - x.mean(axis=0)) / x.std(axis=0), owner)
    asked, _ = overlapping(seed=1)
    expected = reference.predict_proba((asked - x.mean(axis=0)) / x.std(axis=0))
    np.testing.assert_allclose(model(torch.from_numpy(asked)).softmax(dim=1).numpy(), expected, atol=2e-3)


def test_the_gradient_of_the_stated_loss_vanishes() -> None:
    x, owner = overlapping()
    model = fitted(x, owner, 4, strength=2.0).requires_grad_()
    losses = functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(owner), reduction="none")
    weights = len(owner) / (4 * np.bincount(owner))
    loss = (losses * torch.from_numpy(weights[owner])).sum() + model.weight.square().sum() / (2 * 2.0)
    for slope in torch.autograd.grad(loss, [model.weight, model.bias]):
        assert float(slope.abs().max()) / len(owner) < 1e-4


@pytest.mark.parametrize("most_elements", [1, 6 * 7])
def test_chunks_give_the_same_classifier(most_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, owner = overlapping()
    whole = fitted(x, owner, 4, 0.5)
    monkeypatch.setattr(indexer.softmax_regression, "_MOST_ELEMENTS", most_elements)
    torch.testing.assert_close(fitted(x, owner, 4, 0.5).weight, whole.weight, rtol=0, atol=1e-3)


def test_only_the_given_rows_are_fitted() -> None:
    x, owner = overlapping()
    left_out = np.arange(len(x)) % 3 == 0
    changed = np.where(left_out[:, None], np.float32(1e3), x)
    model, other = (StandardisedLinear(6, 4) for _ in range(2))
    fit_softmax_regression(model, x, owner, np.flatnonzero(~left_out), 1.0)
    fit_softmax_regression(other, changed, owner, np.flatnonzero(~left_out), 1.0)
    assert torch.equal(model.weight, other.weight)
    assert model.weight.any()


def test_a_fitted_start_is_kept_and_unknown_classes_stay_zero() -> None:
    x, owner = overlapping(3)
    model = fitted(x, np.array([0, 2, 4])[owner], 5, 1.0)
    assert not model.weight[[1, 3]].any()
    assert not model.bias[[1, 3]].any()
    before = model.weight.clone()
    fit_softmax_regression(model, x, np.array([0, 2, 4])[owner], np.arange(len(x)), 1.0)
    torch.testing.assert_close(model.weight, before, rtol=0, atol=1e-3)


def test_features_in_half_precision_are_read_in_float32() -> None:
    x, owner = overlapping()
    half = x.astype(np.float16)
    model, plain = (StandardisedLinear(6, 4) for _ in range(2))
    fit_softmax_regression(model, half, owner, np.arange(len(x)), 1.0)  # type: ignore[arg-type]
    fit_softmax_regression(plain, half.astype(np.float32), owner, np.arange(len(x)), 1.0)
    assert torch.equal(model.weight, plain.weight)
