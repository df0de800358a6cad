"""Measurements as commands: two ways of doing one thing, side by side in one run, and their ratio."""

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch.utils.flop_counter import FlopCounterMode

from indexer.embed import run_batches
from models.backbone import create_network, default_preprocessing, trunk_and_tail
from models.checkpoints import load_pretrained
from models.compute import Compute
from models.heads import unit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedBench:
    """Photos a second from files to unit vectors, best of the rounds.

    `minimum_cosine` is over pictures without an embedded colour profile; voucher converts the others
    (`images_with_profile`) to sRGB, which the plain loop does not.
    """

    images: int
    images_with_profile: int
    rounds: int
    device: str
    plain_per_second: float
    voucher_per_second: float
    ratio: float
    minimum_cosine: float
    gigaflops_per_image: float
    matrix_product_gigaflops: float
    share_of_matrix_product: float
    peak_memory_mib_once: float
    peak_memory_mib_twice: float


def bench_embed(
    files: list[Path], backbone: str, weights: Path | None, image_size: int | None, rounds: int, compute: Compute
) -> EmbedBench:
    """Both ways over the same files, in turn; vectors compared photo by photo."""
    network: Any = create_network(backbone, image_size=image_size)
    if weights is not None:
        load_pretrained(network, weights)
    network.to(compute.device).eval()
    size = image_size or int(network.pretrained_cfg["input_size"][-1])
    preprocessing = default_preprocessing(network, size)

    trunk, tail = trunk_and_tail(network, 1)  # as a trained model runs it
    tail.eval()

    def encode(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), compute.autocast():
            return unit(tail(trunk(torch.from_numpy(pixels).to(compute.device)))).cpu().numpy()

    def ours() -> np.ndarray:
        batches = run_batches(((p, p) for p in files), preprocessing, encode)
        return np.concatenate([vectors for _, vectors in batches])

    encode(np.zeros((2, 3, size, size), dtype=np.float32))
    peak_once, peak_twice = _peak_memory(
        lambda n: run_batches(((p, p) for p in islice(cycle(files), n)), preprocessing, encode), len(files)
    )
    plain_seconds, our_seconds = [], []
    for number in range(rounds):
        seconds, reference = _timed(lambda: _plain_loop(network, files, size, compute.device))
        plain_seconds.append(seconds)
        seconds, vectors = _timed(ours)
        our_seconds.append(seconds)
        logger.info("round %d: plain %.1f s, voucher %.1f s", number + 1, plain_seconds[-1], seconds)
    profiled = np.array([_has_profile(path) for path in files])
    cosines = (reference * vectors).sum(axis=1)
    flops = _flops(lambda pixels: tail(trunk(pixels)), size, compute.device)
    peak = _matrix_product_flops(compute)
    speed = len(files) / min(our_seconds)
    return EmbedBench(
        images=len(files),
        images_with_profile=int(profiled.sum()),
        rounds=rounds,
        device=compute.describe(),
        plain_per_second=len(files) / min(plain_seconds),
        voucher_per_second=speed,
        ratio=min(plain_seconds) / min(our_seconds),
        minimum_cosine=float(cosines[~profiled].min(initial=1.0)),
        gigaflops_per_image=flops / 1e9,
        matrix_product_gigaflops=peak / 1e9,
        share_of_matrix_product=speed * flops / peak,
        peak_memory_mib_once=peak_once,
        peak_memory_mib_twice=peak_twice,
    )


def _plain_loop(network: Any, files: list[Path], size: int, device: str) -> np.ndarray:
    """Pillow, timm's own evaluation transform, the eager network, batches of eight, one process."""
    settings = resolve_model_data_config(network) | {"input_size": (3, size, size)}
    transform = create_transform(**settings, is_training=False)
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(files), 8):
            pictures = []
            for path in files[start : start + 8]:
                with Image.open(path) as image:
                    pictures.append(transform(image.convert("RGB")))
            vectors.append(unit(network(torch.stack(pictures).to(device))).cpu().numpy())
    return np.concatenate(vectors)


def _has_profile(path: Path) -> bool:
    with Image.open(path) as image:
        return "icc_profile" in image.info


def _timed(action: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def _peak_memory(batches: Callable[[int], Any], count: int) -> tuple[float, float]:
    """Peak resident memory, MiB, after the collection once over and after twice that: equal if it is bounded."""
    peaks = []
    for images in (count, 2 * count):
        for _ in batches(images):
            pass
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks[0], peaks[1]


def _flops(encode: Callable[[torch.Tensor], torch.Tensor], size: int, device: str) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encode(torch.zeros(1, 3, size, size, device=device))
    return float(counter.get_total_flops())


def _matrix_product_flops(compute: Compute) -> float:
    """Floating-point operations a second of the best of ten square matrix products, in the network's precision."""
    size = 2048 if compute.device == "cpu" else 8192
    dtype = compute.autocast_dtype or torch.float32
    a = torch.randn(size, size, device=compute.device, dtype=dtype)
    best = 0.0
    for _ in range(12):
        start = time.perf_counter()
        product = a @ a
        if compute.cuda_index is not None:
            torch.cuda.synchronize(compute.device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - start))
    del product
    return best
