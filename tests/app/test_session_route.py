"""Signing in on the page: a cookie that no script reads and no other site uses."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.home import Home

CURATOR = frozenset({Scope.IDENTIFY, Scope.CURATE})


@pytest.fixture
def home(tmp_path: Any) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def key(home: Home) -> str:
    with KeyStore.open(home, create=True) as store:
        return store.create(NewKey("Ada", CURATOR, daily_quota=9))[1]


@pytest.fixture
def service(make_client: Callable[..., TestClient], home: Home) -> Callable[..., TestClient]:
    def make(scheme: str = "http", **given: Any) -> TestClient:
        client = make_client(home=home.root, **given)
        client.base_url = f"{scheme}://localhost"
        return client

    return make


def test_who_signs_in_is_known_until_signing_out(service: Callable[..., TestClient], key: str) -> None:
    client = service()
    before = client.get("/v1/session").json()
    assert (before["keys_needed"], before["signed_in"], before["may_identify"], before["may_curate"]) == (
        *(True, False, False, False),
    )
    assert "sign in" in before["curation_refusal"]
    assert before["may_read"]
    response = client.post("/v1/session", json={"key": f" {key}\n"})
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["name"], body["key_id"], body["scopes"]) == ("Ada", key[4:16], ["curate", "identify"])
    assert body["quota"] == {"limit": 9, "remaining": 9, "resets_in_seconds": body["quota"]["resets_in_seconds"]}
    assert body["curation_refusal"] is None
    assert client.get("/v1/session").json()["signed_in"]
    assert client.get("/v1/jobs").status_code == 200
    assert 'data-curation-refusal=""' in client.get("/").text
    assert client.delete("/v1/session").status_code == 204
    assert client.get("/v1/jobs").status_code == 401
    assert "curation is off: it needs a key" in client.get("/").text


def cookie_of(response: Any) -> tuple[str, str, set[str]]:
    """Name, value and attributes of the cookie that is set."""
    pair, *attributes = response.headers["set-cookie"].split("; ")
    name, _, value = pair.partition("=")
    return name, value, {attribute.lower() for attribute in attributes}


def test_the_cookie_is_for_the_own_page_alone(service: Callable[..., TestClient], key: str) -> None:
    response = service().post("/v1/session", json={"key": key})
    name, value, attributes = cookie_of(response)
    assert (name, value) == ("voucher-key", key)
    assert attributes == {"httponly", "path=/", "samesite=strict"}
    assert response.headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in response.headers
    *_, attributes = cookie_of(service().post("/v1/session", json={"key": key, "remember": True}))
    assert "max-age=2592000" in attributes


def test_by_https_the_cookie_goes_nowhere_else(service: Callable[..., TestClient], key: str) -> None:
    client = service("https")
    response = client.post("/v1/session", json={"key": key})
    name, _, attributes = cookie_of(response)
    assert name == "__Host-voucher-key"
    assert attributes == {"httponly", "path=/", "samesite=strict", "secure"}
    assert response.headers["strict-transport-security"] == "max-age=31536000"
    assert client.get("/v1/session").json()["signed_in"]
    # A name that a page of a subdomain could set is not looked at.
    assert client.get("/v1/jobs", headers={"cookie": f"voucher-key={key}"}).status_code == 401


def test_a_trusted_proxy_says_whether_it_is_https(service: Callable[..., TestClient], key: str) -> None:
    for proxies, expected in ((("192.0.2.1",), "__Host-voucher-key"), ((), "voucher-key")):
        client = service(trusted_proxies=proxies)
        client._transport.client = ("192.0.2.1", 1)  # type: ignore[attr-defined]
        response = client.post("/v1/session", json={"key": key}, headers={"x-forwarded-proto": "https"})
        assert cookie_of(response)[0] == expected
        assert ("strict-transport-security" in response.headers) == bool(proxies)


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://localhost:3000"}],
)
def test_pages_of_other_sites_can_use_no_cookie(
    service: Callable[..., TestClient], key: str, headers: dict[str, str], encode: Callable[..., bytes]
) -> None:
    client = service(public_reading=False)
    assert client.post("/v1/session", json={"key": key}).status_code == 200
    photo = [("photos", ("p", encode(5), "image/jpeg"))]
    requests: list[Callable[..., Any]] = [
        lambda **more: client.post("/v1/identifications", files=photo, **more),
        lambda **more: client.post("/v1/species", json={"scientific_name": "Rosa"}, **more),
        lambda **more: client.get("/v1/jobs", **more),
        lambda **more: client.get("/v1/species", **more),
        lambda **more: client.post("/v1/session", json={"key": key}, **more),
        lambda **more: client.delete("/v1/session", **more),
    ]
    for request in requests:
        response = request(headers=headers)
        assert response.status_code == 403
        assert response.json()["type"].endswith(":foreign-page")
    assert client.get("/v1/jobs").status_code == 200
    # A key in a header is sent on purpose.
    del client.cookies["voucher-key"]
    assert client.get("/v1/jobs", headers=headers | {"x-api-key": key}).status_code == 200


def test_a_wrong_key_signs_nobody_in(service: Callable[..., TestClient], key: str) -> None:
    client = service()
    response = client.post("/v1/session", json={"key": key[:-1]})
    assert response.status_code == 401
    assert "set-cookie" not in response.headers
    for body in ({}, {"key": ""}, {"key": "x" * 300}, {"key": key, "more": 1}):
        assert client.post("/v1/session", json=body).status_code == 422


def test_a_cookie_that_opens_nothing_any_more_is_taken_back(
    service: Callable[..., TestClient], key: str, home: Home
) -> None:
    with KeyStore.open(home) as store:
        store.revoke(key[4:16])
    client = service()
    response = client.get("/v1/session", headers={"cookie": f"voucher-key={key}"})
    assert (response.status_code, response.json()["signed_in"]) == (200, False)
    name, value, attributes = cookie_of(response)
    assert (name, value.strip('"')) == ("voucher-key", "")
    assert "max-age=0" in attributes


def test_trying_keys_here_is_slowed_down_too(service: Callable[..., TestClient], key: str) -> None:
    client = service()
    wrong = f"vch_0123456789ab_{'c' * 43}"
    statuses = [client.post("/v1/session", json={"key": wrong}).status_code for _ in range(40)]
    assert set(statuses) == {401, 429}
    assert client.get("/v1/session", headers={"x-api-key": wrong}).status_code == 429
    assert client.get("/").status_code == 200


def test_where_no_keys_are_needed_nobody_signs_in(service: Callable[..., TestClient]) -> None:
    client = service()
    for response in (client.get("/v1/session"), client.post("/v1/session", json={"key": "anything"})):
        body = response.json()
        assert not body["keys_needed"]
        assert not body["signed_in"]
        assert body["may_identify"]
        assert body["may_curate"]
        assert "set-cookie" not in response.headers
    far = client.get("/v1/session", headers={"host": "plants.example"}).json()
    assert not far["may_curate"]
    assert far["curation_refusal"].startswith("curation is off: the request is for another host name")
