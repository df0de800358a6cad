"""The two ways of having two streams that the benchmarks compare: one shared trunk, and two networks apart."""

import copy

import torch
from torch import Tensor, nn

from indexer.run_config import RunConfig
from models.backbone import Tail, block_count, create_network, default_preprocessing
from models.checkpoints import load_pretrained
from models.compute import Compute
from models.errors import InvalidConfig
from models.preprocess import Preprocessing
from models.two_stream import NetworkShape, TwoStreamNetwork


class WholeNetwork(nn.Module):
    """One stream with a trunk of its own, as it would be trained and served without voucher.

    All tokens run through all blocks, as in timm: what voucher leaves out of the last one is part of what it saves.
    """

    def __init__(self, trunk: nn.Module, tail: Tail, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.tail, self.head = trunk, tail, head

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the head gives ``(B, …)`` and features ``(B, F)``, float32, of pictures ``(B, 3, H, W)``."""
        features = self.tail.pool(self.tail.last_tokens(self.trunk(pixels))).float()
        with torch.autocast(pixels.device.type, enabled=False):
            return self.head(features), features


def shared_network(config: RunConfig, classes: int, compute: Compute) -> tuple[TwoStreamNetwork, Preprocessing]:
    """Both streams on one trunk, with weights that ``config.seed`` alone decides, and their preprocessing.

    The backbone's weights are ``backbone.weights``, or random ones: nothing is downloaded, and neither time nor the
    agreement of two ways depends on them. Raises `InvalidConfig` and `InvalidCheckpoint`.
    """
    settings, heads = config.backbone, config.heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = create_network(settings.name, image_size=settings.image_size, arguments=settings.arguments)
        if settings.weights is not None:
            load_pretrained(backbone, settings.weights)
        if settings.last_blocks > block_count(backbone):
            raise InvalidConfig(f"--last-blocks is {settings.last_blocks}; there are {block_count(backbone)}")
        pretrained_cfg: dict[str, tuple[int, ...]] = backbone.pretrained_cfg  # type: ignore[assignment]
        size = settings.image_size or int(pretrained_cfg["input_size"][-1])
        preprocessing = default_preprocessing(backbone, size, crop=settings.crop, statistics=settings.statistics)
        shape = NetworkShape(
            backbone=settings.name,
            image_size=size,
            last_blocks=settings.last_blocks,
            classes=classes,
            projection_hidden=heads.projection_hidden,
            projection_dimensions=heads.projection_dimensions,
            backbone_arguments=settings.arguments,
        )
        network = TwoStreamNetwork(shape, backbone)
    return network.to(compute.device, memory_format=torch.channels_last), preprocessing  # type: ignore[call-overload]


def separate_networks(network: TwoStreamNetwork) -> tuple[WholeNetwork, WholeNetwork]:
    """Specialist and generalist around the tails and heads of `network`, each with a copy of the trunk."""
    assert network.projection is not None, "a frozen generalist is not trained"
    specialist = WholeNetwork(copy.deepcopy(network.trunk), network.specialist_tail, network.specialist_head)
    generalist = WholeNetwork(copy.deepcopy(network.trunk), network.generalist_tail, network.projection)
    return specialist, generalist
