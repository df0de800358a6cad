"""What `voucher doctor` finds of packages."""

import importlib.metadata
from types import SimpleNamespace

import pytest
from findings_support import bad, told

from indexer import doctor_packages
from indexer.doctor_packages import check_packages
from models import faiss_packages


def test_those_that_are_installed_here_are_sound() -> None:
    findings = list(check_packages())
    assert bad(findings) == []
    assert [finding.name for finding in findings] == ["python", "packages", "faiss", "torch"]


@pytest.mark.parametrize("found", [[], ["faiss-cpu", "faiss-gpu"]])
def test_none_or_two_packages_of_faiss(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
    monkeypatch.setattr(doctor_packages, "installed_faiss_packages", lambda: found)
    assert bad(check_packages()) == [("faiss", "fault")]


def test_two_packages_of_faiss_are_noticed_by_their_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [SimpleNamespace(metadata={"Name": name}) for name in ("faiss_cpu", "faiss-gpu", "numpy")]
    monkeypatch.setattr(faiss_packages.importlib.metadata, "distributions", lambda: installed)
    assert "faiss-cpu and faiss-gpu" in told(check_packages())


@pytest.mark.parametrize(
    ("versions", "name"),
    [
        ({"torchvision": None}, "torch"),
        ({"torch": "2.5.0", "torchvision": "0.20.0"}, "torch"),
        ({"torch": "TORCH+cu128", "torchvision": "VISION+cpu"}, "torch"),
        ({"numpy": "1.26.4"}, "packages"),
        ({"alembic": None}, "packages"),
    ],
)
def test_packages_that_are_missing_or_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None], name: str
) -> None:
    real = doctor_packages._version

    def version(package: str) -> str | None:
        given = versions.get(package, real(package))
        return given and given.replace("TORCH", str(real("torch"))).replace("VISION", str(real("torchvision")))

    monkeypatch.setattr(doctor_packages, "_version", version)
    assert (name, "fault") in bad(check_packages())


def test_a_python_without_voucher(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nowhere)
    assert ("packages", "fault") in bad(check_packages())


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_packages.sys, "platform", "win32")
    assert bad(check_packages()) == [("python", "fault")]
