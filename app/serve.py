"""Runs the service until it is told to stop."""

import contextlib
import os
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from app.access_control import check_start
from app.bundle_watch import load_serving
from app.child_commands import WORKER_POLITENESS, end_with_parent, worker_command
from app.child_process import ChildProcess
from app.http_protocol import protocol_with_deadlines
from app.log_setup import set_up_logging
from app.main import create_app
from app.memory import keep_memory_small
from app.serving import Serving
from app.serving_processes import listening_sockets, page_address
from app.settings import Settings
from app.tracing import tracing_from

KEEP_ALIVE_SECONDS = 15


class AnnouncingServer(uvicorn.Server):
    """Tells once, when the port is open, at which address the page is."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Open the port, then tell."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started and self.servers:
            self._announce(page_address(self.servers[0].sockets[0]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted; clients that follow a job are sent away rather than waited for."""
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.event_streams.is_ending = True
        await super().shutdown(sockets=sockets)


def build_server(
    settings: Settings,
    announce: Callable[[str], None],
    load: Callable[[Settings], Serving] = load_serving,
) -> AnnouncingServer:
    """A server of `settings.home`, loaded and ready to run; `announce` gets the page's address once.

    Raises `DeviceUnavailable`.
    """
    # Loaded before uvicorn takes over, so that its caller can tell what went wrong.
    serving = load(settings)
    config = uvicorn.Config(
        create_app(settings, load=lambda _: serving, tracing=tracing_from(os.environ)),
        host=settings.host,
        port=settings.port,
        http=protocol_with_deadlines(
            head_seconds=settings.header_timeout_seconds, reader_seconds=settings.body_timeout_seconds
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        # One line per identification is written by its route; addresses of clients are nobody's business.
        access_log=False,
        server_header=False,
        # The application believes the proxies that the settings name; uvicorn would believe all of this machine.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout_seconds)),
        backlog=512,
    )
    return AnnouncingServer(config, announce)


def load_with_worker(settings: Settings) -> Serving:
    """As `load_serving`, with a worker beside it unless the settings say otherwise."""
    serving = load_serving(settings)
    if settings.worker:
        serving.attach(ChildProcess(worker_command(settings), politeness=WORKER_POLITENESS))
    return serving


def serve(settings: Settings, announce: Callable[[str], None], *, listening: int | None = None) -> None:
    """Serve `settings.home` until SIGINT or SIGTERM; running requests are given time to end.

    With `listening`, this is one of several processes that accept at the socket of that number, and ends with the one
    that started it. Raises `DeviceUnavailable`, and `InvalidConfig` also when the port cannot be opened.
    """
    set_up_logging(settings)
    if listening is None:
        check_start(settings)
    keep_memory_small()
    if listening is not None:
        end_with_parent()
        accepting = [socket.socket(fileno=listening)]
        announce = _silently
    else:
        # Before anything large is loaded: an address that is taken is told at once.
        accepting = listening_sockets(settings.host, settings.port)
    with contextlib.ExitStack() as stack:
        for each in accepting:
            stack.enter_context(each)
        server = build_server(settings, announce, load_with_worker)
        # uvicorn raises the signal again when it is done; Ctrl-C is how this is meant to end.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(accepting)


def _silently(address: str) -> None:
    """The process that started this one tells the address."""
