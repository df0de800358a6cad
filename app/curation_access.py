"""Who may change the collection over HTTP: no foreign web page, and by itself only users of this machine."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.error_responses import CurationOff, ForeignPage
from app.settings import Settings
from models.plain_text import curator_name

ANONYMOUS = "web"
"""Who has done it, in the catalogue's history, when a request does not say."""

_OWN_PAGES = ("same-origin", "none")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class CurationAccess:
    """A request that may change the collection."""

    def named(self, given: str | None) -> str:
        """The name for the catalogue's history; what a client gives is not proved. Raises `InvalidSheetDetails`."""
        return curator_name(given) if given is not None and given.strip() else ANONYMOUS


def check_curation(settings: Settings, headers: Headers) -> CurationAccess:
    """Access for a request with these headers. Raises `CurationOff` and `ForeignPage`."""
    if settings.curation == "off":
        raise CurationOff("curation is off: this service was started with VOUCHER_CURATION=off")
    if settings.curation == "auto":
        _refuse_others_than_this_machine(settings, headers)
    _refuse_foreign_pages(headers)
    return CurationAccess()


def _refuse_others_than_this_machine(settings: Settings, headers: Headers) -> None:
    """A name that leads to this machine, or a proxy on it, would let others in at an address of its own."""
    remedy = "start it with VOUCHER_CURATION=on where only curators reach it"
    if not _is_loopback(settings.host):
        raise CurationOff(f"curation is off: the service listens for other machines; {remedy}")
    if any(name in headers for name in _FORWARDED):
        raise CurationOff(f"curation is off: the request came through a proxy; {remedy}")
    if not _is_loopback(_host_and_port(f"//{headers.get('host', '')}")[0]):
        raise CurationOff(f"curation is off: the request is for another host name than localhost; {remedy}")


def _refuse_foreign_pages(headers: Headers) -> None:
    """What browsers tell about the page that sends a request; other programs tell nothing and have no cookies."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None:
        is_foreign = site not in _OWN_PAGES
    elif origin is not None:
        own = _host_and_port(f"{urlsplit(origin).scheme}://{headers.get('host', '')}")
        is_foreign = _host_and_port(origin) != own or not own[0]
    else:
        is_foreign = False
    if is_foreign:
        raise ForeignPage(
            "the request comes from a page of another site, which may not change this collection; "
            "use the service's own page (a proxy in front must pass the Host header on)"
        )


def _host_and_port(url: str) -> tuple[str, int | None]:
    """Host in lower case, empty when there is none, and port of an address."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
