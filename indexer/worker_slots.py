"""Which worker a process is: numbered slots below ``workers/``, held by locks that end with their process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.durable import make_folder
from models.errors import InvalidConfig, JobQueueError

MAX_WORKERS = 64


class WorkerSlots:
    """Locks on the files ``workers/<n>.lock`` of one home.

    The number is the identity under which a job is noted as being worked on. A lock that nobody holds therefore says
    that whatever is noted under its number is being worked on by nobody: no clock and no heartbeat is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def take(self) -> Iterator[int]:
        """The lowest free number, held until the block ends or the process does.

        Raises `InvalidConfig` when all are taken, and `JobQueueError` where the home cannot be written to.
        """
        try:
            make_folder(self._folder)
            (self._folder / "0.lock").touch()
        except OSError as error:
            raise JobQueueError(
                f"no worker can run on {self._folder.parent}: {error.strerror or error}. Jobs need a home that can be "
                "written to; mend the rights of the folder or the mount, or serve with --no-worker"
            ) from error
        for number in range(MAX_WORKERS):
            with self._held(number) as held:
                if held:
                    yield number
                    return
        raise InvalidConfig(f"{MAX_WORKERS} workers run on {self._folder.parent} already; stop some of them")

    @contextmanager
    def abandoned(self) -> Iterator[list[int]]:
        """Numbers that nobody holds, held against a new worker until the block ends."""
        known = sorted(int(p.stem) for p in self._folder.glob("*.lock") if p.stem.isdecimal())
        descriptors: list[int] = []
        numbers: list[int] = []
        try:
            for number in known:
                descriptor = self._lock(number)
                if descriptor >= 0:
                    descriptors.append(descriptor)
                    numbers.append(number)
            yield numbers
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @contextmanager
    def _held(self, number: int) -> Iterator[bool]:
        descriptor = self._lock(number)
        try:
            yield descriptor >= 0
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _lock(self, number: int) -> int:
        """A descriptor whose closing releases the lock, or -1 when somebody else holds it."""
        descriptor = os.open(self._folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return -1
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def executor_of(number: int) -> str:
    """How a slot is called in the queue."""
    return f"worker-{number}"
