"""What both streams make of views: of the frozen trunk's output, or, where nothing is tuned, of the streams' own."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.two_stream import TwoStreamNetwork


class StreamOutputs(Protocol):
    """A network that is asked about rows of `Views`; ``(B, …)`` tokens are what these give."""

    @property
    def classes(self) -> int:
        """C, columns of the classifier."""

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""

    @property
    def specialist_features(self) -> int:
        """F, the length of what the classifier's head sees."""

    def eval(self) -> Any:
        """Switch to evaluation mode."""

    def features(self, tokens: Tensor) -> Tensor:
        """``(B, F)`` float32."""

    def classify_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, C)`` and features ``(B, F)``, float32."""

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Unit ``(B, D)`` float32."""


class FrozenStreams(nn.Module):
    """Features and embeddings side by side, ``(B, F + D)``: all that a recipe without tuning needs of an image.

    A view takes a few kilobytes in place of the trunk's tokens, which take up to megabytes.
    """

    def __init__(self, network: TwoStreamNetwork) -> None:
        super().__init__()
        self.network = network
        self.eval()

    @property
    def width(self) -> int:
        """F + D."""
        return self.network.specialist_features + self.network.dimensions

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, F + D)`` float32."""
        return torch.cat(self.network.outputs(self.network.trunk(pixels)), dim=1)


class PrecomputedStreams:
    """A network's answers from rows of `FrozenStreams`, with the head that it has now."""

    def __init__(self, network: TwoStreamNetwork) -> None:
        self._network = network
        self.classes, self.dimensions = network.classes, network.dimensions
        self.specialist_features = network.specialist_features

    def eval(self) -> None:
        """Switch to evaluation mode."""
        self._network.eval()

    def features(self, tokens: Tensor) -> Tensor:
        """``(B, F)`` float32."""
        return tokens[:, : self.specialist_features]

    def classify_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, C)`` and features ``(B, F)``, float32."""
        features = self.features(tokens)
        return self._network.classify(features), features

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Unit ``(B, D)`` float32."""
        return tokens[:, self.specialist_features :]
