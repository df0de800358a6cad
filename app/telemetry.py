"""What watches a service: its metrics, its readiness and, where they are configured, its traces."""

from dataclasses import dataclass, field

from fastapi import FastAPI

from app.inference import Observer
from app.metrics import ServiceMetrics
from app.metrics_folder import folder_from_environment
from app.metrics_middleware import RequestMetrics
from app.metrics_state import JobFigures, StateFigures
from app.readiness import ReadinessProbe
from app.serving import Serving
from app.settings import Settings, home_of
from app.tracing import RequestTracing, TracedObserver, Tracing


@dataclass(slots=True)
class Telemetry:
    """The watchers of one application."""

    settings: Settings
    metrics: ServiceMetrics
    tracing: Tracing | None
    observer: Observer
    _probe: ReadinessProbe | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings, tracing: Tracing | None) -> "Telemetry":
        """Watchers of an application with these settings."""
        metrics = ServiceMetrics(folder_from_environment())
        observer: Observer = metrics if tracing is None else TracedObserver(metrics, tracing)
        return cls(settings, metrics, tracing, observer)

    def watch_requests(self, app: FastAPI) -> None:
        """Put the middleware around everything that `app` has so far."""
        app.state.metrics = self.metrics
        app.add_middleware(RequestMetrics, metrics=self.metrics, observer=self.observer)
        if self.tracing is not None:
            app.add_middleware(RequestTracing, tracing=self.tracing)

    def attach(self, app: FastAPI, serving: Serving) -> None:
        """Watch what `app` now serves."""
        serving.queue.observe(self.observer)
        self.metrics.watch_queue(serving.queue)
        self._probe = ReadinessProbe(self.settings, serving)
        app.state.probe = self._probe
        jobs = JobFigures(app.state.jobs)
        app.state.state_figures = StateFigures(home_of(self.settings), serving, jobs, self._probe)

    def close(self) -> None:
        """End, and send what has not been sent."""
        if self._probe is not None:
            self._probe.close()
        if self.tracing is not None:
            self.tracing.close()
