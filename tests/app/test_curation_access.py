"""Who may change the collection where no keys are in force: a table of what a request tells about itself."""

import pytest
from starlette.datastructures import Headers

from app.curation_access import ANONYMOUS, CurationAccess, check_local_curation
from app.refusals import CurationOff, ForeignPage
from app.settings import Settings
from models.errors import InvalidSheetDetails

LOCAL = {"host": "127.0.0.1:8000"}


def check(listens: str, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    check_local_curation(Settings(host=listens), Headers(named))


@pytest.mark.parametrize("listens", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "localhost.:1"])
def test_the_users_of_this_machine_may(listens: str, host: str) -> None:
    check(listens, host=host)


@pytest.mark.parametrize(
    ("listens", "headers", "reason"),
    [
        ("0.0.0.0", {}, "listens for other machines"),
        ("::", {}, "listens for other machines"),
        ("192.168.1.5", {}, "listens for other machines"),
        ("plants.example", {}, "listens for other machines"),
        ("127.0.0.1", {"x_forwarded_for": "10.0.0.1"}, "through a proxy"),
        ("127.0.0.1", {"forwarded": "for=10.0.0.1"}, "through a proxy"),
        ("127.0.0.1", {"via": "1.1 proxy"}, "through a proxy"),
        # The name of a foreign site may lead to this machine (DNS rebinding).
        ("127.0.0.1", {"host": "evil.example:8000", "origin": "http://evil.example:8000"}, "another host name"),
        ("127.0.0.1", {"host": "localhost.evil.example"}, "another host name"),
        ("127.0.0.1", {"host": "[::1"}, "another host name"),
        ("127.0.0.1", {"host": ""}, "another host name"),
    ],
)
def test_nobody_else_may(listens: str, headers: dict[str, str], reason: str) -> None:
    with pytest.raises(CurationOff, match=f"curation is off: .*{reason}.*VOUCHER_ACCESS=keys"):
        check(listens, **(LOCAL | headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # another port of this machine, another name of this domain
        {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:8000"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://127.0.0.1"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:x"},
        {"origin": "https://127.0.0.1.evil.example:8000"},
    ],
)
def test_no_page_of_another_site_may(headers: dict[str, str]) -> None:
    with pytest.raises(ForeignPage, match="comes from a page of another site"):
        check("127.0.0.1", **(LOCAL | headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8000"},
        {"sec_fetch_site": "none"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "HTTP://127.0.0.1:8000"},
        {"host": "localhost", "origin": "http://localhost:80"},
        {"host": "localhost:443", "origin": "https://localhost"},
    ],
)
def test_the_own_page_and_programs_may(headers: dict[str, str]) -> None:
    check("127.0.0.1", **(LOCAL | headers))


def test_a_name_is_taken_as_it_is_given_or_there_is_a_stand_in() -> None:
    access = CurationAccess()
    assert access.named(" Ada ") == "Ada"
    assert access.named(None) == access.named("  ") == ANONYMOUS
    with pytest.raises(InvalidSheetDetails, match="curator"):
        access.named("a\nb")


def test_the_name_of_a_key_is_told_beside_what_a_client_says() -> None:
    access = CurationAccess("Herbarium")
    assert access.named(None) == access.named("Herbarium") == "Herbarium"
    assert access.named("Ada") == "Ada (key Herbarium)"
