"""Whether the service says that it cannot identify plants, and why not."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import readiness
from app.bundle_watch import load_serving
from app.main import create_app
from app.readiness import ReadinessProbe, State
from app.serving import Missing, Serving, open_collection, queue_for
from app.settings import Settings
from indexer.worker_slots import WorkerSlots
from models.errors import CatalogueError
from models.home import Home


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(collection_home: Home, tmp_path: Path) -> Home:
    shutil.copytree(collection_home.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def rig(home: Home, identifier) -> Iterator[Callable[..., "Rig"]]:
    made: list[Rig] = []

    def make(**given: object) -> Rig:
        made.append(Rig(home, identifier, Settings(home=home.root, **given)))
        return made[-1]

    yield make
    for each in made:
        each.probe.close()
        each.serving.close()


class Rig:
    """A probe, what it looks at, and its clock."""

    def __init__(self, home: Home, identifier: object, settings: Settings) -> None:
        self.clock = Clock()
        self.serving = Serving(queue_for(settings), open_collection(home), identifier)
        self.probe = ReadinessProbe(settings, self.serving, self.clock)

    def look(self) -> dict[str, tuple[State, str | None]]:
        self.clock.now += readiness.FRESH_SECONDS
        return {check.name: (check.state, check.detail) for check in self.probe.look()}


def states(found: dict[str, tuple[State, str | None]]) -> dict[str, str]:
    """Those that are not well."""
    return {name: state.value for name, (state, _) in found.items() if state is not State.OK}


def test_a_sound_service_has_nothing_to_complain_of(rig) -> None:
    found = rig().look()
    assert states(found) == {}
    assert list(found) == ["catalogue", "bundle", "queue", "database", "worker", "disk"]
    assert all(detail is None for _, detail in found.values())


def test_no_catalogue_and_no_bundle_are_faults_with_their_remedy(rig) -> None:
    made = rig()
    made.serving.collection.catalogue.close()
    made.serving.put_collection(Missing("no catalogue: run `voucher import`"))
    made.serving.put_identifier(Missing("no bundle: run `voucher build`"))
    found = made.look()
    assert states(found) == {"catalogue": "fault", "bundle": "fault"}
    assert found["bundle"][1] == "no bundle: run `voucher build`"


def test_a_bundle_that_cannot_replace_the_one_before_is_a_warning(rig) -> None:
    made = rig()
    made.serving.complaint = "index-2 is damaged"
    found = made.look()
    assert states(found) == {"bundle": "warning"}
    assert "index-2 is damaged" in str(found["bundle"][1])


def test_a_database_that_is_lost_is_a_warning_and_is_not_named(rig, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    made = rig()

    def fail() -> None:
        raise CatalogueError("postgresql://someone@db.internal cannot be reached")

    monkeypatch.setattr(made.serving.collection.catalogue, "revision", fail)
    with caplog.at_level("WARNING"):
        found = made.look()
        made.look()
    assert states(found) == {"database": "warning"}
    assert "db.internal" not in str(found)
    assert caplog.text.count("db.internal") == 1


def test_a_database_that_does_not_answer_holds_nobody_up(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "DATABASE_SECONDS", 0.05)
    made, answer = rig(), threading.Event()
    asked: list[int] = []

    def wait() -> None:
        asked.append(1)
        answer.wait(10)

    monkeypatch.setattr(made.serving.collection.catalogue, "revision", wait)
    for _ in range(3):
        assert states(made.look()) == {"database": "warning"}
    assert len(asked) == 1  # nobody asks again for a while
    answer.set()
    monkeypatch.setattr(made.probe._database, "_silent_until", float("-inf"))
    assert states(made.look()) == {}


def test_a_network_that_is_stuck_is_a_fault(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig(request_timeout_seconds=5)
    monkeypatch.setattr(type(made.serving.queue), "busy_seconds", property(lambda self: 4.0))
    assert states(made.look()) == {}
    monkeypatch.setattr(type(made.serving.queue), "busy_seconds", property(lambda self: 6.0))
    assert states(made.look()) == {"queue": "fault"}


def test_a_full_queue_is_a_warning(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig(queue_limit=3)
    monkeypatch.setattr(type(made.serving.queue), "admitted", property(lambda self: 3))
    assert states(made.look()) == {"queue": "warning"}


def test_a_worker_that_stays_away_is_a_warning(rig, home: Home) -> None:
    made = rig()
    made.clock.now += readiness.WORKER_GRACE_SECONDS - 10
    assert states(made.look()) == {}
    made.clock.now += 20
    assert states(made.look()) == {"worker": "warning"}
    with WorkerSlots(home.workers).take():
        assert states(made.look()) == {}
    assert states(made.look()) == {}
    made.clock.now += readiness.WORKER_GRACE_SECONDS
    assert states(made.look()) == {"worker": "warning"}


def test_a_service_that_brings_no_worker_does_not_miss_it(rig) -> None:
    made = rig(worker=False)
    made.clock.now += 10 * readiness.WORKER_GRACE_SECONDS
    assert states(made.look()) == {}


def test_a_disk_that_fills_is_a_warning(rig, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    made = rig()
    monkeypatch.setattr(readiness, "LOW_DISK_BYTES", 1 << 62)
    found = made.look()
    assert states(found) == {"disk": "warning"}
    assert "voucher gc" in str(found["disk"][1])
    monkeypatch.undo()
    made.serving.collection.catalogue.close()
    made.serving.put_collection(Missing("gone"))
    shutil.rmtree(home.root)
    assert states(made.look())["disk"] == "warning"


def test_what_was_looked_at_a_moment_ago_is_told_again(rig) -> None:
    made = rig()
    first = made.probe.look()
    made.serving.put_identifier(Missing("none"))
    assert made.probe.look() is first
    assert states(made.look()) == {"bundle": "fault"}


def test_the_route_tells_all_checks_with_200(client: TestClient) -> None:
    body = client.get("/readyz").json()
    assert body["status"] == "ready"
    assert [check["state"] for check in body["checks"]] == ["ok"] * 6


def test_the_route_tells_all_checks_with_503(make_client: Callable[..., TestClient]) -> None:
    response = make_client(with_bundle=False).get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    body = response.json()
    assert body["type"] == "urn:voucher:problem:not-ready"
    assert body["detail"] == "nothing is built: run `voucher build`"
    assert {check["name"]: check["state"] for check in body["checks"]}["bundle"] == "fault"


def test_a_corrupt_bundle_is_told_with_its_remedy(tiny_home: Home) -> None:
    damaged = next(tiny_home.indexes.glob("*/gate.json"))
    damaged.chmod(0o644)
    damaged.write_text("{}")
    with TestClient(create_app(Settings(home=tiny_home.root, device="cpu", worker=False), load_serving)) as service:
        response = service.get("/readyz")
    assert response.status_code == 503
    assert "gate.json" in response.json()["detail"]
    assert "voucher build" in response.json()["detail"]
