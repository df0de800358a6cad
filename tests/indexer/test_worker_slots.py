import subprocess
import sys
from pathlib import Path

import pytest

from indexer import worker_slots
from indexer.worker_slots import WorkerSlots
from models.errors import InvalidConfig


def test_workers_take_different_numbers_and_give_them_back(tmp_path: Path) -> None:
    slots = WorkerSlots(tmp_path / "workers")
    with slots.take() as first, slots.take() as second:
        assert (first, second) == (0, 1)
    with slots.take() as again:
        assert again == 0


def test_only_numbers_that_nobody_holds_are_abandoned_and_they_are_held_meanwhile(tmp_path: Path) -> None:
    slots = WorkerSlots(tmp_path / "workers")
    with slots.take(), slots.take():
        pass
    with slots.take() as mine:
        with slots.abandoned() as numbers:
            assert numbers == [1]
            # A new worker must not begin under a number whose work is just being given to others.
            with slots.take() as third:
                assert third == 2
        with slots.take() as second:
            assert (mine, second) == (0, 1)


def test_a_killed_worker_leaves_its_number(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from indexer.worker_slots import WorkerSlots\n"
        "with WorkerSlots(Path(sys.argv[1])).take() as n:\n"
        "    print(n, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder = tmp_path / "workers"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("0", -9)
    with WorkerSlots(folder).abandoned() as numbers:
        assert numbers == [0]


def test_more_workers_than_slots_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_slots, "MAX_WORKERS", 1)
    slots = WorkerSlots(tmp_path / "workers")
    with slots.take(), pytest.raises(InvalidConfig, match="stop some"), slots.take():
        pass
