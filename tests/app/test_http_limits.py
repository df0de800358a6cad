"""What a real server lets clients take of it: heads, parts, and connections that are kept open."""

import http.client
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

HEAD_SECONDS = 0.7
SLOW_CLIENTS = 150


@pytest.fixture(scope="module")
def port(serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(header_timeout_seconds=HEAD_SECONDS, body_timeout_seconds=HEAD_SECONDS)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def is_served(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200


def send_until_refused(connection: socket.socket, chunk: bytes, most: int) -> int:
    """How many bytes the other side takes."""
    sent = 0
    try:
        while sent < most:
            sent += connection.send(chunk)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("piece", [b"X-Filler: " + b"x" * 1000 + b"\r\n", b"x" * 1000], ids=["lines", "one line"])
def test_a_head_without_end_is_refused_soon(port: int, piece: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        # What the network holds on its way comes on top of what the server has taken.
        assert send_until_refused(connection, piece, 50_000_000) < 10_000_000
    assert is_served(port)


@pytest.mark.parametrize("name", ["top_k", "photos"])
def test_a_form_of_very_many_parts_is_refused(port: int, name: str) -> None:
    file_name = '; filename="x"' if name == "photos" else ""
    part = f'--b\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n\r\n1\r\n'
    body = part.encode() * 20_000 + b"--b--\r\n"
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        began = time.monotonic()
        connection.request("POST", "/v1/identifications", body, {"Content-Type": "multipart/form-data; boundary=b"})
        response = connection.getresponse()
        assert response.status in (413, 415, 422), response.read()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nX-Slow: ",
        b"POST /v1/identifications HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n",
        b"POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: application/json\r\n\r\n",
    ],
    ids=["in the head", "in a form", "in JSON"],
)
def test_many_clients_that_trickle_hold_nobody_up_and_are_cut_off(port: int, beginning: bytes) -> None:
    with ExitStack() as open_connections:
        slow = [open_connections.enter_context(connect(port)) for _ in range(SLOW_CLIENTS)]
        for connection in slow:
            connection.sendall(beginning)
        left = set(slow)
        deadline = time.monotonic() + 20
        while left:
            assert time.monotonic() < deadline, f"{len(left)} slow clients are still connected"
            assert is_served(port)
            for connection in list(left):
                if not still_taken(connection):
                    left.discard(connection)
            time.sleep(0.05)


def still_taken(connection: socket.socket) -> bool:
    """Whether one more byte is taken and nothing was answered yet."""
    connection.setblocking(False)
    try:
        connection.send(b"x")
        connection.recv(1000)  # an answer, or the end
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
