"""Several processes at one port: small stand-ins for the services, real sockets and signals."""

import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app import command, serving_processes
from app.serving_processes import ServingProcesses, listening_socket, page_address, serve_in_processes
from app.settings import Settings
from models.errors import InvalidConfig

SERVICE = """
import http.server, json, os, socket, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"pid": os.getpid(), "threads": os.environ["VOUCHER_CPU_THREADS"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
"""


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def ask(port: int) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return json.loads(connection.getresponse().read())  # type: ignore[no-any-return]
    finally:
        connection.close()


def answering(port: int) -> set[object]:
    """The processes that answer; each accepts what it can."""
    return {ask(port)["pid"] for _ in range(200)}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(settings: Settings, listening: int) -> list[str]:
        return [sys.executable, "-c", SERVICE, str(listening)]

    monkeypatch.setattr(serving_processes, "serving_command", stand_in)


@pytest.fixture
def running(stand_ins: None, tmp_path: Path) -> Iterator[tuple[ServingProcesses, int]]:
    settings = Settings(home=tmp_path, workers=2, cpu_threads=3, worker=False)
    with listening_socket("127.0.0.1", 0) as listening:
        processes = ServingProcesses(settings, listening)
        processes.start()
        until(lambda: processes.answers("127.0.0.1"))
        yield processes, listening.getsockname()[1]
        processes.stop()


def test_one_that_dies_is_replaced_while_the_other_answers(running: tuple[ServingProcesses, int]) -> None:
    processes, port = running
    until(lambda: all(child.pid for child in processes.serving))
    first, second = (child.pid for child in processes.serving)
    assert answering(port) <= {first, second}
    assert ask(port)["threads"] == "3"
    os.kill(first, signal.SIGKILL)
    until(lambda: processes.serving[0].pid not in (None, first))
    assert answering(port) <= {processes.serving[0].pid, second}
    assert not processes.cannot_start


def test_all_end_together(running: tuple[ServingProcesses, int]) -> None:
    processes, _ = running
    until(lambda: all(child.pid for child in processes.serving))
    pids = [child.pid for child in processes.serving]
    processes.stop()
    assert not any(map(is_alive, pids))


def test_processes_that_can_never_serve_end_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(2)"]
    monkeypatch.setattr(serving_processes, "serving_command", lambda *_: failing)
    monkeypatch.setattr(serving_processes.signal, "signal", lambda *_: None)
    with pytest.raises(InvalidConfig, match="cannot start"):
        serve_in_processes(Settings(home=tmp_path, port=0, workers=2, worker=False), announce=pytest.fail)


def test_one_that_cannot_start_again_does_not_end_those_that_serve(
    stand_ins: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handlers: dict[int, Callable[..., None]] = {}
    monkeypatch.setattr(serving_processes.signal, "signal", lambda number, handler: handlers.update({number: handler}))

    def announce(address: str) -> None:
        monkeypatch.setattr(ServingProcesses, "cannot_start", property(lambda self: True))
        threading.Timer(1.0, handlers[signal.SIGTERM]).start()

    began = time.monotonic()
    serve_in_processes(Settings(home=tmp_path, port=0, workers=2, worker=False), announce)
    assert time.monotonic() - began > 1.0


def test_the_address_is_told_once_and_a_signal_ends_it(
    stand_ins: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handlers: dict[int, Callable[..., None]] = {}
    monkeypatch.setattr(serving_processes.signal, "signal", lambda number, handler: handlers.update({number: handler}))
    told: list[str] = []

    def announce(address: str) -> None:
        told.append(address)
        threading.Timer(0.6, handlers[signal.SIGTERM]).start()

    serve_in_processes(Settings(home=tmp_path, port=0, workers=2, worker=False), announce)
    assert len(told) == 1
    assert told[0].startswith("http://localhost:")


def test_a_port_that_is_taken_is_told_in_words(tmp_path: Path) -> None:
    command_line = typer.Typer()
    command_line.command()(command.serve_command)
    with listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidConfig, match=f"cannot listen on 127.0.0.1, port {port}"):
            listening_socket("127.0.0.1", port)
        arguments = ["--home", str(tmp_path), "--port", str(port), "--workers", "2"]
        result = CliRunner().invoke(command_line, arguments)
    assert result.exit_code == 2
    assert "cannot listen" in result.output


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "http://localhost:"), ("0.0.0.0", "http://localhost:"), ("::1", "http://localhost:")],
)
def test_the_address_is_one_for_people(host: str, expected: str) -> None:
    with listening_socket(host, 0) as listening:
        assert page_address(listening) == f"{expected}{listening.getsockname()[1]}/"
