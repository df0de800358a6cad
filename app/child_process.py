"""A process that a service brings along: started with it, restarted when it dies, and gone with it."""

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
_SOUND_AFTER_SECONDS = 60.0
"""A child that ran so long did not die of how it was started: the next restart is quick again."""


class ChildProcess:
    """Keeps one process running, such as `voucher worker` beside the service; `what` names it in the log.

    Its standard input is a pipe that nothing is written to: when this process ends, however it ends, the pipe closes
    and the child stops by itself. `on_end` gets the number of each process that has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        what: str = "worker",
        environment: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
        politeness: int = 0,
        stop_seconds: float = 10.0,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        on_end: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self._command = list(command)
        self._what = what
        self._environment = None if environment is None else {**os.environ, **environment}
        self._inherited = tuple(inherited)
        self._politeness = politeness
        self._stop_seconds = stop_seconds
        self._first_pause_seconds = first_pause_seconds
        self._on_end = on_end
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.last_status: int | None = None
        """What the child that ran last ended with; none while the first one runs."""

    @property
    def pid(self) -> int | None:
        """Process number of the child; None while there is none."""
        with self._lock:
            return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start the child, and a thread that looks after it."""
        self._thread = threading.Thread(target=self._look_after, name=self._what, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Tell the child to stop, without waiting for it."""
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                _end(self._process)

    def stop(self) -> None:
        """Stop the child; it is killed when it takes longer than it may."""
        self.ask_to_stop()
        with self._lock:
            process = self._process
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
                    self._process = subprocess.Popen(
                        self._command,
                        stdin=subprocess.PIPE,
                        env=self._environment,
                        pass_fds=self._inherited,
                        # Ctrl-C in a terminal is for the parent, which stops its children in order.
                        start_new_session=True,
                    )
                if self._politeness and hasattr(os, "setpriority"):
                    with contextlib.suppress(OSError):  # it may be gone already
                        own = os.getpriority(os.PRIO_PROCESS, 0)
                        os.setpriority(os.PRIO_PROCESS, self._process.pid, own + self._politeness)
                status: int | str = self._process.wait()
                self.last_status = self._process.returncode
                _close(self._process)
                self._tell_end(self._process.pid)
            except OSError as error:
                status = str(error)
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _SOUND_AFTER_SECONDS:
                pause = self._first_pause_seconds
            logger.warning("the %s ended (%s); another is started in %.0f s", self._what, status, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _tell_end(self, pid: int) -> None:
        """Whatever becomes of that, another child is started."""
        try:
            self._on_end(pid)
        except Exception:
            logger.exception("what the %s has left behind cannot be put in order", self._what)


def _end(process: subprocess.Popen[bytes]) -> None:
    _close(process)
    process.terminate()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
