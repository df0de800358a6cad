"""Low spatial frequencies of a grid of patch tokens."""

import torch
from torch import Tensor, nn

from models.errors import InvalidConfig


class PatchDct(nn.Module):
    """The k(k+1)/2 lowest coefficients of the orthonormal two-dimensional DCT-II of each channel of a token grid.

    Kept are the frequencies (u, v), down and across, with u + v < k: a triangle, since a corner of the square k × k
    is a finer pattern than its edges and costs as many features. They stand by u + v, then by u, as coarse to fine
    as in JPEG's zig-zag; the first is the mean token times √(h·w). Ahmed, Natarajan & Rao 1974, "Discrete cosine
    transform", IEEE Trans. Computers C-23, eq. 1, made orthonormal and applied down and across.

    The matrix follows from the sizes, so it is not part of the state. Raises `InvalidConfig` unless 1 ≤ k ≤ min(h, w).
    """

    def __init__(self, height: int, width: int, frequencies: int) -> None:
        super().__init__()
        if not 1 <= frequencies <= min(height, width):
            raise InvalidConfig(
                f"a grid of {height} × {width} patches has 1 to {min(height, width)} low frequencies, not "
                f"{frequencies}; ask for fewer, or for a larger image_size"
            )
        self.height, self.width = height, width
        self.frequencies = frequencies
        down, across = _cosines(height, frequencies), _cosines(width, frequencies)
        kept = [(u, total - u) for total in range(frequencies) for u in range(total + 1)]
        rows = [torch.outer(down[u], across[v]).flatten() for u, v in kept]
        self.basis: Tensor
        self.register_buffer("basis", torch.stack(rows).float(), persistent=False)

    @property
    def coefficients(self) -> int:
        """How many numbers a channel gives: k(k+1)/2."""
        return self.frequencies * (self.frequencies + 1) // 2

    def forward(self, patch_tokens: Tensor) -> Tensor:
        """``(B, h·w, D)`` tokens, row by row and without class and register tokens, to ``(B, k(k+1)/2·D)`` float32.

        All channels of the lowest frequency come first. Raises `ValueError` for another number of tokens.
        """
        if patch_tokens.ndim != 3 or patch_tokens.shape[1] != self.height * self.width:
            raise ValueError(f"expected (B, {self.height}·{self.width}, D) tokens, got {tuple(patch_tokens.shape)}")
        with torch.autocast(patch_tokens.device.type, enabled=False):
            return (self.basis @ patch_tokens.float()).flatten(1)


def _cosines(length: int, frequencies: int) -> Tensor:
    """``(k, length)`` float64: the first orthonormal DCT-II vectors."""
    position = torch.arange(length, dtype=torch.float64) + 0.5
    frequency = torch.arange(frequencies, dtype=torch.float64)[:, None]
    vectors = torch.cos(torch.pi / length * frequency * position) * (2.0 / length) ** 0.5
    vectors[0] /= 2.0**0.5
    return vectors
