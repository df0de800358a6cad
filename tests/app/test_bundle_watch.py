"""Following the home's pointer: what is swapped when, and what stays when the new one cannot be loaded."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from app.bundle_watch import BundleWatch
from app.serving import Missing, Serving, queue_for
from app.settings import Settings
from models.durable import replace_file
from models.errors import BundleCorrupt
from models.home import Home
from models.manifest import FORMAT_VERSION


class Loaded:
    """Stands for an identifier."""

    def __init__(self, bundle_id: str) -> None:
        self.bundle_id = bundle_id


def point(home: Home, bundle_id: str) -> None:
    content = f'{{"format_version": {FORMAT_VERSION}, "artifact_id": "{bundle_id}"}}'
    replace_file(home.active_pointer, content.encode())


class Watched:
    """A watch over an empty home, a loader that can be told to fail, and a clock that is set by hand."""

    def __init__(self, home: Home) -> None:
        self.home = home
        absent = Missing("starting")
        self.serving = Serving(queue_for(Settings(home=home.root)), absent, absent)
        self.broken: set[str] = set()
        self.loads: list[str] = []
        self.seconds = 0.0
        self.watch = BundleWatch(home, self.serving, self.load, retry_seconds=15.0, now=lambda: self.seconds)

    def load(self, bundle_id: str, current: object) -> Loaded:
        self.loads.append(bundle_id)
        if bundle_id in self.broken:
            raise BundleCorrupt(f"{bundle_id} is damaged")
        return Loaded(bundle_id)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    found = Watched(Home(tmp_path))
    yield found
    found.serving.close()


def test_what_is_activated_answers_at_the_next_look(watched: Watched) -> None:
    watched.watch.look()
    assert watched.serving.identifier_or_none is None
    for bundle_id in ("one", "two", "one"):
        point(watched.home, bundle_id)
        watched.watch.look()
        assert watched.serving.identifier.bundle_id == bundle_id
        watched.watch.look()
    assert watched.loads == ["one", "two", "one"]
    assert watched.serving.complaint is None


def test_a_bundle_that_cannot_be_loaded_leaves_the_last_good_one(watched: Watched) -> None:
    point(watched.home, "good")
    watched.watch.look()
    watched.broken = {"bad"}
    point(watched.home, "bad")
    watched.watch.look()
    assert watched.serving.identifier.bundle_id == "good"
    assert watched.serving.complaint == "bad is damaged"
    watched.watch.look()
    assert watched.loads == ["good", "bad"], "it is not tried with every look"
    watched.seconds += 16
    watched.broken = set()
    watched.watch.look()
    assert watched.serving.identifier.bundle_id == "bad"
    assert watched.serving.complaint is None


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format_version": 999, "artifact_id": "x"}', None])
def test_a_damaged_or_missing_pointer_leaves_the_last_good_one(watched: Watched, damage: bytes | None) -> None:
    point(watched.home, "good")
    watched.watch.look()
    if damage is None:
        watched.home.active_pointer.unlink()
    else:
        replace_file(watched.home.active_pointer, damage)
    watched.watch.look()
    assert watched.serving.identifier.bundle_id == "good"
    assert watched.serving.complaint is not None


def test_what_was_replaced_is_freed_with_the_last_request_that_holds_it(watched: Watched) -> None:
    point(watched.home, "one")
    watched.watch.look()
    request = watched.serving.identifier
    replaced = weakref.ref(request)
    point(watched.home, "two")
    watched.watch.look()
    assert request.bundle_id == "one"
    assert watched.serving.identifier.bundle_id == "two"
    del request
    gc.collect()
    assert replaced() is None


def test_the_watch_outlives_an_unexpected_failure(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def fail() -> None:
        looks.append(1)
        if len(looks) > 2:
            watched.watch._stop.set()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(watched.watch, "look", fail)
    monkeypatch.setattr(watched.watch, "_poll_seconds", 0.001)
    watched.watch.start()
    watched.watch._thread.join(10)
    assert len(looks) == 3
    assert "log" in watched.serving.complaint


def test_a_catalogue_that_comes_later_is_served(watched: Watched, collection_home: Home) -> None:
    watched.watch.look()
    assert not watched.serving.has_collection
    watched.watch._home = collection_home
    watched.seconds += 16
    watched.watch.look()
    assert watched.serving.collection.catalogue.counts().species == 3


def test_a_running_service_follows_several_activations(
    make_client: Callable[..., object], identifier: object, encode: Callable[..., bytes]
) -> None:
    client = make_client()
    serving = client.app.state.serving
    for bundle_id in ("bundle-1", "bundle-2"):
        identifier.bundle_id = bundle_id
        serving.put_identifier(identifier)
        answer = client.post("/v1/identifications", files={"photos": ("x", encode())})
        assert answer.json()["bundle_id"] == bundle_id
        assert client.get("/readyz").json()["bundle_id"] == bundle_id


def test_neither_the_folder_nor_the_database_is_told_to_everybody(tmp_path: Path) -> None:
    absent = Missing("starting")
    serving = Serving(queue_for(Settings(home=tmp_path / "secret-place")), absent, absent)

    def load(bundle_id: str, current: object) -> Loaded:
        raise BundleCorrupt(f"{tmp_path / 'secret-place' / 'indexes' / 'x'}: index.faiss is not as it was written")

    watch = BundleWatch(Home(tmp_path / "secret-place", "postgresql://who@inner-host:9/inner_db"), serving, load)
    watch.look()
    told = f"{serving.missing_collection} {serving.missing_identifier} {serving.complaint}"
    assert "secret-place" not in told
    assert "inner" not in told
    assert "the service's log says why" in told
    serving.queue.close()


@pytest.mark.parametrize("root", [".", "a", "/srv/flora"])
def test_what_everybody_may_know_does_not_tell_where_the_home_is(root: str, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home(Path(root))
    watch = BundleWatch(home, serving=None, load=lambda *_: pytest.fail("not asked for"))
    where = home.root.resolve()
    told = watch._public(BundleCorrupt(f"there is no index a-7 in {where}/indexes; see docs/data.md. A plan"))
    assert told == "there is no index a-7 in the home/indexes; see docs/data.md. A plan"
