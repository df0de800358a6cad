"""SIGTERM to a real server process: what it has accepted is finished, and nothing holds it up longer than it may."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.home import Home
from models.job_values import BuildRequest
from models.jobs import JobQueue

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent

SERVER = """
import sys, threading
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from conftest import fake_identifier, serving_with
from app.serve import build_server
from app.serving import open_collection
from app.settings import Settings
from models.home import Home

home = Home(Path(sys.argv[1]))
identifier = fake_identifier(home)
identifier.hold.clear()

def tell(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

def follow():
    identifier.entered.wait()
    tell("entered")

def release():
    sys.stdin.readline()
    identifier.hold.set()

for work in (follow, release):
    threading.Thread(target=work, daemon=True).start()
settings = Settings(home=home.root, port=0, worker=False, shutdown_timeout_seconds=float(sys.argv[2]))
build_server(settings, tell, load=lambda s: serving_with(identifier, s, open_collection(home))).run()
"""

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="photos"; filename="p"\r\nContent-Type: image/jpeg\r\n\r\n%b'
    b"\r\n--b--\r\n"
)


class Served:
    """A server process whose network waits until it is released."""

    def __init__(self, home: Home, shutdown_seconds: float) -> None:
        paths = [str(TESTS), str(TESTS.parents[1]), str(TESTS.parent / "support")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(home.root), str(shutdown_seconds), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.line().rsplit(":", 1)[1].strip("/"))
        self._connections: list[http.client.HTTPConnection] = []

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1]
        return line

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def ask_to_end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def seconds_until_ended(self) -> float:
        began = time.monotonic()
        assert self.process.wait(60) in (0, -signal.SIGTERM)
        return time.monotonic() - began

    def is_closed(self) -> bool:
        """Whether nobody can connect any more, after some time."""
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except OSError:
                return True
            time.sleep(0.05)
        return False

    def connect(self) -> http.client.HTTPConnection:
        self._connections.append(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30))
        return self._connections[-1]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for connection in self._connections:
            connection.close()


@pytest.fixture
def serve(collection_home: Home) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(shutdown_seconds: float = 20.0) -> Served:
        started.append(Served(collection_home, shutdown_seconds))
        return started[-1]

    yield start
    for served in started:
        served.close()


def begin(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.putrequest("POST", "/v1/identifications")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()


def test_what_has_begun_is_answered_and_what_has_not_holds_nothing_up(serve, encode, collection_home: Home) -> None:
    served, body = serve(), BODY % encode(1)
    under_way, uploading, idle, following = (served.connect() for _ in range(4))
    begin(under_way, body)
    under_way.send(body)
    assert served.line() == "entered"
    begin(uploading, body)
    uploading.send(body[:200])
    idle.request("GET", "/healthz")
    assert idle.getresponse().read()
    with JobQueue(collection_home) as jobs, socket.create_connection(("127.0.0.1", served.port)):
        job = jobs.enqueue_build(BuildRequest())
        following.request("GET", f"/v1/jobs/{job.job_id}/events")
        events = following.getresponse()
        assert events.readline().startswith(b"event: job")

        served.ask_to_end()
        assert served.is_closed()
        assert events.read().startswith(b"data: ")  # to the stream's proper end
        assert served.process.poll() is None
        for start in range(200, len(body), 500):
            uploading.send(body[start : start + 500])
            time.sleep(0.05)
        served.release()
        for connection in (under_way, uploading):
            answer = connection.getresponse()
            assert answer.status == 200
            assert b'"candidates"' in answer.read()
        assert served.seconds_until_ended() < 8
        jobs.cancel(job.job_id)


def test_an_upload_that_does_not_end_is_told_to_come_again(serve, encode) -> None:
    served, body = serve(shutdown_seconds=1.0), BODY % encode(1)
    connection = served.connect()
    begin(connection, body)
    connection.send(body[:200])
    time.sleep(0.3)  # the server has read the head
    served.ask_to_end()
    answer = connection.getresponse()
    assert answer.status == 503
    assert b"urn:voucher:problem:shutting-down" in answer.read()
    assert served.seconds_until_ended() < 8
