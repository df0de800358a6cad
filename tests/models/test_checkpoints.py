import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.backbone import create_network
from models.checkpoints import load_pretrained, read_state_dict
from models.errors import InvalidCheckpoint

ARGUMENTS: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
SHARED = Path(__file__).resolve().parents[3] / "shared"


def network(size: int = 32, **more: Any) -> nn.Module:
    return create_network("vit_tiny_patch16_224", image_size=size, arguments={**ARGUMENTS, **more})


def state_of(seed: int, size: int = 32) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {k: v.clone() for k, v in network(size).state_dict().items()}


def with_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "head.weight": torch.ones(7, 24), "head.bias": torch.ones(7)}


def same(loaded: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())


def test_safetensors_round_trip_drops_the_head_by_name(tmp_path: Path) -> None:
    state = state_of(1)
    save_file(with_head(state), tmp_path / "w.safetensors")
    target = network()
    loaded = load_pretrained(target, tmp_path / "w.safetensors")
    assert loaded.dropped_head == ("head.bias", "head.weight")
    assert loaded.used == len(state)
    assert same(target, state)


@pytest.mark.parametrize("container", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar"])
def test_pytorch_checkpoints_of_the_usual_forms(
    tmp_path: Path, container: str | None, prefix: str, suffix: str
) -> None:
    state = state_of(2)
    content: Any = {prefix + k: v for k, v in with_head(state).items()}
    if container:
        content = {container: content, "epoch": 91, "arch": "vit", "args": argparse.Namespace(lr=0.1, opt="adamw")}
    path = tmp_path / f"checkpoint{suffix}"
    torch.save(content, path)
    target = network()
    assert load_pretrained(target, path).dropped_head == ("head.bias", "head.weight")
    assert same(target, state)


class Explosive:
    """Would run code if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": state_of(3), "extra": Explosive(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InvalidCheckpoint, match="holds more than weights"):
        load_pretrained(network(), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_position_embedding_is_resampled_to_another_size(tmp_path: Path) -> None:
    state = state_of(4, size=32)
    save_file(state, tmp_path / "w.safetensors")
    target = network(64)
    load_pretrained(target, tmp_path / "w.safetensors")
    assert target.state_dict()["pos_embed"].shape == (1, 65, 24)
    assert torch.equal(target.state_dict()["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight"), "missing norm.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "superfluous extra"),
        (lambda s: s.update({"norm.weight": torch.zeros(5)}), r"norm.weight is \(5,\), expected \(24,\)"),
    ],
)
def test_keys_are_strict(tmp_path: Path, change: Any, message: str) -> None:
    state = state_of(5)
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    target = network()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(InvalidCheckpoint, match=message):
        load_pretrained(target, tmp_path / "w.safetensors")
    assert same(target, before)


def test_another_networks_weights_are_refused_with_a_count(tmp_path: Path) -> None:
    save_file({f"layer{i}.weight": torch.zeros(1) for i in range(20)}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidCheckpoint, match=r"and .* more.*--backbone"):
        load_pretrained(network(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04garbage" * 9, bytes(range(256)) * 8])
def test_unreadable_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidCheckpoint):
        load_pretrained(network(), tmp_path / name)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(state_of(6), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidCheckpoint):
        load_pretrained(network(), tmp_path / "w.pth")


def test_missing_files_and_empty_contents_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="no weights file"):
        read_state_dict(tmp_path / "absent.safetensors")
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(InvalidCheckpoint, match="holds no weights"):
        read_state_dict(tmp_path / "empty.pth")
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(InvalidCheckpoint, match="'epoch' is not a tensor"):
        read_state_dict(tmp_path / "mixed.pth")


def test_a_checkpoint_that_conversion_chokes_on_is_refused(tmp_path: Path) -> None:
    save_file({"mask_token": torch.zeros(1), "pos_embed": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidCheckpoint):
        load_pretrained(network(), tmp_path / "w.safetensors")


@pytest.mark.weights
@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no pretrained weights beside the project")
def test_real_deit_weights_load_strictly() -> None:
    target = create_network("deit_tiny_patch16_224")
    loaded = load_pretrained(target, SHARED / "weights/deit_tiny_patch16_224.safetensors")
    assert loaded.dropped_head == ("head.bias", "head.weight")
    assert loaded.used == len(target.state_dict())
