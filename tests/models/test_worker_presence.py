import fcntl
import os
from pathlib import Path

from indexer.worker_slots import WorkerSlots
from models.home import Home
from models.worker_presence import running_workers


def test_workers_are_told_by_the_locks_that_they_hold(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert running_workers(home) == []
    with WorkerSlots(home.workers).take() as first, WorkerSlots(home.workers).take() as second:
        assert running_workers(home) == [first, second] == [0, 1]
    assert running_workers(home) == []


def test_those_who_look_do_not_take_each_other_for_workers(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with WorkerSlots(home.workers).take():
        pass
    descriptor = os.open(home.workers / "0.lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert running_workers(home) == []
    os.close(descriptor)


def test_other_files_are_no_workers(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.workers.mkdir()
    (home.workers / "x.lock").touch()
    (home.workers / "1.lock").mkdir()
    assert running_workers(home) == []
