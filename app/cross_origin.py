"""Which pages of other sites may read answers (CORS): those that are named, and below /v2 all, as Pl@ntNet does."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

COMPATIBLE = "/v2/"

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ASKED = ("Authorization", "X-API-Key", "X-Request-ID", "Last-Event-ID")
_READ = ("X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After", "Location")
_PREFLIGHT_SECONDS = 3600


class CrossOrigin:
    """CORS by path. Cookies are for the own page alone: other pages send their key in a header."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._for_named = _allowing(app, origins) if origins else app
        self._for_all = _allowing(app, ["*"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer a browser that asks beforehand."""
        chosen = self._app
        if scope["type"] == "http":
            chosen = self._for_all if scope["path"].startswith(COMPATIBLE) else self._for_named
        await chosen(scope, receive, send)


def _allowing(app: ASGIApp, origins: Sequence[str]) -> CORSMiddleware:
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=_METHODS,
        allow_headers=_ASKED,
        allow_credentials=False,
        expose_headers=_READ,
        max_age=_PREFLIGHT_SECONDS,
    )
