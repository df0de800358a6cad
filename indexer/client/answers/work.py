"""Jobs and batches, versions of the index, and whether the service is well."""

from typing import Any, Literal

from indexer.client.answers.base import Answer
from indexer.client.answers.identification import BareIdentification

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobProgress(Answer):
    """How far a job is."""

    stage: str
    done: int
    total: int
    per_second: float | None
    seconds_left: float | None


class Job(Answer):
    """Long work that a worker does."""

    job_id: str
    kind: str
    state: JobState
    created_at: str
    started_at: str | None
    finished_at: str | None
    requested_by: str
    progress: JobProgress | None
    result: dict[str, Any] | None
    reason: str | None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("succeeded", "failed", "cancelled")


class JobList(Answer):
    """Jobs, the latest first."""

    jobs: tuple[Job, ...]


class Batch(Answer):
    """Photos that were sent together, and how far their identification is."""

    batch_id: str
    state: JobState
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str | None
    plants: int
    photos: int
    done: int
    failed: int
    progress: JobProgress | None
    bundle_id: str | None
    model_id: str | None
    reason: str | None
    results_url: str

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("succeeded", "failed", "cancelled")


class BatchResult(Answer):
    """One row of the results of a batch: an answer, or an error."""

    position: int
    file: str
    error: str | None
    answer: BareIdentification | None


class Validation(Answer):
    """Figures of a bundle on validation photos, to compare bundles by; training knows the photos."""

    photos: int
    species: int
    top1: float
    top1_interval: tuple[float, ...] | None
    top5: float
    mrr: float


class BundleChanges(Answer):
    """What differs from the bundle that was continued."""

    added: int = 0
    removed: int = 0
    moved: int = 0
    species_added: int = 0
    species_removed: int = 0
    revisions: tuple[dict[str, Any], ...] = ()


class Bundle(Answer):
    """One version of the index."""

    bundle_id: str
    model_id: str
    number: int
    created_at: str
    catalogue_revision: int
    species: int
    sheets: int
    base: str | None
    built_by: str
    job_id: str | None
    changes: BundleChanges
    validation: Validation | None
    held_back: str | None
    is_active: bool
    fault: str | None


class BundleList(Answer):
    """Bundles, the latest first."""

    bundles: tuple[Bundle, ...]


class ReadinessCheck(Answer):
    """One thing that the service needs."""

    name: str
    state: Literal["ok", "warning", "fault"]
    detail: str | None


class Readiness(Answer):
    """What the service identifies plants with."""

    status: str
    bundle_id: str
    model_id: str
    species_count: int
    complaint: str | None = None
    checks: tuple[ReadinessCheck, ...]
