"""How many batches come in at one time, what they hold of memory, and what they are charged."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from services import Service, services
from starlette.datastructures import Headers
from starlette.types import Message
from tests_support import picture_bytes

from app import batch_upload
from app.batch_door import MOST_OF_A_KEY, MOST_UPLOADS, BatchDoor
from app.batch_form import batch_limits, form_shape
from app.batch_upload import read_batch
from app.settings import Settings
from app.uploads import UploadBudget
from models.api_keys import NewKey
from models.api_keys_store import KeyStore
from models.batches import BatchOptions, BatchPlant, BatchStore
from models.errors import ServiceOverloaded
from models.home import Home

URL = "/v1/batches"


@pytest.fixture
def service(tiny_home: Home) -> Iterator[Service]:
    with services(tiny_home) as make:
        yield make


def photos(count: int, content: bytes | None = None) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photos", (f"{n}.png", content or picture_bytes(n))) for n in range(count)]


def key_of(home: Home, **limits: int) -> dict[str, str]:
    with KeyStore.open(home, create=True) as store:
        return {"Authorization": f"Bearer {store.create(NewKey('app', **limits))[1]}"}


def test_a_spent_key_is_refused_before_anything_is_read(
    service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, headers = service(), key_of(tiny_home, daily_quota=1)
    assert client.post(URL, files=photos(1), headers=headers).status_code == 202
    monkeypatch.setattr(batch_upload, "_keep", pytest.fail)
    assert client.post(URL, files=photos(3), headers=headers).status_code == 429


@pytest.mark.parametrize(("sent", "left"), [(photos(3), 2), (photos(4, b"no image"), 4)])
def test_a_batch_counts_its_plants_and_one_at_least(
    service: Service, tiny_home: Home, sent: list[tuple[str, tuple[str, bytes]]], left: int
) -> None:
    client, headers = service(), key_of(tiny_home, daily_quota=5)
    answer = client.post(URL, files=sent, headers=headers)
    assert answer.status_code == 202
    assert f";r={left};" in answer.headers["RateLimit"]


def test_a_batch_is_one_request_of_its_minute(service: Service, tiny_home: Home) -> None:
    client, headers = service(), key_of(tiny_home, per_minute=2)
    statuses = [client.post(URL, files=photos(3), headers=headers).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]


def test_one_that_is_refused_in_the_end_is_not_charged(service: Service, tiny_home: Home) -> None:
    client, headers = service(), key_of(tiny_home, daily_quota=3)
    assert client.post(URL, files=photos(5), headers=headers).status_code == 429
    wrong = client.post(URL, files=photos(2), data={"species_ids": "nowhere"}, headers=headers)
    assert wrong.status_code == 422
    assert ";r=3;" in wrong.headers["RateLimit"]


def test_an_upload_holds_what_has_come_and_no_more(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    budget = UploadBudget(10_000_000)
    head = b'--b\r\nContent-Disposition: form-data; name="photos"; filename="x"\r\n\r\n'
    held: list[int] = []
    pieces = iter([head, b"x" * 5_000, b"x" * 5_000 + b"\r\n" + head, b"y" * 70_000 + b"\r\n--b--\r\n"])

    async def receive() -> Message:
        held.append(budget.held_bytes)
        piece = next(pieces)
        return {"type": "http.request", "body": piece, "more_body": not piece.endswith(b"--b--\r\n")}

    async def scenario() -> None:
        headers = Headers({"content-type": "multipart/form-data; boundary=b"})
        limits = batch_limits(settings)
        with budget.share() as share, BatchStore(Home(tmp_path)).receive() as (draft, _):
            door = BatchDoor(settings)
            await read_batch(headers, receive, form_shape(settings), share, draft, limits, door.decoding)
            assert share.held_bytes == 0

    asyncio.run(scenario())
    assert held == [0, 0, 5_000, 0]
    assert budget.held_bytes == 0


def test_only_some_are_sent_at_one_time_and_few_with_one_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        door = BatchDoor(Settings(home=tmp_path))
        with anyio.CancelScope():
            entered = [door.upload("one") for _ in range(MOST_OF_A_KEY)]
            for each in entered:
                each.__enter__()
            with pytest.raises(ServiceOverloaded, match="with this key"), door.upload("one"):
                pass
            others = [door.upload(f"key {n}") for n in range(MOST_UPLOADS - MOST_OF_A_KEY)]
            for each in others:
                each.__enter__()
            for who in (None, "another"):
                with pytest.raises(ServiceOverloaded, match="being sent already"), door.upload(who):
                    pass
            for each in entered + others:
                each.__exit__(None, None, None)
            with door.upload("one"), door.upload(None), door.upload(None), door.upload(None):
                pass

    asyncio.run(scenario())


def test_those_that_came_in_together_are_counted_one_after_the_other(tmp_path: Path) -> None:
    store = BatchStore(Home(tmp_path))

    async def send(door: BatchDoor) -> bool:
        with store.receive() as (draft, keep):
            draft.plants.append(BatchPlant("x.png", (draft.add_photo(b"x"),)))
            try:
                async with door.keeping(store):
                    await asyncio.to_thread(keep, BatchOptions())
            except ServiceOverloaded:
                return False
            return True

    async def scenario() -> list[bool]:
        door = BatchDoor(Settings(home=tmp_path, batch_jobs=2))
        return await asyncio.gather(*(send(door) for _ in range(6)))

    assert sorted(asyncio.run(scenario())) == [False] * 4 + [True] * 2
    assert store.unfinished() == 2
