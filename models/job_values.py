"""What is told of long work: what was asked for, where it stands, how far it is."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What an index build is asked for. None takes the latest model and the gate of the run's config."""

    model_id: str | None = None
    activate: bool = True
    from_nothing: bool = False
    automatic: bool = False
    """Nobody asked for it: it was due some time after a change."""
    requested_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a running job is: `done` of `total` things of this stage.

    `per_second` and `seconds_left` are of the stage, None while nothing can be said.
    """

    stage: str
    done: int
    total: int
    per_second: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. Times are ISO 8601 in UTC; `reason` says why it failed."""

    job_id: str
    kind: str
    state: JobState
    created_at: str
    started_at: str | None
    finished_at: str | None
    requested_by: str
    request: dict[str, Any]
    progress: JobProgress | None
    result: dict[str, Any] | None
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"state": self.state.value}
