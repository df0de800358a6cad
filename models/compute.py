"""Which device the networks run on, and in which precision; resolved once per process and passed in."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from models.errors import DeviceUnavailable, InvalidConfig

Precision = Literal["auto", "float32", "bfloat16"]

_DEVICE = re.compile(r"cpu|cuda:(0|[1-9][0-9]{0,2})")

# Private names, guarded: torch has no public question for "is bfloat16 native on this CPU" that all
# supported versions know. Without native instructions bfloat16 is emulated, slower than float32.
_CPU_BFLOAT16_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@dataclass(frozen=True, slots=True)
class Compute:
    """A device that exists, ``cpu`` or ``cuda:N``, and the reduced precision to use on it.

    `autocast_dtype` is None for float32. Raises `ValueError` for another form of device name.
    """

    device: str
    autocast_dtype: torch.dtype | None

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ValueError(f"expected cpu or cuda:N, got {self.device!r}; use Compute.resolve")

    @classmethod
    def resolve(cls, device: str = "auto", *, precision: Precision = "auto") -> "Compute":
        """The device and precision to use for what was asked for: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        ``auto`` takes the first CUDA device, else the CPU. Reduced precision is bfloat16 on CUDA
        (float16 where the GPU has no bfloat16), and on a CPU if its instructions know it; float32 otherwise.

        Raises `InvalidConfig` for a malformed device or precision and `DeviceUnavailable` for a device
        that is not there.
        """
        if precision not in get_args(Precision):
            raise InvalidConfig(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
        index = _cuda_index(device)
        if index is None:
            reduced = precision != "float32" and _cpu_has_bfloat16()
            return cls("cpu", torch.bfloat16 if reduced else None)
        return cls(f"cuda:{index}", None if precision == "float32" else _cuda_reduced_dtype(index))

    @property
    def cuda_index(self) -> int | None:
        """Number of the CUDA device, None on a CPU."""
        return int(self.device.removeprefix("cuda:")) if self.device != "cpu" else None

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which matrix products run in `autocast_dtype`; does nothing in float32."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast("cpu" if self.cuda_index is None else "cuda", dtype=self.autocast_dtype)

    def describe(self) -> str:
        """One line for logs: device, its name, precision and CPU threads."""
        dtype = str(self.autocast_dtype or torch.float32).removeprefix("torch.")
        if self.cuda_index is None:
            name = torch.backends.cpu.get_cpu_capability()
        else:
            name = torch.cuda.get_device_name(self.cuda_index)
        return f"{self.device} ({name}), {dtype}, {torch.get_num_threads()} CPU threads"


def limit_threads(count: int) -> None:
    """Let matrix products of this process use `count` CPU threads."""
    torch.set_num_threads(count)


def _cuda_index(device: str) -> int | None:
    """Number of the CUDA device that `device` stands for on this machine, None for the CPU."""
    if device == "auto":
        return 0 if torch.cuda.is_available() else None
    wanted = "cuda:0" if device == "cuda" else device
    if not _DEVICE.fullmatch(wanted):
        raise InvalidConfig(f"device must be auto, cpu, cuda or cuda:N (cuda:0 is the first); got {device!r}")
    if wanted == "cpu":
        return None
    index = int(wanted.removeprefix("cuda:"))
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"{wanted} was asked for, but there is only: {_available()}. Choose one of these, or 'auto'"
        )
    return index


def _available() -> str:
    if torch.cuda.is_available():
        found = (f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))
        return ", ".join(["cpu", *found])
    if torch.version.cuda is None:
        return "cpu (this PyTorch is built without CUDA; install a CUDA build to use a GPU)"
    return "cpu (PyTorch sees no CUDA device; check the driver with nvidia-smi)"


def _cuda_reduced_dtype(index: int) -> torch.dtype:
    with torch.cuda.device(index):
        # Emulated bfloat16 on an old GPU is slower than float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def _cpu_has_bfloat16() -> bool:
    checks: list[Callable[[], bool] | None] = [getattr(torch.cpu, n, None) for n in _CPU_BFLOAT16_CHECKS]
    return any(check() for check in checks if check is not None)
