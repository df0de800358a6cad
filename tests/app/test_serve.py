"""The real server, over sockets: what clients that misbehave get."""

import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app import command
from app import serve as serve_module
from app.serve import build_server
from app.serving import Missing, Serving, queue_for
from app.settings import Settings
from models.errors import DeviceUnavailable

MEBIBYTE = 1024 * 1024

FORM_HEAD = (
    b"POST /v1/identifications HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n%b\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="photos"; filename="x"\r\n\r\n'
)


@pytest.fixture(scope="module")
def port(serve_in_thread: Callable[..., int]) -> int:
    """A service with short deadlines and a low limit."""
    return serve_in_thread(header_timeout_seconds=0.5, body_timeout_seconds=0.5, max_request_bytes=MEBIBYTE)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def seconds_until_closed(connection: socket.socket, trickle: bytes, pause_seconds: float) -> float:
    started = time.monotonic()
    try:
        for byte in trickle:
            connection.sendall(bytes((byte,)))
            time.sleep(pause_seconds)
            connection.setblocking(False)
            try:
                if connection.recv(1) == b"":
                    break
            except BlockingIOError:
                pass
            finally:
                connection.settimeout(20)
    except OSError:
        pass
    return time.monotonic() - started


def test_a_client_that_trickles_its_head_is_cut_off_and_others_are_served(port: int) -> None:
    with connect(port) as silent, connect(port) as slow:
        assert 0.3 < seconds_until_closed(slow, b"GET / HTTP/1.1\r\nX: " + b"x" * 100, 0.05) < 3
        assert answer_of(silent) == b""
    with connect(port) as reused:
        for _ in range(2):
            reused.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += reused.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.7)  # longer than the deadline of a head: a connection that waits is kept
        assert 0.3 < seconds_until_closed(reused, b"GET / HTTP/1.1\r\nX: " + b"x" * 100, 0.05) < 3


def test_a_body_that_trickles_is_408(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(FORM_HEAD % b"Content-Length: 1000")
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:voucher:problem:upload-too-slow" in answer
    assert b"connection: close" in answer.lower()


def test_a_chunked_body_beyond_the_limit_is_413_and_not_read_to_its_end(port: int) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    with connect(port) as connection:
        connection.sendall(FORM_HEAD.split(b"--b")[0] % b"Transfer-Encoding: chunked")
        try:
            for sent in range(100_000):  # noqa: B007  how far it came is the point
                connection.sendall(chunk)
        except OSError:
            pass
    assert sent < 90_000


def test_a_refused_upload_of_moderate_size_can_be_read_by_its_sender(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v1/identifications", body=bytes(8 * 1024 * 1024), headers={"Content-Type": "x/y"})
    response = connection.getresponse()
    assert response.status == 413
    assert b"at most 1 MiB" in response.read()
    connection.close()


def test_no_answer_names_the_server_software(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = answer_of(connection).split(b"\r\n\r\n")[0].lower()
    assert b"\r\nserver:" not in head


def test_a_request_that_is_no_http_is_400(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"\x16\x03\x01\x00\xff hello\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 400")


def test_a_port_that_is_taken_ends_with_a_message(port: int) -> None:
    none = Missing("none")
    server = build_server(Settings(port=port), pytest.fail, load=lambda given: Serving(queue_for(given), none, none))
    with pytest.raises(SystemExit):
        server.run()


def command_line() -> typer.Typer:
    application = typer.Typer()
    application.command()(command.serve_command)
    return application


def test_the_command_passes_its_options_on_and_tells_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    seen: list[Settings] = []

    def served(settings: Settings, announce: Callable[[str], None], *, listening: int | None) -> None:
        assert listening is None
        seen.append(settings)
        announce("http://localhost:8765/")

    monkeypatch.setattr(serve_module, "serve", served)
    monkeypatch.setenv("VOUCHER_HOME", str(tmp_path))
    result = CliRunner().invoke(command_line(), ["--host", "0.0.0.0", "--port", "8765", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "http://localhost:8765/" in result.output
    assert (seen[0].home, seen[0].host, seen[0].port, seen[0].device) == (tmp_path, "0.0.0.0", 8765, "cpu")


def test_the_command_says_what_is_wrong_without_a_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def served(settings: Settings, announce: Callable[[str], None], *, listening: int | None) -> None:
        assert listening is None
        raise DeviceUnavailable("there is no cuda:7")

    monkeypatch.setattr(serve_module, "serve", served)
    result = CliRunner().invoke(command_line(), ["--device", "cuda:7", "--home", str(tmp_path)])
    assert result.exit_code == 2
    assert "there is no cuda:7" in result.output
    assert "Traceback" not in result.output
