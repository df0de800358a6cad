"""Whether a request comes from a program of this machine, as far as its head and its connection tell."""

import ipaddress

from starlette.datastructures import URL, Headers
from starlette.requests import HTTPConnection

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def is_of_this_machine(connection: HTTPConnection) -> bool:
    """Whether the connection comes from a loopback address, is for a loopback name, and no proxy has passed it on.

    The name matters because pages of other sites can have names that lead to this machine.
    """
    client = connection.client
    if client is None or came_through_a_proxy(connection.headers):
        return False
    return is_loopback(client.host) and is_loopback(host_name(connection.headers))


def came_through_a_proxy(headers: Headers) -> bool:
    """Whether a proxy says so; one that is silent about it cannot be told from its clients."""
    return any(name in headers for name in _FORWARDED)


def host_name(headers: Headers) -> str:
    """The name that a request is for, in lower case, without its port; empty when there is none."""
    try:
        return (URL(f"//{headers.get('host', '')}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address leads to the machine itself and cannot be reached from others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
