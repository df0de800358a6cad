"""OpenTelemetry traces: a span for each request, and one for each part of an identification below it.

Spans hold the route's template, the method, the status and the request id; no addresses, no query, no names of files.
The packages are an optional extra, imported when traces are configured and not before.
"""

import importlib.metadata
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.inference import Observer
from app.metrics import METHODS
from app.metrics_middleware import NO_ROUTE, route_of
from app.passage import Stage
from models.errors import InvalidConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE_NAME = "voucher"

UNTRACED = ("/healthz", "/readyz", "/metrics", "/static/")
"""Asked for every few seconds by machines, or files."""

_NANOSECONDS = 1_000_000_000


@dataclass(slots=True)
class _TracedRequest:
    """The request that is being answered in this context; `clock` is what `time.time_ns` is ahead of the monotonic."""

    span: "Span"
    clock: int = field(default_factory=lambda: time.time_ns() - time.monotonic_ns())


_current: ContextVar["_TracedRequest | None"] = ContextVar("traced_request", default=None)
"""Of each request's own context: nothing is shared between requests."""


class Tracing:
    """Makes spans with `provider`, which is this application's own and not the process's."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("voucher")

    def stage(self, stage: Stage) -> None:
        """A part of the request that is being answered in this context is over; nothing outside of one."""
        if (request := _current.get()) is not None:
            began, ended = (request.clock + round(when * _NANOSECONDS) for when in (stage.began, stage.ended))
            self._span(request, stage.name, began, ended)

    def close(self) -> None:
        """Send what has not been sent, and end."""
        self._provider.shutdown()

    def start(self, scope: Scope) -> "Span":
        """Span of a request, below the one that its `traceparent` header names."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = Headers(scope=scope)
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        return self._tracer.start_span(
            method,
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.scheme": scope.get("scheme", "http")},
        )

    def _span(self, request: _TracedRequest, name: str, began: int, ended: int) -> None:
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(name, context=set_span_in_context(request.span), start_time=began)
        span.end(ended)


class TracedObserver:
    """Tells `observer` everything, and `tracing` how long the parts of an identification took."""

    def __init__(self, observer: Observer, tracing: Tracing) -> None:
        self._observer, self._tracing = observer, tracing

    def stage(self, stage: Stage) -> None:
        """A part of an identification is over."""
        self._observer.stage(stage)
        self._tracing.stage(stage)

    def queue_changed(self) -> None:
        """There are more or fewer requests in work or waiting."""
        self._observer.queue_changed()

    def batch(self, size: int) -> None:
        """A batch of `size` photos begins."""
        self._observer.batch(size)

    def depth(self, waiting: int) -> None:
        """So many requests wait for the network."""
        self._observer.depth(waiting)


class RequestTracing:
    """Outermost middleware where traces are configured: a span for each request."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, within its span."""
        if scope["type"] != "http" or scope["path"].startswith(UNTRACED):
            await self._app(scope, receive, send)
            return
        span = self._tracing.start(scope)
        token = _current.set(_TracedRequest(span))
        statuses: list[int] = []

        async def send_seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_seen)
        finally:
            _current.reset(token)
            _finish(span, scope, statuses[0] if statuses else None)


def _finish(span: "Span", scope: Scope, status: int | None) -> None:
    from opentelemetry.trace import Status, StatusCode

    route = route_of(scope)
    state = scope.get("state", {})
    if route != NO_ROUTE:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    span.set_attribute("voucher.request_id", str(state.get("request_id", "")))
    if (problem := state.get("problem")) is not None:
        span.set_attribute("error.type", str(problem))
    if status is None or status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def tracing_from(environment: Mapping[str, str]) -> Tracing | None:
    """Traces to where the ``OTEL_`` variables say; None when they say nothing.

    Raises `InvalidConfig` when they do and the packages are not installed, or a variable cannot be used.
    """
    if not wants_traces(environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidConfig(
            f"traces are configured ({' or '.join(ENDPOINT_VARIABLES)} is set), but OpenTelemetry is not installed: "
            "install voucher[telemetry], or take the variable away"
        ) from error
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        raise InvalidConfig(f"traces are sent as http/protobuf (port 4318); the environment asks for {protocol!r}")
    named: dict[str, Any] = {"service.version": importlib.metadata.version("voucher")}
    if not environment.get("OTEL_SERVICE_NAME"):
        named["service.name"] = SERVICE_NAME
    try:
        provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, TypeError) as error:
        raise InvalidConfig(f"an OTEL_ variable cannot be used: {error}") from error
    return Tracing(provider)


def wants_traces(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    none = environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none"
    return not off and not none and any(environment.get(name) for name in ENDPOINT_VARIABLES)
