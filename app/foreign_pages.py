"""What browsers tell about the page that sends a request: whether it is one of another site."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.refusals import ForeignPage

_OWN_PAGES = ("same-origin", "none")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_foreign_pages(headers: Headers) -> None:
    """Raises `ForeignPage` when a page of another site sends the request, in the name of its visitor.

    Needed wherever a browser adds by itself what lets the request in: a cookie, or being on this machine. Other
    programs tell nothing about pages.
    """
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None:
        is_foreign = site not in _OWN_PAGES
    elif origin is not None:
        scheme = origin.partition(":")[0].lower()
        own = _host_and_port(f"{scheme}://{headers.get('host', '')}")
        is_foreign = _host_and_port(origin) != own or not own[0]
    else:
        is_foreign = False
    if is_foreign:
        raise ForeignPage(
            "the request comes from a page of another site, which may not act for its visitors here; "
            "use the service's own page, or send a key in a header (a proxy in front must pass the Host header on)"
        )


def _host_and_port(url: str) -> tuple[str, int | None]:
    """Host in lower case, empty when there is none, and port of an address."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", None
