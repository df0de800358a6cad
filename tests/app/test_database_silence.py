"""A database that does not answer holds up nobody for long."""

import asyncio
import threading
import time

import pytest

from app.access_control import AccessControl
from app.database_silence import DatabaseSilent, SilenceGuard
from app.refusals import NotReady
from app.settings import Settings
from models.api_keys import ApiKey, NewKey
from models.api_keys_ring import KeyRing
from models.api_keys_store import KeyStore
from models.home import Home


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_what_is_answered_comes_through_and_so_do_errors() -> None:
    guard = SilenceGuard("test")
    assert guard.ask_and_wait(lambda: 7) == 7
    assert asyncio.run(guard.ask(lambda: 8)) == 8
    with pytest.raises(ZeroDivisionError):
        guard.ask_and_wait(lambda: 1 // 0)
    guard.close()


def test_after_silence_nobody_asks_for_a_while() -> None:
    clock, release, asked = Clock(), threading.Event(), []
    guard = SilenceGuard("test", answer_seconds=0.05, pause_seconds=5.0, now=clock)

    def hang() -> None:
        asked.append(1)
        release.wait(10)

    with pytest.raises(DatabaseSilent, match="has not answered for"):
        guard.ask_and_wait(hang)
    with pytest.raises(DatabaseSilent, match="a moment ago"):
        asyncio.run(guard.ask(hang))
    clock.time = 5.1
    with pytest.raises(DatabaseSilent, match="has not answered for"):
        asyncio.run(guard.ask(hang))
    clock.time = 10.2
    assert guard.ask_and_wait(lambda: "well again") == "well again"
    assert len(asked) == 2
    release.set()
    guard.close()


def test_threads_that_are_kept_do_not_keep_the_process() -> None:
    release = threading.Event()
    guard = SilenceGuard("kept", answer_seconds=0.01, pause_seconds=0.0)
    for _ in range(20):
        with pytest.raises(DatabaseSilent):
            guard.ask_and_wait(lambda: release.wait(10))
    kept = [thread for thread in threading.enumerate() if thread.name == "database-kept"]
    assert 1 <= len(kept) <= 8
    assert all(thread.daemon for thread in kept)
    release.set()
    guard.close()
    deadline = time.monotonic() + 10
    while any(thread.is_alive() for thread in kept):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def key(tiny_home: Home) -> tuple[ApiKey, str]:
    with KeyStore.open(tiny_home, create=True) as store:
        return store.create(NewKey("app", daily_quota=100))


def control_with(home: Home, ring: KeyRing) -> AccessControl:
    control = AccessControl(Settings(home=home.root, access="keys"), ring=ring)
    control._database = SilenceGuard("keys", answer_seconds=0.1, pause_seconds=5.0)
    return control


def test_keys_that_were_seen_go_on_while_the_database_is_silent(
    tiny_home: Home, key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, release = Clock(), threading.Event()
    ring = KeyRing(tiny_home, now=clock)
    known, text = key

    async def scenario() -> None:
        control = control_with(tiny_home, ring)
        assert (await control.verified(text, "1.2.3.4")).key_id == known.key_id
        monkeypatch.setattr(KeyStore, "find", lambda *_: release.wait(10))
        monkeypatch.setattr(type(ring.store().usage), "charge", lambda *_: release.wait(10))
        clock.time = 2.0
        began = time.monotonic()
        for _ in range(10):
            assert (await control.verified(text, "1.2.3.4")).key_id == known.key_id
            assert (await control.admitted(known, 1)).charge is None
        assert time.monotonic() - began < 3
        with pytest.raises(NotReady):
            await control._find("unseen")
        release.set()

    asyncio.run(scenario())


def test_a_burst_of_one_right_key_takes_none_of_its_failures(
    tiny_home: Home, key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = KeyStore.find

    def slow(self: KeyStore, key_id: str) -> ApiKey | None:
        asked.append(key_id)
        time.sleep(0.05)
        return real(self, key_id)

    monkeypatch.setattr(KeyStore, "find", slow)

    async def scenario() -> None:
        control = AccessControl(Settings(home=tiny_home.root, access="keys"))
        found = await asyncio.gather(*(control.verified(key[1], "1.2.3.4") for _ in range(40)))
        assert {each.key_id for each in found} == {key[0].key_id}
        control.close()

    asyncio.run(scenario())
    assert len(asked) == 1


def test_who_waits_for_a_turn_does_not_wait_for_a_silent_database() -> None:
    guard = SilenceGuard("busy", answer_seconds=0.2, pause_seconds=5.0)

    async def ask_many() -> list[int]:
        return await asyncio.gather(*(guard.ask(lambda n=n: time.sleep(0.02) or n) for n in range(200)))

    # Twenty-five turns of each thread take longer than one answer may.
    assert asyncio.run(ask_many()) == list(range(200))
    guard.close()
