"""Notices clients that no longer wait."""

from starlette.requests import Request


async def client_gone(request: Request) -> None:
    """Returns when the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
