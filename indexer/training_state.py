"""Checkpoints without pickle: tensors in safetensors, the rest as JSON in its header."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from models.durable import make_folder, replace_file
from models.errors import BundleCorrupt


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Write tensors and JSON notes in one step; a killed process leaves the previous file."""
    make_folder(path.parent)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace_file(path, save(contiguous, metadata={"notes": json.dumps(notes)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inverse of `save_tensors`. Raises `BundleCorrupt`."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["notes"])
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BundleCorrupt(f"{path} is not a readable checkpoint: {error}. Delete it and train again.") from error


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """State of a module under ``prefix.``."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of an optimizer, by parameter number."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; learning rates come from the schedule."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in with_prefix(tensors, "optimizer").items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def copy_state(modules: Iterable[nn.Module]) -> list[dict[str, Tensor]]:
    """Copies of the states of modules, to return to."""
    return [{name: tensor.detach().clone() for name, tensor in m.state_dict().items()} for m in modules]
