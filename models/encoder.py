"""A trained network, ready to use: pixels in, logits and unit vectors out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.compute import Compute
from models.preprocess import Preprocessing
from models.retrieval import FloatArray
from models.two_stream import TwoStreamNetwork


@dataclass(frozen=True)
class Encoded:
    """What the network says of N pictures: logits ``(N, C)`` and unit embeddings ``(N, D)``, float32."""

    logits: FloatArray
    embeddings: FloatArray


class Encoder:
    """A network in evaluation mode on its device, with the preprocessing that belongs to it.

    The result for a picture does not depend on the others of its batch, to about 1e-5.
    """

    def __init__(
        self, network: TwoStreamNetwork, preprocessing: Preprocessing, space_id: str, compute: Compute
    ) -> None:
        self.preprocessing = preprocessing
        self.space_id = space_id
        self.compute = compute
        # Convolutions are two to three times as fast with the channels last; matrix products do not care.
        network = network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network.eval().requires_grad_(False)

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""
        return self._network.dimensions

    @property
    def stored_as(self) -> str:
        """Name for kept embeddings: the space, and the precision that they were computed in."""
        dtype = str(self.compute.autocast_dtype or torch.float32).removeprefix("torch.")
        return f"{self.space_id}-{dtype}"

    @torch.inference_mode()
    def encode(self, pixels: FloatArray) -> Encoded:
        """Both streams' outputs for field photos ``(N, 3, H, W)`` float32; the trunk runs once."""
        with self.compute.autocast():
            logits, embeddings = self._network(self._on_device(pixels))
        return Encoded(_to_numpy(logits), _to_numpy(embeddings))

    @torch.inference_mode()
    def embed(self, pixels: FloatArray) -> FloatArray:
        """Unit embeddings ``(N, D)`` float32 of sheets or photos; the specialist is not asked."""
        with self.compute.autocast():
            return _to_numpy(self._network.embed(self._on_device(pixels)))

    def contributions(
        self, pixels: FloatArray, pairs: Sequence[tuple[int, int]], pull: Callable[[FloatArray], FloatArray]
    ) -> FloatArray:
        """``(P, 2, h, w)`` float32: what each place of the pictures of P pairs adds to a figure of both embeddings.

        Places are patches or cells of the feature map in the middle of the network. A place adds, to first order, what
        the figure loses when the place becomes like the mean of its picture's places: gradient times difference
        (as in Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods", with the mean
        as the baseline). What all places share adds nothing.

        `pixels` is ``(N, 3, H, W)`` float32, `pairs` are positions in it, and `pull` gives the gradient ``(2, D)`` of a
        pair's figure in its unit embeddings ``(2, D)``. The earlier half of the network runs once for each picture;
        then pair by pair, in float32, since a gradient needs the memory of all blocks that it passes.
        """
        with torch.no_grad():
            middle = self._network.middle(self._on_device(pixels))
        return np.stack([self._pair_contributions(middle[list(pair)], pull) for pair in pairs])

    def _pair_contributions(self, middle: torch.Tensor, pull: Callable[[FloatArray], FloatArray]) -> FloatArray:
        middle.requires_grad_()
        with torch.enable_grad():
            embeddings = self._network.embed_middle(middle)
        wanted = torch.from_numpy(pull(_to_numpy(embeddings.detach()))).to(embeddings)
        (gradient,) = torch.autograd.grad(embeddings, middle, wanted)
        places = self._network.generalist_tail.in_place(middle.detach())
        difference = places - places.mean(dim=(1, 2), keepdim=True)
        return _to_numpy((difference * self._network.generalist_tail.in_place(gradient)).sum(dim=-1))

    def _on_device(self, pixels: FloatArray) -> torch.Tensor:
        size = self.preprocessing.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (3, size, size) or pixels.dtype != np.float32:
            raise ValueError(f"expected (N, 3, {size}, {size}) float32, got {pixels.shape} {pixels.dtype}")
        return torch.from_numpy(pixels).to(self.compute.device, non_blocking=True)


def _to_numpy(values: torch.Tensor) -> FloatArray:
    return values.float().cpu().numpy()
