"""Servers and workers that start in a moment and can be killed at any: forked off a process that has loaded everything.

A module (`python -m`-like script) for the parent, and `Processes` for the test. Importing torch takes ten seconds,
which two hundred kills could not wait for.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2 as httpx

from models.catalogue import Catalogue
from models.home import Home

PARENT = """
import os, signal, sys
from pathlib import Path

import app.serve
import indexer.build_gallery
import indexer.worker
from app.serve import serve
from app.settings import Settings
from indexer.worker import Worker
from models.home import Home

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
root, port, log, url, access = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] or None, sys.argv[5]
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        if line.strip() == "server":
            settings = Settings(home=root, database_url=url, port=port, device="cpu", worker=False, access=access)
            serve(settings, announce=lambda address: None)
        else:
            Worker(Home(Path(root), url), device="cpu").run()
    finally:
        os._exit(0)
"""


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Processes:
    """One server and one worker on a home, killed and started again at will."""

    def __init__(self, home: Path, log: Path, database_url: str | None = None, *, access: str = "auto") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PARENT, str(home), str(self.port), str(log), database_url or "", access]
        self._parent = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._parent.stdout.readline() == "ready\n"
        self._running: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._running):
            self.kill(name)
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.kill()
        self._parent.wait()

    @property
    def address(self) -> str:
        """Of the service, while it runs."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str) -> None:
        """Start the server or the worker."""
        self._parent.stdin.write(f"{name}\n")
        self._parent.stdin.flush()
        self._running[name] = int(self._parent.stdout.readline())

    def pid(self, name: str) -> int:
        """Of the server or the worker that runs."""
        return self._running[name]

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        pid = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.005)
        raise AssertionError(f"process {pid} outlived a kill")


def wait_until_it_answers(address: str, path: str = "/readyz") -> None:
    """Returns when the service does, and fails after a minute."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{address}{path}").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the service never came back"
        time.sleep(0.05)


def species_of(home: Home) -> list[str]:
    """Identifiers of all species of a home."""
    with Catalogue.open(home) as catalogue:
        return [s.species_id for s in catalogue.species()]
