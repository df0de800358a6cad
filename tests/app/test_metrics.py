"""What `/metrics` tells, to whom, and that it tells no more than it may."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import ServiceMetrics
from app.metrics_folder import MetricsFolder, folder_from_environment, metrics_folder
from models.home import Home
from models.job_values import BuildRequest
from models.jobs import JobQueue
from models.retrieval import Novelty

LOCAL = {"host": "localhost"}
TOKEN = "a-token-of-some-length"

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples_of(text: str) -> dict[Sample, float]:
    """Every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: TestClient, **headers: str) -> dict[Sample, float]:
    response = client.get("/metrics", headers={**LOCAL, **headers})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return samples_of(response.text)


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found[f"voucher_{name}", tuple(sorted(labels.items()))]


@pytest.fixture
def local_client(make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """As `make_client`, its clients coming from an address."""

    def make(address: str = "127.0.0.1", **given: object) -> TestClient:
        client = make_client(**given)
        client._transport.client = (address, 50000)  # type: ignore[attr-defined]
        return client

    return make


def identify(client: TestClient, *photos: bytes) -> int:
    files = [("photos", ("p", photo, "image/jpeg")) for photo in photos]
    return client.post("/v1/identifications", files=files).status_code


def test_an_identification_is_counted_in_all_its_parts(local_client, identifier, encode) -> None:
    client = local_client(queue_limit=7)
    identifier.novelty = Novelty(unknown_score=0.9, threshold=0.7)
    assert identify(client, encode(1), encode(2)) == 200
    found = scrape(client)
    route = {"route": "/v1/identifications", "method": "POST"}
    assert value(found, "http_requests_total", status="200", **route) == 1
    assert value(found, "http_request_duration_seconds_count", **route) == 1
    for stage in ("upload", "decode", "wait", "network", "answer"):
        assert value(found, "stage_duration_seconds_count", stage=stage) == 1, stage
        assert value(found, "stage_duration_seconds_sum", stage=stage) >= 0
    assert value(found, "batch_photos_sum") == 2
    assert value(found, "identification_photos_sum") == 2
    assert value(found, "identifications_total", outcome="none of these") == 1
    assert value(found, "decisions_total", source="generalist") == 1
    assert value(found, "unknown_plants_total") == 1
    assert value(found, "queue_limit") == 7
    assert value(found, "queue_admitted") == value(found, "queue_waiting") == 0
    assert value(found, "upload_bytes_total") > 1000
    assert value(found, "http_requests_in_progress") == 1  # the scrape itself


def test_requests_are_told_by_template_and_never_by_address(local_client) -> None:
    client = local_client()
    for path in ("/v1/sheets/secret-1", "/v1/sheets/secret-2", "/nowhere/secret-3", "/static/secret-4.js"):
        assert client.get(path).status_code == 404
    client.request("BREW", "/v1/species?q=secret-5")
    response = client.get("/metrics", headers=LOCAL)
    assert "secret" not in response.text
    found = samples_of(response.text)
    assert value(found, "http_requests_total", route="/v1/sheets/{sheet_id}", method="GET", status="404") == 2
    assert value(found, "http_requests_total", route="/static/…", method="GET", status="404") == 1
    assert value(found, "http_requests_total", route="none", method="GET", status="404") == 1
    assert value(found, "http_requests_total", route="/v1/species", method="other", status="405") == 1


def test_what_is_refused_is_counted_by_its_problem(local_client, identifier, encode) -> None:
    client = local_client(max_request_bytes=100_000)
    assert identify(client, b"GIF89a") == 415
    assert identify(client, bytes(200_000)) == 413
    identifier.failure = ZeroDivisionError()
    assert identify(client, encode(1)) == 500
    found = scrape(client)
    for problem in ("unsupported-upload", "request-too-large", "internal-error"):
        assert value(found, "problems_total", problem=problem) == 1


def test_the_state_of_the_home_is_told(make_client, living_state, local_client) -> None:
    found = scrape(local_client())
    assert value(found, "ready") == 1
    assert value(found, "check_ok", check="bundle") == 1
    assert value(found, "index_species") == 3
    assert value(found, "bundle_info", bundle_id="bundle-1", model_id="model-1", number="") == 1
    assert value(found, "jobs", kind="build-index", state="queued") == 1
    assert value(found, "workers") == 0
    assert value(found, "home_free_bytes") > 0
    assert found["process_resident_memory_bytes", (("process", "0"),)] > 1e6


@pytest.fixture
def living_state(collection_home: Home):
    with JobQueue(collection_home) as jobs:
        job = jobs.enqueue_build(BuildRequest())
        yield
        jobs.cancel(job.job_id)


def test_without_bundle_and_catalogue_the_rest_is_told(local_client) -> None:
    found = scrape(local_client(with_bundle=False, with_catalogue=False))
    assert value(found, "ready") == 0
    assert value(found, "check_ok", check="bundle") == value(found, "check_ok", check="catalogue") == 0
    assert not any(name == "voucher_bundle_info" for name, _ in found)


def test_openmetrics_is_given_to_those_that_ask(local_client) -> None:
    response = local_client().get("/metrics", headers=LOCAL | {"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("mode", "address", "headers", "status"),
    [
        ("auto", "127.0.0.1", {"host": "localhost:8000"}, 200),
        ("auto", "127.0.0.1", {"host": "127.0.0.1:8000"}, 200),
        ("auto", "::1", {"host": "[::1]:8000"}, 200),
        ("auto", "127.0.0.1", {"host": "plants.example"}, 403),
        ("auto", "127.0.0.1", {"host": ""}, 403),
        ("auto", "127.0.0.1", {"host": "localhost", "x-forwarded-for": "203.0.113.5"}, 403),
        ("auto", "127.0.0.1", {"host": "localhost", "forwarded": "for=203.0.113.5"}, 403),
        ("auto", "172.18.0.1", {"host": "localhost"}, 403),
        ("auto", "203.0.113.5", {"host": "localhost"}, 403),
        ("auto", "203.0.113.5", {"host": "x", "authorization": f"Bearer {TOKEN}"}, 200),
        ("auto", "203.0.113.5", {"host": "x", "authorization": f"bearer  {TOKEN} "}, 200),
        ("auto", "203.0.113.5", {"host": "x", "authorization": f"Bearer {TOKEN}x"}, 403),
        ("auto", "203.0.113.5", {"host": "x", "authorization": f"Basic {TOKEN}"}, 403),
        ("auto", "203.0.113.5", {"host": "x", "authorization": "Bearer é"}, 403),
        ("open", "203.0.113.5", {"host": "x", "x-forwarded-for": "203.0.113.5"}, 200),
        ("off", "127.0.0.1", {"host": "localhost", "authorization": f"Bearer {TOKEN}"}, 403),
    ],
)
def test_who_may_read_the_metrics(local_client, mode: str, address: str, headers: dict, status: int) -> None:
    client = local_client(address, metrics=mode, metrics_token=TOKEN)
    encoded = {name: given.encode("latin-1") for name, given in headers.items()}
    response = client.get("/metrics", headers=encoded)
    assert response.status_code == status
    if status == 403:
        assert response.json()["type"] == "urn:voucher:problem:metrics-refused"
        assert TOKEN not in response.text


def test_without_a_token_an_empty_one_opens_nothing(local_client) -> None:
    headers = {"host": "x", "authorization": "Bearer "}
    assert local_client("203.0.113.5").get("/metrics", headers=headers).status_code == 403


def test_the_counts_of_two_applications_are_apart(make_client) -> None:
    first, second = make_client(metrics="open"), make_client(metrics="open")
    first.get("/healthz")
    route = {"route": "/healthz", "method": "GET", "status": "200"}
    assert value(scrape(first), "http_requests_total", **route) == 1
    assert ("voucher_http_requests_total", tuple(sorted(route.items()))) not in scrape(second)


COUNTING = """
import sys
from app.metrics import ServiceMetrics
from app.metrics_folder import folder_from_environment
metrics = ServiceMetrics(folder_from_environment())
class Queue:
    admitted, limit = 3, 32
metrics.watch_queue(Queue())
for _ in range(int(sys.argv[1])):
    metrics.request_begins()
    metrics.request_ends("/healthz", "GET", "200", 0.02)
metrics.batch(4)
sys.stdout.write("counted\\n")
sys.stdout.flush()
sys.stdin.read()
"""


class _Nothing:
    def collect(self) -> list:
        return []


def start_counting(folder: MetricsFolder, requests: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, str(requests)],
        env={"PATH": "", **folder.environment},
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_scrape_shows_the_sum_of_all_processes_also_of_those_that_died() -> None:
    route = {"route": "/healthz", "method": "GET"}

    def told() -> dict[Sample, float]:
        content, _ = ServiceMetrics(folder).exposition("", _Nothing())
        return samples_of(content.decode())

    def requests() -> float:
        return value(told(), "http_requests_total", status="200", **route)

    with metrics_folder() as folder:
        first, second = start_counting(folder, 2), start_counting(folder, 5)
        try:
            found = told()
            assert requests() == 7
            assert value(found, "http_request_duration_seconds_count", **route) == 7
            assert value(found, "http_request_duration_seconds_bucket", le="0.025", **route) == 7
            assert value(found, "queue_limit") == 64
            assert value(found, "queue_admitted") == 6
            assert folder.pids() == sorted([first.pid, second.pid])
            processes = {dict(labels)["process"] for name, labels in found if name == "process_resident_memory_bytes"}
            assert processes == {str(first.pid), str(second.pid)}

            end(second)
            assert requests() == 7
            assert value(told(), "queue_limit") == 32
            folder.forget(second.pid)
            assert requests() == 7
            assert folder.pids() == [first.pid]
            assert not list(folder.root.glob(f"*_{second.pid}.db"))

            third = start_counting(folder, 1)
            end(third)
            folder.forget(third.pid)
            assert requests() == 8
            assert value(told(), "batch_photos_sum") == 12
        finally:
            end(first)
            end(second)
    assert not folder.root.exists()


def test_what_a_killed_parent_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"voucher-metrics-{gone.pid}-x").mkdir()
    with metrics_folder() as folder, metrics_folder():
        assert folder.root.is_dir()
        assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_serves_alone_has_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert folder_from_environment() is None
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    found = folder_from_environment()
    assert found is not None
    assert found.root == tmp_path
