"""Middleware that writes what a key has left into answers, and gives back what was charged in vain."""

import logging

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import AccessNote, give_back, note_of
from app.error_responses import TABLE
from app.refusals import ClientGone, NoKnownPlant, NotReady

logger = logging.getLogger(__name__)

RATE_LIMIT = "RateLimit"
RATE_LIMIT_POLICY = "RateLimit-Policy"
"""As the IETF's draft draft-ietf-httpapi-ratelimit-headers has them."""

_DAY_SECONDS = 86_400
_MINUTE_SECONDS = 60


class AccessAnswers:
    """Stands between what knows all answers and what makes them, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; look at how it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = note_of(scope)
        has_arrived = False

        async def receive_noticed() -> Message:
            nonlocal has_arrived
            message = await receive()
            has_arrived = has_arrived or (message["type"] == "http.request" and not message.get("more_body", False))
            return message

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                if note.charges and message["status"] >= 400 and not _work_was_done(scope, has_arrived):
                    await _give_back(scope)
                _write(note, MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive_noticed, send_with_limits)


def _work_was_done(scope: Scope, has_arrived: bool) -> bool:
    """Whether the photos were looked at although the answer is an error.

    That they show no plant that is known is an answer; and a client that sends its photos and does not wait has had
    them looked at, which it could otherwise do for ever. One that was cut off while it sent them has not.
    """
    told = scope["state"].get("problem")
    return told == TABLE[NoKnownPlant].slug or (told == TABLE[ClientGone].slug and has_arrived)


async def _give_back(scope: Scope) -> None:
    try:
        await give_back(Request(scope))
    except NotReady:
        logger.warning("an identification that failed stays charged")


def _write(note: AccessNote, headers: MutableHeaders) -> None:
    limits = [("day", note.quota, _DAY_SECONDS), ("minute", note.rate, _MINUTE_SECONDS)]
    known = [(name, quota, seconds) for name, quota, seconds in limits if quota is not None]
    if known:
        headers[RATE_LIMIT_POLICY] = ", ".join(f'"{name}";q={quota.limit};w={window}' for name, quota, window in known)
        headers[RATE_LIMIT] = ", ".join(
            f'"{name}";r={quota.remaining};t={quota.resets_in_seconds}' for name, quota, _ in known
        )
    if note.is_private:
        stored = headers.get("cache-control")
        if stored is None:
            headers["Cache-Control"] = "no-store"
        elif stored.startswith("public"):
            # For the browser that showed the key, and for no cache between.
            headers["Cache-Control"] = "private" + stored.removeprefix("public")
