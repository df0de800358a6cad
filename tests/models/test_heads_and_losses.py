import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.heads import ProjectionHead, SpecialistHead, unit
from models.losses import CrossDomainTripletLoss, SpecialistLoss


def slow_batch_hard(vectors: Tensor, classes: Tensor, margin: float) -> Tensor:
    """Hermans et al. 2017, eq. 5, one anchor at a time; mean over the triplets with a positive loss."""
    unit_vectors = vectors / vectors.norm(dim=1, keepdim=True)
    losses = []
    for a in range(len(vectors)):
        distances = (unit_vectors - unit_vectors[a]).norm(dim=1)
        positives = [distances[i] for i in range(len(vectors)) if classes[i] == classes[a] and i != a]
        negatives = [distances[i] for i in range(len(vectors)) if classes[i] != classes[a]]
        if positives and negatives:
            losses.append(torch.relu(max(positives) - min(negatives) + margin))
    active = [loss for loss in losses if loss > 0]
    return torch.stack(active).mean() if active else vectors.sum() * 0


def slow_cross_domain(vectors: Tensor, classes: Tensor, is_field: Tensor, margin: float) -> Tensor:
    """All triplets whose anchor is of one domain, positive and negative of the other; only shared species."""
    field = {int(c) for c, f in zip(classes, is_field, strict=True) if f}
    sheet = {int(c) for c, f in zip(classes, is_field, strict=True) if not f}
    rows = [i for i in range(len(classes)) if int(classes[i]) in field & sheet]
    means = []
    for direction in (True, False):
        losses = []
        for a in (i for i in rows if bool(is_field[i]) == direction):
            others = [i for i in rows if bool(is_field[i]) != direction]
            for p in (i for i in others if classes[i] == classes[a]):
                for n in (i for i in others if classes[i] != classes[a]):
                    gap = (vectors[a] - vectors[p]).norm() - (vectors[a] - vectors[n]).norm() + margin
                    losses.append(torch.relu(gap))
        active = [loss for loss in losses if loss > 0]
        means.append(torch.stack(active).mean() if active else vectors.sum() * 0)
    return torch.stack(means).mean()


@pytest.mark.parametrize("seed", range(4))
def test_specialist_loss_equals_the_slow_reference_in_value_and_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    logits, classes = torch.randn(12, 5), torch.arange(12) % 5
    features = torch.randn(12, 6, requires_grad=True)
    ours = SpecialistLoss(margin=0.3)(logits, features, classes)
    (gradient,) = torch.autograd.grad(ours, features)
    reference = features.detach().clone().requires_grad_()
    expected = functional.cross_entropy(logits, classes) + slow_batch_hard(reference, classes, 0.3)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, reference)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_cross_domain_loss_equals_the_slow_reference_in_value_and_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    classes = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4])
    is_field = torch.tensor([1, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1]).bool()  # 3 has sheets alone, 4 photos alone
    vectors = unit(torch.randn(11, 6)).requires_grad_()
    ours = CrossDomainTripletLoss(margin=0.2, mining="all")(vectors, classes, is_field)
    (gradient,) = torch.autograd.grad(ours, vectors)
    reference = vectors.detach().clone().requires_grad_()
    expected = slow_cross_domain(reference, classes, is_field, 0.2)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, reference)[0], rtol=1e-3, atol=1e-5)
    assert torch.equal(gradient[8:], torch.zeros(3, 6))


@pytest.mark.parametrize("mining", ["semihard", "hard", "all"])
def test_perfectly_separated_domains_cost_nothing(mining: str) -> None:
    vectors = torch.eye(4)[[0, 0, 1, 1]]
    loss = CrossDomainTripletLoss(mining=mining)(vectors, torch.tensor([0, 0, 1, 1]), torch.tensor([True, False] * 2))
    assert float(loss) == 0.0


@pytest.mark.parametrize(
    ("classes", "is_field"),
    [([0, 1, 2], [False] * 3), ([0, 0, 1], [True, False, False]), ([0, 0], [True, False]), ([0, 1], [True, False])],
)
def test_nothing_to_compare_is_a_differentiable_zero(classes: list[int], is_field: list[bool]) -> None:
    vectors = unit(torch.randn(len(classes), 4)).requires_grad_()
    loss = CrossDomainTripletLoss()(vectors, torch.tensor(classes), torch.tensor(is_field))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert vectors.grad is not None


def test_without_triplets_the_specialist_is_plain_cross_entropy() -> None:
    logits, classes = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = SpecialistLoss(triplet_weight=0.0)(logits, torch.randn(4, 2), classes)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, classes))


@pytest.mark.parametrize("dimensions", [8, 20])
def test_projection_starts_as_the_embedding_it_is_given(dimensions: int) -> None:
    head = ProjectionHead(20, 16, dimensions).eval()
    features = torch.randn(50, 20)
    out = head(features)
    assert out.shape == (50, dimensions)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(50))
    if dimensions == 20:
        torch.testing.assert_close(out, unit(features))
    else:
        before, after = unit(features) @ unit(features).T, (out @ out.T).detach()
        assert float(torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1]) > 0.5


def test_projection_learns_and_its_fixed_shortcut_does_not() -> None:
    head = ProjectionHead(6, 5, 4)
    names = {name for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert "shortcut.weight" not in names
    head(torch.randn(8, 6)).sum().backward()
    assert head.layers[3].weight.grad is not None  # type: ignore[union-attr]


def test_unit_rows_stay_finite_where_half_precision_would_overflow() -> None:
    rows = unit(torch.full((2, 64), 6e4, dtype=torch.float16))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
    assert torch.isfinite(unit(torch.zeros(1, 3))).all()


def test_an_untrained_specialist_is_near_indifferent() -> None:
    torch.manual_seed(0)
    probabilities = SpecialistHead(32, 10)(torch.randn(64, 32)).softmax(dim=1)
    entropy = -(probabilities * probabilities.log()).sum(dim=1).mean()
    assert entropy.item() > 0.99 * math.log(10)
