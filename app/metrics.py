"""What the service counts and measures, for Prometheus: one registry for each application, nothing global."""

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from app.metrics_folder import MetricsFolder
from app.passage import Stage
from models.retrieval import Identification

PREFIX = "voucher"

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_PHOTOS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
PHOTOS = (1, 2, 3, 4, 5, 10, 20)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted together: a client may invent as many as it likes."""


class Queue(Protocol):
    """What identifications wait in."""

    @property
    def admitted(self) -> int:
        """Requests in work or waiting."""

    @property
    def limit(self) -> int:
        """Requests that may be in work or wait at one time."""


class Figures(Protocol):
    """Figures that are found out when they are asked for."""

    def collect(self) -> Iterable[Metric]:
        """The figures as they are now."""


class ServiceMetrics:
    """Counts of one serving process; an `Observer` of its inference queue. Any thread may call any method.

    With a `folder` the process is one of several that share a port: a scrape of any of them tells the sum of all.
    """

    def __init__(self, folder: MetricsFolder | None = None) -> None:
        self._folder = folder
        self._registry = CollectorRegistry()
        self._queue: Queue | None = None
        self._add_request_metrics()
        self._add_queue_metrics()
        self._add_answer_metrics()

    def _add_request_metrics(self) -> None:
        self._requests = self._counter("http_requests", "Answered requests.", "route", "method", "status")
        self._in_progress = self._gauge("http_requests_in_progress", "Requests that are being answered.")
        self._request_seconds = self._histogram(
            "http_request_duration_seconds",
            "From the request's head to the last byte of its answer; streams of events are left out.",
            REQUEST_SECONDS,
            "route",
            "method",
        )
        self._problems = self._counter("problems", "Requests that were refused or failed, by their problem.", "problem")
        self._upload_bytes = self._counter("upload_bytes", "Bytes of request bodies.")

    def _add_queue_metrics(self) -> None:
        self._stage_seconds = self._histogram(
            "stage_duration_seconds",
            "Parts of an identification: upload, decode, wait (for the network), network, answer.",
            STAGE_SECONDS,
            "stage",
        )
        self._batch_photos = self._histogram("batch_photos", "Photos in one run of the network.", BATCH_PHOTOS)
        self._waiting = self._gauge("queue_waiting", "Requests that waited for the network when it was last free.")
        self._admitted = self._gauge("queue_admitted", "Requests in work or waiting.")
        self._limit = self._gauge("queue_limit", "Requests that may be in work or wait before one is refused.")

    def _add_answer_metrics(self) -> None:
        self._identifications = self._counter("identifications", "Answers, by what they come down to.", "outcome")
        self._decisions = self._counter("decisions", "Answers, by the stream that decided.", "source")
        self._unknown = self._counter("unknown_plants", "Answers that say the plant is none of the index.")
        self._photos = self._histogram("identification_photos", "Photos of one plant in one request.", PHOTOS)

    def stage(self, stage: Stage) -> None:
        """A part of an identification is over."""
        self._stage_seconds.labels(stage.name).observe(max(stage.ended - stage.began, 0.0))

    def batch(self, size: int) -> None:
        """The network begins with a batch of `size` photos."""
        self._batch_photos.observe(size)

    def depth(self, waiting: int) -> None:
        """So many requests wait for the network."""
        self._waiting.set(waiting)

    def watch_queue(self, queue: Queue) -> None:
        """Tell of `queue` how full it is."""
        self._queue = queue
        self._limit.set(queue.limit)
        self.queue_changed()

    def queue_changed(self) -> None:
        """There are more or fewer requests in work or waiting; told at once, as another process may be asked for it."""
        if self._queue is not None:
            self._admitted.set(self._queue.admitted)

    def identified(self, identification: Identification) -> None:
        """A plant was named, or not."""
        self._identifications.labels(identification.outcome.value).inc()
        self._decisions.labels(identification.decision.source.value).inc()
        self._photos.observe(identification.photo_count)
        if identification.novelty is not None and identification.novelty.is_unknown:
            self._unknown.inc()

    def request_begins(self) -> None:
        """A request has come."""
        self._in_progress.inc()

    def request_ends(self, route: str, method: str, status: str, seconds: float | None) -> None:
        """A request was answered; `seconds` is None for an answer whose length its client decides."""
        self._in_progress.dec()
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, status).inc()
        if seconds is not None:
            self._request_seconds.labels(route, method).observe(seconds)

    def problem(self, slug: str) -> None:
        """A request was refused or failed for this reason."""
        self._problems.labels(slug).inc()

    def uploaded(self, size: int) -> None:
        """So many bytes of a body have come."""
        self._upload_bytes.inc(size)

    def exposition(self, accept: str, state: Figures) -> tuple[bytes, str]:
        """What Prometheus reads, with `state` beside the counts, and its media type, for an Accept header."""
        registry = CollectorRegistry()
        registry.register(_Collected(self._folder or self._registry, state, _Processes(self._folder)))
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, namespace=PREFIX, registry=self._registry, multiprocess_mode="livesum")

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=PREFIX, registry=self._registry, buckets=buckets)


class _Collected:
    """Several sources of figures as one."""

    def __init__(self, *parts: Figures) -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        """Nothing: what there is shows when it is collected, once."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Everything."""
        for part in self._parts:
            for family in part.collect():
                # When each series began doubles their number and is of no use: processes tell when they started.
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
                yield family


class _Processes:
    """Memory, processor time and open files of the serving processes, each by its number."""

    def __init__(self, folder: MetricsFolder | None) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in ["self"] if self._folder is None else self._folder.pids():
            label = "0" if self._folder is None else str(pid)
            for found in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {"process": label}, sample.value)
        return families.values()
