"""Metrics of several processes that share one port: a folder of files, one set for each process, added up by a scrape.

It is `prometheus_client`'s multiprocess mode, which is chosen by an environment variable before that package is
imported. The parent makes the folder, starts its processes afresh (they are not forked) with `environment`, tells when
one has ended, and removes the folder.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from app.metrics_space import ADDED_UP, VARIABLE, reserve

logger = logging.getLogger(__name__)

_FOLDERS = "voucher-metrics-"
_TOTAL = "ended"
"""Stands in the place of a process number in the names of the files that hold what ended processes had counted."""


class MetricsFolder:
    """Files of what several processes have counted. A gauge belongs to a living process, a count outlives it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be started with to put its figures here."""
        return {VARIABLE: str(self.root)}

    def pids(self) -> list[int]:
        """Processes that have put figures here and live, ascending."""
        found = {int(file.stem.rpartition("_")[2]) for file in self.root.glob("counter_*.db") if _is_of_process(file)}
        return sorted(pid for pid in found if _lives(pid))

    def collect(self) -> list[Metric]:
        """Sums over all processes: of all that were for counters and histograms, of the living for gauges."""
        with self._locked(fcntl.LOCK_SH):
            collector = MultiProcessCollector(CollectorRegistry(), str(self.root))
            files = [str(file) for file in self.root.glob("*.db") if _counts(file)]
            return list(collector.merge(files, accumulate=True))

    def forget(self, pid: int) -> None:
        """Keep what an ended process had counted, in one place for all of them, and drop its files and its gauges.

        Without this, a process that dies at once and is started again, over and over, would fill the folder.
        """
        with self._locked(fcntl.LOCK_EX):
            for kind in ADDED_UP:
                self._add_up(kind, self.root / f"{kind}_{pid}.db")
            for file in self.root.glob(f"*_{pid}.db"):
                file.unlink(missing_ok=True)

    def _add_up(self, kind: str, file: Path) -> None:
        if not file.is_file():
            return
        total = MmapedDict(str(self.root / f"{kind}_{_TOTAL}.db"))
        try:
            values = MmapedDict.read_all_values_from_file(str(file))
            for key, value, timestamp, _ in values:
                before, _ = total.read_value(key)
                total.write_value(key, before + value, timestamp)
        finally:
            total.close()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """A scrape never sees a process both in its own files and in the total, or in neither."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


@contextmanager
def metrics_folder() -> Iterator[MetricsFolder | None]:
    """A folder for the processes that the caller starts; it goes when the block ends. None where there is no room.

    What parents that were killed have left behind is removed first.
    """
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    with ExitStack() as stack:
        try:
            root = Path(tempfile.mkdtemp(prefix=f"{_FOLDERS}{os.getpid()}-", dir=parent))
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            reserve(root, _TOTAL, ADDED_UP)
            folder = MetricsFolder(root)
        except OSError as error:
            logger.warning("each process tells its own metrics: %s (%s)", error.strerror or error, parent)
            folder = None
        yield folder


def folder_from_environment() -> MetricsFolder | None:
    """The folder that this process was started with; None for a process that serves alone."""
    given = os.environ.get(VARIABLE)
    return MetricsFolder(Path(given)) if given else None


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_FOLDERS}*-*"):
        pid = folder.name.removeprefix(_FOLDERS).partition("-")[0]
        if pid.isdecimal() and not _lives(int(pid)):
            # Another user's cannot be removed, and need not be.
            shutil.rmtree(folder, ignore_errors=True)


def _is_of_process(file: Path) -> bool:
    return file.stem.rpartition("_")[2].isdecimal()


def _counts(file: Path) -> bool:
    """Whether the figures in a file still hold: a gauge of a process that is gone does not."""
    return not file.name.startswith("gauge_") or (
        _is_of_process(file) and _lives(int(file.stem.rpartition("_")[2])) and file.exists()
    )


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True  # somebody else's
        return True
    return False
