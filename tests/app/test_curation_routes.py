"""Curators change the collection over HTTP, and every refusal is a problem document that leaves it as it was."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.serving import Missing, Serving, open_collection, queue_for
from app.settings import Settings
from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.home import Home

Encode = Callable[..., bytes]


@pytest.fixture
def home(collection_home: Home, tmp_path: Path) -> Home:
    """A copy of the small collection that a test may change."""
    shutil.copytree(collection_home.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def make_client(home: Home) -> Iterator[Callable[..., TestClient]]:
    """A client on this machine of a service without a bundle, with settings."""
    opened: list[TestClient] = []

    def make(**given: Any) -> TestClient:
        def load(settings: Settings) -> Serving:
            return Serving(queue_for(settings), open_collection(home), Missing("nothing is built"))

        app = create_app(Settings(home=home.root, **given), load)
        client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture
def add(client: TestClient, encode: Encode) -> Callable[..., Any]:
    """Sends the images of these seeds, with fields of the form."""

    def add(*seeds: int, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        files = [("images", (f"IMG_{seed}.png", encode(seed, "PNG"), "image/png")) for seed in seeds]
        return client.post("/v1/sheets", files=files, data=fields, headers=headers)

    return add


def ids(client: TestClient, species_id: str = "105951", **more: Any) -> list[str]:
    page = client.get("/v1/sheets", params={"species_id": species_id, "limit": 200} | more).json()
    assert page["total"] == len(page["sheets"])
    return [sheet["sheet_id"] for sheet in page["sheets"]]


def state(home: Home) -> object:
    with Catalogue.open(home) as catalogue:
        return catalogue.revision(), catalogue.content_digest(), catalogue.species()


def refused(response: Any, status: int, kind: str) -> str:
    """The detail of a problem document of that kind."""
    body = response.json()
    assert (response.status_code, body["type"]) == (status, f"urn:voucher:problem:{kind}"), body
    assert response.headers["content-type"] == "application/problem+json"
    return str(body["detail"])


def test_sheets_that_are_added_are_there_at_once_with_all_that_was_told(
    client: TestClient, add: Callable[..., Any], home: Home
) -> None:
    told = {"institution_code": "K", "catalog_number": "K9", "license": "CC0", "rights_holder": "Kew"}
    response = add(50, 51, species_id="105951", curator="Ada", **told)
    assert response.status_code == 201
    sheets = response.json()["sheets"]
    assert [sheet["outcome"] for sheet in sheets] == ["added", "added"]
    assert {key: sheets[0][key] for key in told} == told
    assert sheets[0]["scientific_name"] == "Costus arabicus L."
    assert set(ids(client)) >= {sheet["sheet_id"] for sheet in sheets}
    assert client.get("/v1/species/105951").json()["sheet_count"] == 5
    listed = client.get("/v1/species", params={"q": "arabicus"}).json()["species"]
    assert listed[0]["sheet_count"] == 5
    assert client.get(sheets[0]["image_url"]).headers["content-type"] == "image/png"
    shown = client.get(f"/v1/sheets/{sheets[0]['sheet_id']}").json()
    assert shown == {key: value for key, value in sheets[0].items() if key != "outcome"}
    with Catalogue.open(home) as catalogue:
        newest = catalogue.revisions()[-1]
        assert (newest.actor, newest.action, newest.sheets) == ("Ada", "add", 2)
        assert len({s.specimen_key for s in catalogue.sheets() if s.specimen.catalog_number == "K9"}) == 1
        assert not any("IMG" in str(s) for s in catalogue.sheets())  # names of files can tell of people and places


def test_the_same_image_is_one_sheet_and_a_removed_one_comes_back(client: TestClient, add: Callable[..., Any]) -> None:
    (first,) = add(50, species_id="105951").json()["sheets"]
    (again,) = add(50, species_id="105951").json()["sheets"]
    assert (again["outcome"], again["sheet_id"]) == ("already_present", first["sheet_id"])
    client.delete(f"/v1/sheets/{first['sheet_id']}")
    (back,) = add(50, species_id="12254").json()["sheets"]
    assert (back["outcome"], back["sheet_id"], back["species_id"]) == ("restored", first["sheet_id"], "12254")


def test_a_new_species_is_found_at_once(client: TestClient, add: Callable[..., Any]) -> None:
    assert client.get("/v1/species").json()["total"] == 3  # a snapshot is taken
    added = add(50, scientific_name="Quercus robur L.", genus="Quercus", family="Fagaceae").json()["sheets"]
    assert added[0]["species_id"] == "quercus-robur-l"
    assert client.get("/v1/species").json()["total"] == 4
    found = client.get("/v1/species", params={"q": "fagaceae"}).json()["species"]
    assert [(s["species_id"], s["sheet_count"]) for s in found] == [("quercus-robur-l", 1)]
    (named,) = add(51, scientific_name="Acer campestre L.", species_id="7/a").json()["sheets"]
    assert named["species_id"] == "7/a"


def test_empty_fields_as_browsers_send_them_say_nothing(add: Callable[..., Any]) -> None:
    (sheet,) = add(50, species_id="105951", scientific_name="", genus=" ", catalog_number="").json()["sheets"]
    assert (sheet["catalog_number"], sheet["species_id"]) == (None, "105951")


def test_a_sheet_is_removed_and_restored(client: TestClient, home: Home) -> None:
    before = ids(client)
    removed = client.delete(f"/v1/sheets/{before[0]}", params={"curator": "Ada"}).json()
    assert (removed["removed"], removed["sheet_id"]) == (True, before[0])
    assert removed["removed_at"]
    assert ids(client) == before[1:]
    assert ids(client, removed=True) == before[:1]
    assert client.get("/v1/species/105951").json()["sheet_count"] == 2
    assert client.get(f"/v1/sheets/{before[0]}").json()["removed"] is True
    assert client.get(f"/v1/sheets/{before[0]}/image").status_code == 200  # an older index may still name it
    restored = client.post(f"/v1/sheets/{before[0]}/restore", json={"curator": "Eve"}).json()
    assert (restored["removed"], restored["removed_at"]) == (False, None)
    assert ids(client) == before
    assert client.post(f"/v1/sheets/{before[0]}/restore").status_code == 200
    with Catalogue.open(home) as catalogue:
        assert [(r.actor, r.action) for r in catalogue.revisions(1)] == [("Ada", "remove"), ("Eve", "restore")]


def test_a_determination_is_corrected_for_the_whole_specimen(client: TestClient, add: Callable[..., Any]) -> None:
    specimen = {"institution_code": "K", "catalog_number": "K9"}
    one, two = add(50, 51, species_id="105951", **specimen).json()["sheets"]
    moved = client.patch(f"/v1/sheets/{one['sheet_id']}", json={"species_id": "a/b", "curator": "Ada"})
    assert {s["sheet_id"] for s in moved.json()["sheets"]} == {one["sheet_id"], two["sheet_id"]}
    assert {s["scientific_name"] for s in moved.json()["sheets"]} == {"Abies × borisii-regis Mattf."}
    assert ids(client, "a/b") == sorted([one["sheet_id"], two["sheet_id"]])


def test_a_species_is_entered_once(client: TestClient) -> None:
    oak = {"scientific_name": "Quercus robur L.", "genus": "Quercus", "curator": "Ada"}
    first = client.post("/v1/species", json=oak)
    assert (first.status_code, first.json()["species_id"], first.json()["sheet_count"]) == (201, "quercus-robur-l", 0)
    again = client.post("/v1/species", json=oak)
    assert (again.status_code, again.json()) == (200, first.json())
    assert client.get("/v1/species").json()["total"] == 4


def test_conflicts_are_409_and_change_nothing(client: TestClient, add: Callable[..., Any], home: Home) -> None:
    specimen = {"institution_code": "K", "catalog_number": "K9"}
    (sheet,) = add(50, species_id="105951", **specimen).json()["sheets"]
    before = state(home)
    detail = refused(add(51, 50, species_id="12254"), 409, "sheet-conflict")
    assert detail.startswith(f"sheet 2: the image is in the catalogue as sheet {sheet['sheet_id']}")
    assert "its specimen is of species" in refused(add(52, species_id="12254", **specimen), 409, "sheet-conflict")
    refused(add(53, species_id="105951", scientific_name="Rosa"), 409, "species-conflict")
    refused(
        client.post("/v1/species", json={"scientific_name": "Rosa", "species_id": "105951"}), 409, "species-conflict"
    )
    assert state(home) == before


def test_what_is_not_there_is_404(client: TestClient, add: Callable[..., Any], home: Home) -> None:
    before = state(home)
    refused(add(50, species_id="none"), 404, "unknown-species")
    refused(client.delete("/v1/sheets/none"), 404, "unknown-sheet")
    refused(client.post("/v1/sheets/none/restore"), 404, "unknown-sheet")
    refused(client.patch("/v1/sheets/none", json={"species_id": "105951"}), 404, "unknown-sheet")
    sheet_id = ids(client)[0]
    refused(client.patch(f"/v1/sheets/{sheet_id}", json={"species_id": "none"}), 404, "unknown-species")
    assert state(home) == before


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({}, "invalid-form", "expected species_id of a species of the catalogue, or scientific_name"),
        ({"species_id": ["105951", "12254"]}, "invalid-form", "species_id: expected one value, found 2"),
        ({"species_id": "105951", "genus": "Costus"}, "invalid-form", "genus and family describe a new species"),
        (
            {"species_id": "105951", "color": "green"},
            "invalid-form",
            "unknown form field 'color'; expected images (files)",
        ),
        ({"species_id": "105951", "license": "x" * 1001}, "invalid-details", "sheet 1: license: expected at most 1000"),
        ({"species_id": "105951", "license": "x" * 4001}, "invalid-form", "license: expected at most 4,000"),
        (
            {"species_id": "105951", "catalog_number": "K\x07"},
            "invalid-details",
            "sheet 1: catalog_number: expected one",
        ),
        ({"species_id": "105951", "curator": "x" * 201}, "invalid-details", "curator: expected at most 200"),
        ({"scientific_name": "Rosa", "species_id": "x" * 201}, "invalid-details", "species_id: expected at most 200"),
    ],
)
def test_a_form_that_cannot_be_used_is_422_and_names_the_field(
    add: Callable[..., Any], home: Home, fields: dict[str, Any], kind: str, words: str
) -> None:
    before = state(home)
    assert words in refused(add(50, **fields), 422, kind)
    assert state(home) == before


def test_images_that_cannot_be_used_are_refused_by_their_number(
    client: TestClient, encode: Encode, home: Home, make_client: Callable[..., TestClient]
) -> None:
    before = state(home)

    def send(*contents: bytes, to: TestClient = client) -> Any:
        return to.post("/v1/sheets", files=[("images", content) for content in contents], data={"species_id": "105951"})

    good = encode(50)
    assert refused(send(good, b"GIF89a" + bytes(60)), 415, "unsupported-upload").startswith("image 2:")
    assert refused(send(good, good[:400]), 422, "unreadable-image").startswith("sheet 2:")
    assert "image 1 is empty" in refused(send(b""), 422, "unreadable-image")
    assert "expected 1 to 50 files in the form field “images”" in refused(
        client.post("/v1/sheets", files=[("license", (None, "CC0"))]), 422, "invalid-form"
    )
    refused(client.post("/v1/sheets", json={"species_id": "105951"}), 415, "unsupported-upload")
    refused(
        client.post("/v1/sheets", content=b"--b", headers={"content-type": "multipart/form-data; boundary=b"}),
        400,
        "malformed-request",
    )
    small = make_client(max_upload_bytes=1024)
    assert refused(send(encode(51, size=(300, 400)), to=small), 413, "image-too-large").startswith("image 1:")
    full = make_client(max_buffered_bytes=1024)
    refused(send(encode(51, size=(300, 400)), to=full), 503, "overloaded")
    assert full.app.state.upload_budget.held_bytes == 0  # type: ignore[attr-defined]
    assert state(home) == before


@pytest.mark.parametrize(
    "body", [{}, {"species_id": ""}, {"species_id": "x" * 201}, {"species_id": "105951", "sheet": 1}, {"species_id": 7}]
)
def test_a_body_that_is_not_as_described_is_422(client: TestClient, body: dict[str, Any]) -> None:
    refused(client.patch(f"/v1/sheets/{ids(client)[0]}", json=body), 422, "invalid-parameter")


def test_a_body_without_files_has_a_limit_of_its_own(client: TestClient) -> None:
    long = {"scientific_name": "x" * 70_000}
    assert "at most 64 KiB" in refused(client.post("/v1/species", json=long), 413, "request-too-large")


@pytest.mark.parametrize("path", ["/v1/species", "/v1/session", "/v1/index-builds", "/v1/batches/x"])
def test_a_body_is_not_larger_for_calling_itself_a_form(client: TestClient, path: str) -> None:
    response = client.post(path, files={"photos": ("x", bytes(100_000))})
    refused(response, 413, "request-too-large")


def requests_of(client: TestClient, encode: Encode) -> list[Callable[..., Any]]:
    """Every request that changes the collection."""
    sheet_id = ids(client)[0]
    files, data = [("images", encode(50))], {"species_id": "105951"}
    return [
        lambda **more: client.post("/v1/sheets", files=files, data=data, **more),
        lambda **more: client.delete(f"/v1/sheets/{sheet_id}", **more),
        lambda **more: client.post(f"/v1/sheets/{sheet_id}/restore", **more),
        lambda **more: client.patch(f"/v1/sheets/{sheet_id}", json={"species_id": "12254"}, **more),
        lambda **more: client.post("/v1/species", json={"scientific_name": "Rosa"}, **more),
    ]


def test_a_page_of_another_site_changes_nothing(client: TestClient, encode: Encode, home: Home) -> None:
    before = state(home)
    for request in requests_of(client, encode):
        refused(request(headers={"sec-fetch-site": "cross-site"}), 403, "foreign-page")
        refused(request(headers={"origin": "http://evil.example"}), 403, "foreign-page")
    assert state(home) == before


def test_where_curation_is_off_nothing_changes(
    make_client: Callable[..., TestClient], encode: Encode, home: Home
) -> None:
    before = state(home)
    client = make_client(host="0.0.0.0", access="open")
    for request in requests_of(client, encode):
        assert "curation is off" in refused(request(), 403, "curation-off")
    assert state(home) == before
    assert client.get("/v1/species").status_code == 200


def test_a_key_opens_curation_from_anywhere_and_its_name_is_noted(
    make_client: Callable[..., TestClient], encode: Encode, home: Home
) -> None:
    before = state(home)
    with KeyStore.open(home) as store:
        _, key = store.create(NewKey("Herbarium CAY", frozenset({Scope.CURATE})))
    client = make_client(host="0.0.0.0")
    for request in requests_of(client, encode):
        refused(request(), 401, "key-missing")
    assert state(home) == before
    bearer = {"authorization": f"Bearer {key}", "host": "plants.example", "x-forwarded-for": "192.0.2.1"}
    for body in ({"scientific_name": "Rosa"}, {"scientific_name": "Viola", "curator": "Ada"}):
        assert client.post("/v1/species", json=body, headers=bearer).status_code == 201
    with Catalogue.open(home) as catalogue:
        assert [r.actor for r in catalogue.revisions()][-2:] == ["Herbarium CAY", "Ada (key Herbarium CAY)"]


def test_a_catalogue_that_is_being_changed_for_long_asks_to_come_again(client: TestClient, home: Home) -> None:
    sheet_id = ids(client)[0]
    with Catalogue.open(home) as other, other.writing():
        engine = client.app.state.serving.collection.catalogue._engine  # type: ignore[attr-defined]
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 50")
        response = client.delete(f"/v1/sheets/{sheet_id}")
        assert "Try again when that is done" in refused(response, 503, "catalogue-busy")
        assert response.headers["retry-after"] == "30"
    assert client.delete(f"/v1/sheets/{sheet_id}").status_code == 200


def test_the_description_tells_how_to_curate(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    post = paths["/v1/sheets"]["post"]
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"images", "species_id", "scientific_name", "curator"} <= set(form["properties"])
    expected = {"201", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503", "507"}
    assert expected == set(post["responses"])
    for path, method in (
        ("/v1/sheets/{sheet_id}", "delete"),
        ("/v1/sheets/{sheet_id}", "patch"),
        ("/v1/species", "post"),
    ):
        assert "403" in paths[path][method]["responses"]
        assert not any(name["name"].startswith("sec-") for name in paths[path][method].get("parameters", []))
