"""Middleware that answers addresses with a NUL character: no id has one, and not every database can be asked for it."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_responses import problem

_ENCODED = b"%00"


class PlainAddresses:
    """404 for a path and 422 for a query with a NUL character."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every other request on."""
        app = self._app
        if scope["type"] == "http":
            request_id = str(scope.get("state", {}).get("request_id", ""))
            if "\x00" in scope["path"]:
                app = problem(404, "http-404", "Not Found", "There is nothing at this address.", request_id)
            elif _ENCODED in scope["query_string"] or b"\x00" in scope["query_string"]:
                detail = "expected parameters without NUL characters, found one"
                app = problem(422, "invalid-parameter", "A parameter is not valid", detail, request_id)
        await app(scope, receive, send)
