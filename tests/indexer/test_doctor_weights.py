"""What `voucher doctor` finds of weights."""

import json
from pathlib import Path

import pytest
from findings_support import bad, told

from indexer.doctor_weights import check_weights
from indexer.run_config import RunConfig
from models.home import Home


def run_with(home: Home, *, finished: bool = False, **backbone: object) -> None:
    folder = home.runs / "run-1"
    folder.mkdir(parents=True)
    config = RunConfig.model_validate({"backbone": backbone})
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    if finished:
        (folder / "model.json").write_text("{}")


def test_those_of_a_trained_home(trained_home: Home) -> None:
    assert bad(check_weights(trained_home)) == []


@pytest.mark.parametrize("finished", [False, True])
def test_a_file_that_is_gone(tmp_path: Path, finished: bool) -> None:
    run_with(Home(tmp_path), finished=finished, weights=tmp_path / "gone.safetensors")
    findings = list(check_weights(Home(tmp_path)))
    assert bad(findings) == [("weights", "warning")]
    assert "gone.safetensors" in told(findings)


def test_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    run_with(Home(tmp_path), weights=tmp_path / "there.safetensors")
    assert bad(check_weights(Home(tmp_path))) == []


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    run_with(Home(tmp_path), name="no_such_network")
    assert bad(check_weights(Home(tmp_path))) == [("weights", "fault")]


def test_a_name_that_has_to_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look(repository: str, file: str) -> str | None:
        asked.append(repository)
        return "/cache/model.safetensors" if answers else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
    for answers in (False, True):
        expected = [] if answers else [("weights", "warning")]
        assert bad(check_weights(Home(tmp_path))) == expected
    assert set(asked) == {"timm/vit_base_patch14_reg4_dinov2.lvd142m"}


def test_a_run_of_another_version_is_left_out(tmp_path: Path) -> None:
    run_with(Home(tmp_path), weights=tmp_path / "gone.safetensors")
    (tmp_path / "runs" / "run-1" / "config.json").write_text('{"no_such": 1}')
    assert "gone" not in told(check_weights(Home(tmp_path)))
