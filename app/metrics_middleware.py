"""Middleware that counts and times every request, by the template of its route and never by its address."""

import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.inference import Observer
from app.metrics import ServiceMetrics
from app.passage import Stage

NO_ROUTE = "none"
"""Of a request whose address nothing is at, or that was refused before it was looked up."""

NO_STATUS = "none"
"""Of a request that got no answer: its connection, or the service, was at its end."""

_EVENTS = b"text/event-stream"

_CONVERTOR = re.compile(r":\w+}")
"""In a template, what kind of text a parameter is."""


class RequestMetrics:
    """Tells `metrics` of each request, and `observer` how long its upload took."""

    def __init__(self, app: ASGIApp, *, metrics: ServiceMetrics, observer: Observer) -> None:
        self._app = app
        self._metrics = metrics
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = _Watch(scope, receive, send, self._metrics, self._observer)
        self._metrics.request_begins()
        try:
            await self._app(scope, watch.receive, watch.send)
        finally:
            watch.end()


class _Watch:
    """One request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: ServiceMetrics, observer: Observer) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._metrics, self._observer = metrics, observer
        self._began = time.perf_counter()
        self._upload_began: float | None = None
        headers = Headers(scope=scope)
        self._awaits_body = _has_body(headers)
        self._brings_files = headers.get("content-type", "").lower().startswith("multipart/form-data")
        self._status = NO_STATUS
        self._streams_events = False

    async def receive(self) -> Message:
        """Next message; a body is timed from when it is first asked for to its last byte."""
        if not self._awaits_body:
            return await self._receive()
        if self._upload_began is None:
            self._upload_began = time.monotonic()
        message = await self._receive()
        if message["type"] == "http.request":
            self._metrics.uploaded(len(message.get("body", b"")))
            if not message.get("more_body", False):
                self._awaits_body = False
                if self._brings_files:
                    self._observer.stage(Stage("upload", self._upload_began, time.monotonic()))
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self._status = str(message["status"])
            types = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._streams_events = any(value.startswith(_EVENTS) for value in types)
        await self._send(message)

    def end(self) -> None:
        """Tell what came of it."""
        problem = self._scope.get("state", {}).get("problem")
        if problem is not None:
            self._metrics.problem(str(problem))
        seconds = None if self._streams_events else time.perf_counter() - self._began
        self._metrics.request_ends(route_of(self._scope), self._scope["method"], self._status, seconds)


def route_of(scope: Scope) -> str:
    """Template of the route that a request has taken, such as ``/v1/sheets/{sheet_id}``."""
    template = getattr(scope.get("route"), "path", None)
    if template is not None:
        return _CONVERTOR.sub("}", str(template))
    # A mounted application; what follows in the address is up to the client.
    mounted = scope.get("root_path", "").removeprefix(scope.get("app_root_path", ""))
    return f"{mounted}/…" if mounted and "endpoint" in scope else NO_ROUTE


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
