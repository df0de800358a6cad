"""How many workers look after the jobs of a home, told by the locks that they hold below ``workers/``."""

import fcntl
import os
from pathlib import Path

from models.home import Home


def running_workers(home: Home) -> list[int]:
    """Numbers of the workers that run on `home` now, on any machine that shares its disk and the disk's locks.

    A worker holds its lock alone (`indexer.worker_slots`) and loses it when its process ends, however it ends. It is
    looked at with a lock that may be shared, so that those who look do not see each other. A worker that starts at this
    very moment may take the next number.
    """
    known = sorted(int(file.stem) for file in home.workers.glob("*.lock") if file.stem.isdecimal())
    return [number for number in known if _is_held(home.workers / f"{number}.lock")]


def _is_held(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
