"""Builds that are asked for over HTTP, and the versions that they make; on a small real network and a real worker."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests_support import sheet_of

from app.event_streams import EventStreams
from app.main import create_app
from app.routes import jobs as job_routes
from app.settings import Settings
from indexer import build_gallery
from indexer.worker import Worker
from models.artifacts import active_artifact_id
from models.catalogue import Catalogue
from models.curation import Curator
from models.errors import JobCancelled, JobQueueError, ServiceOverloaded
from models.home import Home
from models.job_values import Job, JobProgress, JobState
from models.jobs import JobQueue


@pytest.fixture
def service(living_home: Home) -> Iterator[TestClient]:
    settings = Settings(home=living_home.root, database_url=living_home.database_url, device="cpu")
    with TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def worker(living_home: Home) -> Iterator[Worker]:
    found, ready = Worker(living_home, device="cpu"), threading.Event()
    thread = threading.Thread(target=found.run, args=(lambda _: ready.set(),))
    thread.start()
    assert ready.wait(30)
    yield found
    found.stop.set()
    thread.join(30)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("event: job\n")]
    return [json.loads(block.split("data: ", 1)[1]) for block in blocks]


def test_a_build_is_asked_for_followed_and_served(
    service: TestClient, worker: Worker, living_home: Home, encode: Callable[..., bytes]
) -> None:
    before = service.get("/readyz").json()["bundle_id"]
    with Catalogue.open(living_home) as catalogue:
        Curator(catalogue, "Ada").add([sheet_of(1, next(catalogue.sheets()).species_id)])
    asked = service.post("/v1/index-builds", json={"curator": "Ada"})
    assert asked.status_code == 202
    job = asked.json()
    assert (job["state"], job["requested_by"], job["result"]) == ("queued", "Ada", None)
    assert asked.headers["location"] == f"/v1/jobs/{job['job_id']}"

    followed = service.get(f"{asked.headers['location']}/events")
    assert followed.headers["content-type"].startswith("text/event-stream")
    assert followed.headers["cache-control"] == "no-store"
    events = events_of(followed.text)
    assert events[-1]["state"] == "succeeded"
    assert all(a != b for a, b in pairwise(events))
    done = service.get(asked.headers["location"]).json()
    assert done == events[-1]
    assert done["result"]["added"] == 1
    after = done["result"]["bundle_id"]
    assert service.get("/v1/jobs").json()["jobs"][0] == done

    # The service follows the pointer by itself.
    until(lambda: service.get("/readyz").json()["bundle_id"] == after)
    answer = service.post("/v1/identifications", files={"photos": ("x", encode())}).json()
    assert answer["bundle_id"] == after

    bundles = service.get("/v1/bundles").json()["bundles"][:2]
    assert [b["bundle_id"] for b in bundles] == [after, before]
    assert [b["is_active"] for b in bundles] == [True, False]
    assert bundles[0]["changes"]["added"] == 1
    assert bundles[0]["changes"]["revisions"][0]["by"] == "Ada"
    assert bundles[0]["validation"]["photos"] > 0
    assert service.get(f"/v1/bundles/{after}").json() == bundles[0]
    changes = service.get(f"/v1/bundles/{after}/changes", params={"since": before}).json()
    assert changes["counts"] == {"added": 1, "removed": 0, "moved": 0, "species_added": 0, "species_removed": 0}

    back = service.post(f"/v1/bundles/{before}/activate", json={"curator": "Ada"})
    assert (back.status_code, back.json()["is_active"]) == (200, True)
    assert active_artifact_id(living_home) == before
    until(lambda: service.get("/readyz").json()["bundle_id"] == before)


def test_a_job_is_cancelled(service: TestClient, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def build(*_: Any, report: Any, **__: Any) -> Any:
        try:
            for step in range(1000):
                report(f"stage {step}", step, 1000)
                time.sleep(0.02)
        except JobCancelled:
            ended.set()
            raise

    monkeypatch.setattr(build_gallery, "build", build)
    job = service.post("/v1/index-builds").json()
    address = f"/v1/jobs/{job['job_id']}"
    progress = until(lambda: service.get(address).json()["progress"])
    assert progress["total"] == 1000
    assert service.post(f"{address}/cancel").json()["state"] == "cancelled"
    assert ended.wait(20)
    assert service.get(address).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("GET", "/v1/jobs/nobody", None, 404, "unknown-job"),
        ("GET", "/v1/jobs/nobody/events", None, 404, "unknown-job"),
        ("POST", "/v1/jobs/nobody/cancel", None, 404, "unknown-job"),
        ("GET", "/v1/bundles/index-nobody", None, 404, "unknown-bundle"),
        ("GET", "/v1/bundles/index-nobody/changes?since=index-other", None, 404, "unknown-bundle"),
        ("POST", "/v1/bundles/index-nobody/activate", None, 404, "unknown-bundle"),
        ("GET", "/v1/bundles/..%2f..", None, 404, "http-404"),
        ("GET", "/v1/bundles/.hidden", None, 422, "invalid-parameter"),
        ("POST", "/v1/index-builds", {"activate": "perhaps"}, 422, "invalid-parameter"),
        ("POST", "/v1/index-builds", {"unknown": 1}, 422, "invalid-parameter"),
        ("GET", "/v1/jobs?limit=0", None, 422, "invalid-parameter"),
    ],
)
def test_what_is_wrong_is_told(service: TestClient, method: str, path: str, body: Any, status: int, slug: str) -> None:
    response = service.request(method, path, json=body)
    assert response.status_code == status
    assert response.json()["type"].endswith(f":{slug}")


def test_a_damaged_bundle_is_not_activated(service: TestClient, living_home: Home, worker: Worker) -> None:
    first = active_artifact_id(living_home)
    job = service.post("/v1/index-builds").json()
    until(lambda: service.get(f"/v1/jobs/{job['job_id']}").json()["state"] == "succeeded")
    second = active_artifact_id(living_home)
    gate = living_home.indexes / first / "gate.json"
    gate.chmod(0o644)
    gate.write_bytes(gate.read_bytes()[:-2])
    response = service.post(f"/v1/bundles/{first}/activate")
    assert response.status_code == 503
    assert response.json()["type"].endswith(":bundle-error")
    assert active_artifact_id(living_home) == second
    assert service.get(f"/v1/bundles/{first}").json()["fault"] is not None


def test_who_may_not_curate_may_look(make_client: Callable[..., TestClient]) -> None:
    client = make_client(host="0.0.0.0", access="open")
    for path in ("/v1/index-builds", "/v1/jobs/x/cancel", "/v1/bundles/x/activate"):
        response = client.post(path)
        assert response.status_code == 403
        assert "VOUCHER_ACCESS" in response.json()["detail"]
    assert client.get("/v1/jobs").json() == {"jobs": []}
    assert client.get("/v1/bundles").json() == {"bundles": []}


def test_a_queue_that_cannot_be_read_is_the_services_fault(
    make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: JobQueue, *_: Any, **__: Any) -> Any:
        raise JobQueueError("the disk at /srv/secret/place is full")

    monkeypatch.setattr(JobQueue, "list", fail)
    response = make_client().get("/v1/jobs")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "secret" not in response.text


def test_more_followers_than_there_is_room_for_are_refused() -> None:
    streams = EventStreams(1)
    streams.take()
    with pytest.raises(ServiceOverloaded):
        streams.take()
    streams.give_back()
    streams.take()


def test_a_follower_hears_each_change_once_and_a_sign_of_life_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    def job(done: int, state: JobState = JobState.RUNNING) -> Job:
        progress = JobProgress("embedding", done, 3)
        return Job("j", "build-index", state, "", None, None, "", {}, progress, None, None)

    steps = iter([job(1), job(1), job(1), job(2), job(3, JobState.SUCCEEDED)])

    class Steps:
        def get(self, job_id: str) -> Job:
            return next(steps)

    class Connected:
        async def is_disconnected(self) -> bool:
            return False

    monkeypatch.setattr(job_routes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(job_routes, "HEARTBEAT_SECONDS", 0.02)

    async def hear() -> list[str]:
        return [event async for event in job_routes._events(job(1), Steps(), Connected(), EventStreams(1))]

    heard = asyncio.run(hear())
    assert [e["progress"]["done"] for e in events_of("".join(heard))] == [1, 2, 3]
    assert heard.count(": still there\n\n") == 1
