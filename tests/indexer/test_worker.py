"""The worker: what becomes of queued builds, also when it is killed."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests_support import sheet_of

from indexer import build_gallery
from indexer import worker as worker_module
from indexer.auto_build import AutoBuild
from indexer.worker import Worker
from models.artifacts import active_artifact_id
from models.bundle_history import list_bundles
from models.catalogue import Catalogue
from models.curation import Curator
from models.errors import InsufficientData, JobCancelled, UnknownJob
from models.home import Home
from models.job_values import BuildRequest, Job, JobState
from models.jobs import JobQueue


@contextmanager
def working(home: Home, **given: Any) -> Iterator[Worker]:
    """A worker in a thread of this process."""
    worker = Worker(home, device="cpu", **given)
    ready = threading.Event()
    thread = threading.Thread(target=worker.run, args=(lambda _: ready.set(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield worker
    finally:
        worker.stop.set()
        thread.join(30)


@pytest.fixture
def jobs(living_home: Home) -> Iterator[JobQueue]:
    with JobQueue(living_home) as queue:
        yield queue


def until(jobs: JobQueue, job_id: str, is_so: Callable[[Job], object], seconds: float = 60.0) -> Job:
    deadline = time.monotonic() + seconds
    while not is_so(job := jobs.get(job_id)):
        assert time.monotonic() < deadline, f"it never came true of {job}"
        time.sleep(0.05)
    return job


def done(job: Job) -> bool:
    return job.state.is_final


def test_a_queued_build_is_done_and_told(living_home: Home, jobs: JobQueue) -> None:
    with Catalogue.open(living_home) as catalogue:
        species = next(catalogue.sheets()).species_id
        Curator(catalogue, "Ada").add([sheet_of(1, species)])
    job = jobs.enqueue_build(BuildRequest(requested_by="Ada"))
    assert (job.state, job.progress, job.requested_by) == (JobState.QUEUED, None, "Ada")
    with working(living_home):
        job = until(jobs, job.job_id, done)
    assert job.state is JobState.SUCCEEDED
    assert (job.result["added"], job.result["sheets"]) == (1, 25)
    assert job.progress.stage == "writing the index"
    assert job.started_at <= job.finished_at
    (latest, *_) = list_bundles(living_home)
    assert (latest.bundle_id, latest.job_id, latest.built_by) == (job.result["bundle_id"], job.job_id, "Ada")


def test_builds_are_done_one_after_the_other_and_what_fails_says_why(
    living_home: Home, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[str] = []
    together: list[int] = []

    def build(*_: Any, job_id: str, report: Any, **__: Any) -> Any:
        at_work.append(job_id)
        together.append(len(at_work))
        time.sleep(0.2)
        at_work.remove(job_id)
        raise InsufficientData("no sheets: import some")

    monkeypatch.setattr(build_gallery, "build", build)
    asked = [jobs.enqueue_build(BuildRequest()) for _ in range(3)]
    with working(living_home):
        ended = [until(jobs, job.job_id, done) for job in asked]
    assert together == [1, 1, 1]
    assert {job.state for job in ended} == {JobState.FAILED}
    assert {job.reason for job in ended} == {"no sheets: import some"}
    assert {job.job_id for job in jobs.list()} == {job.job_id for job in asked}


def test_a_running_job_is_cancelled_and_one_that_waits_is_never_begun(
    living_home: Home, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    ended = threading.Event()

    def build(*_: Any, job_id: str, report: Any, **__: Any) -> Any:
        begun.append(job_id)
        try:
            for step in range(1000):
                report(f"stage {step}", 0, 1)
                time.sleep(0.05)
        except JobCancelled:
            ended.set()
            raise

    monkeypatch.setattr(build_gallery, "build", build)
    first, second = (jobs.enqueue_build(BuildRequest()) for _ in range(2))
    with working(living_home):
        until(jobs, first.job_id, lambda job: job.progress)
        assert jobs.cancel(second.job_id).state is JobState.CANCELLED
        assert jobs.cancel(first.job_id).state is JobState.CANCELLED
        assert ended.wait(20)
        time.sleep(1.0)
    assert begun == [first.job_id]
    assert jobs.get(second.job_id).state is JobState.CANCELLED


def test_what_nobody_expected_fails_the_job_and_not_the_worker(
    living_home: Home, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def build(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    with working(living_home):
        with monkeypatch.context() as patched:
            patched.setattr(build_gallery, "build", build)
            failed = until(jobs, jobs.enqueue_build(BuildRequest()).job_id, done)
        sound = until(jobs, jobs.enqueue_build(BuildRequest()).job_id, done)
    assert failed.state is JobState.FAILED
    assert "a fault of ours" in failed.reason
    assert "nobody expected" in caplog.text
    assert sound.state is JobState.SUCCEEDED


def test_a_finished_job_cannot_be_cancelled_and_old_ones_are_forgotten(living_home: Home, jobs: JobQueue) -> None:
    with working(living_home):
        finished = [until(jobs, jobs.enqueue_build(BuildRequest()).job_id, done) for _ in range(3)]
    time.sleep(1.1)  # SQLite notes when a job was asked for to the second
    waiting = jobs.enqueue_build(BuildRequest())
    assert jobs.cancel(finished[0].job_id).state is JobState.SUCCEEDED
    assert jobs.forget_all_but(2) == 2
    waiting_and_one, forgotten = {job.job_id for job in jobs.list()}, {job.job_id for job in finished}
    assert waiting.job_id in waiting_and_one
    assert len(waiting_and_one) == 2
    with pytest.raises(UnknownJob):
        jobs.get(min(forgotten - waiting_and_one))


def test_the_same_name_asks_for_the_same_job(jobs: JobQueue) -> None:
    first = jobs.enqueue_build(BuildRequest(requested_by="one"), job_id="build-auto-1")
    again = jobs.enqueue_build(BuildRequest(requested_by="two"), job_id="build-auto-1")
    assert first == again
    assert len(jobs.list()) == 1


def test_an_automatic_build_comes_some_time_after_the_last_change(living_home: Home, jobs: JobQueue) -> None:
    clock = [0.0]
    with (
        closing(AutoBuild(living_home, jobs, 60.0, now=lambda: clock[0])) as auto,
        closing(AutoBuild(living_home, jobs, 0.0)) as at_once,
        Catalogue.open(living_home) as catalogue,
    ):
        species = next(catalogue.sheets()).species_id
        curator = Curator(catalogue, "Ada")
        for seconds in (0, 50, 100, 200):
            clock[0] = seconds
            if seconds < 200:
                curator.add([sheet_of(seconds, species)])
            auto.look()
            assert len(jobs.list()) == (1 if seconds == 200 else 0)
        (job,) = jobs.list()
        assert job.request["automatic"]
        clock[0] = 400
        auto.look()
        # Another worker asks for the same job, and nobody asks again for what is built.
        at_once.look()
        assert len(jobs.list()) == 1
        with working(living_home):
            assert until(jobs, job.job_id, done).state is JobState.SUCCEEDED
        at_once.look()
        assert len(jobs.list()) == 1


SLOW_WORKER = """
import sys, time
from pathlib import Path
from indexer import build_gallery

from indexer.worker import Worker
from models.home import Home

real = build_gallery.build

def slow(*given, report, **named):
    for step in range(40):
        report("pretending", step, 40)
        time.sleep(0.05)
    return real(*given, report=report, **named)

build_gallery.build = slow
Worker(Home(Path(sys.argv[1]), sys.argv[2] or None), device="cpu").run(ready=lambda name: print(name, flush=True))
"""


@pytest.mark.slow
def test_a_job_is_continued_by_another_worker_when_its_own_is_killed(living_home: Home, jobs: JobQueue) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW_WORKER, str(living_home.root), living_home.database_url or ""]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    before = active_artifact_id(living_home)
    job = jobs.enqueue_build(BuildRequest())
    first, second = start(), start()
    try:
        names = {worker.stdout.readline().strip(): worker for worker in (first, second)}
        assert sorted(names) == ["worker-0", "worker-1"]
        until(jobs, job.job_id, lambda j: j.progress and j.progress.done > 5)
        (status,) = jobs._client.list_workflows(workflow_ids=[job.job_id])
        killed = names[status.executor_id]
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        assert not done(jobs.get(job.job_id))
        # The other one notices that nobody holds that number any more, begins again, and finds what was embedded.
        finished = until(jobs, job.job_id, done)
    finally:
        for worker in (first, second):
            worker.kill()
            worker.wait()
            worker.stdout.close()
    assert finished.state is JobState.SUCCEEDED
    assert active_artifact_id(living_home) == finished.result["bundle_id"] != before


def test_a_job_that_is_cancelled_while_it_tells_its_progress_ends_as_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(BaseException):
        """As DBOS raises it."""

    def refuse(error: BaseException) -> None:
        def set_event(name: str, value: object) -> None:
            raise error

        monkeypatch.setattr(worker_module.DBOS, "set_event", set_event)

    refuse(Cancelled())
    with pytest.raises(JobCancelled):
        worker_module.note_event("progress", 1)
    for passed_on in (ValueError(), KeyboardInterrupt()):
        refuse(passed_on)
        with pytest.raises(type(passed_on)):
            worker_module.note_event("progress", 1)


def test_lines_of_a_log_are_json_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", "from indexer.cli import main; main()", "worker", "--log-format", "json"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "workers").symlink_to(tmp_path / "file" / "below")
    ended = subprocess.run([*command, "--home", home], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["ERROR"]
    assert "no worker can run" in lines[0]["message"]
