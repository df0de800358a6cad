import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from indexer.recipes import known_recipes, load_recipe, merge, read_recipe
from indexer.run_config import RunConfig
from models.errors import InvalidConfig

ROOT = Path(__file__).resolve().parents[2]

REFERENCE = {
    "mixed-cnn", "frozen-svm", "frozen-linear", "fine-tuned", "translated", "adversarial", "frozen-whitened",
    "dual-stream", "voucher",
}  # fmt: skip


def test_every_recipe_of_the_reference_table_is_there() -> None:
    assert set(known_recipes()) == REFERENCE


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_recipes_are_valid_and_their_small_form_is_smaller(name: str) -> None:
    whole, small = load_recipe(name), load_recipe(name, small=True)
    assert small.backbone.name != whole.backbone.name
    assert (small.backbone.image_size or 0) <= 224
    assert small.optimizer.epochs <= whole.optimizer.epochs
    assert small.split == whole.split == RunConfig().split
    assert small.calibration.gate == whole.calibration.gate


def test_the_small_table_is_merged_over_the_rest_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "seed = 3\n[backbone]\nname = 'resnet10t'\narguments = { a = 1, b = 2 }\n"
        "[optimizer]\nepochs = 9\nlearning_rate = 5e-5\n"
        "[small]\nseed = 4\n[small.backbone]\narguments = { b = 3 }\n[small.optimizer]\nepochs = 2\n"
    )
    whole, small = load_recipe(str(path)), load_recipe(str(path), small=True)
    assert (whole.seed, whole.optimizer.epochs, whole.backbone.arguments) == (3, 9, {"a": 1, "b": 2})
    assert (small.seed, small.optimizer.epochs, small.backbone.arguments) == (4, 2, {"a": 1, "b": 3})
    assert small.optimizer.learning_rate == 5e-5
    assert read_recipe(str(path)).name == "mine"


def test_overrides_win_over_the_small_table_and_absent_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[optimizer]\nepochs = 9\n[small.optimizer]\nepochs = 2\nweight_decay = 0.5\n")
    config = load_recipe(str(path), True, {"optimizer.epochs": 7, "optimizer.weight_decay": None})
    assert (config.optimizer.epochs, config.optimizer.weight_decay) == (7, 0.5)


def test_one_value_of_a_table_of_arguments_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[backbone]\narguments = { depth = 2, width = 3 }\n")
    config = load_recipe(str(path), overrides={"backbone.arguments.depth": 5})
    assert config.backbone.arguments == {"depth": 5, "width": 3}


def test_merging_changes_neither_side() -> None:
    below, above = {"a": {"b": 1}, "c": 2}, {"a": {"d": [3]}}
    merged = merge(below, above)
    assert merged == {"a": {"b": 1, "d": [3]}, "c": 2}
    merged["a"]["d"].append(4)
    assert (below, above) == ({"a": {"b": 1}, "c": 2}, {"a": {"d": [3]}})
    assert merge({"a": {"b": 1}}, {"a": 5}) == {"a": 5}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.toml", "[optimizer]\nepoch = 3\n", r"recipe mine.*\[optimizer.epoch\].*not permitted"),
        ("mine.toml", "small = 3\n", r"\[small\] must be a section"),
        ("mine.toml", "seed = ", "not a readable TOML"),
        ("mine.toml", "backbone = 'resnet10t'\n", r"recipe mine.*\[backbone\]"),
        ("a b.toml", "seed = 1\n", "rename the file"),
    ],
)
def test_mistakes_are_named_with_recipe_and_key(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        load_recipe(str(tmp_path / name), small=True)


@pytest.mark.parametrize("name", ["magic", "absent.toml", "pyproject", "../dual-stream", ""])
def test_an_unknown_recipe_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidConfig, match="adversarial, dual-stream") as caught:
        load_recipe(name)
    assert "voucher" in str(caught.value)


def test_the_wheel_holds_the_recipes(tmp_path: Path) -> None:
    code = (
        "import sys; from hatchling.builders.wheel import WheelBuilder; "
        "next(iter(WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard'])))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT), str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {Path(name).stem for name in zipfile.ZipFile(wheel).namelist() if name.startswith("indexer/recipes/")}
    assert shipped >= REFERENCE
