import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable

import pytest
from starlette.types import Message, Receive, Scope, Send

from app import body_limits
from app.body_limits import BodyLimit, BodyLimits
from app.refusals import BodyTimeout, RequestTooLarge


def scope_with(**headers: str) -> Scope:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/", "headers": raw, "state": {"request_id": "r1"}}


CHUNKED = scope_with(transfer_encoding="chunked")


class Client:
    """Sends `chunks`, each after `pause_seconds`, and keeps what comes back."""

    def __init__(self, chunks: Iterable[bytes], pause_seconds: float = 0.0) -> None:
        self._chunks = iter(chunks)
        self._pause_seconds = pause_seconds
        self.sent_bytes = 0
        self.answer: list[Message] = []

    async def receive(self) -> Message:
        await asyncio.sleep(self._pause_seconds)
        chunk = next(self._chunks, None)
        self.sent_bytes += len(chunk or b"")
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(self, message: Message) -> None:
        self.answer.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return {name.lower(): value for name, value in self.answer[0]["headers"]}


async def reads_everything(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def reads_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})


def limited(app: Callable[[Scope, Receive, Send], Awaitable[None]], timeout_seconds: float = 5.0) -> BodyLimits:
    return BodyLimits(app, timeout_seconds=timeout_seconds, forms={"/": BodyLimit(100, timeout_seconds)})


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "LINGER_SECONDS", 0.1)


def test_a_chunked_body_is_cut_at_the_limit() -> None:
    client = Client([b"x" * 60] * 1000)
    with pytest.raises(RequestTooLarge):
        asyncio.run(limited(reads_everything)(CHUNKED, client.receive, client.send))
    assert client.sent_bytes == 120


def test_a_body_of_exactly_the_limit_passes() -> None:
    client = Client([b"x" * 50, b"x" * 50])
    asyncio.run(limited(reads_everything)(CHUNKED, client.receive, client.send))
    assert client.answer[0]["status"] == 200
    assert b"connection" not in client.headers


def test_a_body_that_announces_too_much_is_413_before_the_application_sees_it() -> None:
    client = Client([b"x" * 101])
    scope = scope_with(content_length="101")

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was called")

    asyncio.run(limited(never)(scope, client.receive, client.send))
    assert client.answer[0]["status"] == 413
    assert json.loads(client.answer[1]["body"])["type"] == "urn:voucher:problem:request-too-large"


def test_a_slow_body_is_cut_off_though_it_never_stops() -> None:
    client = Client([b"x"] * 90, pause_seconds=0.02)
    with pytest.raises(BodyTimeout):
        asyncio.run(limited(reads_everything, 0.1)(CHUNKED, client.receive, client.send))
    assert 1 <= client.sent_bytes <= 5


def test_the_rest_of_an_unread_body_is_thrown_away_before_the_answer() -> None:
    client = Client([b"x" * 60] * 10)
    asyncio.run(limited(reads_nothing)(CHUNKED, client.receive, client.send))
    assert client.sent_bytes == 600
    assert b"connection" not in client.headers


def test_a_body_without_end_is_left_and_its_connection_closed() -> None:
    client = Client([b"x"] * 10_000, pause_seconds=0.01)
    asyncio.run(limited(reads_nothing)(CHUNKED, client.receive, client.send))
    assert client.headers[b"connection"] == b"close"
    assert client.sent_bytes < 20


def test_no_more_than_some_times_the_limit_is_thrown_away() -> None:
    client = Client([b"x" * 60] * 1000)
    asyncio.run(limited(reads_nothing)(CHUNKED, client.receive, client.send))
    assert client.headers[b"connection"] == b"close"
    assert client.sent_bytes == 1620


def test_a_client_that_waits_for_100_continue_is_not_asked_for_its_body() -> None:
    client = Client([b"x"])
    scope = scope_with(content_length="101", expect="100-continue")
    asyncio.run(limited(reads_nothing)(scope, client.receive, client.send))
    assert client.sent_bytes == 0
    assert client.headers[b"connection"] == b"close"


def test_a_request_without_a_body_is_not_touched() -> None:
    client = Client([])
    seen: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(receive)

    asyncio.run(limited(app)(scope_with(content_length="0"), client.receive, client.send))
    assert seen == [client.receive]
