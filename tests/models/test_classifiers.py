from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.utils.multiclass import _ovr_decision_function
from torch import Tensor

import models.classifiers
from models.classifiers import RbfSvm, StandardisedLinear, _one_against_rest


def random_svm(classes: int, unknown: tuple[int, ...] = (), *, per_class: int = 3, features: int = 4) -> RbfSvm:
    """An SVM with arbitrary support vectors of every known class."""
    generator = torch.Generator().manual_seed(classes)
    known = [c for c in range(classes) if c not in unknown]
    svm = RbfSvm(features, classes, per_class * len(known))
    svm.mean.copy_(torch.randn(features, generator=generator))
    svm.scale.copy_(torch.rand(features, generator=generator) + 0.5)
    svm.gamma.fill_(0.3)
    svm.known[list(unknown)] = False
    svm.support_classes.copy_(torch.tensor(known).repeat_interleave(per_class))
    svm.support_vectors.normal_(generator=generator)
    svm.coefficients.normal_(generator=generator)
    svm.coefficients[svm.support_classes, torch.arange(len(svm.support_classes))] = 0.0
    svm.intercepts.normal_(generator=generator).triu_(1)
    return svm


def slow_margin(svm: RbfSvm, x: Tensor, first: int, second: int) -> float:
    """The comparison of two classes, one support vector at a time."""
    z = (x - svm.mean) / svm.scale
    total = float(svm.intercepts[first, second])
    for s, owner in enumerate(svm.support_classes.tolist()):
        other = {first: second, second: first}.get(owner)
        if other is not None:
            kernel = np.exp(-float(svm.gamma) * float((z - svm.support_vectors[s]).square().sum()))
            total += float(svm.coefficients[other, s]) * kernel
    return total


@pytest.mark.parametrize("classes", [3, 6])
def test_svm_equals_a_slow_one_against_one_vote(classes: int) -> None:
    svm = random_svm(classes)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    margins = np.array(
        [[slow_margin(svm, row, i, j) for i in range(classes) for j in range(i + 1, classes)] for row in x]
    )
    expected = _ovr_decision_function(margins < 0, -margins, classes)
    np.testing.assert_allclose(svm(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_svm_of_two_classes_gives_minus_and_plus_the_margin() -> None:
    svm = random_svm(2)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    margins = torch.tensor([slow_margin(svm, row, 0, 1) for row in x], dtype=torch.float32)
    torch.testing.assert_close(svm(x), torch.stack([margins, -margins], dim=1), rtol=1e-4, atol=1e-5)


def test_a_margin_of_zero_is_a_win_of_the_first_class() -> None:
    margins = torch.zeros(1, 3, 3)
    expected = _ovr_decision_function(np.zeros((1, 3), bool), np.zeros((1, 3)), 3)
    np.testing.assert_array_equal(_one_against_rest(margins).numpy(), expected)


@pytest.mark.parametrize("most_elements", [1, 50, 200])
def test_svm_values_do_not_depend_on_the_size_of_chunks(most_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    svm = random_svm(5)
    x = torch.randn(23, 4)
    whole = svm(x)
    monkeypatch.setattr(models.classifiers, "_MOST_ELEMENTS", most_elements)
    torch.testing.assert_close(svm(x), whole)


def test_svm_leaves_classes_it_never_saw_at_the_bottom_and_the_others_as_they_are() -> None:
    full, partial = random_svm(3), random_svm(5, unknown=(1, 3))
    for name in ("mean", "scale", "gamma", "support_vectors"):
        getattr(partial, name).copy_(getattr(full, name))
    columns = [0, 2, 4]
    partial.coefficients[columns] = full.coefficients
    partial.intercepts.fill_(9.0)[torch.tensor(columns)[:, None], torch.tensor(columns)] = full.intercepts
    x = torch.randn(6, 4)
    values = partial(x)
    torch.testing.assert_close(values[:, columns], full(x))
    torch.testing.assert_close(values[:, [1, 3]], full(x).amin(dim=1, keepdim=True).expand(-1, 2))


def test_an_empty_batch_has_no_values() -> None:
    assert random_svm(3)(torch.zeros(0, 4)).shape == (0, 3)
    assert StandardisedLinear(4, 3)(torch.zeros(0, 4)).shape == (0, 3)


def filled_linear(unknown: tuple[int, ...] = ()) -> StandardisedLinear:
    model = StandardisedLinear(4, 3)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.mean.normal_(generator=generator)
        model.scale.uniform_(0.5, 2.0, generator=generator)
        model.weight.normal_(generator=generator)
        model.bias.normal_(generator=generator)
    model.known[list(unknown)] = False
    return model


def test_linear_standardises_and_then_weighs() -> None:
    model = filled_linear()
    mean, scale, weight, bias = (t.detach().numpy() for t in (model.mean, model.scale, model.weight, model.bias))
    x = torch.randn(7, 4)
    for row, logits in zip(x.numpy(), model(x).detach().numpy(), strict=True):
        for c in range(3):
            expected = bias[c] + sum(weight[c, f] * (row[f] - mean[f]) / scale[f] for f in range(4))
            assert logits[c] == pytest.approx(expected, abs=1e-5)


def test_linear_gives_classes_it_never_saw_the_lowest_logit_of_the_others() -> None:
    model, whole = filled_linear(unknown=(1,)), filled_linear()
    x = torch.randn(7, 4)
    expected = whole(x)
    expected[:, 1] = expected[:, [0, 2]].amin(dim=1)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("model", [filled_linear(unknown=(1,)), random_svm(4, unknown=(2,))], ids=["linear", "svm"])
def test_classifiers_survive_a_safetensors_file(model: torch.nn.Module, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "classifier.safetensors")
    again = StandardisedLinear(4, 3) if isinstance(model, StandardisedLinear) else RbfSvm(4, 4, 9)
    again.load_state_dict(load_file(tmp_path / "classifier.safetensors"))
    x = torch.randn(5, 4)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("model", [filled_linear(), random_svm(4)], ids=["linear", "svm"])
def test_classifiers_compute_in_float32_under_autocast(model: torch.nn.Module) -> None:
    x = torch.randn(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = model(x)
    assert values.dtype == torch.float32
    assert torch.equal(values, model(x))
    assert model(x.half()).dtype == torch.float32
