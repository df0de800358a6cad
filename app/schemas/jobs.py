"""Work that takes long: index builds and batches."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.wire import WireModel


class IndexBuildBody(BaseModel):
    """What a new index is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: str | None = Field(None, max_length=128, description="of a trained model; null: the latest")
    activate: bool = Field(True, description="put it into service when it is built and its figures hold")
    from_nothing: bool = Field(False, description="do not continue the latest index")
    curator: str | None = Field(None, max_length=200, description="who asks, for the record")


class JobProgressBody(WireModel):
    """How far a job is."""

    stage: str
    done: int
    total: int
    per_second: float | None = Field(description="of the stage; null while nothing can be said")
    seconds_left: float | None = Field(description="of the stage")


class BatchBody(WireModel):
    """Photos that were sent together, and how far their identification is."""

    batch_id: str = Field(description="also the id of its job")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: str = Field(description="UTC, ISO 8601")
    started_at: str | None
    finished_at: str | None
    expires_at: str | None = Field(description="when it is deleted with its results; null until it is finished")
    plants: int = Field(ge=1, description="rows that the results will have")
    photos: int = Field(ge=0, description="photos that can be looked at")
    done: int = Field(ge=0, description="plants that have their row")
    failed: int = Field(ge=0, description="rows so far that hold an error")
    progress: JobProgressBody | None
    bundle_id: str | None = Field(description="the index that answers; null until it began")
    model_id: str | None
    reason: str | None = Field(description="why it failed as a whole")
    results_url: str


class JobBody(WireModel):
    """Long work that a worker does."""

    job_id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: str = Field(description="UTC, ISO 8601")
    started_at: str | None
    finished_at: str | None
    requested_by: str
    progress: JobProgressBody | None
    result: dict[str, Any] | None = Field(description="of a build: its bundle, counts, figures, and whether it serves")
    reason: str | None = Field(description="why it failed")


class JobList(WireModel):
    """Jobs, the latest first."""

    jobs: list[JobBody]
