"""Room on the disk for the files in which several processes count.

They are mapped into memory: where the disk has no block for a page that is written, the kernel ends the process. So the
blocks are taken beforehand, and a process that gets none counts for itself alone. Loaded before `prometheus_client` is.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
ADDED_UP = ("counter", "histogram")
_KINDS = (*ADDED_UP, "gauge_livesum")

_ROOM_BYTES = 2 * 1024 * 1024
"""Of one file: every route, method and status with all its buckets takes less than half."""


def reserve(folder: Path, owner: str, kinds: tuple[str, ...] = _KINDS) -> None:
    """Take room for the files of `owner`, a process number. Raises `OSError`, with nothing left behind."""
    made: list[Path] = []
    try:
        for kind in kinds:
            made.append(folder / f"{kind}_{owner}.db")
            descriptor = os.open(made[-1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, _ROOM_BYTES)
            finally:
                os.close(descriptor)
    except OSError:
        for file in made:
            file.unlink(missing_ok=True)
        raise


def reserve_for_this_process(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Take room where this process was told to count; without, it is told so no longer, and why is returned."""
    folder = environment.get(VARIABLE)
    if not folder:
        return None
    try:
        reserve(Path(folder), str(os.getpid()))
    except OSError as error:
        del environment[VARIABLE]
        return f"metrics of this process are told by it alone: there is no room in {folder} ({error.strerror or error})"
    return None
