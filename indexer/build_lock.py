"""One build at a time on one home, whoever asked for it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.progress import Report
from models.durable import make_folder
from models.home import Home

_LOOK_SECONDS = 0.5


@contextmanager
def alone_at_building(home: Home, report: Report) -> Iterator[None]:
    """Wait until no other process builds here, then keep others out until the block or the process ends.

    The wait is told as a stage, so that it can be cancelled where the report can. Without it two builds would finish in
    any order, and the older one could end up in service.
    """
    make_folder(home.root)
    descriptor = os.open(home.root / "build.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report("waiting for another build", 0, 1)
                time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)
