"""The two streams on one trunk: a classifier that knows its species, and an embedding that compares."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.backbone import Tail, Trunk, create_network, trunk_and_tail
from models.heads import ProjectionHead, SpecialistHead, unit
from models.specimens import Role

_ROLES = (Role.SHEET, Role.FIELD)


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """All that is needed to build the network again before its weights are loaded."""

    backbone: str
    image_size: int
    last_blocks: int
    classes: int
    projection_hidden: int
    projection_dimensions: int
    backbone_arguments: dict[str, Any]


class TwoStreamNetwork(nn.Module):
    """Specialist and generalist; both tails are fine-tuned copies behind the same frozen trunk."""

    def __init__(self, shape: NetworkShape, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = shape
        network = backbone or create_network(
            shape.backbone, image_size=shape.image_size, arguments=shape.backbone_arguments
        )
        trunk, tail = trunk_and_tail(network, shape.last_blocks)
        self.trunk: Trunk = trunk
        self.specialist_tail: Tail = tail
        self.generalist_tail: Tail = trunk_and_tail(network, shape.last_blocks)[1]
        self.specialist_head = SpecialistHead(tail.features, shape.classes)
        self.projection = ProjectionHead(tail.features, shape.projection_hidden, shape.projection_dimensions)
        self.trunk.requires_grad_(False)
        self.domain_means: Tensor
        self.register_buffer("domain_means", torch.zeros(len(Role), shape.projection_dimensions))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Field photos ``(B, 3, H, W)`` to logits ``(B, C)`` and unit embeddings ``(B, D)``, both float32."""
        tokens = self.trunk(pixels)
        logits, _ = self.classify_tokens(tokens)
        return logits, self.centred(self.embed_tokens(tokens), Role.FIELD)

    def classify_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, C)`` and features ``(B, F)``, float32, of what the trunk gave."""
        features = self.specialist_tail(tokens).float()
        with torch.autocast(tokens.device.type, enabled=False):
            return self.specialist_head(features), features

    def embed_sheets(self, pixels: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` float32 of sheets ``(B, 3, H, W)``."""
        return self.centred(self.embed_tokens(self.trunk(pixels)), Role.SHEET)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` float32 of what the trunk gave, before centring."""
        features = self.generalist_tail(tokens).float()
        with torch.autocast(tokens.device.type, enabled=False):
            return self.projection(features)

    def centred(self, embeddings: Tensor, role: Role) -> Tensor:
        """Unit embeddings less the mean of their domain, which takes out what all sheets, or all photos, share.

        First-order domain alignment (Sun et al. 2016, CORAL, §3, aligns the second order besides). The means are
        zero until `set_domain_means`.
        """
        return unit(embeddings - self.domain_means[_ROLES.index(role)])

    def set_domain_means(self, sheets: Tensor, photos: Tensor) -> None:
        """Take the means ``(D,)`` of sheet and photo embeddings of training species."""
        self.domain_means.copy_(torch.stack([{Role.SHEET: sheets, Role.FIELD: photos}[role] for role in _ROLES]))

    def train(self, mode: bool = True) -> "TwoStreamNetwork":
        """As `nn.Module.train`, but the frozen trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
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
    means = nn.ParameterList([nn.Parameter(network.domain_means, requires_grad=False)])
    weights = weights_digest(network.trunk, network.generalist_tail, network.projection, means)
    return hashlib.sha256(f"{weights}:{preprocessing_digest}".encode()).hexdigest()[:32]
