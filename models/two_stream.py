"""The two streams on one trunk: a classifier that knows its species, and an embedding that compares."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.backbone import Tail, Trunk, create_network, trunk_and_tail
from models.classifiers import RbfSvm, StandardisedLinear
from models.dct import PatchDct
from models.heads import ProjectionHead, SpecialistHead, unit

_BEHIND = 10.0
"""Logits below the lowest bias at which tuning starts with a class that the probe has not seen."""

SpecialistKind = Literal["tuned", "linear", "svm"]
GeneralistKind = Literal["tuned", "frozen"]


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """All that is needed to build the network again before its weights are loaded.

    A ``tuned`` specialist is a fine-tuned tail under a linear head; ``linear`` and ``svm`` classify features of the
    backbone as it came. A ``frozen`` generalist embeds with the backbone as it came. `dct_frequencies` puts that many
    low frequencies a side of the patch tokens beside the specialist's pooled features (0: none).
    """

    backbone: str
    image_size: int
    last_blocks: int
    classes: int
    projection_hidden: int
    projection_dimensions: int
    backbone_arguments: dict[str, Any]
    specialist: SpecialistKind = "tuned"
    generalist: GeneralistKind = "tuned"
    dct_frequencies: int = 0
    support_vectors: int = 0

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of the backbone is tuned, so that one tail serves both streams."""
        return self.specialist != "tuned" and self.generalist == "frozen"


class TwoStreamNetwork(nn.Module):
    """Specialist and generalist; their tails are copies behind the same frozen trunk, or one where neither is tuned."""

    def __init__(self, shape: NetworkShape, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = shape
        network = backbone or create_network(
            shape.backbone, image_size=shape.image_size, arguments=shape.backbone_arguments
        )
        trunk, tail = trunk_and_tail(network, shape.last_blocks)
        self.trunk: Trunk = trunk
        self.generalist_tail: Tail = tail
        self.separate_tail = None if shape.is_frozen else trunk_and_tail(network, shape.last_blocks)[1]
        self.patch_dct = PatchDct(*tail.patch_grid()[:2], shape.dct_frequencies) if shape.dct_frequencies else None
        self.specialist_features = tail.features * (1 + (self.patch_dct.coefficients if self.patch_dct else 0))
        self.specialist_head = self._new_specialist_head(shape.support_vectors)
        self.projection = (
            ProjectionHead(tail.features, shape.projection_hidden, shape.projection_dimensions)
            if shape.generalist == "tuned"
            else None
        )
        self.trunk.requires_grad_(False)
        if shape.generalist == "frozen":
            self.generalist_tail.requires_grad_(False)
        if shape.specialist != "tuned":
            self.specialist_tail.requires_grad_(False)

    @property
    def specialist_tail(self) -> Tail:
        """The specialist's tail; the generalist's where one serves both."""
        return self.separate_tail if self.separate_tail is not None else self.generalist_tail

    @property
    def classes(self) -> int:
        """C, columns of the classifier."""
        return self.shape.classes

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""
        return self.generalist_tail.features if self.projection is None else self.shape.projection_dimensions

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, H, W)`` to logits ``(B, C)`` and unit embeddings ``(B, D)``, both float32."""
        features, embeddings = self.outputs(self.trunk(pixels))
        return self.classify(features), embeddings

    def outputs(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(B, F)`` and unit embeddings ``(B, D)``, float32, of what the trunk gave; one tail runs once."""
        if self.separate_tail is None:
            pooled, features = self._pooled_and_features(self.generalist_tail, tokens)
            return features, self._project(pooled)
        return self.features(tokens), self.embed_tokens(tokens)

    def classify_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, C)`` and features ``(B, F)``, float32, of what the trunk gave."""
        features = self.features(tokens)
        return self.classify(features), features

    def features(self, tokens: Tensor) -> Tensor:
        """Features ``(B, F)`` float32 that the specialist's head sees, of what the trunk gave."""
        return self._pooled_and_features(self.specialist_tail, tokens)[1]

    def embed(self, pixels: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` float32 of ``(B, 3, H, W)``."""
        return self.embed_tokens(self.trunk(pixels))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` float32 of what the trunk gave."""
        return self._project(self.generalist_tail(tokens))

    @property
    def middle_block(self) -> int:
        """How many of the generalist's blocks, trunk and tail together, are the earlier half."""
        return (len(self.trunk.blocks) + len(self.generalist_tail.blocks)) // 2

    def middle(self, pixels: Tensor) -> Tensor:
        """Tokens ``(B, T, D)`` or a map ``(B, C, h, w)`` after the earlier half of the generalist's blocks."""
        tokens = self.trunk.blocks[: self.middle_block](self.trunk.before_blocks(pixels))
        return self.generalist_tail.blocks[: self._middle_of_tail](tokens)

    def embed_middle(self, middle: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` float32 of what `middle` gave."""
        tokens = self.trunk.blocks[self.middle_block :](middle)
        return self._project(self.generalist_tail(tokens, self._middle_of_tail))

    @property
    def _middle_of_tail(self) -> int:
        return max(0, self.middle_block - len(self.trunk.blocks))

    def _pooled_and_features(self, tail: Tail, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What `tail` pools ``(B, F)``, and with it what the specialist's head sees."""
        if self.patch_dct is None:
            pooled = tail(tokens)
            return pooled, pooled.float()
        last = tail.last_tokens(tokens)
        pooled = tail.pool(last)
        patches = last[:, tail.patch_grid()[2] :]
        return pooled, torch.cat([pooled.float(), self.patch_dct(patches)], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits ``(B, C)`` float32 of the features that the specialist's head sees."""
        with torch.autocast(features.device.type, enabled=False):
            return self.specialist_head(features)

    def _project(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return unit(features) if self.projection is None else self.projection(features.float())

    def set_classifier(self, head: StandardisedLinear | RbfSvm) -> None:
        """Take a fitted classifier of frozen features in place of the untrained one."""
        self.specialist_head = head.to(next(self.trunk.parameters()).device)
        count = len(head.support_vectors) if isinstance(head, RbfSvm) else 0
        self.shape = replace(self.shape, support_vectors=count)

    def start_from(self, probe: StandardisedLinear) -> None:
        """Give the head that is to be tuned the weights of a probe of the same features (LP-FT, Kumar et al. 2022)."""
        head = self.specialist_head
        assert isinstance(head, SpecialistHead)
        with torch.no_grad():
            weight = probe.weight / probe.scale
            head.weight.copy_(weight)
            head.bias.copy_(probe.bias - weight @ probe.mean)
            # A class that the probe does not know would be given a logit of zero, ahead of most; so it begins behind.
            head.bias[~probe.known] = head.bias[probe.known].min() - _BEHIND

    def _new_specialist_head(self, support_vectors: int) -> nn.Module:
        features, classes = self.specialist_features, self.shape.classes
        if self.shape.specialist == "linear":
            return StandardisedLinear(features, classes)
        if self.shape.specialist == "svm":
            return RbfSvm(features, classes, support_vectors)
        return SpecialistHead(features, classes)

    def train(self, mode: bool = True) -> "TwoStreamNetwork":
        """As `nn.Module.train`, but what is frozen stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        if self.shape.generalist == "frozen":
            self.generalist_tail.eval()
        if self.shape.specialist != "tuned":
            self.specialist_tail.eval()
        return self


def weights_digest(*modules: nn.Module) -> str:
    """SHA-256 over names, shapes, types and values of all tensors of `modules`, in order."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{name}:{tuple(value.shape)}:{value.dtype};".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def embedding_space_id(network: TwoStreamNetwork, preprocessing_digest: str) -> str:
    """Identifier of the space that the generalist embeds into: equal ids, comparable vectors."""
    projection = [] if network.projection is None else [network.projection]
    weights = weights_digest(network.trunk, network.generalist_tail, *projection)
    return hashlib.sha256(f"{weights}:{preprocessing_digest}".encode()).hexdigest()[:32]
