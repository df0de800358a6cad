"""The one door through which other people's weights come in: safetensors, or a PyTorch checkpoint without code."""

import argparse
import logging
import pickle
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.errors import InvalidCheckpoint

logger = logging.getLogger(__name__)

_CONTAINERS = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What came in: how many tensors were used, and the classifier tensors that were left out, by name."""

    used: int
    dropped_head: tuple[str, ...]


def load_pretrained(network: nn.Module, path: Path) -> LoadedWeights:
    """Load the weights of a timm network from `path`, strictly.

    `.safetensors`, or a `.pth`, `.pt`, `.tar` or `.bin` checkpoint, bare or with a ``state_dict`` (or ``model``)
    inside, such as the PlantCLEF 2024 one. Those are read with ``weights_only=True``: code in them is never run.
    A ViT's position embedding is resampled to the network's image size. The classifier head is
    left out, because its columns are another class list's; the names are returned and logged. Raises
    `InvalidCheckpoint` when the file cannot be read, or any other tensor is missing, superfluous or of another shape.
    """
    state = read_state_dict(path)
    head = _head_prefixes(network)
    dropped = tuple(sorted(k for k in state if any(k.startswith(prefix + ".") for prefix in head)))
    converted = _convert(network, {k: v for k, v in state.items() if k not in dropped}, path)
    expected = network.state_dict()
    problems = [f"missing {k}" for k in expected if k not in converted]
    problems += [f"superfluous {k}" for k in converted if k not in expected]
    problems += [
        f"{k} is {tuple(v.shape)}, expected {tuple(expected[k].shape)}"
        for k, v in converted.items()
        if k in expected and v.shape != expected[k].shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise InvalidCheckpoint(
            f"{path.name} does not fit {type(network).__name__} as it is built here: {shown}. "
            "Check --backbone and --image-size against the network that the file was saved from."
        )
    network.load_state_dict(converted, strict=True)
    if dropped:
        logger.info("%s: left out the classifier of another class list: %s", path.name, ", ".join(dropped))
    return LoadedWeights(used=len(converted), dropped_head=dropped)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file by name, without ``module.`` prefixes. Raises `InvalidCheckpoint`."""
    if not path.is_file():
        raise InvalidCheckpoint(f"no weights file at {path}")
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise InvalidCheckpoint(f"{path.name} is not a readable safetensors file: {error}") from error
    else:
        content = _read_torch(path)
    for name in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content:
        raise InvalidCheckpoint(f"{path.name} holds no weights: expected tensors by name, or a 'state_dict' of them")
    tensors = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    if len(tensors) != len(content):
        other = next(k for k, v in content.items() if not isinstance(v, Tensor))
        raise InvalidCheckpoint(f"{path.name}: {other!r} is not a tensor; expected tensors by name")
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        # argparse.Namespace holds plain values; training scripts of timm's kind save their options as one.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            # A file of another pickle protocol is read or refused by the same rules; the hint is for its author.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidCheckpoint(
            f"{path.name} holds more than weights and was not opened, since that could run code. "
            "Save its tensors with safetensors.torch.save_file on a machine where you trust it."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InvalidCheckpoint(f"{path.name} is not a readable PyTorch checkpoint: {error}") from error


def _head_prefixes(network: nn.Module) -> tuple[str, ...]:
    configured = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return (configured,) if isinstance(configured, str) else tuple(configured)


def _convert(network: nn.Module, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """timm's own renaming and position-embedding resampling for this family, where it has one."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return convert(state, network)
    except (RuntimeError, KeyError, ValueError, IndexError, AssertionError, AttributeError) as error:
        raise InvalidCheckpoint(f"{path.name} could not be converted for {type(network).__name__}: {error}") from error
