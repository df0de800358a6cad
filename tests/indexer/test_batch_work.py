"""What a worker does with a batch, also when it is killed in the middle of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests_support import picture_bytes

from indexer import batch_work
from indexer.batch_work import BatchWork
from indexer.garbage import collect
from indexer.progress import silent
from indexer.worker import Worker
from models.artifacts import active_artifact_id
from models.batches import Batch, BatchOptions, BatchPlant, BatchStore
from models.catalogue import Catalogue
from models.errors import JobCancelled, UnknownBatch
from models.home import Home
from models.identifier import Identifier
from models.job_values import BuildRequest, JobState
from models.jobs import BATCH_WORKFLOW, JobQueue


def put(home: Home, count: int, *, bad: tuple[int, ...] = (), **options: Any) -> Batch:
    """A batch of so many plants with a photo each; those of `bad` are no image."""
    with BatchStore(home).receive() as (draft, keep):
        for n in range(count):
            number = draft.add_photo(b"no image" if n in bad else picture_bytes(n))
            draft.plants.append(BatchPlant(f"{n}.png", (number,)))
        return keep(BatchOptions(**options))


def rows(batch: Batch) -> list[dict[str, Any]]:
    return [json.loads(line) for line in batch.result_lines()]


@pytest.fixture
def jobs(tiny_home: Home) -> Iterator[JobQueue]:
    with JobQueue(tiny_home) as queue:
        yield queue


@pytest.fixture
def work(tiny_home: Home, jobs: JobQueue) -> BatchWork:
    return BatchWork(tiny_home, jobs, "cpu")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.identify_many.identify_many.__kwdefaults__", {"batch_size": 2, "decoders": 1})


def test_every_plant_has_a_row_and_the_photos_are_gone(tiny_home: Home, work: BatchWork) -> None:
    batch = put(tiny_home, 5, bad=(1, 3), top_k=2)
    told: list[tuple[str, int, int]] = []
    result = work.do(batch.batch_id, lambda *what: told.append(what))
    assert (result["plants"], result["failed_plants"], result["photos"]) == (5, 2, 5)
    assert result["bundle_id"] == active_artifact_id(tiny_home)
    found = rows(batch)
    assert [row["position"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["error"] is None for row in found] == [True, False, True, False, True]
    assert {len(row["answer"]["candidates"]) for row in found if row["answer"]} == {2}
    assert found[1]["answer"] is None
    assert told[0] == ("identifying", 0, 5)
    assert told[-1] == ("identifying", 5, 5)
    assert not (batch.folder / "photos").exists()
    assert (batch.progress().done, batch.progress().failed) == (5, 2)


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.usefixtures("small_steps")
def test_a_killed_batch_goes_on_where_it_stopped(
    tiny_home: Home, work: BatchWork, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = put(tiny_home, 7, bad=(2,))

    def die(stage: str, done: int, total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        work.do(batch.batch_id, die)
    before = rows(batch)
    assert len(before) == 4
    with batch.results.open("ab") as file:
        file.write(b'{"position": 4, "file": "half a li')
    seen: list[int] = []
    real = Identifier.encode

    def counted(self: Identifier, pixels: Any) -> Any:
        seen.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Identifier, "encode", counted)
    result = BatchWork(tiny_home, jobs, "cpu").do(batch.batch_id, silent)
    assert (result["plants"], result["failed_plants"]) == (7, 1)
    after = rows(batch)
    assert after[:4] == before
    assert [row["file"] for row in after] == [f"{n}.png" for n in range(7)]
    assert sum(seen) == 3
    assert BatchWork(tiny_home, jobs, "cpu").do(batch.batch_id, silent) == result
    assert sum(seen) == 3


@pytest.mark.usefixtures("small_steps")
def test_the_bundle_stays_the_one_that_it_was_begun_with(
    tiny_home: Home, work: BatchWork, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = put(tiny_home, 4)
    first = active_artifact_id(tiny_home)

    def die(stage: str, done: int, total: int) -> None:
        if done:
            raise Killed

    with pytest.raises(Killed):
        work.do(batch.batch_id, die)
    monkeypatch.setattr("models.artifacts.active_artifact_id", lambda home: pytest.fail("it asked for another"))
    BatchWork(tiny_home, jobs, "cpu").do(batch.batch_id, silent)
    assert {row["answer"]["bundle_id"] for row in rows(batch)} == {first}


@pytest.mark.parametrize("error", [JobCancelled("cancelled"), OSError("disk")])
def test_photos_are_removed_however_it_ends(tiny_home: Home, work: BatchWork, error: Exception) -> None:
    batch = put(tiny_home, 3)

    def fail(stage: str, done: int, total: int) -> None:
        raise error

    assert work.do(batch.batch_id, fail) == {"failed": str(error)}
    assert not (batch.folder / "photos").exists()
    assert work.do(batch.batch_id, silent) == {"failed": str(error)}


def test_a_batch_that_was_deleted_meanwhile_ends_quietly(tiny_home: Home, work: BatchWork) -> None:
    batch = put(tiny_home, 3)

    def delete(stage: str, done: int, total: int) -> None:
        if done == 0:
            BatchStore(tiny_home).delete(batch.batch_id)

    assert "no batch" in work.do(batch.batch_id, delete)["failed"]
    assert not batch.folder.exists()
    assert "no batch" in work.do(batch.batch_id, silent)["failed"]


def test_candidates_are_restricted_as_asked(tiny_home: Home, work: BatchWork) -> None:
    species = Identifier.load(tiny_home, _cpu()).species
    batch = put(tiny_home, 2, families=(str(species[0].family),))
    work.do(batch.batch_id, silent)
    for row in rows(batch):
        assert {c["family"] for c in row["answer"]["candidates"]} == {species[0].family}
        assert row["answer"]["probability_outside"] is not None


def test_several_photos_of_a_plant_are_answered_together(tiny_home: Home, work: BatchWork) -> None:
    with BatchStore(tiny_home).receive() as (draft, keep):
        numbers = [draft.add_photo(picture_bytes(n)) for n in range(3)]
        draft.plants = [BatchPlant("a", tuple(numbers[:2])), BatchPlant("b", (numbers[2],)), BatchPlant("c", (), "bad")]
        batch = keep(BatchOptions())
    work.do(batch.batch_id, silent)
    assert [row["answer"] and row["answer"]["photo_count"] for row in rows(batch)] == [2, 1, None]
    assert rows(batch)[2]["error"] == "bad"


def test_sweeping_removes_what_nobody_needs(tiny_home: Home, work: BatchWork, jobs: JobQueue) -> None:
    store = BatchStore(tiny_home)
    waiting, over, expired, lost = (put(tiny_home, 1) for _ in range(4))
    for batch in (waiting, over, expired):
        jobs.enqueue_batch(batch.batch_id)
    for batch in (over, expired):
        jobs.cancel(batch.batch_id)
    expired.finish()
    _date_back(expired.folder / "progress.json", "finished_at", hours=73)
    work.sweep()
    assert store.ids() == sorted(b.batch_id for b in (waiting, over, lost))
    assert [(b.folder / "photos").exists() for b in (waiting, over, lost)] == [True, False, True]
    _date_back(lost.folder / "batch.json", "created_at", hours=2)
    assert store.sweep(jobs.is_over, dry_run=True) == [lost.batch_id]
    with Catalogue.open(tiny_home) as catalogue:
        assert collect(tiny_home, catalogue, dry_run=True).batches == [lost.batch_id]
        assert collect(tiny_home, catalogue).batches == [lost.batch_id]
    assert store.ids() == sorted(b.batch_id for b in (waiting, over))


def test_only_the_names_of_batches_lead_to_one(tiny_home: Home) -> None:
    store = BatchStore(tiny_home)
    batch = put(tiny_home, 1)
    for name in ("..", "../indexes", "", f"{batch.batch_id}/", f"x{batch.batch_id}"):
        with pytest.raises(UnknownBatch):
            store.get(name)


def test_a_draft_that_was_given_up_leaves_nothing(tiny_home: Home) -> None:
    def give_up() -> None:
        with BatchStore(tiny_home).receive() as (draft, _):
            draft.add_photo(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert list(tiny_home.batches.iterdir()) == []


def test_builds_and_batches_are_done_beside_each_other(
    tiny_home: Home, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other to have begun, which would never come if one had to end first."""
    from indexer import build_gallery

    building, identifying = threading.Event(), threading.Event()
    real_build, real_do = build_gallery.build, BatchWork.do

    def build(*given: Any, **named: Any) -> Any:
        building.set()
        assert identifying.wait(30)
        return real_build(*given, **named)

    def do(self: BatchWork, *given: Any) -> Any:
        identifying.set()
        assert building.wait(30)
        return real_do(self, *given)

    monkeypatch.setattr(build_gallery, "build", build)
    monkeypatch.setattr(batch_work.BatchWork, "do", do)
    batch = put(tiny_home, 2)
    asked = [jobs.enqueue_build(BuildRequest()), jobs.enqueue_batch(batch.batch_id, requested_by="Ada")]
    assert [job.job_id for job in jobs.list(kinds=(BATCH_WORKFLOW,))] == [batch.batch_id]
    worker = Worker(tiny_home, device="cpu")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        states = [_until(jobs, job.job_id) for job in asked]
    finally:
        worker.stop.set()
        thread.join(30)
    assert states == [JobState.SUCCEEDED, JobState.SUCCEEDED]
    assert len(rows(batch)) == 2


def _until(jobs: JobQueue, job_id: str) -> JobState:
    deadline = time.monotonic() + 60
    while not (state := jobs.get(job_id).state).is_final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return state


def _cpu() -> Any:
    from models.compute import Compute

    return Compute.resolve("cpu", precision="float32")


def _date_back(path: Path, name: str, *, hours: int) -> None:
    values = json.loads(path.read_bytes())
    values[name] = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    path.write_text(json.dumps(values))


SLOW_WORKER = """
import sys, time
from pathlib import Path
from indexer import identify_many
from indexer.worker import Worker
from models.home import Home

identify_many.identify_many.__kwdefaults__ = {"batch_size": 1, "decoders": 1}
real = identify_many._answers

def slow(*given):
    time.sleep(0.1)
    return real(*given)

identify_many._answers = slow
Worker(Home(Path(sys.argv[1])), device="cpu").run(ready=lambda name: print(name, flush=True))
"""


@pytest.mark.slow
def test_a_batch_whose_worker_is_killed_is_finished_by_another(tiny_home: Home, jobs: JobQueue) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW_WORKER, str(tiny_home.root)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    batch = put(tiny_home, 40)
    jobs.enqueue_batch(batch.batch_id)
    first = start()
    try:
        deadline = time.monotonic() + 90
        while batch.progress().done < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        done = len(rows(batch))
        assert 5 <= done < 40
        assert (batch.folder / "photos").exists()
        second = start()
        try:
            assert _until(jobs, batch.batch_id) is JobState.SUCCEEDED
        finally:
            second.kill()
            second.wait()
            second.stdout.close()
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    assert [row["position"] for row in rows(batch)] == list(range(40))
    assert not (batch.folder / "photos").exists()
