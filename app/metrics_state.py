"""Figures that are found out when Prometheus asks: the bundle, the index, the catalogue, jobs, workers, the disk."""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.metrics import PREFIX
from app.readiness import ReadinessProbe, State
from app.serving import Serving
from models.artifacts import INDEX_KIND, Artifact, folder_of, read
from models.errors import VoucherError
from models.home import Home
from models.identifier import Identifier
from models.job_values import Job, JobState
from models.jobs import BUILD_WORKFLOW, KINDS, JobQueue
from models.worker_presence import running_workers

logger = logging.getLogger(__name__)

JOBS_FRESH_SECONDS = 5.0
LATEST_JOBS = 200
"""Jobs that are looked at; `voucher gc` forgets old ones."""


@dataclass(frozen=True, slots=True)
class StateFigures:
    """What one service and its home are like now. What cannot be found out is left out, and said in the log."""

    home: Home
    serving: Serving
    jobs: "JobFigures"
    probe: ReadinessProbe

    def collect(self) -> Iterable[Metric]:
        """The figures as they are now; blocks for a few seconds at most."""
        yield from self._readiness()
        identifier = self.serving.identifier_or_none
        if identifier is not None:
            yield from self._bundle(identifier)
        yield from self.jobs.collect()
        yield _gauge("workers", "Workers that run on the home.", len(running_workers(self.home)))
        try:
            usage = shutil.disk_usage(self.home.root)
        except OSError as error:
            logger.warning("the disk of the home cannot be looked at: %s", error.strerror or error)
        else:
            yield _gauge("home_free_bytes", "Free space on the disk of the home.", usage.free)
            yield _gauge("home_size_bytes", "Size of the disk of the home.", usage.total)

    def _readiness(self) -> Iterable[Metric]:
        checks = self.probe.look()
        ready = all(check.state != State.FAULT for check in checks)
        yield _gauge("ready", "1 while plants can be identified.", ready)
        family = GaugeMetricFamily(
            f"{PREFIX}_check_ok", "1 where a check of /readyz finds nothing to complain of.", labels=["check"]
        )
        for check in checks:
            family.add_metric([check.name], float(check.state == State.OK))
        yield family

    def _bundle(self, identifier: Identifier) -> Iterable[Metric]:
        species = len(identifier.species_ids)
        yield _gauge("index_species", "Species that can be answered.", species)
        artifact = _artifact(self.home, identifier.bundle_id)
        number = "" if artifact is None else str(artifact.metadata.get("number", ""))
        info = GaugeMetricFamily(
            f"{PREFIX}_bundle_info", "The bundle that answers.", labels=["bundle_id", "model_id", "number"]
        )
        info.add_metric([identifier.bundle_id, identifier.model_id, number], 1.0)
        yield info
        if artifact is None:
            return
        yield _gauge("index_sheets", "Sheets in the index that answers.", int(artifact.metadata.get("sheets", 0)))
        made = datetime.fromisoformat(artifact.created_at).timestamp()
        yield _gauge("bundle_created_timestamp_seconds", "When the bundle that answers was built.", made)
        yield from self._unbuilt(int(artifact.metadata.get("catalogue_revision", 0)))

    def _unbuilt(self, built_revision: int) -> Iterable[Metric]:
        """Only while the database answers: the probe has just found out, with a limit of time."""
        answers = any(check.name == "database" and check.state == State.OK for check in self.probe.look())
        if not answers or not self.serving.has_collection:
            return
        try:
            revision = self.serving.collection.catalogue.revision().revision
        except VoucherError as error:
            logger.warning("the catalogue's revision cannot be told: %s", error)
            return
        waiting = max(revision - built_revision, 0)
        yield _gauge("unbuilt_changes", "Changes of the catalogue that the index that answers lacks.", waiting)


class JobFigures:
    """Jobs by state, and how the last index build went; asked of the database every few seconds at most."""

    def __init__(self, jobs: JobQueue, now: Callable[[], float] = time.monotonic) -> None:
        self._jobs, self._now = jobs, now
        self._lock = threading.Lock()
        self._found: list[Job] = []
        self._asked_at = float("-inf")
        self._told: str | None = None

    def collect(self) -> Iterable[Metric]:
        """Nothing while there is no queue, as in a home without a catalogue."""
        with self._lock:
            if self._now() - self._asked_at >= JOBS_FRESH_SECONDS:
                self._ask()
                self._asked_at = self._now()
            if self._told is not None:
                return
            found = self._found
        family = GaugeMetricFamily(
            f"{PREFIX}_jobs", f"Jobs, of the latest {LATEST_JOBS} that are remembered.", labels=["kind", "state"]
        )
        counts = Counter((job.kind, job.state) for job in found)
        for kind in KINDS:
            for state in JobState:
                family.add_metric([kind, state.value], float(counts[kind, state]))
        yield family
        ended = [job for job in found if job.kind == BUILD_WORKFLOW and job.started_at and job.finished_at]
        if ended:
            yield from _last_build(max(ended, key=lambda job: job.finished_at or ""))

    def _ask(self) -> None:
        try:
            self._found = self._jobs.list(limit=LATEST_JOBS, with_progress=False)
            self._told = None
        except VoucherError as error:
            if self._told != str(error):
                logger.warning("jobs cannot be counted: %s", error)
            self._told = str(error)


def _last_build(job: Job) -> Iterable[Metric]:
    assert job.started_at is not None
    assert job.finished_at is not None
    began, ended = (datetime.fromisoformat(time).timestamp() for time in (job.started_at, job.finished_at))
    yield _gauge("last_build_duration_seconds", "How long the last index build took.", max(ended - began, 0.0))
    yield _gauge("last_build_timestamp_seconds", "When the last index build ended.", ended)
    yield _gauge("last_build_failed", "1 when the last index build failed.", job.state is JobState.FAILED)


def _artifact(home: Home, bundle_id: str) -> Artifact | None:
    """The index that answers, by its manifest; None when it is no longer on the disk."""
    try:
        return read(folder_of(home.indexes, bundle_id), kind=INDEX_KIND, verify=False)
    except VoucherError as error:
        logger.debug("the manifest of the bundle that answers cannot be read: %s", error)
        return None


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))
