from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers

from app.this_machine import came_through_a_proxy, host_name, is_loopback, is_of_this_machine


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_names_and_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "2130706433"]
)
def test_others(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("localhost:8000", "localhost"),
        ("LocalHost.", "localhost"),
        ("[::1]:8000", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost@plants.example", "plants.example"),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_host_header(given: str, expected: str) -> None:
    assert host_name(Headers({"host": given})) == expected


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"])
def test_proxies_that_tell_of_themselves(name: str) -> None:
    assert came_through_a_proxy(Headers({name: "x"}))


@pytest.mark.parametrize(
    ("address", "headers", "expected"),
    [
        ("127.0.0.1", {"host": "localhost"}, True),
        ("127.0.0.1", {"host": "localhost", "via": "1.1 proxy"}, False),
        ("127.0.0.1", {"host": "plants.example"}, False),
        ("10.0.0.1", {"host": "localhost"}, False),
        (None, {"host": "localhost"}, False),
    ],
)
def test_requests_of_this_machine(address: str | None, headers: dict[str, str], expected: bool) -> None:
    client = None if address is None else SimpleNamespace(host=address)
    connection = SimpleNamespace(client=client, headers=Headers(headers))
    assert is_of_this_machine(connection) is expected
