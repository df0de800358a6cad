"""What is shipped fits together: locks, images, compose files and the table of settings."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from app.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned(lock: str) -> dict[str, str]:
    """Version of each package in a lock."""
    text = (ROOT / "docker" / "lock" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\n]+)", text, flags=re.MULTILINE))


def package_name(requirement: str) -> str:
    """``some-package`` of ``Some_Package[extra]>=1; marker``."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_lock_pins_everything_the_project_asks_for(extra):
    optional = PROJECT["optional-dependencies"]
    wanted = {package_name(r) for r in PROJECT["dependencies"] + optional[extra] + optional["dev"]}
    assert wanted - pinned(f"{extra}.txt").keys() == set()


def test_locks_hold_one_faiss_each_and_agree_on_the_rest():
    cpu, gpu = pinned("cpu.txt"), pinned("gpu.txt")
    assert {"faiss-cpu", "faiss-gpu"} & cpu.keys() == {"faiss-cpu"}
    assert {"faiss-cpu", "faiss-gpu"} & gpu.keys() == {"faiss-gpu"}
    shared = cpu.keys() & gpu.keys()
    assert len(shared) > 50
    assert {name: cpu[name] for name in shared} == {name: gpu[name] for name in shared}


@pytest.mark.parametrize("lock", ["cpu.txt", "gpu.txt"])
def test_locks_name_no_place_to_download_from(lock):
    text = (ROOT / "docker" / "lock" / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|\bfile:", text)


def test_service_command_is_registered_for_the_command_line():
    assert PROJECT["entry-points"]["voucher.commands"]["serve"] == "app.command:serve_command"


def test_images_run_without_root_and_end_with_the_cpu_target():
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    named = {stage.split("\n", 1)[0].split(" AS ")[1]: stage for stage in stages}
    assert list(named)[-1] == "cpu"
    assert "USER 10001:10001" in named["runtime"]
    for target in ("cpu", "cuda"):
        assert named[target].startswith("runtime AS")
        assert "USER root" not in named[target]


def compose(name: str) -> dict:
    """The voucher service of a compose file."""
    return yaml.safe_load((ROOT / "docker" / name).read_text(encoding="utf-8"))["services"]["voucher"]


def test_composed_service_is_confined_and_local():
    service = compose("compose.yaml")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["volumes"] == ["home:/data"]
    assert "mem_limit" in service


@pytest.mark.parametrize(("name", "target"), [("compose.yaml", "cpu"), ("compose.gpu.yaml", "cuda")])
def test_composed_targets_exist_in_the_dockerfile(name, target):
    assert compose(name)["build"]["target"] == target
    assert re.search(rf"^FROM runtime AS {target}$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)


def test_operations_page_lists_every_setting_with_its_default():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = dict(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| `([^`]*)`", text, flags=re.MULTILINE))
    actual = {name.upper(): str(field.default) for name, field in Settings.model_fields.items()}
    assert listed == actual
