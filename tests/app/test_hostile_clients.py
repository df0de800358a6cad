"""What clients may try: odd addresses and pages, fields without end, filters for nothing, answers that nobody reads."""

import asyncio
import gc
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

import pytest
import uvicorn
from fastapi.testclient import TestClient
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from app.http_protocol import protocol_with_deadlines
from app.inference import InferenceQueue
from app.passage import Looked

Make = Callable[..., TestClient]
Encode = Callable[..., bytes]
URL = "/v1/identifications"


@pytest.mark.parametrize("origin", ["http://[", "http://a:b", "null", "://"])
def test_an_origin_that_is_none_is_a_foreign_one(client: TestClient, origin: str) -> None:
    headers = {"Origin": origin}
    assert client.post("/v1/index-builds", headers=headers).status_code == 403
    assert client.post("/v1/session", json={"key": "x"}, headers=headers).status_code < 500
    assert client.get("/", headers=headers | {"Cookie": "voucher-key=x"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/sheets/%00", "/v1/sheets/a%00b/image", "/v1/species/%00", "/v1/jobs/%00"])
def test_nothing_is_at_an_address_with_a_nul(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_nor_is_a_parameter_with_one_right(client: TestClient) -> None:
    response = client.get("/v1/sheets?species_id=%00")
    assert (response.status_code, response.json()["type"]) == (422, "urn:voucher:problem:invalid-parameter")
    assert client.get("/v2/projects?lang=%00").status_code < 500


def test_a_page_of_another_site_cannot_have_photos_identified_here(make_client: Make, encode: Encode) -> None:
    files = {"photos": ("x", encode())}
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    client = make_client()
    for path in (URL, "/v1/embeddings", "/v1/batches", "/v1/explanations"):
        refused = client.post(path, files=files, headers=foreign)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:voucher:problem:foreign-page")
    assert client.get("/v1/species", headers=foreign).status_code == 200
    assert client.post("/v2/identify/all", files={"images": ("x", encode())}, headers=foreign).status_code == 200
    named = make_client(cors_origins=("https://evil.example",))
    assert named.post(URL, files=files, headers=foreign).status_code == 200


def test_a_long_field_is_not_longer_in_many_parts(client: TestClient, encode: Encode) -> None:
    part = b"1," * 150_000
    response = client.post(URL, files=[("photos", ("x", encode())), *[("species_ids", (None, part))] * 20])
    assert (response.status_code, response.json()["type"]) == (422, "urn:voucher:problem:invalid-form")
    assert "at most" in response.json()["detail"]


def test_nor_has_it_entries_without_end(client: TestClient, encode: Encode) -> None:
    response = client.post(URL, files={"photos": ("x", encode())}, data={"species_ids": "," * 100_000})
    assert response.status_code == 422
    assert "60,000 entries" in response.json()["detail"]


def test_a_filter_for_nothing_costs_the_network_nothing(client: TestClient, identifier, encode: Encode) -> None:
    response = client.post(URL, files={"photos": ("x", encode())}, data={"species_ids": "nope"})
    assert (response.status_code, response.json()["type"]) == (422, "urn:voucher:problem:invalid-candidates")
    assert identifier.batches == []


def test_photos_of_clients_that_went_do_not_wait_for_a_decoder(identifier, encode: Encode) -> None:
    hold, entered = threading.Event(), threading.Event()
    real = identifier.preprocess

    def slow(image: object) -> object:
        entered.set()
        assert hold.wait(10)
        return real(image)

    identifier.preprocess = slow
    photo = encode(7)

    async def scenario() -> None:
        queue = InferenceQueue(queue_limit=4, decode_workers=1, max_pixels=10**6, timeout_seconds=10)
        busy = asyncio.create_task(queue.ask(identifier, [encode(1)], lambda looked: looked))
        assert await asyncio.to_thread(entered.wait, 10)
        before = sys.getrefcount(photo)
        waiting = asyncio.create_task(queue.ask(identifier, [photo], lambda looked: looked))
        await asyncio.sleep(0.05)
        assert sys.getrefcount(photo) > before
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        del waiting
        await asyncio.sleep(0.01)  # the loop forgets it
        gc.collect()
        assert sys.getrefcount(photo) == before
        hold.set()
        await busy
        queue.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("part", ["decode", "encode", "answer", "beside"])
def test_photos_that_an_error_ended_are_not_kept_until_memory_is_searched(
    part: str, identifier, encode: Encode
) -> None:
    photo = encode(7)

    def fail(*_: object, **__: object) -> None:
        raise FloatingPointError(part)

    if part != "beside":
        setattr(identifier, part, fail)

    async def scenario() -> None:
        queue = InferenceQueue(queue_limit=4, decode_workers=1, max_pixels=10**6, timeout_seconds=10)
        gone = asyncio.Event()

        async def ask() -> None:
            def then(looked: Looked) -> object:
                return identifier.answer(looked.encoded)

            asked = queue.on_network(lambda: fail(photo)) if part == "beside" else None
            with pytest.raises(FloatingPointError, match=part):
                await (asked or queue.ask(identifier, [photo], then, client_gone=gone.wait))

        await ask()
        before = sys.getrefcount(photo)
        for _ in range(5):
            await ask()
        await asyncio.sleep(0.01)  # the loop forgets it
        assert sys.getrefcount(photo) <= before
        queue.close()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_whoever_asks_and_does_not_read_is_cut_off(serve_in_thread: Callable[..., int]) -> None:
    port = serve_in_thread(body_timeout_seconds=0.5)
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        time.sleep(2.0)
        received = 0
        with suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received += len(piece)
    assert received < 20_000_000


class Writing:
    """As much of a transport as the protocol looks at."""

    def __init__(self) -> None:
        self.unread = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize(
    ("unread", "resumes", "is_aborted"),
    [
        ([90, 60, 30, 0, 0], False, False),
        ([90, 90], False, True),
        ([60, 70], False, True),
        ([60, 70], True, False),
        ([0, 70, 0, 70], False, False),
    ],
)
def test_whoever_takes_something_is_waited_for(unread: list[int], resumes: bool, is_aborted: bool) -> None:
    async def scenario() -> None:
        protocol_class = protocol_with_deadlines(head_seconds=60, reader_seconds=60)
        config = uvicorn.Config(lambda *_: None, log_config=None)
        protocol = protocol_class(config, ServerState(), {}, asyncio.get_running_loop())
        transport = Writing()
        protocol.transport = transport
        for size in unread:
            transport.unread = size
            protocol._look_at_reader()
            protocol._stop_reader_timer()
            if resumes:
                protocol.flow = FlowControl(transport)
                protocol.resume_writing()
        assert transport.is_aborted is is_aborted

    asyncio.run(scenario())


def test_photos_at_a_mistyped_address_are_told_so(client: TestClient, encode: Encode) -> None:
    large = encode() + bytes(100_000)
    refused = client.post("/v1/identification", files={"photos": ("x", large)})
    assert refused.status_code == 413
    assert "no files are taken at this address" in refused.json()["detail"]
    assert client.post("/v1/identifications/", files={"photos": ("x", large)}).status_code in (200, 404, 422)
