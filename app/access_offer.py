"""The key that a request shows, and where it shows it."""

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import HTTPConnection
from starlette.responses import Response

MAX_KEY_CHARACTERS = 200

KEY_PARAMETER = "api-key"
"""As clients of Pl@ntNet send it; read below /v2 alone, since addresses end up in logs and histories."""

COOKIE = "voucher-key"
SECURE_COOKIE = "__Host-voucher-key"
"""Browsers take this name from the host itself alone, by https, for the whole of it."""

REMEMBER_SECONDS = 30 * 24 * 3600


class Source(StrEnum):
    """Where a key was shown."""

    HEADER = "header"
    PARAMETER = "parameter"
    COOKIE = "cookie"
    """Browsers send it by themselves, also for pages of other sites."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client shows as its key."""

    text: str
    source: Source

    def __repr__(self) -> str:
        return f"Offer(source={self.source.value})"


def offer_of(connection: HTTPConnection) -> Offer | None:
    """The key that a request shows: in a header before the address, and there before the cookie."""
    headers = connection.headers
    scheme, _, text = headers.get("authorization", "").partition(" ")
    # Another scheme is for a proxy in front.
    if scheme.lower() == "bearer" and text.strip():
        return _offer(text, Source.HEADER)
    if headers.get("x-api-key", "").strip():
        return _offer(headers["x-api-key"], Source.HEADER)
    if connection.url.path.startswith("/v2/") and connection.query_params.get(KEY_PARAMETER, "").strip():
        return _offer(connection.query_params[KEY_PARAMETER], Source.PARAMETER)
    cookie = cookie_of(connection)
    return None if cookie is None else _offer(cookie, Source.COOKIE)


def cookie_of(connection: HTTPConnection) -> str | None:
    """What the page's cookie holds, if there is one."""
    return connection.cookies.get(_cookie_name(connection), "").strip() or None


def _offer(text: str, source: Source) -> Offer:
    # Cut, not refused: whatever is too long is wrong.
    return Offer(text.strip()[:MAX_KEY_CHARACTERS], source)


def is_https(connection: HTTPConnection) -> bool:
    """Whether the client's request came encrypted, as far as this service or a trusted proxy knows."""
    return str(connection.scope.get("scheme", "http")) == "https"


def set_cookie(connection: HTTPConnection, response: Response, text: str, *, remember: bool) -> None:
    """Have the page's browser show this key from now on: until it is closed, or with `remember` for 30 days."""
    response.set_cookie(
        _cookie_name(connection),
        text,
        max_age=REMEMBER_SECONDS if remember else None,
        path="/",
        secure=is_https(connection),
        httponly=True,
        samesite="strict",
    )


def delete_cookie(connection: HTTPConnection, response: Response) -> None:
    """Have the browser forget the key."""
    response.delete_cookie(
        _cookie_name(connection), path="/", secure=is_https(connection), httponly=True, samesite="strict"
    )


def _cookie_name(connection: HTTPConnection) -> str:
    return SECURE_COOKIE if is_https(connection) else COOKIE
