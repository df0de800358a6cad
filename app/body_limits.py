"""Middleware that bounds the body of every request: its bytes, counted as they come, and its time."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import note_problem, problem_for, row_for
from app.refusals import BodyTimeout, RequestTooLarge

MEBIBYTE = 1024 * 1024

MAX_BYTES_WITHOUT_FILES = 64 * 1024
"""Where no files are taken: such a body is read whole, and before it is known who has sent it."""

LINGER_SECONDS = 1.0
"""How long the rest of a refused body is read and thrown away before the answer. A connection that is
closed with unread bytes is reset, and a browser then shows no answer at all."""

LINGER_FACTOR = 16
"""At most this many times the limit is thrown away."""


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """Bytes and time of one request body."""

    max_bytes: int
    timeout_seconds: float


class BodyLimits:
    """Cuts a body off at its limit (413), and after `timeout_seconds` (408).

    `forms` gives the limits of addresses that files are sent to, as patterns of whole paths; they are for POST alone,
    and everywhere else a body has at most `MAX_BYTES_WITHOUT_FILES`. What a client says its body is decides nothing.
    A Content-Length is not believed: a chunked body has none. Errors are raised from the `receive` that
    the application calls, and answered here when the application lets them through.
    """

    def __init__(self, app: ASGIApp, *, timeout_seconds: float, forms: Mapping[str, "BodyLimit"]) -> None:
        self._app = app
        self._forms = [(re.compile(pattern), limit) for pattern, limit in forms.items()]
        self._small = BodyLimit(MAX_BYTES_WITHOUT_FILES, timeout_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body limited."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        body = _LimitedBody(scope, receive, limit, takes_files=limit is not self._small)

        async def send_after_the_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
                await body.discard_rest()
                if not body.is_complete:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if body.announced_bytes > limit.max_bytes:
            request_id = str(scope.get("state", {}).get("request_id", ""))
            note_problem(scope, row_for(body.too_large()))
            await problem_for(body.too_large(), request_id)(scope, receive, send_after_the_body)
            return
        await self._app(scope, body.receive, send_after_the_body)

    def _limit_of(self, scope: Scope) -> BodyLimit:
        if scope["method"] == "POST":
            for pattern, limit in self._forms:
                if pattern.fullmatch(scope["path"]):
                    return limit
        return self._small


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _size(count: int) -> str:
    return f"{count / MEBIBYTE:.0f} MiB" if count >= MEBIBYTE else f"{count / 1024:.0f} KiB"


class _LimitedBody:
    """The body of one request, counted."""

    def __init__(self, scope: Scope, receive: Receive, limit: BodyLimit, *, takes_files: bool) -> None:
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        self.announced_bytes = int(announced) if announced.isdecimal() else 0
        self.is_complete = False
        self._awaits_continue = "expect" in headers
        self._receive = receive
        self._max_bytes, self._timeout_seconds = limit.max_bytes, limit.timeout_seconds
        self._takes_files = takes_files
        self._deadline: float | None = None
        self._received_bytes = 0

    def too_large(self) -> RequestTooLarge:
        remedy = "no files are taken at this address, look whether it is right"
        if self._takes_files:
            remedy = "send fewer or smaller images"
        return RequestTooLarge(f"expected at most {_size(self._max_bytes)} in one request, found more; {remedy}")

    async def receive(self) -> Message:
        """Next message. Raises `RequestTooLarge` and `BodyTimeout`."""
        if self.is_complete:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout(
                f"expected the whole request within {self._timeout_seconds:.0f} seconds; "
                "send fewer or smaller photos, or use a faster connection"
            ) from None
        self._received_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self._received_bytes > self._max_bytes:
            raise self.too_large()
        return message

    async def discard_rest(self) -> None:
        """Read on for a moment without keeping anything."""
        if self._awaits_continue and self._received_bytes == 0:
            return  # reading would make the server ask for the body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.is_complete and self._received_bytes < LINGER_FACTOR * self._max_bytes:
                    message = await self._receive()
                    self._received_bytes += len(message.get("body", b""))
                    self.is_complete = not message.get("more_body", False)
