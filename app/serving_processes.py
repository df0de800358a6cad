"""Several serving processes that share a home and a port, kept running until they are told to stop."""

import http.client
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from errno import EADDRINUSE
from typing import Any

from app.access_control import check_start
from app.child_commands import WORKER_POLITENESS, serving_command, serving_environment, worker_command
from app.child_process import ChildProcess
from app.log_setup import set_up_logging
from app.metrics_folder import MetricsFolder, metrics_folder
from app.settings import Settings
from models.errors import InvalidConfig

logger = logging.getLogger(__name__)

CANNOT_START = 2
"""Status of `voucher serve` when a setting or the device is at fault."""

_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 5.0


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at the first address of `host`. Raises as `listening_sockets`."""
    first, *others = listening_sockets(host, port, most=1)
    assert not others
    return first


def listening_sockets(host: str, port: int, *, most: int | None = None) -> list[socket.socket]:
    """Sockets that listen at the addresses of `host`, which may be a name that has one of each kind.

    Raises `InvalidConfig` when an address is taken or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidConfig(f"cannot listen on {host}: {error.strerror or error}") from None
    # A free port is one of one address.
    addresses = sorted(dict.fromkeys((family, where) for family, _, _, _, where in found))[: 1 if port == 0 else most]
    sockets: list[socket.socket] = []
    errors: list[OSError] = []
    for family, where in addresses:
        try:
            sockets.append(_listening(family, where))
        except OSError as error:
            errors.append(error)
    # A name may have an address of a kind that this machine, or its container, does not have; one that is taken is
    # somebody else's.
    if not sockets or any(each.errno == EADDRINUSE for each in errors):
        for each in sockets:
            each.close()
        first = errors[0]
        remedy = "; stop the program that does, or take another port with --port" if first.errno == EADDRINUSE else ""
        raise InvalidConfig(f"cannot listen on {host}, port {port}: {first.strerror or first}{remedy}")
    return sockets


def _listening(family: int, where: Any) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(512)
    except OSError:
        listening.close()
        raise
    listening.set_inheritable(True)
    return listening


class ServingProcesses:
    """`settings.workers` processes that accept at one socket, and the worker for builds beside them.

    A process that dies is replaced, while the others go on. When this process ends, however it ends, so do they.
    """

    def __init__(self, settings: Settings, listening: socket.socket, metrics: MetricsFolder | None = None) -> None:
        self._port = int(listening.getsockname()[1])
        settings = settings.model_copy(update={"port": self._port})
        stop_seconds = settings.shutdown_timeout_seconds + _GRACE_SECONDS
        self.serving = [
            ChildProcess(
                serving_command(settings, listening.fileno()),
                what=f"serving process {number}",
                environment=serving_environment(settings) | ({} if metrics is None else metrics.environment),
                inherited=[listening.fileno()],
                stop_seconds=stop_seconds,
                on_end=_ignore if metrics is None else metrics.forget,
            )
            for number in range(1, settings.workers + 1)
        ]
        self._children = list(self.serving)
        if settings.worker:
            self._children.append(ChildProcess(worker_command(settings), politeness=WORKER_POLITENESS))

    def start(self) -> None:
        """Start all of them."""
        for child in self._children:
            child.start()

    def stop(self) -> None:
        """Stop all of them at the same time; running requests are given time to end."""
        for child in self._children:
            child.ask_to_stop()
        for child in self._children:
            child.stop()

    @property
    def cannot_start(self) -> bool:
        """Whether one of them ended saying that it never will be able to serve."""
        return any(child.last_status == CANNOT_START for child in self.serving)

    def answers(self, host: str) -> bool:
        """Whether one of them answers."""
        with closing(http.client.HTTPConnection(_reachable(host), self._port, timeout=2)) as connection:
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


def serve_in_processes(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve with `settings.workers` processes until SIGINT or SIGTERM; `announce` gets the page's address once.

    Raises `InvalidConfig` when the port cannot be opened, or the service cannot start with these settings.
    """
    set_up_logging(settings)
    check_start(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with closing(listening_socket(settings.host, settings.port)) as listening, metrics_folder() as metrics:
        processes = ServingProcesses(settings, listening, metrics)
        processes.start()
        announced = False
        try:
            while not stop.wait(_LOOK_SECONDS):
                # Once they have served, one that cannot start again is tried again, and the others go on.
                if not announced and processes.cannot_start:
                    raise InvalidConfig("the serving processes cannot start; the message above says why")
                if not announced and processes.answers(settings.host):
                    announce(page_address(listening))
                    announced = True
        finally:
            processes.stop()


def page_address(listening: socket.socket) -> str:
    """Where the page is, for people of this machine."""
    host, port = listening.getsockname()[:2]
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1", "::1") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"


def _ignore(pid: int) -> None:
    """Nobody counts the processes' figures together."""


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
