from pathlib import Path

import pytest

from indexer.run_config import RunConfig
from models.errors import InvalidConfig


def test_defaults_are_the_reference() -> None:
    config = RunConfig.read(None)
    assert config.backbone.name == "vit_base_patch14_reg4_dinov2.lvd142m"
    assert config.backbone.last_blocks == 5
    assert (config.specialist.margin, config.generalist.margin) == (0.3, 0.2)


def test_options_win_over_the_file_and_absent_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("seed = 4\n[optimizer]\nepochs = 9\nlearning_rate = 5e-5\n")
    config = RunConfig.read(path, {"optimizer.epochs": 2, "seed": None, "backbone.weights": Path("w.pth")})
    assert (config.seed, config.optimizer.epochs, config.optimizer.learning_rate) == (4, 2, 5e-5)
    assert config.backbone.weights == Path("w.pth").absolute()
    assert RunConfig.model_validate(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nepoch = 3\n", r"\[optimizer.epoch\].*not permitted"),
        ("[optimizer]\nepochs = 0\n", r"\[optimizer.epochs\].*greater than or equal to 1"),
        ("[generalist]\nmining = 'soft'\n", r"\[generalist.mining\].*'semihard'"),
        ("seed = ", "not a readable TOML"),
        ("\xff", "not a readable TOML"),
    ],
)
def test_mistakes_are_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidConfig, match=message) as caught:
        RunConfig.read(path)
    assert "run.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no run config at"):
        RunConfig.read(tmp_path / "absent.toml")
