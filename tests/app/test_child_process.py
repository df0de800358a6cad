import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.child_commands import worker_command
from app.child_process import ChildProcess
from app.settings import Settings


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_dies_is_replaced_and_the_last_one_goes_with_the_service() -> None:
    worker = ChildProcess([sys.executable, "-c", "import sys; sys.stdin.buffer.read()"], first_pause_seconds=0.05)
    worker.start()
    until(lambda: worker.pid)
    first = worker.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: worker.pid not in (None, first))
    second = worker.pid
    worker.stop()
    assert worker.pid is None
    assert not is_alive(second)


def test_a_worker_that_will_not_stop_is_killed() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    worker = ChildProcess([sys.executable, "-c", stubborn], stop_seconds=0.3)
    worker.start()
    until(lambda: worker.pid)
    pid = worker.pid
    time.sleep(0.3)
    worker.stop()
    assert not is_alive(pid)


def test_a_command_that_cannot_be_started_is_no_reason_to_stop(tmp_path: Path) -> None:
    worker = ChildProcess([str(tmp_path / "nothing")], first_pause_seconds=0.01)
    worker.start()
    time.sleep(0.1)
    assert worker.pid is None
    worker.stop()


@pytest.mark.parametrize("auto", [None, 30.0])
def test_the_worker_gets_the_home_and_no_secret(tmp_path: Path, auto: float | None) -> None:
    settings = Settings(home=tmp_path, database_url="postgresql://u:secret@h/db", auto_build_seconds=auto)
    command = worker_command(settings)
    assert command[command.index("--home") + 1] == str(tmp_path)
    assert ("--auto" in command) == (auto is not None)
    assert "secret" not in " ".join(command)


def test_a_polite_child_stands_back() -> None:
    child = ChildProcess([sys.executable, "-c", "import sys; sys.stdin.buffer.read()"], politeness=5)
    child.start()
    until(lambda: child.pid)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    until(lambda: os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, own + 5))
    child.stop()


def test_whatever_becomes_of_what_it_left_behind_another_is_started(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def fail(pid: int) -> None:
        told.append(pid)
        raise ValueError("half a file")

    child = ChildProcess([sys.executable, "-c", "pass"], first_pause_seconds=0.01, on_end=fail)
    child.start()
    until(lambda: len(told) >= 2)
    child.stop()
    assert "cannot be put in order" in caplog.text
