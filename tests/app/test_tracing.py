"""Spans of requests and of the parts of an identification, and that they tell nothing about people."""

import sys
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from app.main import create_app
from app.serving import Serving, open_collection, queue_for
from app.settings import Settings
from app.tracing import Tracing, tracing_from
from models.errors import InvalidConfig
from models.home import Home

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(collection_home: Home, identifier, exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def load(settings: Settings) -> Serving:
        return Serving(queue_for(settings), open_collection(collection_home), identifier)

    app = create_app(Settings(home=collection_home.root), load, tracing=Tracing(provider))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Callable[[], dict[str, ReadableSpan]]:
    """Finished spans by name."""
    return lambda: {span.name: span for span in exporter.get_finished_spans()}


def identify(client: TestClient, photo: bytes, **headers: str) -> int:
    files = [("photos", ("my-garden.jpg", photo, "image/jpeg"))]
    return client.post("/v1/identifications?q=private", files=files, headers=headers).status_code


def test_an_identification_has_a_span_for_each_of_its_parts_below_that_of_the_caller(traced, spans, encode) -> None:
    assert identify(traced, encode(1), traceparent=TRACEPARENT, **{"x-request-id": "r-1"}) == 200
    found = spans()
    assert set(found) == {"POST /v1/identifications", "upload", "decode", "wait", "network", "answer"}
    request = found["POST /v1/identifications"]
    assert format(request.context.trace_id, "032x") == TRACE_ID
    assert format(request.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/v1/identifications",
        "http.response.status_code": 200,
        "voucher.request_id": "r-1",
    }
    for name in ("upload", "decode", "wait", "network", "answer"):
        part = found[name]
        assert part.parent.span_id == request.context.span_id
        assert request.start_time <= part.end_time <= request.end_time
        assert part.start_time <= part.end_time
    assert found["upload"].end_time <= found["network"].end_time
    assert found["wait"].end_time == found["network"].start_time
    assert found["network"].end_time <= found["answer"].end_time


def test_nothing_of_the_client_is_in_a_span(traced, exporter, encode) -> None:
    headers = {"user-agent": "someone", "x-forwarded-for": "203.0.113.5", "authorization": "Bearer secret"}
    identify(traced, encode(1), **headers)
    traced.get("/v1/sheets/private-id")
    told = " ".join(span.to_json() for span in exporter.get_finished_spans())
    for private in ("private", "my-garden", "someone", "203.0.113.5", "secret", "testclient"):
        assert private not in told


def test_each_request_has_a_trace_of_its_own_without_a_caller(traced, exporter) -> None:
    traced.get("/v1/species")
    traced.get("/v1/species", headers={"traceparent": "nonsense"})
    traces = {span.context.trace_id for span in exporter.get_finished_spans()}
    assert len(traces) == 2


def test_failures_are_marked_and_refusals_are_not(traced, spans, identifier, encode) -> None:
    assert traced.get("/v1/species/none").status_code == 404
    refused = spans()["GET /v1/species/{species_id}"]
    assert refused.status.status_code is StatusCode.UNSET
    assert refused.attributes["error.type"] == "unknown-species"
    identifier.failure = ZeroDivisionError()
    assert identify(traced, encode(1)) == 500
    failed = spans()["POST /v1/identifications"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "internal-error"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/static/page.js"])
def test_what_machines_ask_for_all_the_time_is_not_traced(traced, exporter, path: str) -> None:
    traced.get(path)
    assert exporter.get_finished_spans() == ()


def test_an_invented_method_names_no_span(traced, exporter) -> None:
    traced.request("BREW", "/nowhere")
    (span,) = exporter.get_finished_spans()
    assert span.name == "_OTHER"


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_or_when_switched_off_nothing_is_traced(environment: dict[str, str]) -> None:
    assert tracing_from(environment) is None


def test_an_endpoint_makes_traces_of_this_service() -> None:
    tracing = tracing_from(ENDPOINT)
    assert tracing is not None
    assert tracing._provider.resource.attributes["service.name"] == "voucher"
    assert tracing._provider.resource.attributes["service.version"]
    tracing.close()


def test_traces_that_are_configured_but_not_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidConfig, match=r"voucher\[telemetry\]"):
        tracing_from({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"})


def test_another_protocol_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="grpc"):
        tracing_from(ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_the_framework_tells_nothing_of_its_own(
    collection_home: Home, identifier, exporter: InMemorySpanExporter, encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spans have the whole address, with the key of those that send it there."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)

    def load(settings: Settings) -> Serving:
        return Serving(queue_for(settings), open_collection(collection_home), identifier)

    with TestClient(create_app(Settings(home=collection_home.root), load)) as client:
        assert identify(client, encode(1)) == 200
    assert exporter.get_finished_spans() == ()
