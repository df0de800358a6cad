"""Heads that make features tell sheets from photos less, and genera and families more. Training only."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.taxonomy import Taxonomy

UNKNOWN_TAXON = -100
"""Index of a genus or family that the taxonomy does not tell; cross-entropy ignores it."""


class TaxonIndices(NamedTuple):
    """Genus and family of each class: indices ``(C,)`` int64 into sorted names, `UNKNOWN_TAXON` where not told."""

    genus: Tensor
    genera: tuple[str, ...]
    family: Tensor
    families: tuple[str, ...]


def taxon_indices(taxonomy: Taxonomy) -> TaxonIndices:
    """Genus and family of each column of `taxonomy`; blank names count as not told."""
    genus, genera = _indices([s.genus for s in taxonomy])
    family, families = _indices([s.family for s in taxonomy])
    return TaxonIndices(genus, genera, family, families)


def _indices(names: list[str | None]) -> tuple[Tensor, tuple[str, ...]]:
    told = [(name or "").strip() for name in names]
    distinct = tuple(sorted(set(told) - {""}))
    position = {name: i for i, name in enumerate(distinct)}
    return torch.tensor([position.get(name, UNKNOWN_TAXON) for name in told], dtype=torch.int64), distinct


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(features: Tensor, strength: float) -> Tensor:
    """`features` unchanged; their gradient is multiplied by ``-strength`` (Ganin & Lempitsky 2015, eq. 7 and 8)."""
    return _GradientReversal.apply(features, strength)


def reversal_strength(progress: float, *, steepness: float = 10.0) -> float:
    """λ from 0 at the start of training, `progress` 0, towards 1 at its end, `progress` 1.

    2 / (1 + exp(−γp)) − 1 (Ganin & Lempitsky 2015, eq. 14; §4 sets γ to 10), so that a domain classifier that still
    knows nothing does not disturb the features. Raises `ValueError` for progress outside 0 … 1.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress runs from 0 to 1, not to {progress}")
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0


class DomainHead(nn.Module):
    """Two-layer classifier of the domain: ``(B, F)`` to logits ``(B,)``, positive for field photos."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(B,)`` of being a field photo."""
        return self.layers(features)[:, 0]


class TaxonHeads(nn.Module):
    """Linear classifiers of genus and family; one with no names to tell apart gives no logits."""

    def __init__(self, features: int, genera: int, families: int) -> None:
        super().__init__()
        self.genus = nn.Linear(features, genera) if genera else None
        self.family = nn.Linear(features, families) if families else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, F)`` to genus logits ``(B, G)`` and family logits ``(B, M)``."""
        nothing = features.new_zeros(len(features), 0)
        genus = nothing if self.genus is None else self.genus(features)
        return genus, nothing if self.family is None else self.family(features)


class AdversarialLoss(nn.Module):
    """Domain cross-entropy through gradient reversal, plus cross-entropies of genus and family; holds their heads.

    The heads are trained with the features and thrown away afterwards. `domain_weight` is the λ that is approached:
    it scales the reversed gradient that reaches the features, not the domain head's own learning, as in Ganin &
    Lempitsky 2015, eq. 4 to 6; so the value of the loss does not depend on it.
    """

    def __init__(
        self,
        features: int,
        taxa: TaxonIndices,
        *,
        hidden: int = 256,
        domain_weight: float = 1.0,
        genus_weight: float = 0.5,
        family_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.domain_head = DomainHead(features, hidden)
        self.taxon_heads = TaxonHeads(features, len(taxa.genera), len(taxa.families))
        self.genus_of: Tensor
        self.family_of: Tensor
        self.register_buffer("genus_of", taxa.genus, persistent=False)
        self.register_buffer("family_of", taxa.family, persistent=False)
        self.domain_weight = domain_weight
        self.genus_weight = genus_weight
        self.family_weight = family_weight

    def forward(self, features: Tensor, classes: Tensor, is_field: Tensor, progress: float) -> Tensor:
        """Scalar loss of features ``(B, F)``, class indices ``(B,)``, field flags ``(B,)`` and progress 0 … 1."""
        with torch.autocast(features.device.type, enabled=False):
            vectors = features.float()
            genus, family = self.taxon_heads(vectors)
            return (
                self._domain_loss(vectors, is_field, progress)
                + self.genus_weight * _known_cross_entropy(genus, self.genus_of[classes])
                + self.family_weight * _known_cross_entropy(family, self.family_of[classes])
            )

    def _domain_loss(self, features: Tensor, is_field: Tensor, progress: float) -> Tensor:
        """Mean of the mean losses of photos and of sheets; zero where a batch has one of them only."""
        if bool(is_field.all()) or not bool(is_field.any()):
            return features.sum() * 0.0
        reversed_features = reverse_gradient(features, self.domain_weight * reversal_strength(progress))
        logits = self.domain_head(reversed_features)
        losses = functional.binary_cross_entropy_with_logits(logits, is_field.to(logits.dtype), reduction="none")
        return 0.5 * (losses[is_field].mean() + losses[~is_field].mean())


def _known_cross_entropy(logits: Tensor, taxa: Tensor) -> Tensor:
    """Mean over the rows whose taxon is told; zero if none is, where the mean would be NaN."""
    if not bool((taxa != UNKNOWN_TAXON).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, taxa, ignore_index=UNKNOWN_TAXON)
