"""The machine: cores, memory, the GPU as torch and FAISS see it, and the clock."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from models.artifacts import INDEX_KIND, MODEL_KIND, folder_of, list_artifacts, read
from models.compute import Compute
from models.cpu_cores import available_cores
from models.errors import BundleError, VoucherError
from models.faiss_packages import installed_faiss_packages
from models.findings import Finding
from models.home import Home

_GIBIBYTE = 1 << 30

LEAST_MEMORY = 2 * _GIBIBYTE
"""A small network, its libraries, and uploads; a ViT-B and an index of a million sheets take 4 to 6 GiB."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MEMORY = Path("/proc/meminfo")
_DRIVER = Path("/proc/driver/nvidia/version")

_SINCE = datetime(2025, 1, 1, tzinfo=UTC)
_JITTER_SECONDS = 300.0


def check_machine() -> Iterator[Finding]:
    """Cores and memory, within a container those of the container."""
    cores = available_cores()
    if cores < 2:
        remedy = "give the container or machine two cores: one decodes photos while the other runs the network"
        yield Finding.warning("cores", f"{cores} core may be used", remedy=remedy)
    else:
        yield Finding.ok("cores", f"{cores} of {os.cpu_count()} cores may be used")
    total, free = memory_bytes()
    if total is None or free is None:
        return
    what = f"{total / _GIBIBYTE:.1f} GiB, {free / _GIBIBYTE:.1f} GiB of them free"
    if total < LEAST_MEMORY:
        remedy = f"give the container or machine at least {LEAST_MEMORY / _GIBIBYTE:.0f} GiB"
        yield Finding.warning("memory", what, remedy=remedy)
    elif free < LEAST_MEMORY / 2:
        yield Finding.warning("memory", what, remedy="end other programs, or add memory")
    else:
        yield Finding.ok("memory", what)


def memory_bytes(memory: Path = _MEMORY, limit: Path = _CGROUP_LIMIT) -> tuple[int | None, int | None]:
    """Memory that this process may use, and how much of it is free; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in memory.read_text(encoding="ascii").splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None, None
    try:
        most = int(limit.read_text(encoding="ascii"))
        used = int(limit.with_name("memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return total, free
    return min(total, most), max(0, min(free, most - used))


def check_compute(device: str) -> Iterator[Finding]:
    """The device that would be used, and whether a GPU lies idle."""
    import torch

    from models.gpu_search import searchable_gpus

    try:
        compute = Compute.resolve(device)
    except VoucherError as error:
        yield Finding.fault("device", str(error), remedy="choose a device that is there, or VOUCHER_DEVICE=auto")
        return
    built_for = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    yield Finding.ok("device", f"{compute.describe()}; torch is built {built_for}")
    has_driver = _DRIVER.exists()
    if has_driver and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch cannot use its driver"
        remedy = "install voucher[gpu] with a torch for this driver's CUDA (nvidia-smi tells it), or go on on the CPU"
        yield Finding.warning("gpu", f"there is an NVIDIA GPU, and {why}", remedy=remedy)
    elif torch.cuda.is_available():
        yield from _gpus(torch.cuda.device_count(), searchable_gpus())
    else:
        yield Finding.ok("gpu", "none")


def _gpus(count: int, searchable: int) -> Iterator[Finding]:
    import torch

    for index in range(count):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding.ok("gpu", f"cuda:{index} {name}, {free >> 20} of {total >> 20} MiB free")
    if searchable < count:
        package = " and ".join(installed_faiss_packages()) or "no package"
        remedy = "pip uninstall faiss-cpu, then install voucher[gpu], if the index is large; a CPU searches as exactly"
        what = f"FAISS ({package}) sees {searchable} of {count} GPUs: sheets are searched on the CPU"
        yield Finding.warning("faiss gpu", what, remedy=remedy)


def check_clock(home: Home) -> Iterator[Finding]:
    """Whether the time can be right: ids of runs and bundles, keys that expire and quotas of a day depend on it."""
    now = datetime.now(UTC)
    made = [moment for moment in _times_of_artifacts(home) if (moment - now).total_seconds() > _JITTER_SECONDS]
    remedy = "set the clock, and have it kept by NTP (timedatectl set-ntp true)"
    if now < _SINCE:
        yield Finding.fault("clock", f"it is {now:%Y-%m-%d %H:%M} UTC, which cannot be", remedy=remedy)
    elif made:
        what = f"it is {now:%Y-%m-%d %H:%M} UTC, and something in the home was made at {max(made):%Y-%m-%d %H:%M}"
        yield Finding.warning("clock", what, remedy=remedy, where=home.root)
    else:
        yield Finding.ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _times_of_artifacts(home: Home) -> Iterator[datetime]:
    for parent, kind in ((home.models, MODEL_KIND), (home.indexes, INDEX_KIND)):
        for artifact_id in list_artifacts(parent):
            try:
                created = read(folder_of(parent, artifact_id), kind=kind, verify=False).created_at
                yield datetime.fromisoformat(created)
            except (BundleError, ValueError):
                continue  # told by the check of the artifacts
