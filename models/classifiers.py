"""Classifiers on the features of a frozen backbone; all they know is in their tensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST_ELEMENTS = 2**24
"""Float32 numbers of the largest intermediate array (64 MiB)."""


class StandardisedLinear(nn.Module):
    """Linear classifier of standardised features.

    `known` says which classes it was fitted on. The others get the lowest logit that the row has among the known
    ones: finite, so that sums and losses stay so, and never ahead of a class that the classifier has an opinion of.
    A caller to whom such a class is one without a column (``-inf`` in `Evidence`) masks with ``~known``.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.known: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("known", torch.ones(classes, dtype=torch.bool))
        self.weight = nn.Parameter(torch.zeros(classes, features))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(B, C)`` float32 of features ``(B, F)``."""
        with torch.autocast(features.device.type, enabled=False):
            standardised = (features.float() - self.mean) / self.scale
            return _lowest_where_unknown(functional.linear(standardised, self.weight, self.bias), self.known)


class RbfSvm(nn.Module):
    """Support vector machine with a radial basis kernel, one against one (Chang & Lin 2011, LIBSVM, §7).

    Its values are those of scikit-learn's ``SVC(decision_function_shape="ovr")``: for three classes and more the number
    of pairwise comparisons that a class wins, plus, as a tie-breaker below one third, its squashed sum of margins. For
    two classes they are minus and plus the margin. They are no log-probabilities; a temperature makes them comparable.

    `coefficients[t, s]` weighs support vector s in the comparison of its own class with class t, `intercepts[i, j]`,
    i < j, is of the comparison in which a positive margin means i. Support vectors lie class by class, ascending.
    `known` as in `StandardisedLinear`.
    """

    def __init__(self, features: int, classes: int, support_vectors: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.known: Tensor
        self.gamma: Tensor
        self.support_vectors: Tensor
        self.support_classes: Tensor
        self.coefficients: Tensor
        self.intercepts: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("known", torch.ones(classes, dtype=torch.bool))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("support_vectors", torch.zeros(support_vectors, features))
        self.register_buffer("support_classes", torch.zeros(support_vectors, dtype=torch.int64))
        self.register_buffer("coefficients", torch.zeros(classes, support_vectors))
        self.register_buffer("intercepts", torch.zeros(classes, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Decision values ``(B, C)`` float32 of features ``(B, F)``, in chunks of bounded memory."""
        with torch.autocast(features.device.type, enabled=False):
            columns = self.known.nonzero()[:, 0]
            lengths = torch.bincount(self.support_classes, minlength=len(self.known))[columns].tolist()
            weights = self.coefficients[columns].split(lengths, dim=1)
            intercepts = self.intercepts[columns][:, columns]
            values = features.new_zeros(len(features), len(self.known), dtype=torch.float32)
            rows = max(1, _MOST_ELEMENTS // max(len(self.support_vectors), len(columns) ** 2, 1))
            for start in range(0, len(features), rows):
                kernels = self._kernel(features[start : start + rows].float()).split(lengths, dim=1)
                shares = torch.stack([k @ w.T for k, w in zip(kernels, weights, strict=True)], dim=1)
                margins = shares + shares.mT + intercepts
                values[start : start + rows, columns] = _one_against_rest(margins)
            return _lowest_where_unknown(values, self.known)

    def _kernel(self, features: Tensor) -> Tensor:
        """``(B, S)``: exp(−γ‖x − s‖²) between standardised features and support vectors."""
        x, s = (features - self.mean) / self.scale, self.support_vectors
        squared = x.square().sum(dim=1, keepdim=True) + s.square().sum(dim=1) - 2.0 * (x @ s.T)
        return torch.exp(-self.gamma * squared.clamp_min(0.0))


def _one_against_rest(margins: Tensor) -> Tensor:
    """Values ``(B, K)`` of pairwise margins ``(B, K, K)``, of which the part above the diagonal is read.

    As ``sklearn.utils.multiclass._ovr_decision_function``, where a margin of exactly zero is a win of the first.
    """
    count = margins.shape[1]
    above = margins.new_ones(count, count).triu(1)
    margins = margins * above
    confidences = margins.sum(dim=2) - margins.sum(dim=1)
    if count == 2:
        return confidences
    first_wins = (margins >= 0) * above
    votes = first_wins.sum(dim=2) + (above - first_wins).sum(dim=1)
    return votes + confidences / (3.0 * (confidences.abs() + 1.0))


def _lowest_where_unknown(values: Tensor, known: Tensor) -> Tensor:
    lowest = values.masked_fill(~known, torch.inf).amin(dim=1, keepdim=True)
    return torch.where(known, values, lowest)
