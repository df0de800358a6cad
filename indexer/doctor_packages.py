"""Python, and whether the packages that voucher needs are there, in versions that fit together."""

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.version import Version

from models.faiss_packages import installed_faiss_packages
from models.findings import Finding

_REINSTALL = "set the environment up again: `make setup`, or pip install voucher[cpu] (or [gpu]) into a new one"
_SHOWN = ("torch", "timm", "numpy", "fastapi", "sqlalchemy", "dbos")


def check_packages() -> Iterator[Finding]:
    """Python, the requirements, exactly one FAISS, and a torchvision that was made for this torch."""
    yield _python()
    yield _requirements()
    yield _faiss()
    yield _torch_pair()


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform not in ("linux", "darwin"):
        remedy = "run voucher on Linux or macOS, or in Docker"
        return Finding.fault("python", f"{found}: file locks and atomic renames need POSIX", remedy=remedy)
    return Finding.ok("python", found, sys.executable)


def _requirements() -> Finding:
    try:
        version = importlib.metadata.version("voucher")
        wanted = [Requirement(text) for text in importlib.metadata.requires("voucher") or ()]
    except importlib.metadata.PackageNotFoundError:
        return Finding.fault("packages", "voucher is not installed in this Python", remedy=_REINSTALL)
    missing, wrong = [], []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} (expected {requirement.specifier})")
    if missing or wrong:
        faults = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unfit: {', '.join(wrong)}"] * bool(wrong)
        return Finding.fault("packages", "; ".join(faults), remedy=_REINSTALL)
    shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN)
    return Finding.ok("packages", f"voucher {version} with {shown}")


def _faiss() -> Finding:
    found = installed_faiss_packages()
    if not found:
        remedy = "install one extra: voucher[cpu] or voucher[gpu]"
        return Finding.fault("faiss", "no FAISS package is installed", remedy=remedy)
    if len(found) > 1:
        remedy = f"pip uninstall {' '.join(found)}, then install one extra: voucher[cpu] or voucher[gpu]"
        what = f"{' and '.join(found)} are installed and overwrite each other's files"
        return Finding.fault("faiss", what, remedy=remedy)
    return Finding.ok("faiss", f"{found[0]} {_version(found[0])}")


def _torch_pair() -> Finding:
    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return Finding.fault("torch", "torch or torchvision is missing", remedy=_REINSTALL)
    what = f"torch {torch}, torchvision {vision}"
    requirements = map(Requirement, importlib.metadata.requires("torchvision") or ())
    wanted = next((each for each in requirements if each.name == "torch"), None)
    remedy = "install both from the same index, in versions that belong together"
    if wanted is not None and not wanted.specifier.contains(Version(torch).public, prereleases=True):
        return Finding.fault("torch", f"{what}: torchvision was made for torch{wanted.specifier}", remedy=remedy)
    builds = {Version(text).local for text in (torch, vision)}
    if len(builds) > 1:
        return Finding.fault("torch", f"{what}: they are of different builds", remedy=remedy)
    return Finding.ok("torch", what)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
