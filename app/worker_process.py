"""The worker that a service brings along: started with it, restarted when it dies, and gone with it."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from app.settings import Settings

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
_SOUND_AFTER_SECONDS = 60.0
"""A worker that ran so long did not die of how it was started: the next restart is quick again."""

# The command line belongs to another layer: it is found as it is installed.
_START = (
    "import importlib.metadata as m, sys; "
    "sys.argv[0] = 'voucher'; "
    "next(iter(m.entry_points(group='console_scripts', name='voucher'))).load()()"
)


class WorkerProcess:
    """Keeps one `voucher worker` running beside the service.

    Its standard input is a pipe that nothing is written to: when this process ends, however it ends, the pipe closes
    and the worker stops by itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stop_seconds: float = 10.0,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._command = list(command)
        self._stop_seconds = stop_seconds
        self._first_pause_seconds = first_pause_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process number of the worker; None while there is none."""
        with self._lock:
            return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start the worker, and a thread that looks after it."""
        self._thread = threading.Thread(target=self._look_after, name="worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker; a build under way is continued by the next one."""
        self._stopping.set()
        with self._lock:
            process = self._process
            if process is not None:
                _end(process)
        if process is not None:
            try:
                process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread is not None:
            self._thread.join()

    def _look_after(self) -> None:
        pause = self._first_pause_seconds
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                with self._lock:
                    if self._stopping.is_set():
                        return
                    self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
                status: int | str = self._process.wait()
                _close(self._process)
            except OSError as error:
                status = str(error)
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _SOUND_AFTER_SECONDS:
                pause = self._first_pause_seconds
            logger.warning("the worker ended (%s); another is started in %.0f s", status, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def worker_command(settings: Settings) -> list[str]:
    """The command of a worker on the home of `settings`; a database address is left to the environment."""
    command = [sys.executable, "-c", _START, "worker", "--home", str(settings.home), "--device", settings.device]
    command.append("--with-parent")
    if settings.auto_build_seconds is not None:
        command += ["--auto", "--auto-seconds", str(settings.auto_build_seconds)]
    return command


def _end(process: subprocess.Popen[bytes]) -> None:
    _close(process)
    process.terminate()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
