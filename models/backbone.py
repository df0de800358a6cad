"""A timm network cut in two: a trunk that stays frozen and is shared, and tails that are fine-tuned.

The cut runs between residual blocks, so that *last K blocks* means the same for every family:

    ViT, DeiT, DINOv2     patch_embed → blocks[:-K] │ blocks[-K:] → norm → pool
    ConvNeXt              stem → blocks[:-K]        │ blocks[-K:] → norm → pool   (blocks of all stages)
    ResNet                stem → blocks[:-K]        │ blocks[-K:] → pool          (blocks of all layers)
"""

import copy
from typing import Any, Literal

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.class_token import class_token_output, reads_class_token_alone
from models.errors import InvalidConfig
from models.preprocess import Preprocessing

_FAMILIES = "vision transformers (ViT, DeiT, DINOv2), ConvNeXt and ResNet"


def create_network(
    backbone: str,
    *,
    image_size: int | None = None,
    pretrained: bool = False,
    arguments: dict[str, Any] | None = None,
) -> nn.Module:
    """A timm network without classifier.

    `image_size` (pixels) changes the position embedding of a ViT; convolutions take any size.
    `pretrained` downloads weights from the timm hub. Raises `InvalidConfig` for an unknown name, a family
    that cannot be cut, an `image_size` that the patch size does not divide, or weights that cannot be downloaded.
    """
    options: dict[str, Any] = dict(arguments or {})
    if not timm.is_model(backbone):
        close = (
            ", ".join(timm.list_models(f"*{backbone.split('.')[0].split('_')[0]}*")[:5])
            or "vit_base_patch14_reg4_dinov2"
        )
        raise InvalidConfig(f"timm knows no model {backbone!r}; for example: {close}")
    if image_size is not None and _is_vision_transformer(backbone):
        options["img_size"] = image_size
    try:
        network = timm.create_model(backbone, pretrained=pretrained, num_classes=0, **options)
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidConfig(f"{backbone} cannot be built with {options}: {error}") from error
    except OSError as error:
        raise InvalidConfig(
            f"the weights of {backbone} cannot be downloaded ({type(error).__name__}); give a local file with "
            "--weights, or set backbone.pretrained = false in the run config"
        ) from error
    if not isinstance(network, VisionTransformer | ConvNeXt | ResNet):
        raise InvalidConfig(f"{backbone} is a {type(network).__name__}; voucher can cut {_FAMILIES}")
    if isinstance(network, VisionTransformer):
        _check_patches(network, backbone)
    return network


def _check_patches(network: Any, backbone: str) -> None:
    (height, width), (down, across) = network.patch_embed.img_size, network.patch_embed.patch_size
    if height % down or width % across:
        lower = height // down * down
        raise InvalidConfig(f"{backbone} has patches of {down} pixels; image_size may be {lower} or {lower + down}")


def _is_vision_transformer(backbone: str) -> bool:
    module = timm.model_entrypoint(backbone).__module__
    return module in ("timm.models.vision_transformer", "timm.models.deit")


def default_preprocessing(
    network: nn.Module,
    image_size: int,
    *,
    crop: Literal["center", "squash", "letterbox"] = "center",
    statistics: Literal["fixed", "image"] = "fixed",
) -> Preprocessing:
    """The preprocessing that the network was pre-trained with, at `image_size` pixels."""
    settings = resolve_model_data_config(network)
    bilinear = settings["interpolation"] == "bilinear"
    return Preprocessing(
        image_size=image_size,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation="bilinear" if bilinear else "bicubic",
        crop=crop,
        crop_fraction=float(settings["crop_pct"]) if crop == "center" else 1.0,
        statistics=statistics,
    )


def _blocks(network: Any) -> list[nn.Module]:
    """The residual blocks in order; a stage's downsampling belongs to its first block."""
    if isinstance(network, VisionTransformer):
        return list(network.blocks)
    if isinstance(network, ConvNeXt):
        blocks: list[nn.Module] = []
        stages: Any = network.stages
        for stage in stages:
            first, *rest = list(stage.blocks)
            blocks += [nn.Sequential(stage.downsample, first), *rest]
        return blocks
    if isinstance(network, ResNet):
        return [block for i in range(1, 5) for block in getattr(network, f"layer{i}")]
    raise InvalidConfig(f"cannot cut a {type(network).__name__}; voucher can cut {_FAMILIES}")


def block_count(network: nn.Module) -> int:
    """How many blocks the network has."""
    return len(_blocks(network))


class Trunk(nn.Module):
    """Everything before the cut: ``(B, 3, H, W)`` to tokens ``(B, T, D)`` or a map ``(B, C, h, w)``."""

    def __init__(self, network: nn.Module, last_blocks: int) -> None:
        super().__init__()
        blocks = _blocks(network)
        if not 1 <= last_blocks <= len(blocks):
            raise InvalidConfig(f"last_blocks must lie in 1 … {len(blocks)} for this backbone, not {last_blocks}")
        shell = copy.deepcopy(network)
        self.blocks = nn.Sequential(*copy.deepcopy(blocks[: len(blocks) - last_blocks]))
        self.stem = _keep(shell, stem=True)
        self.train()

    def train(self, mode: bool = True) -> "Trunk":
        """Always evaluation mode: a frozen trunk gives the same for a picture whatever stands beside it in a batch."""
        super().train(False)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens or feature map at the cut."""
        return self.blocks(self.before_blocks(pixels))

    def before_blocks(self, pixels: Tensor) -> Tensor:
        """Tokens or feature map that the first block gets."""
        # In float32, and so then the sum that runs through a ViT's blocks: reduced precision in the products of the
        # blocks alone keeps vectors within 3e-4 cosine of float32, in the stem too it costs up to 2e-3.
        with torch.autocast(pixels.device.type, enabled=False):
            return self._stem_output(pixels.float())

    def _stem_output(self, pixels: Tensor) -> Tensor:
        stem: Any = self.stem
        if isinstance(stem, VisionTransformer):
            return stem.norm_pre(stem.patch_drop(stem._pos_embed(stem.patch_embed(pixels))))
        if isinstance(stem, ConvNeXt):
            return stem.stem(pixels)
        return stem.maxpool(stem.act1(stem.bn1(stem.conv1(pixels))))


class Tail(nn.Module):
    """Everything after the cut: what the trunk gives to pooled features ``(B, F)``."""

    def __init__(self, network: Any, last_blocks: int) -> None:
        super().__init__()
        blocks = _blocks(network)
        shell = copy.deepcopy(network)
        self.blocks = nn.Sequential(*copy.deepcopy(blocks[len(blocks) - last_blocks :]))
        self.head = _keep(shell, stem=False)
        self.features = int(network.num_features)
        self.grid_size = tuple(network.patch_embed.grid_size) if isinstance(network, VisionTransformer) else (0, 0)

    def forward(self, tokens: Tensor, first_block: int = 0) -> Tensor:
        """Pooled features ``(B, F)``, before any classifier, of what stands before block `first_block`.

        Where only the class token is read, the last block is not computed for the others.
        """
        *before, last = self.blocks[first_block:]
        for block in before:
            tokens = block(tokens)
        if reads_class_token_alone(self.head):
            return self.pool(self._normalised(class_token_output(last, tokens)))
        return self.pool(self._normalised(last(tokens)))

    def last_tokens(self, tokens: Tensor) -> Tensor:
        """What the last block gives, normalised: all tokens ``(B, T, D)`` or a map ``(B, C, h, w)``."""
        return self._normalised(self.blocks(tokens))

    def _normalised(self, x: Tensor) -> Tensor:
        head: Any = self.head
        if isinstance(head, VisionTransformer):
            x = head.norm(x)
        elif isinstance(head, ConvNeXt):
            x = head.norm_pre(x)
        return x

    def pool(self, last_tokens: Tensor) -> Tensor:
        """Features ``(B, F)`` of `last_tokens`."""
        head: Any = self.head
        return head.forward_head(last_tokens, pre_logits=True)

    def in_place(self, tokens: Tensor) -> Tensor:
        """``(B, h, w, D)``: tokens or a map between two blocks, laid out as in the picture.

        Class and register tokens, which stand for no place, are left out.
        """
        if not isinstance(self.head, VisionTransformer):
            return tokens.permute(0, 2, 3, 1)
        height, width, prefix = self.patch_grid()
        return tokens[:, prefix:].unflatten(1, (height, width))

    def patch_grid(self) -> tuple[int, int, int]:
        """Height and width of the grid of patch tokens, and how many tokens stand before it.

        Raises `InvalidConfig` for a network without patch tokens.
        """
        head: Any = self.head
        if not isinstance(head, VisionTransformer):
            raise InvalidConfig(
                'features = "class+dct" needs patch tokens, which vision transformers have alone; use "pooled"'
            )
        height, width = self.grid_size
        return height, width, int(head.num_prefix_tokens)


_STEM = {"patch_embed", "pos_drop", "patch_drop", "norm_pre", "stem", "conv1", "bn1", "act1", "maxpool"}
_BLOCKS = {"blocks", "stages", "layer1", "layer2", "layer3", "layer4"}


def _keep(shell: nn.Module, *, stem: bool) -> nn.Module:
    """`shell` without its blocks and with only the modules and parameters on one side of them."""
    stems = _STEM - {"norm_pre"} if isinstance(shell, ConvNeXt) else _STEM
    for name, _ in list(shell.named_children()):
        if name in _BLOCKS or (name in stems) != stem:
            setattr(shell, name, nn.Identity())
    if not stem:
        for name, _ in list(shell.named_parameters(recurse=False)):
            setattr(shell, name, None)  # class token and position embedding belong to the trunk
    return shell


def trunk_and_tail(network: nn.Module, last_blocks: int) -> tuple[Trunk, Tail]:
    """The two sides of the cut before the last `last_blocks` blocks, as independent copies."""
    return Trunk(network, last_blocks), Tail(network, last_blocks)


def layer_decay_factors(tail: Tail, decay: float) -> dict[str, float]:
    """Learning rate factor of each parameter: 1 at the end, times `decay` for every block before it.

    Layer-wise decay of ELECTRA (Clark et al. 2020) as BEiT and DINOv2 use it.
    """
    count = len(tail.blocks)
    factors = {}
    for name, _ in tail.named_parameters():
        part, _, rest = name.partition(".")
        index = int(rest.split(".")[0]) if part == "blocks" else count
        factors[name] = decay ** (count - index)
    return factors


@torch.inference_mode()
def trunk_output_shape(trunk: Trunk, image_size: int) -> tuple[int, ...]:
    """Shape of what the trunk gives for one picture, without the batch axis."""
    device = next(trunk.parameters()).device
    return tuple(trunk(torch.zeros(1, 3, image_size, image_size, device=device)).shape[1:])
