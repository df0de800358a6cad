"""Which addresses of images may be asked: their form, their host, and where the host's name leads. No I/O."""

import ipaddress
import re
from dataclasses import dataclass

import httpx2

from app.refusals import RemoteImageRefused

MAX_ADDRESS_LENGTH = 2048

_AUTHORITY = re.compile(r"(?i)https?://([^/?#]*)")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
"""What programs that read addresses disagree about."""

_NUMBER = re.compile(r"(?:0[xX])?[0-9a-fA-F]*|[0-9]+")

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays to 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo, ORCHID and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
"""IANA's registries of special addresses; of IPv6 only what lies within `_GLOBAL_UNICAST`, which leaves out loopback,
IPv4-mapped, NAT64 and local addresses as a whole."""


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address that may be asked: `host` is in lower case, without a dot at its end, and on the list."""

    scheme: str
    host: str
    target: bytes
    """Path and query, as they go over the wire."""

    @property
    def port(self) -> int:
        """The scheme's own."""
        return 443 if self.scheme == "https" else 80

    def joined(self, location: str, hosts: frozenset[str]) -> "RemoteAddress":
        """Where a redirect leads. Raises `RemoteImageRefused`."""
        _refuse_odd(location)
        base = httpx2.URL(scheme=self.scheme, host=self.host, raw_path=self.target)
        try:
            return read_address(str(base.join(location)), hosts)
        except httpx2.InvalidURL:
            raise RemoteImageRefused("its server redirects to something that is no address") from None


def read_address(text: str, hosts: frozenset[str]) -> RemoteAddress:
    """The address in `text`, whose host is one of `hosts`. Raises `RemoteImageRefused`; what was sent is not repeated.

    The same parser reads the address here and writes the request, so that nothing can mean one thing to the check
    and another to the connection.
    """
    _refuse_odd(text)
    authority = _AUTHORITY.match(text)
    if authority is None:
        raise RemoteImageRefused("expected an address that begins with https:// or http://")
    if "@" in authority[1]:
        raise RemoteImageRefused("expected an address without a user name or password")
    try:
        url = httpx2.URL(text)
        host = url.raw_host.decode("ascii").lower().removesuffix(".")
    except (httpx2.InvalidURL, UnicodeError, ValueError):
        raise RemoteImageRefused("the address cannot be read") from None
    if url.port is not None:
        raise RemoteImageRefused("expected the scheme's own port")
    if is_numeric(host):
        raise RemoteImageRefused("expected a host name, found an IP address")
    if host not in hosts:
        raise RemoteImageRefused("its host is not among those that this service fetches images from")
    return RemoteAddress(url.scheme, host, url.raw_path)


def is_numeric(host: str) -> bool:
    """Whether some program would take `host` for an IP address: in full, short, decimal, octal or hexadecimal."""
    last = host.rpartition(".")[2]
    return ":" in host or "[" in host or not last or (bool(_NUMBER.fullmatch(last)) and last[0].isdigit())


def is_public(address: str) -> bool:
    """Whether an IP address, as a resolver gives it, is one of the public internet."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id is not None or found not in _GLOBAL_UNICAST):
        return False
    return not any(found in network for network in _NOT_PUBLIC if network.version == found.version)


def _refuse_odd(text: str) -> None:
    if len(text) > MAX_ADDRESS_LENGTH:
        raise RemoteImageRefused(f"expected an address of at most {MAX_ADDRESS_LENGTH} characters")
    if _UNSAFE.search(text):
        raise RemoteImageRefused("expected an address without spaces, backslashes and control characters")
