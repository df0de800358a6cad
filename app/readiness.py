"""Whether the service can identify plants, and if not, why: what `/readyz` tells and `/metrics` counts."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.database_silence import SilenceGuard
from app.serving import Serving
from app.settings import Settings, home_of
from models.errors import VoucherError
from models.worker_presence import running_workers

logger = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""Whoever asks more often gets the answer of the last time."""

DATABASE_SECONDS = 3.0
"""A database that takes longer to tell the number of its last change is as good as gone."""

WORKER_GRACE_SECONDS = 120.0
"""A worker that was just started, or died and is started again, needs some time."""

LOW_DISK_BYTES = 512 * 1024 * 1024


class State(StrEnum):
    """What a check has found."""

    OK = "ok"
    WARNING = "warning"
    """plants are identified, and somebody should look after this"""
    FAULT = "fault"
    """plants cannot be identified"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `detail` says what is wrong and how to mend it, None when all is well."""

    name: str
    state: State
    detail: str | None = None


class ReadinessProbe:
    """Looks at what a service needs. Threads may share it; blocks for a few seconds at most."""

    def __init__(self, settings: Settings, serving: Serving, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._serving, self._now = settings, serving, now
        self._home = home_of(settings)
        self._lock = threading.Lock()
        self._began = now()
        self._checks: tuple[Check, ...] = ()
        self._looked_at = float("-inf")
        self._worker_seen_at = now()
        self._database = SilenceGuard("probe", answer_seconds=DATABASE_SECONDS)
        self._told: str | None = None

    def look(self) -> tuple[Check, ...]:
        """All checks, at most `FRESH_SECONDS` old."""
        with self._lock:
            if self._now() - self._looked_at >= FRESH_SECONDS:
                self._checks = (
                    self._catalogue(),
                    self._bundle(),
                    self._queue(),
                    self._answering_database(),
                    self._worker(),
                    self._disk(),
                )
                self._looked_at = self._now()
            return self._checks

    def close(self) -> None:
        """Look no longer."""
        self._database.close()

    def _catalogue(self) -> Check:
        reason = self._serving.missing_collection
        return Check("catalogue", State.OK) if reason is None else Check("catalogue", State.FAULT, reason)

    def _bundle(self) -> Check:
        reason = self._serving.missing_identifier
        if reason is not None:
            return Check("bundle", State.FAULT, reason)
        if self._serving.complaint is not None:
            detail = (
                f"the bundle that was activated last cannot be served, the one before is: {self._serving.complaint}"
            )
            return Check("bundle", State.WARNING, detail)
        return Check("bundle", State.OK)

    def _queue(self) -> Check:
        queue = self._serving.queue
        seconds = queue.busy_seconds
        if seconds > self._settings.request_timeout_seconds:
            detail = (
                f"the network has been at one batch for {seconds:.0f} seconds, longer than a request may take: look "
                "at the log and at the device, and restart the service"
            )
            return Check("queue", State.FAULT, detail)
        if queue.admitted >= queue.limit:
            return Check("queue", State.WARNING, f"full: {queue.admitted} identifications are in work or wait")
        return Check("queue", State.OK)

    def _answering_database(self) -> Check:
        """The catalogue's database. Plants are named without it, and sheets then cited by their ids alone."""
        if not self._serving.has_collection:
            return Check("database", State.OK)  # there is none yet; the check of the catalogue says so
        catalogue = self._serving.collection.catalogue
        try:
            self._database.ask_and_wait(catalogue.revision)
        except VoucherError as error:
            return self._lost_database(str(error))
        self._told = None
        return Check("database", State.OK)

    def _lost_database(self, reason: str) -> Check:
        if self._told != reason:
            logger.warning("the catalogue's database is lost: %s", reason)
            self._told = reason
        # The reason names servers and folders, and whoever reaches the service may ask here.
        detail = (
            "the catalogue cannot be read: sheets are cited by their ids alone, and nothing can be changed; see the log"
        )
        return Check("database", State.WARNING, detail)

    def _worker(self) -> Check:
        if not self._settings.worker or running_workers(self._home):
            self._worker_seen_at = self._now()
        elif self._now() - self._worker_seen_at > WORKER_GRACE_SECONDS:
            detail = "no worker runs: index builds wait; the log of the service says why it ends"
            return Check("worker", State.WARNING, detail)
        return Check("worker", State.OK)

    def _disk(self) -> Check:
        try:
            free = shutil.disk_usage(self._home.root).free
        except OSError as error:
            return Check("disk", State.WARNING, f"the home cannot be looked at: {error.strerror or error}")
        if not os.access(self._home.root, os.W_OK):
            detail = (
                "nothing can be written to the home: plants are identified; new sheets, builds and batches are "
                "refused. Mount its disk for writing, or mend the rights of the folder"
            )
            return Check("disk", State.WARNING, detail)
        if free < LOW_DISK_BYTES:
            detail = f"{free >> 20} MiB are free below the home: builds and new sheets will fail; run `voucher gc`"
            return Check("disk", State.WARNING, detail)
        return Check("disk", State.OK)
