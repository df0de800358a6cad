"""What voucher saves when photos are identified: two whole networks beside one trunk with two tails.

The tails compute their last block for the class token alone where they are pooled by it; the whole networks do not.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from indexer.bench_networks import separate_networks, shared_network
from indexer.run_config import RunConfig
from models.compute import Compute

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class BatchCost:
    """Milliseconds for one batch, the best of the rounds; `ratio` is two networks / shared trunk."""

    photos: int
    two_networks_milliseconds: float
    shared_trunk_milliseconds: float
    ratio: float


@dataclass(frozen=True)
class IdentifyBench:
    """Cost of the networks of one identification, without decoding and search.

    `flop_ratio` is two networks / shared trunk; `largest_difference` that between the two ways' logits and embeddings.
    """

    device: str
    blocks: int
    last_blocks: int
    species: int
    rounds: int
    two_networks_gigaflops: float
    shared_trunk_gigaflops: float
    flop_ratio: float
    largest_difference: float
    batches: tuple[BatchCost, ...]


def bench_identify(
    config: RunConfig, *, species: int, rounds: int, compute: Compute, batch_sizes: tuple[int, ...] = (1, 8)
) -> IdentifyBench:
    """Both ways over the same pixels, in turn within every round. Raises `InvalidConfig`, `InvalidCheckpoint`."""
    network, preprocessing = shared_network(config, species, compute)
    classifier, embedder = separate_networks(copy.deepcopy(network))
    for module in (network, classifier, embedder):
        module.eval()

    def shared(pixels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = network.trunk(pixels)
        return network.classify_tokens(tokens)[0], network.embed_tokens(tokens)

    def separate(pixels: Tensor) -> tuple[Tensor, Tensor]:
        return classifier(pixels)[0], embedder(pixels)[0]

    size = preprocessing.image_size
    generator = torch.Generator().manual_seed(config.seed)
    pixels = torch.randn(max(batch_sizes), 3, size, size, generator=generator).to(compute.device)
    with torch.inference_mode(), compute.autocast():
        pairs = zip(shared(pixels), separate(pixels), strict=True)
        difference = max(float((one - other).abs().max()) for one, other in pairs)
        costs = tuple(_batch_cost(shared, separate, pixels[:photos], rounds, compute) for photos in batch_sizes)
        flops = [_flops(way, pixels[:1]) for way in (separate, shared)]
    return IdentifyBench(
        device=compute.describe(),
        blocks=len(network.trunk.blocks) + len(network.specialist_tail.blocks),
        last_blocks=config.backbone.last_blocks,
        species=species,
        rounds=rounds,
        two_networks_gigaflops=flops[0] / 1e9,
        shared_trunk_gigaflops=flops[1] / 1e9,
        flop_ratio=flops[0] / flops[1],
        largest_difference=difference,
        batches=costs,
    )


def _batch_cost(shared: Forward, separate: Forward, pixels: Tensor, rounds: int, compute: Compute) -> BatchCost:
    for way in (separate, shared):  # memory and kernels are set up in the first call
        way(pixels)
    best = {separate: float("inf"), shared: float("inf")}
    for number in range(rounds):
        for way in (separate, shared) if number % 2 == 0 else (shared, separate):
            best[way] = min(best[way], _milliseconds(way, pixels, compute))
    return BatchCost(
        photos=len(pixels),
        two_networks_milliseconds=best[separate],
        shared_trunk_milliseconds=best[shared],
        ratio=best[separate] / best[shared],
    )


def _milliseconds(way: Forward, pixels: Tensor, compute: Compute) -> float:
    _wait(compute)
    start = time.perf_counter()
    way(pixels)
    _wait(compute)
    return 1000.0 * (time.perf_counter() - start)


def _wait(compute: Compute) -> None:
    """Until the device has done what it was given; a GPU's calls return before."""
    if compute.cuda_index is not None:
        torch.cuda.synchronize(compute.device)


def _flops(way: Forward, pixels: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        way(pixels)
    return float(counter.get_total_flops())
