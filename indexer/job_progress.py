"""How far a job is, told to whoever asks, and the word that it was cancelled, heard."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from models.errors import JobCancelled, VoucherError
from models.job_values import JobProgress
from models.jobs import PROGRESS_EVENT, JobQueue

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.5
_RATE_AFTER_SECONDS = 1.0


class JobReport:
    """A `Report` that writes the progress of one job, at most twice a second and at each new stage.

    Raises `JobCancelled` from within the work when somebody has cancelled it.
    """

    def __init__(
        self,
        job_id: str,
        jobs: JobQueue,
        set_event: Callable[[str, Any], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job_id, self._jobs, self._set_event, self._now = job_id, jobs, set_event, now
        self._stage = ""
        self._began = 0.0
        self._done_at_start = 0
        self._told_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to close."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` things of this stage are done."""
        now = self._now()
        if stage != self._stage:
            self._stage, self._began, self._done_at_start = stage, now, done
        elif now - self._told_at < _PAUSE_SECONDS and done < total:
            return
        self._told_at = now
        try:
            if self._jobs.is_cancelled(self._job_id):
                raise JobCancelled(f"job {self._job_id} was cancelled; what it had embedded is kept")
            self._set_event(PROGRESS_EVENT, asdict(self._progress(done, total, now)))
        except JobCancelled:
            raise
        except Exception as error:  # noqa: BLE001 (whatever the queue's library raises: a word less is no failed build)
            level = logging.WARNING if isinstance(error, VoucherError) else logging.DEBUG
            logger.log(level, "the progress of job %s cannot be noted: %s", self._job_id, error)

    def _progress(self, done: int, total: int, now: float) -> JobProgress:
        seconds, since = now - self._began, done - self._done_at_start
        rate = since / seconds if seconds >= _RATE_AFTER_SECONDS and since > 0 else None
        left = None if rate is None else round((total - done) / rate, 1)
        return JobProgress(self._stage, done, total, None if rate is None else round(rate, 3), left)
