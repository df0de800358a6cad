"""Long work that outlives a process: what is queued, how far it is, and how it ended.

The queue is DBOS's (tables beside the catalogue's, in the same database). Whoever asks for work only writes a row here;
`indexer.worker` runs it in a process of its own. Everything that is stored is JSON.
"""

import builtins
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from models.catalogue_engine import catalogue_error
from models.errors import CatalogueBusy, JobQueueError, StorageFull, StorageReadOnly, UnknownJob
from models.home import Home
from models.job_values import BuildRequest, Job, JobProgress, JobState

logger = logging.getLogger(__name__)

APPLICATION = "voucher"
JOBS_VERSION = "jobs-1"
"""What a queued job means. A worker runs those of its own version; it grows when they are no longer understood."""
BUILD_QUEUE = "index-builds"
BUILD_WORKFLOW = "build-index"
BATCH_QUEUE = "batches"
"""A queue of its own: builds are done one at a time, batches one at a time by each worker, neither waiting for the
other."""
BATCH_WORKFLOW = "identify-batch"
KINDS = (BUILD_WORKFLOW, BATCH_WORKFLOW)
PROGRESS_EVENT = "progress"
SERIALIZER = DBOSPortableJSONSerializer()
"""DBOS would use pickle."""
MAX_ATTEMPTS = 5
"""A job whose worker was lost so often is given up: what kills workers would go on doing so."""

_STATES = {
    "DELAYED": "queued",
    "ENQUEUED": "queued",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
}

Answer = TypeVar("Answer")


class JobQueue:
    """The jobs of one home, for whoever asks for them. Threads may share it.

    All methods raise `JobQueueError` when the database cannot be read or written, and `StorageFull`,
    `StorageReadOnly` and `CatalogueBusy` where that is why.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._client: DBOSClient | None = None

    def close(self) -> None:
        """Release the database."""
        with self._lock:
            if self._client is not None:
                self._client.destroy()
                self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def enqueue_build(self, request: BuildRequest, *, job_id: str | None = None) -> Job:
        """The job of an index build, which waits until those before it are done.

        With a `job_id` that was given before, the job of that time.
        """
        options = EnqueueOptions(
            workflow_name=BUILD_WORKFLOW,
            queue_name=BUILD_QUEUE,
            workflow_id=job_id or new_job_id(),
            app_version=JOBS_VERSION,
            application_name=APPLICATION,
        )
        self._ask(lambda client: client.enqueue(options, request.to_json()))
        return self.get(options["workflow_id"])

    def enqueue_batch(self, batch_id: str, *, requested_by: str = "") -> Job:
        """The job that identifies a batch of photos, of the same id; one that was asked for before is not doubled."""
        options = EnqueueOptions(
            workflow_name=BATCH_WORKFLOW,
            queue_name=BATCH_QUEUE,
            workflow_id=batch_id,
            app_version=JOBS_VERSION,
            application_name=APPLICATION,
        )
        request = {"batch_id": batch_id, "requested_by": requested_by}
        self._ask(lambda client: client.enqueue(options, request))
        return self.get(batch_id)

    def get(self, job_id: str) -> Job:
        """One job. Raises `UnknownJob`."""

        def find(client: DBOSClient) -> Sequence[WorkflowStatus]:
            return client.list_workflows(workflow_ids=[job_id], application_name=APPLICATION)

        found = [status for status in self._ask(find) if status.name in KINDS]
        if not found:
            raise UnknownJob(f"there is no job {job_id!r}; jobs are listed at /v1/jobs and by `voucher jobs list`")
        return self._job(found[0])

    def list(
        self,
        *,
        limit: int = 50,
        unfinished: bool = False,
        kinds: Sequence[str] = KINDS,
        with_progress: bool = True,
    ) -> builtins.list[Job]:
        """Jobs, the latest first; the progress of each takes a question of its own."""
        status = ["DELAYED", "ENQUEUED", "PENDING"] if unfinished else None

        def find(client: DBOSClient) -> Sequence[WorkflowStatus]:
            return client.list_workflows(
                name=[*kinds], status=status, application_name=APPLICATION, limit=limit, sort_desc=True
            )

        return [self._job(status, with_progress=with_progress) for status in self._ask(find)]

    def cancel(self, job_id: str) -> Job:
        """The job, which will not be begun, or stops at its next step. One that is done stays as it is."""
        if not self.get(job_id).state.is_final:
            self._ask(lambda client: client.cancel_workflow(job_id))
        return self.get(job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Whether somebody has cancelled it."""
        return self.get(job_id).state is JobState.CANCELLED

    def is_over(self, job_id: str) -> bool | None:
        """Whether nothing more will happen to a job; None where there is no such job."""
        try:
            return self.get(job_id).state.is_final
        except UnknownJob:
            return None

    def forget_all_but(self, keep: int) -> int:
        """How many finished jobs were forgotten: all but the latest `keep` of each kind."""
        old = [job_id for kind in KINDS for job_id in self._finished_beyond(keep, kind)]
        if old:
            self._ask(lambda client: client.delete_workflows(old))
        return len(old)

    def _finished_beyond(self, keep: int, kind: str) -> builtins.list[str]:
        def find(client: DBOSClient) -> Sequence[WorkflowStatus]:
            return client.list_workflows(
                name=kind,
                application_name=APPLICATION,
                sort_desc=True,
                offset=keep,
                limit=100_000,
                load_input=False,
                load_output=False,
            )

        return [s.workflow_id for s in self._ask(find) if JobState(_STATES[s.status]).is_final]

    def _job(self, status: WorkflowStatus, *, with_progress: bool = True) -> Job:
        state = JobState(_STATES[status.status])
        request = _request_of(status)
        result = status.output if isinstance(status.output, dict) else None
        reason = str(status.error) if status.error is not None else None
        if status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
            reason = f"its worker was lost {MAX_ATTEMPTS} times while at it; see the worker's log, then ask again"
        if result is not None and "failed" in result:
            # An expected failure is a result of the work, told in the words of its error.
            state, reason, result = JobState.FAILED, str(result["failed"]), None
        return Job(
            job_id=status.workflow_id,
            kind=status.name,
            state=state,
            created_at=_time(status.created_at) or "",
            started_at=_time(status.dequeued_at),
            finished_at=_time(status.completed_at),
            requested_by=str(request.get("requested_by", "")),
            request=request,
            progress=self._progress(status.workflow_id) if with_progress and state is not JobState.QUEUED else None,
            result=result,
            reason=reason,
        )

    def _progress(self, job_id: str) -> JobProgress | None:
        event = self._ask(lambda client: client.get_event(job_id, PROGRESS_EVENT, timeout_seconds=0))
        return JobProgress(**event) if isinstance(event, dict) else None

    def _ask(self, what: Callable[[DBOSClient], Answer]) -> Answer:
        try:
            return what(self._connected())
        except (SQLAlchemyError, dbos_error.DBOSException, OSError) as error:
            if isinstance(error, SQLAlchemyError):
                known = catalogue_error(self._home.catalogue_url, error)
                if isinstance(known, StorageFull | StorageReadOnly | CatalogueBusy):
                    raise known from error
            cause = getattr(error, "orig", None) or error
            raise JobQueueError(
                f"the queue of jobs cannot be read or written: {cause}; check that the database is there, that its "
                "disk has free space, and that no other program holds it locked"
            ) from error

    def _connected(self) -> DBOSClient:
        with self._lock:
            if self._client is None:
                prepare_queue(self._home)
                self._client = DBOSClient(
                    system_database_url=queue_url(self._home),
                    serializer=SERIALIZER,
                    application_name=APPLICATION,
                    retry_connection_errors=False,
                )
                self._client.register_queue(BUILD_QUEUE, global_concurrency=1, polling_interval_sec=0.5)
                self._client.register_queue(BATCH_QUEUE, worker_concurrency=1, polling_interval_sec=0.5)
            return self._client


def new_job_id() -> str:
    """An id that no other job has, later ones after earlier ones while the clock runs on."""
    return f"build-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def queue_url(home: Home) -> str:
    """The database of the queue, which is the catalogue's; it may hold a password and is for opening only."""
    return home.catalogue_url.render_as_string(hide_password=False)


def prepare_queue(home: Home) -> None:
    """Make the tables of the queue where they are missing. Raises `JobQueueError` where there is no catalogue yet."""
    if home.database_url is None and not home.catalogue_file.exists():
        # SQLite would make a file that is no catalogue.
        raise JobQueueError(f"there is no catalogue in {home.root}: run `voucher import` first")
    # It tells of each start and connection, and calls a cancelled job an error; what fails is logged where it is done.
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
    DBOS.migrate(queue_url(home))


def _request_of(status: WorkflowStatus) -> dict[str, Any]:
    given: dict[str, Any] = dict(status.input or {})
    arguments = given.get("args") or ()
    return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


def _time(epoch_milliseconds: int | None) -> str | None:
    if epoch_milliseconds is None:
        return None
    return datetime.fromtimestamp(epoch_milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
