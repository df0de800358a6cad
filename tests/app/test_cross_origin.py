"""Pages of other sites: those that are named may read /v1, all may read /v2, and none with cookies."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings, load_settings
from models.errors import InvalidConfig

APP = "https://flora.example"
OTHER = "https://other.example"
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client(cors_origins=(APP,))


def test_by_itself_no_other_page_reads_v1(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    assert "access-control-allow-origin" not in client.get("/v1/species", headers={"origin": APP}).headers
    preflight = client.options("/v1/identifications", headers={"origin": APP, **ASKED})
    assert "access-control-allow-origin" not in preflight.headers


def test_a_page_that_is_named_reads_answers_and_errors(client: TestClient) -> None:
    for path in ("/v1/species", "/v1/species/none", "/v1/species?limit=0"):
        headers = client.get(path, headers={"origin": APP}).headers
        assert headers["access-control-allow-origin"] == APP
        assert "origin" in headers["vary"].lower()
        assert "RateLimit" in headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in headers
        assert "access-control-allow-origin" not in client.get(path, headers={"origin": OTHER}).headers
    preflight = client.options("/v1/identifications", headers={"origin": APP, **ASKED})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, APP)
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in preflight.headers
    assert preflight.headers["x-content-type-options"] == "nosniff"
    refused = client.options("/v1/identifications", headers={"origin": OTHER, **ASKED})
    assert "access-control-allow-origin" not in refused.headers


def test_an_unexpected_error_can_be_read_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.species_directory.SpeciesDirectory.find", fail)
    response = client.get("/v1/species", headers={"origin": APP})
    assert response.status_code == 500
    assert response.headers["access-control-allow-origin"] == APP
    assert response.headers["x-request-id"] == response.json()["request_id"]


def test_every_page_reads_v2_without_cookies(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    headers = client.get("/v2/languages", headers={"origin": OTHER}).headers
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
    preflight = client.options("/v2/identify/all", headers={"origin": OTHER, **ASKED})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("wrong", ["flora.example", "https://flora.example/app", "https://*.example", "null"])
def test_what_is_no_origin_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(InvalidConfig, match="VOUCHER_CORS_ORIGINS"):
        load_settings(cors_origins=wrong)
    with pytest.raises(InvalidConfig, match="VOUCHER_TRUSTED_PROXIES"):
        load_settings(trusted_proxies="proxy.example")


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_CORS_ORIGINS", f"{APP}, http://localhost:3000,http://[::1]:80")
    monkeypatch.setenv("VOUCHER_TRUSTED_PROXIES", "10.0.0.1, 2001:db8::/32,172.16.0.9/12")
    settings = Settings()
    assert settings.cors_origins == (APP, "http://localhost:3000", "http://[::1]:80")
    assert settings.trusted_proxies == ("10.0.0.1/32", "2001:db8::/32", "172.16.0.0/12")
