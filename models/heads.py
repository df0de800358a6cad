"""What is trained on top of a tail."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """Linear → BatchNorm → ReLU → Linear to the unit sphere (Chen et al. 2020, SimCLR, §2.1), on a shortcut.

    The shortcut carries the features around the layers, and the last of them starts at zero. So training starts from
    the pre-trained embedding, not from a random one, and species that no photo teaches keep what the
    backbone knows of them: without it, on lab and shop photos of fruit, the nearest-prototype accuracy of such classes
    fell from 0.50 to 0.31 before the first step and to 0.07 after thirty. With `dimensions` other than
    `features` the shortcut is a fixed random projection, which keeps angles (Johnson & Lindenstrauss 1984).
    """

    def __init__(self, features: int, hidden: int, dimensions: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, dimensions)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), last)
        self.shortcut: nn.Module = nn.Identity()
        if dimensions != features:
            shortcut = nn.Linear(features, dimensions, bias=False).requires_grad_(False)
            nn.init.orthogonal_(shortcut.weight)
            self.shortcut = shortcut

    def forward(self, features: Tensor) -> Tensor:
        """``(B, F)`` to ``(B, D)`` rows of unit length, normalised in float32."""
        # Unit features first, so that the layers' share does not depend on the backbone's scale.
        normalised = unit(features)
        return unit(self.shortcut(normalised) + self.layers(normalised * features.shape[1] ** 0.5))


class SpecialistHead(nn.Linear):
    """Linear classifier over all species: ``(B, F)`` to logits ``(B, C)``."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        nn.init.trunc_normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)


def unit(vectors: Tensor) -> Tensor:
    """Rows scaled to unit length in float32; autocast is off, since float16 norms overflow."""
    with torch.autocast(vectors.device.type, enabled=False):
        return functional.normalize(vectors.float(), dim=-1)
