"""Keys over HTTP: who is let in, for what, how often, and what is told to whom; on either database."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from models import catalogue_schema as schema
from models.api_keys import NewKey, Scope, digest_of
from models.api_keys_store import KeyStore
from models.errors import CatalogueError, EmbeddingSpaceMismatch
from models.home import Home

BOTH = frozenset({Scope.IDENTIFY, Scope.CURATE})
URL = "/v1/identifications"
WRONG = "vch_0123456789ab_" + "a" * 43

Encode = Callable[..., bytes]


@pytest.fixture
def store(empty_home: Home) -> Iterator[KeyStore]:
    with KeyStore.open(empty_home, create=True) as opened:
        yield opened


@pytest.fixture
def make_key(store: KeyStore) -> Callable[..., str]:
    """A key with these properties."""

    def make(name: str = "Ada", scopes: frozenset[Scope] = frozenset({Scope.IDENTIFY}), **given: Any) -> str:
        return store.create(NewKey(name, scopes, **given))[1]

    return make


@pytest.fixture
def service(make_client: Callable[..., TestClient], store: KeyStore, empty_home: Home) -> Callable[..., TestClient]:
    """A client of a service whose keys are those of `store`, with settings."""

    def make(**given: Any) -> TestClient:
        return make_client(home=empty_home.root, database_url=empty_home.database_url, **given)

    return make


@pytest.fixture
def client(service: Callable[..., TestClient], make_key: Callable[..., str]) -> TestClient:
    """A service with a key, so that keys are needed."""
    make_key("the first")
    return service()


@pytest.fixture
def photo(encode: Encode) -> bytes:
    return encode(5)


def ask(client: TestClient, photo: bytes, key: str | None = None, **more: Any) -> Any:
    headers = more.pop("headers", {}) | ({} if key is None else {"authorization": f"Bearer {key}"})
    return client.post(URL, files=[("photos", ("p", photo, "image/jpeg"))], headers=headers, **more)


def refused(response: Any, status: int, slug: str) -> str:
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:voucher:problem:{slug}"
    return str(response.json()["detail"])


def test_without_a_key_the_request_is_told_how_to_show_one(client: TestClient, photo: bytes) -> None:
    response = ask(client, photo)
    assert "Authorization: Bearer" in refused(response, 401, "key-missing")
    assert response.headers["www-authenticate"] == 'Bearer realm="voucher"'


@pytest.mark.parametrize("wrong", [WRONG, "x", "vch_", "a" * 5_000, "vch_0123456789ab_" + "é" * 43])
def test_a_wrong_key_is_refused_whatever_is_wrong_with_it(client: TestClient, photo: bytes, wrong: str) -> None:
    response = ask(client, photo, headers={"authorization": f"Bearer {wrong}".encode()})
    detail = refused(response, 401, "key-wrong")
    assert wrong[:20] not in detail or wrong == "x"
    assert response.headers["www-authenticate"] == 'Bearer realm="voucher", error="invalid_token"'


def test_a_key_with_another_secret_is_as_wrong_as_one_that_does_not_exist(
    client: TestClient, photo: bytes, make_key: Callable[..., str]
) -> None:
    key = make_key()
    bodies = [ask(client, photo, wrong).json() for wrong in (WRONG, key[:-1] + ("a" if key[-1] != "a" else "b"))]
    assert bodies[0] | {"request_id": ""} == bodies[1] | {"request_id": ""}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer {key}"},
        {"authorization": "bearer   {key} "},
        {"x-api-key": "{key}"},
        {"cookie": "a=b; voucher-key={key}"},
        {"authorization": "Basic dTpw", "x-api-key": "{key}"},  # of a proxy in front
        {"x-api-key": "{key}", "cookie": "voucher-key=x"},
    ],
)
def test_a_key_can_be_shown_in_several_ways(
    client: TestClient, photo: bytes, make_key: Callable[..., str], headers: dict[str, str]
) -> None:
    key = make_key()
    assert ask(client, photo, headers={n: v.format(key=key) for n, v in headers.items()}).status_code == 200


def test_the_address_shows_a_key_below_v2_alone(client: TestClient, photo: bytes, make_key: Callable[..., str]) -> None:
    key = make_key()
    assert client.get("/v2/languages", params={"api-key": key}).status_code == 200
    assert client.get("/v2/languages").status_code == 401
    assert client.get("/v2/languages", params={"api-key": WRONG}).status_code == 401
    refused(ask(client, photo, params={"api-key": key}), 401, "key-missing")


def test_a_key_opens_what_its_scopes_say(client: TestClient, photo: bytes, make_key: Callable[..., str]) -> None:
    curator, user, both = make_key(scopes=frozenset({Scope.CURATE})), make_key(), make_key(scopes=BOTH)
    response = ask(client, photo, curator)
    assert "scope identify" in refused(response, 403, "scope-missing")
    assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
    assert ask(client, photo, both).status_code == 200
    for path in ("/v1/jobs", "/v1/changes", "/v1/bundles", "/v1/jobs/x", "/v1/bundles/x"):
        refused(client.get(path), 401, "key-missing")
        detail = refused(client.get(path, headers={"x-api-key": user}), 403, "scope-missing")
        assert "scope curate" in detail
        for key in (curator, both):
            assert client.get(path, headers={"x-api-key": key}).status_code in (200, 404)


def test_what_is_public_needs_no_key(client: TestClient) -> None:
    for path in ("/", "/healthz", "/readyz", "/v1/species", "/v1/species/105951", "/openapi.json", "/static/page.js"):
        assert client.get(path).status_code == 200, path
    sheets = client.get("/v1/sheets", params={"species_id": "105951"}).json()["sheets"]
    response = client.get(sheets[0]["image_url"])
    assert response.status_code == 200
    assert response.headers["cache-control"].startswith("public")


def test_a_collection_that_is_not_public_is_for_those_with_a_key(
    service: Callable[..., TestClient], make_key: Callable[..., str]
) -> None:
    keys = [make_key(), make_key(scopes=frozenset({Scope.CURATE}))]
    client = service(public_reading=False)
    listing = client.get("/v1/sheets", params={"species_id": "105951"}, headers={"x-api-key": keys[0]})
    assert listing.headers["cache-control"] == "no-store"
    sheet = listing.json()["sheets"][0]
    for path in ("/v1/species", "/v1/species/105951", f"/v1/sheets/{sheet['sheet_id']}", sheet["thumbnail_url"]):
        refused(client.get(path), 401, "key-missing")
        for key in keys:
            assert client.get(path, headers={"x-api-key": key}).status_code == 200
    shown = client.get(sheet["thumbnail_url"], headers={"x-api-key": keys[0]}).headers["cache-control"]
    assert shown == "private, max-age=31536000, immutable"
    for path in ("/", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200


def test_a_service_of_this_machine_is_open_until_there_is_a_key(
    service: Callable[..., TestClient], make_key: Callable[..., str], photo: bytes
) -> None:
    client = service()
    assert ask(client, photo).status_code == 200
    assert ask(client, photo, WRONG).status_code == 200  # clients of Pl@ntNet always send one
    assert client.get("/v1/jobs").status_code == 200
    key = make_key()
    deadline = time.monotonic() + 20
    while ask(client, photo).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ask(client, photo, key).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "plants.example"])
def test_a_service_for_others_needs_keys_though_there_are_none(
    service: Callable[..., TestClient], photo: bytes, host: str
) -> None:
    refused(ask(service(host=host), photo), 401, "key-missing")
    assert ask(service(host=host, access="open"), photo).status_code == 200
    refused(ask(service(access="keys"), photo), 401, "key-missing")


def limits_of(response: Any) -> dict[str, tuple[int, int]]:
    """Limit and what is left, by policy; checks that both headers tell of the same."""
    policies = [each.split(";") for each in response.headers["ratelimit-policy"].split(", ")]
    left = [each.split(";") for each in response.headers["ratelimit"].split(", ")]
    assert [p[0] for p in policies] == [r[0] for r in left]
    assert all(p[2].startswith("w=") for p in policies)
    assert all(int(r[2].removeprefix("t=")) > 0 for r in left)
    return {
        p[0].strip('"'): (int(p[1].removeprefix("q=")), int(r[1].removeprefix("r=")))
        for p, r in zip(policies, left, strict=True)
    }


def test_a_day_has_so_many_identifications(client: TestClient, photo: bytes, make_key: Callable[..., str]) -> None:
    key = make_key(daily_quota=2)
    assert [limits_of(ask(client, photo, key)) for _ in range(2)] == [{"day": (2, 1)}, {"day": (2, 0)}]
    response = ask(client, photo, key)
    assert "2 plants in a day" in refused(response, 429, "quota-spent")
    until_midnight = 86_400 - (datetime.now(UTC) - datetime.now(UTC).replace(hour=0, minute=0, second=0)).seconds
    assert abs(int(response.headers["retry-after"]) - until_midnight) <= 5
    assert limits_of(response) == {"day": (2, 0)}
    assert ask(client, photo, make_key()).status_code == 200  # others are not concerned
    assert client.get("/v1/session", headers={"x-api-key": key}).json()["quota"]["remaining"] == 0


def test_a_minute_has_so_many_requests(client: TestClient, photo: bytes, make_key: Callable[..., str]) -> None:
    key = make_key(per_minute=3, daily_quota=100)
    statuses = [ask(client, photo, key).status_code for _ in range(3)]
    response = ask(client, photo, key)
    assert statuses == [200, 200, 200]
    assert "3 times in a minute" in refused(response, 429, "rate-exceeded")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert limits_of(response)["minute"] == (3, 0)
    quota = client.get("/v1/session", headers={"x-api-key": key}).json()["quota"]
    assert quota["remaining"] == 97


def test_keys_without_limits_get_no_headers_about_them(
    client: TestClient, photo: bytes, make_key: Callable[..., str], store: KeyStore
) -> None:
    response = ask(client, photo, make_key())
    assert response.status_code == 200
    assert "ratelimit" not in response.headers
    assert list(store.used_on(datetime.now(UTC).date()).values()) == [1]


def test_what_is_not_answered_is_not_charged(
    client: TestClient, photo: bytes, make_key: Callable[..., str], identifier: Any
) -> None:
    key = make_key(daily_quota=5)
    assert limits_of(ask(client, b"GIF89a", key)) == {"day": (5, 5)}
    assert limits_of(ask(client, photo, key, data={"top_k": "0"})) == {"day": (5, 5)}
    identifier.failure = EmbeddingSpaceMismatch("of another network")
    response = ask(client, photo, key)
    assert (response.status_code, limits_of(response)) == (503, {"day": (5, 5)})
    identifier.failure = ZeroDivisionError()
    response = ask(client, photo, key)
    assert (response.status_code, limits_of(response)) == (500, {"day": (5, 5)})
    identifier.failure = None
    assert limits_of(ask(client, photo, key)) == {"day": (5, 4)}


def test_an_expired_key_is_told_so_to_whoever_has_it(
    client: TestClient, photo: bytes, make_key: Callable[..., str], store: KeyStore
) -> None:
    key = make_key(expires_in_days=1)
    assert ask(client, photo, key).status_code == 200
    late = make_key(expires_in_days=1)
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    with store.engine.begin() as connection:
        table = schema.api_keys
        connection.execute(update(table).where(table.c.key_id == late[4:16]).values(expires_at=past))
    assert "is expired" in refused(ask(client, photo, late), 401, "key-wrong")
    assert "expired" not in refused(ask(client, photo, late[:-3] + "aaa"), 401, "key-wrong")


def test_a_revoked_key_opens_nothing_within_seconds(
    client: TestClient, photo: bytes, make_key: Callable[..., str], store: KeyStore
) -> None:
    key = make_key()
    assert ask(client, photo, key).status_code == 200
    store.revoke(key[4:16])
    deadline = time.monotonic() + 20
    while (response := ask(client, photo, key)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "is revoked" in refused(response, 401, "key-wrong")
    refused(ask(client, photo), 401, "key-missing")


def test_the_day_of_the_last_use_is_noted(
    client: TestClient, photo: bytes, make_key: Callable[..., str], store: KeyStore
) -> None:
    key = make_key()
    ask(client, photo, key)
    found = store.find(key[4:16])
    assert found is not None
    assert found.last_used_on == datetime.now(UTC).date()


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(
    client: TestClient, photo: bytes, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()
    assert ask(client, photo, key).status_code == 200
    looked_up: list[str] = []
    really = KeyStore.find
    monkeypatch.setattr(KeyStore, "find", lambda store, key_id: (looked_up.append(key_id), really(store, key_id))[1])
    responses = [ask(client, photo, f"vch_{number:012x}_{'b' * 43}") for number in range(60)]
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) == len(looked_up) < 30
    last = responses[-1]
    assert "too many wrong keys" in refused(last, 429, "too-many-failures")
    assert 1 <= int(last.headers["retry-after"]) <= 6
    assert ask(client, photo, key).status_code == 200  # of the same address
    refused(ask(client, photo), 401, "key-missing")
    assert ask(client, photo, key[:-3] + "aaa").status_code in (401, 429)


def test_another_header_makes_no_other_client_unless_a_proxy_is_trusted(
    service: Callable[..., TestClient], photo: bytes, make_key: Callable[..., str]
) -> None:
    make_key()

    def refusals(client: TestClient, addresses: list[str]) -> set[int]:
        return {ask(client, b"x", WRONG, headers={"x-forwarded-for": each}).status_code for each in addresses}

    many = [f"198.51.100.{number}" for number in range(40)]
    assert refusals(service(), many) == {401, 429}
    for client in (service(trusted_proxies=("192.0.2.0/24",)), service()):
        client._transport.client = ("203.0.113.9", 1)  # type: ignore[attr-defined]
        assert refusals(client, many) == {401, 429}
    behind = service(trusted_proxies=["192.0.2.0/24", "10.0.0.1"])
    behind._transport.client = ("192.0.2.7", 1)  # type: ignore[attr-defined]
    assert refusals(behind, many) == {401}
    assert refusals(behind, [f"2001:db8::{number:x}" for number in range(40)]) == {401, 429}
    # What a client writes in front of what the proxy adds is not believed.
    forged = [f"198.51.100.{number}, 203.0.113.5" for number in range(40)]
    assert refusals(behind, forged) == {401, 429}


def test_while_keys_cannot_be_read_those_seen_lately_go_on(
    client: TestClient, photo: bytes, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, unseen = make_key(daily_quota=5), make_key()
    assert ask(client, photo, seen).status_code == 200

    def unreadable(*_: object) -> None:
        raise CatalogueError("the disk is gone")

    monkeypatch.setattr(KeyStore, "find", unreadable)
    monkeypatch.setattr("models.api_keys_ring.FRESH_SECONDS", -1.0)
    assert ask(client, photo, seen).status_code == 200
    response = ask(client, photo, unseen)
    assert "cannot be looked up" in refused(response, 503, "not-ready")
    assert response.headers["retry-after"]


def test_no_key_is_told_or_logged(
    client: TestClient,
    photo: bytes,
    make_key: Callable[..., str],
    identifier: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = make_key(daily_quota=1, per_minute=50, scopes=BOTH)
    secret = key.rsplit("_", 1)[1]
    wrong = key[:-2] + "00"
    answers = [ask(client, photo, shown) for shown in (key, key, wrong)]
    identifier.failure = RuntimeError("inside")
    answers += [ask(client, photo, make_key()), client.get("/v2/languages", params={"api-key": key})]
    answers += [client.get("/v2/languages", params={"api-key": wrong, "lang": key})]
    answers += [client.post("/v1/session", json={"key": wrong}), client.post("/v1/session", json={"key": [key]})]
    answers += [client.get(path, headers={"x-api-key": key}) for path in ("/v1/session", "/v1/jobs", f"/v1/{key}")]
    told = "".join(f"{answer.text}{answer.headers}" for answer in answers)
    # The client of these tests logs its own requests.
    records = [record for record in caplog.records if not record.name.startswith("http")]
    logged = "".join(f"{record.getMessage()}{record.exc_text}{record.args}" for record in records)
    assert {answer.status_code for answer in answers} >= {200, 401, 404, 422, 429, 500}
    assert "inside" in logged
    for text in (secret, wrong.rsplit("_", 1)[1], digest_of(key)):
        assert text not in told
        assert text not in logged
