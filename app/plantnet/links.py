"""At which address clients reach this service: Pl@ntNet's links are absolute."""

import re

from fastapi import Request

from app.settings import Settings

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def base_url_of(request: Request, settings: Settings) -> str:
    """``https://plants.example.org``: what the settings say, or what the request was sent to.

    A Host header that is no host is not repeated; links are then relative to the service.
    """
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        return ""
    root_path = request.scope.get("root_path", "")
    return f"{request.scope.get('scheme', 'http')}://{host}{root_path}"
