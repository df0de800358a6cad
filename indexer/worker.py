"""The process that does the queued work, beside the serving ones."""

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dbos import DBOS, DBOSConfig
from sqlalchemy.exc import SQLAlchemyError

from indexer.auto_build import AutoBuild
from indexer.batch_work import BatchWork
from indexer.job_progress import JobReport
from indexer.worker_slots import WorkerSlots, executor_of
from models.catalogue import Catalogue
from models.errors import JobCancelled, JobQueueError, VoucherError
from models.home import Home
from models.job_values import BuildRequest
from models.jobs import (
    APPLICATION,
    BATCH_QUEUE,
    BATCH_WORKFLOW,
    BUILD_QUEUE,
    BUILD_WORKFLOW,
    JOBS_VERSION,
    MAX_ATTEMPTS,
    SERIALIZER,
    JobQueue,
    prepare_queue,
    queue_url,
)

if TYPE_CHECKING:
    from indexer.build_cache import BuildCache

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.5
_RECOVERY_SECONDS = 2.0
_SWEEP_SECONDS = 60.0
_IDLE_SECONDS = 600.0
"""After so long without work the network and the embeddings are dropped from memory."""


class Worker:
    """Runs the jobs of one home until it is told to stop: builds one after the other, beside them batches of photos.

    A job whose worker was killed is begun again by the next worker that looks, this one or another; what it had
    embedded is kept, and a bundle that it had finished is not made twice.
    """

    def __init__(self, home: Home, *, device: str = "auto", auto_seconds: float | None = None) -> None:
        self._home, self._device = home, device
        self._slots = WorkerSlots(home.workers)
        self._jobs = JobQueue(home)
        self._auto = None if auto_seconds is None else AutoBuild(home, self._jobs, auto_seconds)
        self._cache: BuildCache | None = None
        self._batches = BatchWork(home, self._jobs, device)
        self._busy = threading.Lock()
        self._last_work = time.monotonic()
        self.stop = threading.Event()

    def run(self, ready: Callable[[str], None] = lambda _: None) -> None:
        """Work until `stop` is set; a job under way is left for the next worker, which continues it.

        `ready` gets the name of this worker once it takes jobs. Raises `JobQueueError`.
        """
        with self._slots.take() as number:
            name = executor_of(number)
            try:
                self._launch(name)
                ready(name)
                # Loading torch takes ten seconds; neither the first job nor the recovery of a lost one waits for it.
                threading.Thread(target=importlib.import_module, args=("indexer.build_gallery",), daemon=True).start()
                self._loop()
            except SQLAlchemyError as error:
                raise JobQueueError(f"the queue of jobs cannot be used: {error}") from error
            finally:
                if self._auto is not None:
                    self._auto.close()
                self._jobs.close()
                DBOS.destroy(destroy_registry=True)

    @property
    def is_working(self) -> bool:
        """Whether a job is under way."""
        return self._busy.locked() or self._batches.is_working

    def _launch(self, name: str) -> None:
        prepare_queue(self._home)
        config = DBOSConfig(
            name=APPLICATION,
            system_database_url=queue_url(self._home),
            application_version=JOBS_VERSION,
            executor_id=name,
            serializer=SERIALIZER,
            log_level="CRITICAL",
            enable_otlp=False,
            use_listen_notify=False,
            run_migrations=False,
        )
        DBOS(config=config)

        def build_workflow(request: dict[str, Any]) -> dict[str, Any]:
            # A plain function: the library marks what it is given, which a bound method does not allow.
            return self._build_workflow(request)

        def batch_workflow(request: dict[str, Any]) -> dict[str, Any]:
            return self._batch_workflow(request)

        DBOS.workflow(name=BUILD_WORKFLOW, max_recovery_attempts=MAX_ATTEMPTS)(build_workflow)
        DBOS.workflow(name=BATCH_WORKFLOW, max_recovery_attempts=MAX_ATTEMPTS)(batch_workflow)
        DBOS.listen_queues([BUILD_QUEUE, BATCH_QUEUE])
        DBOS.launch()
        self._jobs.list(limit=1)  # registers the queue with its limits

    def _loop(self) -> None:
        recover_at = sweep_at = 0.0
        while not self.stop.wait(_TICK_SECONDS):
            now = time.monotonic()
            try:
                if now >= recover_at:
                    recover_at = now + _RECOVERY_SECONDS
                    self._recover_lost()
                if now >= sweep_at:
                    sweep_at = now + _SWEEP_SECONDS
                    self._batches.sweep()
                if self._auto is not None:
                    self._auto.look()
            except (VoucherError, SQLAlchemyError, OSError) as error:
                # A locked or vanished database: the worker waits for it as the jobs do.
                logger.warning("the worker cannot look after the queue: %s", error)
                self.stop.wait(_RECOVERY_SECONDS)
            if now - self._last_work > _IDLE_SECONDS and not self.is_working:
                self._cache = None
                self._batches.forget()

    def _recover_lost(self) -> None:
        """Put back what workers that are gone were at."""
        with self._slots.abandoned() as numbers:
            if numbers:
                DBOS._recover_pending_workflows([executor_of(number) for number in numbers])

    def _build_workflow(self, request: dict[str, Any]) -> dict[str, Any]:
        job_id = DBOS.workflow_id
        assert job_id is not None
        try:
            return DBOS.run_step({"name": "build"}, self._build, job_id, request)
        finally:
            self._last_work = time.monotonic()

    def _batch_workflow(self, request: dict[str, Any]) -> dict[str, Any]:
        job_id = DBOS.workflow_id
        assert job_id is not None

        def step() -> dict[str, Any]:
            with JobReport(job_id, self._jobs, note_event) as report:
                return self._batches.do(str(request["batch_id"]), report)

        try:
            return DBOS.run_step({"name": "identify"}, step)
        finally:
            self._last_work = time.monotonic()

    def _build(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        from indexer.build_cache import BuildCache
        from indexer.build_gallery import build
        from models.compute import Compute

        with self._busy, JobReport(job_id, self._jobs, note_event) as report:
            try:
                asked = BuildRequest(**request)
                self._cache = self._cache or BuildCache()
                with Catalogue.open(self._home) as catalogue:
                    built = build(
                        self._home,
                        catalogue,
                        Compute.resolve(self._device),
                        model_id=asked.model_id,
                        activate_it=asked.activate,
                        automatic=asked.automatic,
                        from_nothing=asked.from_nothing,
                        job_id=job_id,
                        built_by=asked.requested_by,
                        cache=self._cache,
                        report=report,
                    )
            except JobCancelled as error:
                logger.info("job %s was cancelled", job_id)
                return {"failed": str(error)}
            except (VoucherError, OSError) as error:
                logger.warning("job %s failed: %s", job_id, error)
                return {"failed": str(error)}
            except Exception:
                logger.exception("job %s failed in a way that nobody expected", job_id)
                raise
        return built.to_json()


def note_event(name: str, value: Any) -> None:
    """Note an event of the job that runs in this thread. Raises `JobCancelled` when that was cancelled just before."""
    try:
        DBOS.set_event(name, value)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # DBOS's word for a cancelled job has no public name, and is no `Exception`: work would end without ours.
        raise JobCancelled("the job was cancelled; what it had embedded is kept") from error


def leave_at_once(worker: Worker) -> None:
    """End the process while a job is under way, as a kill would: the next worker takes it up."""
    if worker.is_working:
        logger.info("a job is under way; the next worker continues it")
        logging.shutdown()
        os._exit(0)
