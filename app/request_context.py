"""Middleware around everything: the request id, the security headers, and the answer to the unexpected."""

import asyncio
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import note_problem, problem_for, row_for
from app.log_setup import request_id_in_work
from app.refusals import ShuttingDown

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # blob: is the photo that was chosen, before it is sent.
        "img-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The camera is that of the file chooser, which needs no permission of the page.
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def request_id_from(headers: Headers) -> str:
    """The client's X-Request-ID when it is short and plain (it goes into the log), else a new one."""
    offered = headers.get("x-request-id", "")
    return offered if REQUEST_ID_PATTERN.fullmatch(offered) else uuid.uuid4().hex


HTTPS_ONLY = "max-age=31536000"
"""For the host alone: what runs at names below it is not ours to decide."""


class RequestContext:
    """Names each request, for the log too, and adds the security headers to each response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its answer given the id and the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("scheme") == "https":
                    headers.setdefault("Strict-Transport-Security", HTTPS_ONLY)
            await send(message)

        named = request_id_in_work.set(request_id)
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            request_id_in_work.reset(named)


class UnexpectedErrors:
    """Answers what nothing else answers.

    It stands outside Starlette's own handling of the unexpected, whose answer would be another, and inside of what
    adds headers to all answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; an error that comes back is answered, unless an answer has begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_noticed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noticed)
        except asyncio.CancelledError:
            if started:
                raise
            # The server cancels what is still under way when its time to stop is over.
            await _answer(ShuttingDown("the service is stopping; try again in a moment"), scope, receive, send_noticed)
        except Exception as error:
            # Whatever it is, the client gets a generic answer and the log the traceback.
            note_problem(scope, row_for(error))
            if started:
                raise
            await _answer(error, scope, receive, send_noticed)


async def _answer(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    note_problem(scope, row_for(error))
    request_id = str(scope.get("state", {}).get("request_id", ""))
    await problem_for(error, request_id)(scope, receive, send)
