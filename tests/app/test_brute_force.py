"""Somebody tries keys at a real server, from many connections: what it costs, and what others notice."""

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from app.access_throttle import FAILURES_AT_ONCE, SECONDS_PER_FAILURE
from models.api_keys import NewKey
from models.api_keys_store import KeyStore
from models.home import Home

ATTACKERS = 8
ATTEMPTS = 150


@pytest.fixture
def home(collection_home: Home, tmp_path: Path) -> Home:
    shutil.copytree(collection_home.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> Iterator[KeyStore]:
    with KeyStore.open(home) as opened:
        yield opened


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def close(self) -> None:
        self._connection.close()

    def ask(self, key: str) -> tuple[int, dict[str, str], bytes]:
        self._connection.request("GET", "/v1/species/105951", headers={"Authorization": f"Bearer {key}"})
        response = self._connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


def test_trying_keys_costs_little_and_locks_nobody_out(
    home: Home, store: KeyStore, serve_in_thread: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, good = store.create(NewKey("Ada"))
    _, other = store.create(NewKey("Bob"))
    port = serve_in_thread(home, access="keys", public_reading=False)
    opened = [Client(port) for _ in range(ATTACKERS + 2)]
    honest, late, *attacking = opened
    assert honest.ask(good)[0] == 200

    looked_up = 0
    counting = threading.Lock()
    really = KeyStore.find

    def find(opened: KeyStore, key_id: str) -> object:
        nonlocal looked_up
        with counting:
            # The honest client's key is looked up again every second.
            looked_up += key_id != known.key_id
        return really(opened, key_id)

    monkeypatch.setattr(KeyStore, "find", find)
    began = time.monotonic()
    over = threading.Event()

    def attack(attacker: int) -> list[tuple[int, dict[str, str], bytes]]:
        tried = []
        for number in range(ATTEMPTS):
            # Of ids that do not exist, and with other secrets of one that does.
            key_id = known.key_id if number % 2 else f"{attacker:06x}{number:06x}"
            tried.append(attacking[attacker].ask(f"vch_{key_id}_{attacker:021d}{number:022d}"))
        return tried

    def go_on() -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append(honest.ask(good)[0])
        return statuses

    with ThreadPoolExecutor(ATTACKERS + 1) as pool:
        user = pool.submit(go_on)
        attacks = [pool.submit(attack, number) for number in range(ATTACKERS)]
        answers = [answer for each in attacks for answer in each.result()]
        over.set()
        statuses = user.result()
    seconds = time.monotonic() - began

    # No key was found, and as many attempts were looked at as the bucket holds, however fast they came.
    assert {status for status, _, _ in answers} == {401, 429}
    allowed = FAILURES_AT_ONCE + seconds / SECONDS_PER_FAILURE + 1
    assert sum(status == 401 for status, _, _ in answers) <= allowed
    assert looked_up <= allowed
    assert len(answers) == ATTACKERS * ATTEMPTS
    # All refusals of a kind are the same, whatever was wrong: nothing is learnt from them.
    told = {json.dumps(_without_ids(body)) for status, _, body in answers if status == 401}
    assert len(told) == 1
    assert all(1 <= int(headers["retry-after"]) <= SECONDS_PER_FAILURE for s, headers, _ in answers if s == 429)
    # Who was there before, at the same address, noticed nothing.
    assert len(statuses) > 5
    assert set(statuses) == {200}
    # Who comes now with a right key waits as long as it is told, and no longer.
    status, headers, _ = late.ask(other)
    if status == 429:
        time.sleep(int(headers["retry-after"]))
        status, _, _ = late.ask(other)
    assert status == 200
    assert honest.ask(good)[0] == 200
    for client in opened:
        client.close()


def _without_ids(body: bytes) -> dict[str, object]:
    told: dict[str, object] = json.loads(body)
    return {name: value for name, value in told.items() if name != "request_id"}


def test_a_quota_is_one_for_several_services_of_a_home(
    home: Home, store: KeyStore, serve_in_thread: Callable[..., int], encode: Callable[..., bytes]
) -> None:
    _, key = store.create(NewKey("Ada", daily_quota=7))
    ports = [serve_in_thread(home) for _ in range(2)]
    body = b'--b\r\nContent-Disposition: form-data; name="photos"; filename="x"\r\n\r\n' + encode(3) + b"\r\n--b--\r\n"
    head = {"Authorization": f"Bearer {key}", "Content-Type": "multipart/form-data; boundary=b"}

    def identify(number: int) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", ports[number % 2], timeout=30)) as connection:
            connection.request("POST", "/v1/identifications", body=body, headers=head)
            response = connection.getresponse()
            response.read()
            return response.status

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(identify, range(16)))
    assert sorted(statuses) == [200] * 7 + [429] * 9
