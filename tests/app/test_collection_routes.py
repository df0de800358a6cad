import io
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.renditions import Renditions
from models.catalogue import Catalogue
from models.home import Home

MakeClient = Callable[..., TestClient]


def first_sheet(client: TestClient, species_id: str = "105951") -> dict:
    return client.get("/v1/sheets", params={"species_id": species_id}).json()["sheets"][0]


def test_species_come_by_name_with_their_counts(client: TestClient) -> None:
    page = client.get("/v1/species").json()
    assert page["total"] == 3
    assert [s["species_id"] for s in page["species"]] == ["a/b", "105951", "12254"]
    assert [s["sheet_count"] for s in page["species"]] == [0, 3, 1]
    assert page["species"][1]["field_photo_count"] == 0


def test_species_come_in_pages(client: TestClient) -> None:
    page = client.get("/v1/species", params={"limit": 1, "offset": 1}).json()
    assert (page["total"], page["limit"], page["offset"]) == (3, 1, 1)
    assert [s["species_id"] for s in page["species"]] == ["105951"]
    assert client.get("/v1/species", params={"offset": 3}).json()["species"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("COSTUS", ["105951"]),
        ("pinaceae", ["a/b", "12254"]),
        ("l. pinus", ["12254"]),
        ("1059", ["105951"]),
        ("x y", []),
    ],
)
def test_species_are_found_by_words_of_their_names(client: TestClient, query: str, found: list[str]) -> None:
    page = client.get("/v1/species", params={"q": query}).json()
    assert [s["species_id"] for s in page["species"]] == found
    assert page["total"] == len(found)


@pytest.mark.parametrize("parameters", [{"limit": 0}, {"limit": 501}, {"offset": -1}, {"q": "x" * 101}])
def test_a_parameter_out_of_range_is_422_and_not_repeated(client: TestClient, parameters: dict) -> None:
    response = client.get("/v1/species", params=parameters)
    assert response.status_code == 422
    body = response.json()
    assert body["type"] == "urn:voucher:problem:invalid-parameter"
    assert body["errors"][0]["parameter"] == next(iter(parameters))
    assert "xxx" not in response.text


def test_one_species_even_with_a_slash_in_its_id(client: TestClient) -> None:
    assert client.get("/v1/species/105951").json()["sheet_count"] == 3
    assert client.get("/v1/species/a%2Fb").json()["scientific_name"] == "Abies × borisii-regis Mattf."


def test_a_species_says_how_the_index_that_answers_knows_it(
    client: TestClient, make_client: Callable[..., TestClient]
) -> None:
    names = ("in_index", "in_classifier", "has_field_photos")
    page = client.get("/v1/species").json()["species"]
    assert {species["species_id"]: tuple(species[name] for name in names) for species in page} == {
        "105951": (True, True, True),
        "12254": (True, True, False),
        "a/b": (True, False, False),
    }
    without_index = make_client(with_bundle=False).get("/v1/species/105951").json()
    assert [without_index[name] for name in names] == [None, None, None]


def test_an_unknown_species_is_404(client: TestClient) -> None:
    for path in ("/v1/species/none", "/v1/sheets?species_id=none"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["type"] == "urn:voucher:problem:unknown-species"


def test_sheets_of_a_species_come_in_pages(client: TestClient) -> None:
    everything = client.get("/v1/sheets", params={"species_id": "105951"}).json()
    assert everything["total"] == len(everything["sheets"]) == 3
    second = client.get("/v1/sheets", params={"species_id": "105951", "limit": 1, "offset": 1}).json()
    assert second["sheets"] == everything["sheets"][1:2]
    assert second["total"] == 3


def test_one_sheet_tells_where_it_is_kept_and_who_may_use_it(client: TestClient) -> None:
    sheets = client.get("/v1/sheets", params={"species_id": "105951"}).json()["sheets"]
    cayenne = next(s for s in sheets if s["institution_code"] == "CAY")
    sheet = client.get(f"/v1/sheets/{cayenne['sheet_id']}").json()
    assert sheet == cayenne
    assert sheet["scientific_name"] == "Costus arabicus L."
    assert (sheet["catalog_number"], sheet["license"]) == ("CAY012345", "CC BY 4.0")
    assert (sheet["width"], sheet["height"]) == (96, 128)


@pytest.mark.parametrize("path", ["", "/image", "/thumbnail"])
def test_an_unknown_sheet_is_404(client: TestClient, path: str) -> None:
    response = client.get(f"/v1/sheets/{'0' * 20}{path}")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:voucher:problem:unknown-sheet"


def test_images_come_as_imported_and_may_be_kept_for_ever(client: TestClient) -> None:
    sheets = client.get("/v1/sheets", params={"species_id": "105951"}).json()["sheets"]
    kinds = set()
    for sheet in sheets:
        response = client.get(sheet["image_url"])
        kinds.add(response.headers["content-type"])
        assert Image.open(io.BytesIO(response.content)).size == (96, 128)
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["etag"].startswith('"')
    assert kinds == {"image/jpeg", "image/png", "image/webp"}


@pytest.mark.parametrize("kind", ["image_url", "thumbnail_url"])
def test_a_current_copy_is_not_sent_again(client: TestClient, kind: str) -> None:
    url = first_sheet(client)[kind]
    etag = client.get(url).headers["etag"]
    for offered in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        response = client.get(url, headers={"if-none-match": offered})
        assert response.status_code == 304
        assert response.headers["etag"] == etag
        assert response.content == b""
    assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_parts_of_an_image_can_be_asked_for(client: TestClient) -> None:
    url = first_sheet(client)["image_url"]
    whole = client.get(url).content
    response = client.get(url, headers={"range": "bytes=0-9"})
    assert response.status_code == 206
    assert response.content == whole[:10]


@pytest.mark.parametrize(("size", "expected"), [(160, (120, 160)), (1024, (768, 1024)), (2048, (1500, 2000))])
def test_thumbnails_have_the_size_that_was_asked_for_and_no_more(
    client: TestClient, size: int, expected: tuple[int, int]
) -> None:
    sheet = first_sheet(client, "12254")
    response = client.get(f"/v1/sheets/{sheet['sheet_id']}/thumbnail", params={"size": size})
    assert response.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(response.content)).size == expected


@pytest.mark.parametrize("size", ["159", "0", "100000", "large"])
def test_a_thumbnail_of_another_size_is_422(client: TestClient, size: str) -> None:
    sheet = first_sheet(client)
    assert client.get(f"/v1/sheets/{sheet['sheet_id']}/thumbnail", params={"size": size}).status_code == 422


def test_thumbnails_are_kept_and_made_again_when_they_are_gone(client: TestClient, collection_home: Home) -> None:
    url = first_sheet(client)["thumbnail_url"]
    first = client.get(url).content
    kept = [path for path in collection_home.renditions.rglob("*") if path.is_file() and path.read_bytes() == first]
    assert len(kept) == 1
    kept[0].write_bytes(b"from the cache")
    assert client.get(url).content == b"from the cache"
    kept[0].unlink()
    assert client.get(url).content == first
    assert not list(collection_home.renditions.rglob(".*"))


def test_thumbnails_are_served_though_they_cannot_be_kept(
    collection_home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = tmp_path / "file"
    taken.write_bytes(b"where the folder should be")
    with Catalogue.open(collection_home) as catalogue:
        image = next(catalogue.sheets()).image
        rendition = Renditions(taken / "below", catalogue.image_store).get(image, 160)
    assert Image.open(io.BytesIO(rendition)).format == "JPEG"
    assert "cannot be kept" in caplog.text


def test_a_sheet_whose_file_is_gone_is_500_and_tells_no_path(client: TestClient, collection_home: Home) -> None:
    sheet = first_sheet(client)
    stored = next(
        p
        for p in collection_home.images.rglob("*")
        if p.is_file() and p.read_bytes() == client.get(sheet["image_url"]).content
    )
    hidden = stored.rename(stored.with_suffix(".hidden"))
    try:
        for url in (sheet["image_url"], f"/v1/sheets/{sheet['sheet_id']}/thumbnail?size=640"):
            response = client.get(url)
            assert response.status_code == 500
            assert response.json()["type"] == "urn:voucher:problem:catalogue-error"
            assert str(collection_home.root) not in response.text
    finally:
        hidden.rename(stored)


def test_without_a_catalogue_lists_are_503(make_client: MakeClient) -> None:
    client = make_client(with_catalogue=False)
    for path in ("/v1/species", "/v1/species/x", "/v1/sheets?species_id=x", "/v1/sheets/x", "/v1/sheets/x/image"):
        response = client.get(path)
        assert response.status_code == 503
        assert "import first" in response.json()["detail"]


def test_the_process_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    assert {check["state"] for check in ready.pop("checks")} == {"ok"}
    assert ready == {
        "status": "ready",
        "bundle_id": "bundle-1",
        "model_id": "model-1",
        "species_count": 3,
        "complaint": None,
    }


def test_without_a_bundle_the_process_is_alive_but_not_ready(make_client: MakeClient) -> None:
    client = make_client(with_bundle=False)
    assert client.get("/healthz").status_code == 200
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["detail"] == "nothing is built: run `voucher build`"
    assert client.get("/v1/species").status_code == 200
