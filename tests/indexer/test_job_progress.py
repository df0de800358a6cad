from typing import Any

import pytest

from indexer.job_progress import JobReport
from models.errors import JobCancelled, JobQueueError
from models.jobs import PROGRESS_EVENT


class Jobs:
    cancelled = False

    def is_cancelled(self, job_id: str) -> bool:
        return self.cancelled


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def report_with(events: list[dict[str, Any]]) -> tuple[JobReport, Jobs, Clock]:
    jobs, clock = Jobs(), Clock()

    def set_event(key: str, value: Any) -> None:
        assert key == PROGRESS_EVENT
        events.append(value)

    return JobReport("job", jobs, set_event, clock), jobs, clock


def test_rate_and_time_left_are_of_the_stage() -> None:
    events: list[dict[str, Any]] = []
    report, _, clock = report_with(events)
    report("embedding", 100, 500)  # some were done before this attempt
    clock.seconds = 4.0
    report("embedding", 300, 500)
    assert events[0] == {"stage": "embedding", "done": 100, "total": 500, "per_second": None, "seconds_left": None}
    assert events[1] == {"stage": "embedding", "done": 300, "total": 500, "per_second": 50.0, "seconds_left": 4.0}


def test_it_is_written_twice_a_second_at_most_but_for_a_new_stage_and_the_end() -> None:
    events: list[dict[str, Any]] = []
    report, _, clock = report_with(events)
    for done in range(101):
        clock.seconds = done * 0.01
        report("a", done, 100)
    report("b", 0, 1)
    assert [(e["stage"], e["done"]) for e in events] == [("a", 0), ("a", 50), ("a", 100), ("b", 0)]


def test_a_cancelled_job_ends_within_its_work() -> None:
    report, jobs, _ = report_with([])
    jobs.cancelled = True
    with pytest.raises(JobCancelled, match="kept"):
        report("a", 0, 1)


def test_progress_that_cannot_be_written_does_not_end_the_work(caplog: pytest.LogCaptureFixture) -> None:
    def locked(key: str, value: Any) -> None:
        raise JobQueueError("the database is locked")

    JobReport("job", Jobs(), locked)("a", 0, 1)
    assert "locked" in caplog.text
