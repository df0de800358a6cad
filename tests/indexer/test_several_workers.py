"""Two workers on one home, as processes: they share batches."""

import time
from pathlib import Path

import pytest
from fault_processes import Processes
from tests_support import picture_bytes

from models.batches import Batch, BatchOptions, BatchPlant, BatchStore
from models.home import Home
from models.job_values import JobState
from models.jobs import JobQueue

pytestmark = pytest.mark.slow


def put(home: Home, plants: int) -> Batch:
    with BatchStore(home).receive() as (draft, keep):
        for n in range(plants):
            draft.plants.append(BatchPlant(f"{n}.png", (draft.add_photo(picture_bytes(n)),)))
        return keep(BatchOptions())


def test_two_workers_do_two_batches_at_the_same_time_and_each_of_them_once(tiny_home: Home, tmp_path: Path) -> None:
    batches = [put(tiny_home, 200) for _ in range(3)]
    with Processes(tiny_home.root, tmp_path / "log") as processes, JobQueue(tiny_home) as jobs:
        processes.start("worker")
        processes.start("worker beside it")
        asked = [jobs.enqueue_batch(batch.batch_id).job_id for batch in batches]
        most, deadline = 0, time.monotonic() + 120
        while not all((states := [jobs.get(job).state for job in asked])[n].is_final for n in range(3)):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            most = max(most, states.count(JobState.RUNNING))
            time.sleep(0.02)
        assert states == [JobState.SUCCEEDED] * 3
        assert most == 2
        for batch in batches:
            assert len(list(batch.result_lines())) == 200
