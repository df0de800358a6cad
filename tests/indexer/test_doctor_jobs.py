"""What `voucher doctor` finds of jobs."""

from pathlib import Path

import pytest
from findings_support import bad, told

from indexer.doctor_jobs import check_jobs
from indexer.worker_slots import WorkerSlots
from models.home import Home
from models.job_values import BuildRequest, Job, JobState
from models.jobs import BUILD_WORKFLOW, JobQueue


def test_a_job_that_waits_without_a_worker(home: Home) -> None:
    assert bad(check_jobs(home)) == []
    with JobQueue(home) as jobs:
        job = jobs.enqueue_build(BuildRequest())
    findings = list(check_jobs(home))
    assert bad(findings) == [("jobs", "fault")]
    assert job.job_id in told(findings)
    with WorkerSlots(home.workers).take():
        assert bad(check_jobs(home)) == []


def test_a_build_that_failed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(state: JobState, minute: int) -> Job:
        ended = f"2026-01-01T00:{minute:02}:00"
        reason = "the disk is full" if state is JobState.FAILED else None
        return Job(f"build-{minute}", BUILD_WORKFLOW, state, ended, ended, ended, "", {}, None, None, reason)

    jobs = [job(JobState.CANCELLED, 3), job(JobState.FAILED, 2), job(JobState.SUCCEEDED, 1)]
    monkeypatch.setattr(JobQueue, "list", lambda self, **given: jobs)
    findings = list(check_jobs(home))
    assert bad(findings) == [("index build", "warning")]
    assert "the disk is full" in told(findings)
    jobs[1] = job(JobState.SUCCEEDED, 2)
    assert bad(check_jobs(home)) == []


def test_a_queue_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 1000)
    assert bad(check_jobs(Home(tmp_path))) == [("jobs", "fault")]
