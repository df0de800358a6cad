import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.adversarial import (
    UNKNOWN_TAXON,
    AdversarialLoss,
    DomainHead,
    TaxonHeads,
    TaxonIndices,
    reversal_strength,
    reverse_gradient,
    taxon_indices,
)
from models.taxonomy import Species, SpeciesId, Taxonomy

CLASSES = torch.tensor([0, 1, 2, 3, 3, 2])
IS_FIELD = torch.tensor([True, False, False, False, True, False])


def four_species() -> TaxonIndices:
    rows = [("a", "Inga", "Fabaceae"), ("b", None, "Fabaceae"), ("c", "Costus", None), ("d", "Inga", " ")]
    return taxon_indices(Taxonomy.of(Species(SpeciesId(i), i, genus, family) for i, genus, family in rows))


def test_genera_and_families_are_numbered_by_name_and_those_not_told_are_marked() -> None:
    taxa = four_species()
    assert taxa.genera == ("Costus", "Inga")
    assert taxa.families == ("Fabaceae",)
    assert taxa.genus.tolist() == [1, UNKNOWN_TAXON, 0, 1]
    assert taxa.family.tolist() == [0, 0, UNKNOWN_TAXON, UNKNOWN_TAXON]


@pytest.mark.parametrize("strength", [0.0, 0.25, 2.0])
def test_reversal_keeps_the_value_and_turns_and_scales_the_gradient(strength: float) -> None:
    features = torch.randn(3, 4, requires_grad=True)
    weights = torch.randn(3, 4)
    out = reverse_gradient(features, strength)
    assert torch.equal(out, features)
    (gradient,) = torch.autograd.grad((out * weights).sum(), features)
    torch.testing.assert_close(gradient, -strength * weights)


def test_reversal_strength_rises_from_nothing_to_one_as_published() -> None:
    assert reversal_strength(0.0) == 0.0
    assert reversal_strength(0.1) == pytest.approx(2 / (1 + math.exp(-1)) - 1)
    assert reversal_strength(1.0) == pytest.approx(0.99990921)
    for progress in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            reversal_strength(progress)


def slow_loss(loss: AdversarialLoss, taxa: TaxonIndices, features: Tensor, *, domain: float = 1.0) -> Tensor:
    """The three terms, row by row, with an ordinary gradient."""
    logits = loss.domain_head(features)
    photos = torch.stack([functional.softplus(-logits[i]) for i in range(6) if IS_FIELD[i]]).mean()
    sheets = torch.stack([functional.softplus(logits[i]) for i in range(6) if not IS_FIELD[i]]).mean()
    total = domain * (photos + sheets) / 2
    both = zip(loss.taxon_heads(features), (taxa.genus, taxa.family), (0.3, 0.7), strict=True)
    for taxon_logits, taxon_of, weight in both:
        told = [i for i in range(6) if taxon_of[CLASSES[i]] != UNKNOWN_TAXON]
        rows = [-taxon_logits[i].log_softmax(0)[taxon_of[CLASSES[i]]] for i in told]
        total = total + weight * torch.stack(rows).mean()
    return total


def test_loss_equals_the_slow_sum_and_pushes_features_against_the_domain_head() -> None:
    torch.manual_seed(0)
    taxa = four_species()
    loss = AdversarialLoss(5, taxa, hidden=8, domain_weight=0.5, genus_weight=0.3, family_weight=0.7)
    features = torch.randn(6, 5, requires_grad=True)
    ours = loss(features, CLASSES, IS_FIELD, progress=0.4)
    (gradient,) = torch.autograd.grad(ours, features, retain_graph=True)
    torch.testing.assert_close(ours, slow_loss(loss, taxa, features))
    turned = slow_loss(loss, taxa, features, domain=-0.5 * reversal_strength(0.4))
    torch.testing.assert_close(gradient, torch.autograd.grad(turned, features)[0])
    parameters = list(loss.domain_head.parameters())
    learnt = torch.autograd.grad(ours, parameters)
    expected = torch.autograd.grad(slow_loss(loss, taxa, features), parameters)
    torch.testing.assert_close(learnt, expected)  # the head itself learns at full rate to tell the domains


def test_a_batch_of_one_domain_teaches_the_domain_head_nothing() -> None:
    loss = AdversarialLoss(5, four_species(), genus_weight=0.0, family_weight=0.0)
    for flags in (torch.ones(6).bool(), torch.zeros(6).bool()):
        features = torch.randn(6, 5, requires_grad=True)
        value = loss(features, CLASSES, flags, progress=1.0)
        value.backward()
        assert float(value.detach()) == 0.0
        assert features.grad is not None
        assert not features.grad.any()


def test_no_taxonomy_leaves_the_domain_alone() -> None:
    taxa = taxon_indices(Taxonomy.of(Species(SpeciesId(i), i) for i in "abcd"))
    loss = AdversarialLoss(5, taxa)
    features = torch.randn(6, 5)
    logits = loss.domain_head(features)
    expected = (functional.softplus(-logits[IS_FIELD]).mean() + functional.softplus(logits[~IS_FIELD]).mean()) / 2
    torch.testing.assert_close(loss(features, CLASSES, IS_FIELD, progress=1.0), expected)


def test_rows_without_any_known_taxon_cost_a_differentiable_nothing() -> None:
    loss = AdversarialLoss(5, four_species(), family_weight=1.0, genus_weight=0.0)
    features = torch.randn(2, 5, requires_grad=True)
    value = loss(features, torch.tensor([2, 3]), torch.tensor([False, False]), progress=0.5)
    value.backward()
    assert float(value.detach()) == 0.0


def test_heads_have_one_logit_an_image_and_one_a_taxon() -> None:
    features = torch.randn(4, 5)
    assert DomainHead(5, 3)(features).shape == (4,)
    genus, family = TaxonHeads(5, 7, 0)(features)
    assert genus.shape == (4, 7)
    assert family.shape == (4, 0)


def gap(features: Tensor, is_field: Tensor) -> float:
    """Distance between the means of the domains, in units of the spread within them."""
    photos, sheets = features[is_field], features[~is_field]
    spread = (photos.var(dim=0) + sheets.var(dim=0)).sum() / 2
    return float((photos.mean(dim=0) - sheets.mean(dim=0)).norm() / spread.sqrt())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_moves_the_domains_together(seed: int) -> None:
    torch.manual_seed(seed)
    is_field = torch.arange(200) % 2 == 0
    x = torch.randn(200, 4) + torch.tensor([3.0, 0, 0, 0]) * is_field[:, None]
    encoder = torch.nn.Linear(4, 4)
    torch.nn.init.eye_(encoder.weight)
    loss = AdversarialLoss(4, taxon_indices(Taxonomy((Species(SpeciesId("a"), "a"),))), hidden=16)
    optimizer = torch.optim.Adam([*encoder.parameters(), *loss.parameters()], lr=0.01)
    before = gap(encoder(x).detach(), is_field)
    for step in range(300):
        optimizer.zero_grad()
        loss(encoder(x), torch.zeros(200, dtype=torch.int64), is_field, progress=step / 299).backward()
        optimizer.step()
    assert gap(encoder(x).detach(), is_field) < 0.5 * before
