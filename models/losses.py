"""Losses of the two streams. Training only."""

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner, TripletMarginMiner
from torch import Tensor, nn
from torch.nn import functional


class SpecialistLoss(nn.Module):
    """Cross-entropy plus batch-hard triplet loss (Hermans et al. 2017, eq. 5), Euclidean on unit features."""

    def __init__(self, *, margin: float = 0.3, triplet_weight: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        distance = LpDistance(normalize_embeddings=True, p=2, power=1)
        self.miner = BatchHardMiner(distance=distance)
        self.triplet = TripletMarginLoss(margin=margin, distance=distance)
        self.triplet_weight = triplet_weight
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, features: Tensor, classes: Tensor) -> Tensor:
        """Scalar loss of logits ``(B, C)``, features ``(B, F)`` and class indices ``(B,)``."""
        loss = functional.cross_entropy(logits.float(), classes, label_smoothing=self.label_smoothing)
        if self.triplet_weight == 0.0:
            return loss
        vectors = features.float()
        return loss + self.triplet_weight * self.triplet(vectors, classes, self.miner(vectors.detach(), classes))


class CrossDomainTripletLoss(nn.Module):
    """Triplet loss whose anchor is of one domain and whose positive and negative are of the other.

    Both directions, photo → sheets and sheet → photos, are averaged. ``semihard`` mining keeps the negatives
    that are farther than the positive but within the margin (Schroff et al. 2015, §3.2); ``hard`` the hardest of
    the batch. Rows of species that occur in one domain only are left out: as negatives they would be pushed
    away from every photo, and a species known from sheets alone could then never be found by one.
    """

    def __init__(self, *, margin: float = 0.2, mining: str = "semihard") -> None:
        super().__init__()
        distance = LpDistance(normalize_embeddings=False, p=2, power=1)
        if mining == "hard":
            self.miner: nn.Module = BatchHardMiner(distance=distance)
        else:
            self.miner = TripletMarginMiner(margin=margin, type_of_triplets=mining, distance=distance)
        self.triplet = TripletMarginLoss(margin=margin, distance=distance)

    def forward(self, embeddings: Tensor, classes: Tensor, is_field: Tensor) -> Tensor:
        """Scalar loss of unit embeddings ``(B, D)``, class indices ``(B,)`` and field flags ``(B,)``.

        Zero, but differentiable, when no species of the batch occurs in both domains.
        """
        shared = torch.isin(classes, classes[is_field]) & torch.isin(classes, classes[~is_field])
        photos, sheets = shared & is_field, shared & ~is_field
        losses = [
            self._one_way(embeddings, classes, anchors=photos, others=sheets),
            self._one_way(embeddings, classes, anchors=sheets, others=photos),
        ]
        return torch.stack(losses).mean()

    def _one_way(self, embeddings: Tensor, classes: Tensor, *, anchors: Tensor, others: Tensor) -> Tensor:
        if not bool(anchors.any()) or len(torch.unique(classes[others])) < 2:
            return embeddings.sum() * 0.0
        queries, references = embeddings[anchors], embeddings[others]
        triplets = self.miner(queries.detach(), classes[anchors], references.detach(), classes[others])
        return self.triplet(queries, classes[anchors], triplets, references, classes[others])
