"""The contrastive loss that ties each patch of a drawing to its place on the sheet."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def patch_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Mean over all patches of −log of the softmax share that a patch's own key has among the keys of its picture.

    `queries` are unit vectors ``(B, S, D)`` of the drawing, `keys` those of the sheet at the same places; the other
    ``S − 1`` keys of the same picture are the negatives. No gradient reaches the keys.
    Source: Park et al. 2020, eq. 3 and 4 (of one layer).
    """
    logits = torch.bmm(queries, keys.detach().transpose(1, 2)) / temperature
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    return functional.cross_entropy(logits.flatten(0, 1), own.flatten())


def layers_nce(queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float) -> Tensor:
    """Mean of `patch_nce` over layers."""
    losses = [patch_nce(q, k, temperature) for q, k in zip(queries, keys, strict=True)]
    return torch.stack(losses).mean()


def draw_positions(features: Sequence[Tensor], patches: int, generator: np.random.Generator) -> list[Tensor]:
    """For each layer ``(B, C, H, W)`` up to `patches` different places in 0 … H·W − 1, the same in the whole batch."""
    drawn = []
    for layer in features:
        places = generator.permutation(layer.shape[-2] * layer.shape[-1])[:patches]
        drawn.append(torch.from_numpy(places).to(layer.device))
    return drawn
