"""Middleware that gives every error below /v2 Pl@ntNet's shape, wherever it was raised."""

import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import PROBLEM_MEDIA_TYPE
from app.plantnet.quota import rate_limit_headers

PREFIX = "/v2"

STATUSES = {422: 400}
"""Those that Pl@ntNet does not know, and what it answers instead."""

NAMES = {413: "Payload Too Large", 414: "URI Too Long", 499: "Client Closed Request"}
"""As Pl@ntNet's description has them; Python's own differ from version to version."""


def is_below(path: str) -> bool:
    """Whether a path belongs to this API."""
    return path == PREFIX or path.startswith(PREFIX + "/")


class PlantnetErrors:
    """Outermost middleware: rewrites problem documents, and adds what is left of the key's quota.

    All errors are made in one place as problem documents, the framework's own and the unexpected among them; this is
    the only place that knows of another shape.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its answer given the shape."""
        if scope["type"] != "http" or not is_below(scope["path"]):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Rewriter(scope, send).send)


class _Rewriter:
    """The way of one answer to its client."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._held: Message | None = None
        self._problem = bytearray()

    async def send(self, message: Message) -> None:
        """Pass a message on; a problem document is held back until it is whole."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in rate_limit_headers(self._scope).items():
                headers[name] = value
            if Headers(scope=message).get("content-type") == PROBLEM_MEDIA_TYPE:
                self._held = message
                return
        elif message["type"] == "http.response.body" and self._held is not None:
            self._problem += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_error(self._held)
            return
        await self._send(message)

    async def _send_error(self, start: Message) -> None:
        body = json.dumps(error_content(start["status"], bytes(self._problem)), ensure_ascii=False).encode()
        start["status"] = STATUSES.get(start["status"], start["status"])
        headers = MutableHeaders(scope=start)
        headers["Content-Type"] = "application/json; charset=utf-8"
        headers["Content-Length"] = str(len(body))
        self._held = None
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def status_name(status: int) -> str:
    """Name of a status, as Pl@ntNet writes it."""
    return NAMES.get(status) or HTTPStatus(status).phrase


def error_content(status: int, problem: bytes) -> dict[str, Any]:
    """The error that says what a problem document says."""
    status = STATUSES.get(status, status)
    name = status_name(status)
    told = json.loads(problem) if problem else {}
    return {"statusCode": status, "error": name, "message": told.get("detail") or name}
