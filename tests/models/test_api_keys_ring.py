"""What a running service knows of the keys: soon what was changed, and for a while what cannot be read."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from models.api_keys import KeyState, NewKey
from models.api_keys_ring import FRESH_SECONDS, TRUSTED_SECONDS, KeyRing
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.errors import CatalogueError
from models.home import Home


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(empty_home: Home, clock: Clock) -> Iterator[KeyRing]:
    made = KeyRing(empty_home, now=clock)
    yield made
    made.close()


def unreadable(*_: object) -> None:
    raise CatalogueError("the disk is gone")


def test_the_first_key_counts_within_a_second(ring: KeyRing, empty_home: Home, clock: Clock) -> None:
    assert not ring.exist()  # there is no catalogue yet
    Catalogue.open(empty_home, create=True).close()
    clock.seconds += FRESH_SECONDS
    assert not ring.exist()
    with KeyStore.open(empty_home) as store:
        kept, _ = store.create(NewKey("Ada"))
        assert ring.exist_if_fresh() is False
        clock.seconds += FRESH_SECONDS
        assert ring.exist_if_fresh() is None
        assert ring.exist()
        store.revoke(kept.key_id)
        clock.seconds += 10_000
        assert ring.exist_if_fresh()  # the service does not open when its last key is revoked


def test_a_key_is_remembered_for_a_second_and_then_read_again(ring: KeyRing, empty_home: Home, clock: Clock) -> None:
    with KeyStore.open(empty_home, create=True) as store:
        kept, _ = store.create(NewKey("Ada"))
        assert ring.remembered(kept.key_id) is None
        assert ring.find(kept.key_id) == kept
        store.revoke(kept.key_id)
        assert ring.remembered(kept.key_id) == (kept, True)
        clock.seconds += FRESH_SECONDS
        assert ring.remembered(kept.key_id) == (kept, False)
        found = ring.find(kept.key_id)
        assert found is not None
        assert found.state() is KeyState.REVOKED


def test_ids_that_do_not_exist_are_not_remembered(ring: KeyRing, empty_home: Home) -> None:
    Catalogue.open(empty_home, create=True).close()
    for number in range(50):
        assert ring.find(f"{number:012x}") is None
        assert ring.remembered(f"{number:012x}") is None
    assert not ring._seen


def test_no_more_keys_are_remembered_than_there_is_room_for(
    ring: KeyRing, empty_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.api_keys_ring._MOST_KEYS", 3)
    with KeyStore.open(empty_home, create=True) as store:
        made = [store.create(NewKey(f"{number}"))[0].key_id for number in range(5)]
    for key_id in made:
        ring.find(key_id)
    assert [ring.remembered(key_id) is not None for key_id in made] == [False, False, True, True, True]


def test_keys_that_were_seen_go_on_while_the_database_cannot_be_read(
    ring: KeyRing, empty_home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KeyStore.open(empty_home, create=True) as store:
        kept, _ = store.create(NewKey("Ada"))
        other, _ = store.create(NewKey("Bob"))
    assert ring.exist()
    assert ring.find(kept.key_id) == kept
    monkeypatch.setattr(KeyStore, "find", unreadable)
    monkeypatch.setattr(KeyStore, "exist", unreadable)
    monkeypatch.setattr(KeyStore, "note_use", unreadable)
    clock.seconds += TRUSTED_SECONDS
    assert ring.find(kept.key_id) == kept
    assert ring.exist()
    ring.note_use(kept)
    with pytest.raises(CatalogueError):
        ring.find(other.key_id)
    clock.seconds += 1
    with pytest.raises(CatalogueError):
        ring.find(kept.key_id)


def test_whether_there_are_keys_is_not_guessed(
    ring: KeyRing, empty_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalogue.open(empty_home, create=True).close()
    monkeypatch.setattr(KeyStore, "exist", unreadable)
    with pytest.raises(CatalogueError):
        ring.exist()


def test_the_use_of_a_key_is_noted_once_a_day(ring: KeyRing, empty_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeyStore.open(empty_home, create=True) as store:
        kept, _ = store.create(NewKey("Ada"))
    noted: list[object] = []
    really = KeyStore.note_use
    monkeypatch.setattr(KeyStore, "note_use", lambda *given: (noted.append(given), really(*given)))
    key = ring.find(kept.key_id)
    for _ in range(3):
        assert key is not None
        ring.note_use(key)
        remembered = ring.remembered(kept.key_id)
        assert remembered is not None
        key = remembered[0]
    assert key is not None
    assert key.last_used_on == datetime.now(UTC).date()
    assert len(noted) == 1
