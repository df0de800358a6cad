import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests_support import TINY_CONFIG
from typer.testing import CliRunner

from indexer import cli, console, demo
from indexer.run_config import RunConfig
from models.artifacts import active_artifact_id
from models.home import Home

runner = CliRunner()


def voucher(*arguments: str | Path) -> Any:
    return runner.invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """The command line configures logging; undo it, since other tests look at what is logged."""
    yield
    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if type(h).__name__ != "RichHandler"]


def to_toml(values: dict[str, Any]) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines.append(f"[{name}]")
            for key, value in section.items():
                inline = (
                    ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) if isinstance(value, dict) else ""
                )
                lines.append(f"{key} = {{ {inline} }}" if inline else f"{key} = {json.dumps(value)}")
    return "\n".join(lines)


def test_the_whole_path_by_its_commands(tiny_flora: Path, tmp_path: Path) -> None:
    home, config = tmp_path / "home", tmp_path / "run.toml"
    config.write_text(to_toml(TINY_CONFIG))
    assert tomllib.loads(config.read_text()) == TINY_CONFIG
    imported = voucher("import", tiny_flora, "--home", home, "--json")
    assert imported.exit_code == 0, imported.output
    assert json.loads(imported.stdout)["added"] == {"sheets": 24, "field_photos": 36, "species": 6}
    trained = voucher("train", "--home", home, "--config", config, "--epochs", "1", "--device", "cpu", "--json")
    assert json.loads(trained.stdout)["epochs"] == 1, trained.output
    built = voucher("build", "--home", home, "--device", "cpu", "--json")
    bundle_id = json.loads(built.stdout)["bundle_id"]
    assert bundle_id == active_artifact_id(Home(home))
    figures = json.loads(voucher("evaluate", "--home", home, "--device", "cpu", "--json").stdout)
    for stream in ("specialist", "generalist", "ensemble"):
        for group, n in (("overall", 12), ("with_photos", 8), ("herbarium_only", 4)):
            part = figures[stream][group]
            assert part["n"] == n
            assert 0 <= part["top1_interval"][0] <= part["top1"] <= part["top5"] <= 1
            assert 0 < part["mrr"] <= 1
    photo = next((tiny_flora / "field").rglob("*.jpg"))
    answer = json.loads(voucher("identify", photo, "--home", home, "--top-k", "3", "--json", "--device", "cpu").stdout)
    assert answer["bundle_id"] == bundle_id
    assert answer["decision"]["source"] in ("specialist", "generalist", "fusion")
    assert len(answer["candidates"]) == 3
    first = answer["candidates"][0]
    assert {"species_id", "probability", "similarity", "sheets"} <= set(first)
    assert Path(first["sheets"][0]["image_path"]).is_file()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["import"], ["added", "already in the catalogue", "species: sheets / field photos"]),
        (["build", "--device", "cpu"], ["Nothing has changed since index-", "stays in service"]),
        (["build", "--device", "cpu", "--from-nothing"], ["24 sheets of 6 species", "gate"]),
        (["evaluate", "--device", "cpu"], ["specialist", "herbarium_only (n=4)", "Plots"]),
        (["identify", "--device", "cpu"], ["1. ", "vouched for by", "Decided by"]),
    ],
)
def test_results_for_people(tiny_home: Home, tiny_flora: Path, command: list[str], words: list[str]) -> None:
    where: list[str | Path] = [*command]
    if command[0] == "import":
        where.append(tiny_flora)
    if command[0] == "identify":
        where.append(next((tiny_flora / "field").rglob("*.jpg")))
    result = voucher(*where, "--home", tiny_home.root)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--home", "{empty}"], "voucher import"),
        (["build", "--home", "{empty}"], "voucher import"),
        (["evaluate", "--home", "{empty}"], "voucher import"),
        (["identify", "pyproject.toml", "--home", "{empty}"], "does not exist: name the right one"),
        (["bundles", "list", "--home", "{empty}"], "does not exist: name the right one"),
        (["serve", "--home", "{empty}"], "does not exist: name the right one"),
        (["identify", "absent", "--home", "{home}", "--out", "x.csv"], "there is no folder absent"),
        (["bundles", "activate", "absent", "--home", "{home}"], "`voucher bundles list` shows"),
        (["identify", *["pyproject.toml"] * 6, "--home", "{home}"], "one call a plant"),
        (["train", "--home", "{home}", "--resume", "--epochs", "3"], "leave the other options"),
        (["train", "--home", "{home}", "--seed", "-1"], "seed"),
        (["import", "{empty}/nothing", "--home", "{empty}"], "nothing"),
        (["train", "--home", "{home}", "--resume"], "no unfinished run"),
        (["train", "--home", "{home}", "--config", "absent.toml"], "no run config"),
        (["build", "--home", "{home}", "--gate", "magic"], "auto, distance, fusion"),
        (["build", "--home", "{home}", "--model", "../x"], "../x"),
        (["build", "--home", "{home}", "--device", "cuda:77"], "cuda:77"),
        (["identify", "absent.jpg", "--home", "{home}", "--device", "cpu"], "absent.jpg"),
        (["train", "--home", "{home}", "--precision", "half"], "half"),
    ],
)
def test_expected_errors_are_one_line_and_status_2(
    tiny_home: Home,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = [a.format(empty=tmp_path / "empty", home=tiny_home.root) for a in arguments]
    monkeypatch.setattr("sys.argv", ["voucher", *words])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    error = capfd.readouterr().err
    assert exited.value.code == 2
    assert message in error
    assert "Traceback" not in error


def test_interruption_says_how_to_go_on(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("indexer.training_run.train", interrupted)
    result = voucher("train", "--home", tiny_home.root, "--backbone", "resnet10t")
    assert "voucher train --resume" in str(result.exception)


def test_waiting_threads_are_told_to_sleep_soon_before_torch_is_loaded() -> None:
    code = (
        "import os, sys; sys.argv = ['voucher', '--help']; from indexer import cli; assert 'torch' not in sys.modules\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 0 < int(os.environ['GOMP_SPINCOUNT']) < 20_000 and 'torch' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)


def test_every_command_is_there() -> None:
    names = {entry.name for entry in cli.importlib.metadata.entry_points(group="voucher.commands")}
    assert "serve" in names
    help_text = voucher("--help").stdout
    for name in ("import", "train", "build", "evaluate", "identify"):
        assert name in help_text


def test_progress_without_a_terminal_is_a_line_at_every_tenth(capfd: pytest.CaptureFixture[str]) -> None:
    with console.progress_bars() as report:
        for done in range(101):
            report("counting", done, 100)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "counting: 0/100"
    assert lines[-1].startswith("counting: 100/100, ")
    assert lines[5].endswith(" left")


def test_the_demo_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_flora: Path) -> None:
    monkeypatch.setattr(demo, "demo_config", lambda: RunConfig.model_validate(TINY_CONFIG))
    monkeypatch.setattr("indexer.demo_flora.draw_flora", lambda folder, **_: folder.symlink_to(tiny_flora))
    home = tmp_path / "demo"
    home.mkdir()
    result = runner.invoke(_demo_app(), ["--home", str(home), "--no-serve", "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert [a["group"] for a in values["identifications"]] in (
        ["with_photos", "herbarium_only"],
        ["herbarium_only", "with_photos"],
    )
    assert values["chance_top1"] == pytest.approx(1 / 6)
    assert values["evaluation"]["ensemble"]["overall"]["n"] == 12
    assert set(values["seconds"]) == {"draw", "import", "train", "build", "evaluate", "identify"}


def _demo_app() -> Any:
    import typer

    app = typer.Typer()
    app.command()(demo.demo_command)
    return app


def test_the_demo_config_is_valid_and_needs_no_download() -> None:
    config = demo.demo_config()
    assert not config.backbone.pretrained
    assert config.warmup.epochs > 0


def test_a_damaged_index_is_built_anew_though_nothing_has_changed(tiny_home: Home) -> None:
    before = active_artifact_id(tiny_home)
    file = tiny_home.indexes / before / "prototypes.npy"
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    built = voucher("build", "--home", tiny_home.root, "--device", "cpu", "--json")
    assert built.exit_code == 0, built.output
    values = json.loads(built.stdout)
    assert values["built"]
    assert values["bundle_id"] != before
    again = json.loads(voucher("build", "--home", tiny_home.root, "--device", "cpu", "--json").stdout)
    assert again == {"bundle_id": values["bundle_id"], "built": False}
