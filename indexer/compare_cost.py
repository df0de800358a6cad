"""What an answer costs: time, operations, numbers stored."""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from indexer.compare_record import InferenceCost
from models.artifacts import Artifact
from models.identifier import Identifier

_WARM_UP, _MOST_ROUNDS, _ENOUGH_SECONDS = 2, 30, 3.0

_CALIBRATION = "calibration.safetensors"
"""Answers that a build fits gates on; no part of what answers."""


def inference_cost(identifier: Identifier) -> InferenceCost:
    """The cost of one photo that is already decoded and scaled, sheets in the answer left out.

    Milliseconds are the median of some rounds. Operations are those of the matrix products, convolutions and
    attention of the network (`FlopCounterMode`), a multiply-add counting as two.
    """
    side = identifier.bundle.model.encoder.preprocessing.image_size
    pixels = np.random.default_rng(0).standard_normal((1, 3, side, side), dtype=np.float32)
    milliseconds = _median_milliseconds(lambda: identifier.identify_tensors(pixels, sheets_per_candidate=0))
    with FlopCounterMode(display=False) as counter:
        identifier.encode(pixels)
    parameters = stored_parameters(identifier.bundle.model.artifact)
    return InferenceCost(milliseconds, counter.get_total_flops() / 1e9, parameters)


def stored_parameters(artifact: Artifact) -> int:
    """How many numbers a model artifact answers with: weights, statistics of norms, support vectors."""
    total = 0
    for name in artifact.files:
        if name.endswith(".safetensors") and name != _CALIBRATION:
            with safe_open(artifact.path(name), framework="numpy") as tensors:
                total += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    return total


def _median_milliseconds(action: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        action()
    seconds: list[float] = []
    while len(seconds) < _MOST_ROUNDS and sum(seconds) < _ENOUGH_SECONDS:
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(seconds)
