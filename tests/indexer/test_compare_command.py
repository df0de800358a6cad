import json
import logging
from pathlib import Path
from typing import Any

import pytest
import typer
from tests_support import TINY_CONFIG
from typer.testing import CliRunner

from indexer import cli
from indexer.compare_command import compare_command, parse_seeds, parse_setting, parse_weights, read_recipes
from indexer.import_dataset import import_dataset
from models.errors import InvalidConfig, VoucherError
from models.home import Home

app = typer.Typer()
app.command()(compare_command)
runner = CliRunner()


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """The command line configures logging; undo it, since other tests look at what is logged."""
    yield
    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if type(h).__name__ != "RichHandler"]


def write_recipe(folder: Path, name: str, **settings: Any) -> Path:
    """A tiny recipe as a TOML file; `settings` are lines of its [optimizer]."""
    optimizer = {**TINY_CONFIG["optimizer"], "epochs": 1, "steps_per_epoch": 2, **settings}
    lines = ["[optimizer]", *(f"{key} = {json.dumps(value)}" for key, value in optimizer.items())]
    for section in ("heads", "sampling", "augmentation", "calibration"):
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in TINY_CONFIG[section].items())]
    backbone = dict(TINY_CONFIG["backbone"])
    arguments = ", ".join(f"{key} = {value}" for key, value in backbone.pop("arguments").items())
    lines += ["[backbone]", *(f"{key} = {json.dumps(value)}" for key, value in backbone.items())]
    lines += [f"arguments = {{ {arguments} }}", "[small.optimizer]", "steps_per_epoch = 1"]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def home(tiny_flora: Path, tmp_path: Path) -> Home:
    where = Home(tmp_path / "home")
    import_dataset(tiny_flora, where)
    return where


def test_recipes_are_compared_and_the_tables_written(home: Home, tmp_path: Path) -> None:
    first, second = write_recipe(tmp_path, "first"), write_recipe(tmp_path, "second", learning_rate=1e-2)
    words = [first, second, "--home", home.root, "--folds", "--device", "cpu", "--baseline", "first", "--small"]
    words += ["--set", "second:optimizer.weight_decay=0.2", "--output", tmp_path / "out"]
    result = runner.invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert values["configs"]["second"]["optimizer"]["weight_decay"] == 0.2
    assert values["configs"]["first"]["optimizer"]["weight_decay"] == 0.05
    assert values["configs"]["first"]["optimizer"]["steps_per_epoch"] == 1
    assert values["catalogue"]["invented"] is True
    assert values["figures"]["test"]["second"]["overall"]["difference"]["n"] == 12
    shown = runner.invoke(app, list(map(str, words)))
    assert shown.exit_code == 0
    text = " ".join(shown.stdout.split())
    for word in ("Test photos", "Rotating folds", "invented", "baseline", "Tables and plot"):
        assert word in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json",
        "comparison.md",
        "comparison.png",
    }


def test_a_failing_recipe_gives_status_1_and_the_others_figures(home: Home, tmp_path: Path) -> None:
    good, bad = write_recipe(tmp_path, "good"), write_recipe(tmp_path, "bad")
    words = [str(bad), str(good), "--home", str(home.root), "--device", "cpu", "--set", "bad:backbone.last_blocks=7"]
    result = runner.invoke(app, words)
    assert result.exit_code == 1
    assert "bad, seed 0 failed: backbone.last_blocks is 7" in " ".join(result.output.split())
    (report,) = (home.root / "comparisons").glob("*/comparison.json")
    values = json.loads(report.read_text())
    assert values["figures"]["test"]["good"]["overall"]["n"] == 12
    assert values["figures"]["test"]["bad"]["overall"]["n"] == 0
    assert [run["error"] is None for run in values["runs"]] == [False, True]
    assert "## Failed" in report.with_suffix(".md").read_text()
    assert report.with_suffix(".png").is_file()


def test_interruption_says_how_to_go_on(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("indexer.compare.train", interrupted)
    result = runner.invoke(app, [str(write_recipe(tmp_path, "a")), "--home", str(home.root), "--device", "cpu"])
    assert isinstance(result.exception, VoucherError)
    assert "same command continues" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["magic"], "there is no recipe 'magic'"),
        (["{recipe}", "--seeds", "0,x"], "whole numbers"),
        (["{recipe}", "--seeds", "-1"], "0 or more"),
        (["{recipe}", "--no-test"], "nothing to compare"),
        (["{recipe}", "--baseline", "other"], "one of the compared recipes"),
        (["{recipe}", "--set", "epochs"], "KEY=VALUE"),
        (["{recipe}", "--set", "other:seed=1"], "--set names other"),
        (["{recipe}", "--set", "optimizer.epoch=1"], r"\[optimizer.epoch\]"),
        (["{recipe}", "--weights", "a.safetensors"], "no recipe takes the weights"),
        (["{recipe}", "{recipe}"], "once each"),
    ],
)
def test_wrong_options_are_told_before_anything_is_trained(
    home: Home, tmp_path: Path, words: list[str], message: str
) -> None:
    recipe = str(write_recipe(tmp_path, "mine"))
    result = runner.invoke(app, [word.format(recipe=recipe) for word in words] + ["--home", str(home.root)])
    assert isinstance(result.exception, InvalidConfig)
    with pytest.raises(InvalidConfig, match=message):
        raise result.exception
    assert not home.runs.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.epochs=5", (None, "optimizer.epochs", 5)),
        ("a:optimizer.learning_rate=1e-4", ("a", "optimizer.learning_rate", 1e-4)),
        ("backbone.name=deit_tiny_patch16_224", (None, "backbone.name", "deit_tiny_patch16_224")),
        ("backbone.pretrained=false", (None, "backbone.pretrained", False)),
        ("backbone.arguments={ depth = 2 }", (None, "backbone.arguments", {"depth": 2})),
        ("x='a=b:c'", (None, "x", "a=b:c")),
    ],
)
def test_settings_are_toml_values_or_else_texts(text: str, expected: tuple[Any, ...]) -> None:
    assert parse_setting(text) == expected


def test_seeds_are_numbers_with_commas() -> None:
    assert parse_seeds("0,1, 12") == [0, 1, 12]


def test_weights_go_to_the_networks_that_they_are_meant_for(tmp_path: Path) -> None:
    paths = []
    for name, backbone, pretrained in (("a", "net-a", "true"), ("b", "net-b", "true"), ("c", "net-c", "false")):
        paths.append(tmp_path / f"{name}.toml")
        paths[-1].write_text(f"[backbone]\nname = '{backbone}'\npretrained = {pretrained}\n")
    names = [str(path) for path in paths]
    chosen = read_recipes(names, False, weights=["net-b=b.pth", "any.pth"])
    assert [r.config.backbone.weights for r in chosen] == [Path("any.pth").absolute(), Path("b.pth").absolute(), None]
    chosen = read_recipes(names, False, ["backbone.pretrained=false"], ["net-c=c.pth"])
    assert [r.config.backbone.weights for r in chosen] == [None, None, Path("c.pth").absolute()]
    with pytest.raises(InvalidConfig, match="the networks are net-a, net-b, net-c"):
        read_recipes(names, False, weights=["net-d=d.pth"])
    odd = tmp_path / "x=y.pth"
    odd.touch()
    assert parse_weights(str(odd)) == (None, odd)


def test_training_takes_a_recipe_with_options_on_top(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def stop(_home: Home, _catalogue: Any, run: Any, *_: Any, **__: Any) -> None:
        taken.append(run.config)
        raise KeyboardInterrupt

    monkeypatch.setattr("indexer.training_run.train", stop)
    recipe = str(write_recipe(tmp_path, "mine", epochs=4))
    common = ["train", "--home", str(home.root), "--device", "cpu"]
    CliRunner().invoke(cli.app, [*common, "--recipe", recipe, "--small", "--seed", "8"])
    assert (taken[0].seed, taken[0].optimizer.epochs, taken[0].optimizer.steps_per_epoch) == (8, 4, 1)
    for words, message in (
        (["--recipe", recipe, "--config", recipe], "give one of them"),
        (["--small"], "name one with --recipe"),
        (["--resume", "--recipe", recipe], "leave the other options"),
    ):
        result = CliRunner().invoke(cli.app, [*common, *words])
        assert message in str(result.exception)
    assert len(taken) == 1


def test_the_command_is_registered() -> None:
    names = typer.main.get_command(cli.assemble()).commands  # type: ignore[attr-defined]
    assert "compare" in names
