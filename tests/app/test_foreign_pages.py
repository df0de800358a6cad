import pytest
from starlette.datastructures import Headers

from app.foreign_pages import refuse_foreign_pages
from app.refusals import ForeignPage


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},  # what browsers say of the site counts
        {"sec-fetch-site": "none"},
        # A proxy that ends TLS.
        {"origin": "https://plants.example", "host": "plants.example"},
    ],
)
def test_own_pages_and_programs_pass(headers: dict[str, str]) -> None:
    refuse_foreign_pages(Headers(headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-site", "origin": "https://plants.example", "host": "plants.example"},
        {"origin": "https://plants.example:8443", "host": "plants.example"},
        {"origin": "https://plants.example"},
        {"origin": "null", "host": "null"},
    ],
)
def test_others_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ForeignPage):
        refuse_foreign_pages(Headers(headers))
