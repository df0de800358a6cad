"""`/v2` as clients of Pl@ntNet meet it; that each field is as documented is in test_plantnet_contract.py."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.plantnet.answer import citation_of, date_of, taxon_of
from app.plantnet.asked import LANGUAGES, MAX_RESULTS
from app.plantnet.errors import error_content, is_below
from models.errors import CatalogueError
from models.retrieval import Novelty
from models.specimens import Image, Sheet, Specimen
from models.taxonomy import SpeciesId

URL = "/v2/identify/all"
Encode = Callable[..., bytes]

NOBODY = SpeciesId("105951")
IMAGE = Image("0" * 64, "1" * 64, ".jpg", 10, 10, 10)


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return b"--b\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


def send(client: TestClient, *parts: bytes, query: str = "api-key=KEY") -> Any:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    return client.post(f"{URL}?{query}", content=b"".join(parts) + b"--b--\r\n", headers=headers)


def read_as_clients_do(answer: Any) -> list[tuple[str, float, list[str], list[str]]]:
    """What a typical client takes out of an answer, without asking whether it is there."""
    results = []
    for result in answer["results"]:
        species = result["species"]
        assert result["score"] >= 0
        assert {"scientificName", "scientificNameWithoutAuthor"} <= set(species["genus"]) & set(species["family"])
        images = [f"{image['url']['m']} {image['citation']} {image['date']['string']}" for image in result["images"]]
        results.append((species["scientificNameWithoutAuthor"], result["score"], species["commonNames"], images))
    assert isinstance(answer["remainingIdentificationRequests"], int)
    assert answer["preferedReferential"]
    assert answer["version"]
    return results


def test_python_requests(client: TestClient, encode: Encode) -> None:
    # `data` before `files`, paths as file names, no type for files without a known suffix
    response = send(
        client,
        part('name="organs"', b"flower"),
        part('name="organs"', b"leaf"),
        part('name="images"; filename="../data/image_1.jpeg"', encode(1)),
        part('name="images"; filename="../data/image_2.jpeg"', encode(2)),
    )
    assert response.status_code == 200, response.text
    assert [name for name, *_ in read_as_clients_do(response.json())] == [
        "Costus arabicus",
        "Pinus sylvestris",
        "Abies × borisii-regis",
    ]
    assert response.json()["query"]["organs"] == ["flower", "leaf"]
    assert "image_1" not in response.text


def test_form_data_of_node_and_browsers(client: TestClient, encode: Encode) -> None:
    # pairs of organ and image, in turn; a blob has no name of its own
    image = ('name="images"; filename="blob"', encode(1), "Content-Type: image/jpeg")
    response = send(client, part('name="organs"', b"auto"), part(*image), part('name="organs"', b"auto"), part(*image))
    assert response.status_code == 200, response.text
    assert response.json()["query"]["organs"] == ["auto", "auto"]


def test_http_client_of_dotnet(client: TestClient, encode: Encode) -> None:
    response = send(
        client,
        part("name=images; filename=leaf.png; filename*=utf-8''leaf.png", encode(1, "PNG"), "Content-Type: image/png"),
        part("name=organs", b"leaf", "Content-Type: text/plain; charset=utf-8"),
        query="api-key=KEY&include-related-images=true&no-reject=false&nb-results=3&lang=fr&detailed=false&type=kt",
    )
    assert response.status_code == 200, response.text
    assert read_as_clients_do(response.json())[0][3]


def test_qt(client: TestClient, encode: Encode) -> None:
    response = send(
        client,
        part('name="organs"', b"leaf"),
        part('name="images"; filename="image_1.jpeg"', encode(1), "Content-Type: image/jpeg"),
        query="api-key=KEY&include-related-images=true&lang=de",
    )
    assert response.status_code == 200, response.text
    for result in response.json()["results"]:
        assert {"score", "species", "images"} <= set(result)


def test_clients_that_send_no_organs(client: TestClient, encode: Encode) -> None:
    images = [part('name="images"; filename="a.jpg"', encode(seed)) for seed in (1, 2, 3)]
    assert send(client, *images).json()["query"]["organs"] == ["auto"] * 3
    assert send(client, *images, part('name="organs"', b"")).json()["query"]["organs"] == ["auto"] * 3


def test_clients_that_send_organs_in_the_query_or_options_in_the_form(client: TestClient, encode: Encode) -> None:
    image = part('name="images"; filename="a.jpg"', encode(1))
    assert send(client, image, query="organs=leaf").json()["query"]["organs"] == ["leaf"]
    options = [
        part(f'name="{name}"', value) for name, value in (("nb-results", b"1"), ("lang", b"fr"), ("project", b"all"))
    ]
    body = send(client, image, *options, query="lang=de").json()
    assert (len(body["results"]), body["language"]) == (1, "de")
    wrong = send(client, image, part('name="nb-results"', b"many"))
    assert (wrong.status_code, wrong.json()["error"]) == (400, "Bad Request")
    assert "nb-results" in wrong.json()["message"]
    assert send(client, image, part('name="modifiers"', b"x")).status_code == 400


def test_empty_parameters_count_as_not_given(client: TestClient, encode: Encode) -> None:
    response = send(
        client,
        part('name="images"; filename="a.jpg"', encode(1)),
        query="api-key=&lang=&type=&nb-results=&no-reject=&include-related-images=&detailed=",
    )
    assert response.status_code == 200, response.text
    assert response.json()["query"]["type"] is None


def test_names_are_split_and_sheets_are_cited(client: TestClient, encode: Encode) -> None:
    response = client.post(f"{URL}?include-related-images=true", files={"images": encode(1)})
    costus, _, abies = response.json()["results"]
    assert response.json()["bestMatch"] == "Costus arabicus L."
    assert costus["species"] == {
        "scientificNameWithoutAuthor": "Costus arabicus",
        "scientificNameAuthorship": "L.",
        "genus": {
            "scientificNameWithoutAuthor": "Costus",
            "scientificNameAuthorship": "",
            "scientificName": "Costus",
        },
        "family": {
            "scientificNameWithoutAuthor": "Costaceae",
            "scientificNameAuthorship": "",
            "scientificName": "Costaceae",
        },
        "commonNames": [],
        "scientificName": "Costus arabicus L.",
    }
    assert abies["species"]["scientificNameAuthorship"] == "Mattf."
    cited = {image["citation"]: image for image in costus["images"]}
    assert cited["CAY herbarium CAY012345, CC BY 4.0"]["author"] == "CAY"
    assert {image["license"] for image in costus["images"]} == {"CC BY 4.0"}
    for image in costus["images"]:
        for address in image["url"].values():
            assert client.get(address).status_code == 200


def test_the_version_is_the_bundle_and_the_log_has_one_line_without_key_and_names(
    client: TestClient, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    response = client.post(f"{URL}?api-key=s3cret-key", files={"images": ("s3cret.jpg", encode(1))})
    assert response.json()["version"] == "bundle-1"
    [line] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("identification")]
    assert "api=v2 photos=1 outcome=species" in line
    assert "s3cret" not in caplog.text


def test_a_sheet_that_left_the_catalogue_is_left_out(client: TestClient, identifier: Any, encode: Encode) -> None:
    identifier._sheets["105951"].insert(0, "0" * 20)
    body = client.post(f"{URL}?include-related-images=true", files={"images": encode(1)}).json()
    assert len(body["results"][0]["images"]) == 3


def test_plants_are_named_while_the_catalogue_cannot_be_read(
    client: TestClient, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CatalogueError("the disk is gone")

    monkeypatch.setattr(client.app.state.serving.collection.catalogue, "get_sheets", fail)  # type: ignore[attr-defined]
    body = client.post(f"{URL}?include-related-images=true", files={"images": encode(1)}).json()
    assert body["bestMatch"] == "Costus arabicus L."
    assert {len(result["images"]) for result in body["results"]} == {0}


def test_without_novelty_nothing_is_rejected(client: TestClient, identifier: Any, encode: Encode) -> None:
    identifier.novelty = None
    assert client.post(URL, files={"images": encode(1)}).status_code == 200
    identifier.novelty = Novelty(unknown_score=0.7, threshold=0.7)
    assert client.post(URL, files={"images": encode(1)}).status_code == 200
    identifier.novelty = Novelty(unknown_score=0.71, threshold=0.7)
    response = client.post(URL, files={"images": encode(1)})
    assert response.json() == {"statusCode": 404, "error": "Not Found", "message": "Species not found"}


def test_photos_are_kept_where_the_operator_wants_that(client: TestClient, identifier: Any, encode: Encode) -> None:
    kept: list[tuple[bytes, ...]] = []

    class Kept:
        def keep(self, photos: Any, answer: Any, request_id: str) -> None:
            kept.append((*photos, request_id.encode()))

    client.app.state.kept_photos = Kept()  # type: ignore[attr-defined]
    assert client.post(URL, files={"images": encode(1)}, headers={"x-request-id": "a"}).status_code == 200
    identifier.novelty = Novelty(unknown_score=0.9, threshold=0.7)
    assert client.post(URL, files={"images": encode(2)}, headers={"x-request-id": "b"}).status_code == 404
    client.app.state.kept_photos = None  # type: ignore[attr-defined]
    assert kept == [(encode(1), b"a"), (encode(2), b"b")]


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("plants.example:8443", "http://plants.example:8443/v1/"),
        ("[::1]:8000", "http://[::1]:8000/v1/"),
        ("evil.example/x?y=", "/v1/"),
        ("[", "/v1/"),
        ("a b", "/v1/"),
        ('"><script>', "/v1/"),
    ],
)
def test_links_begin_with_the_host_that_was_asked_if_it_is_one(
    client: TestClient, encode: Encode, host: str, start: str
) -> None:
    response = client.post(f"{URL}?include-related-images=true", files={"images": encode(1)}, headers={"host": host})
    assert response.status_code == 200
    assert response.json()["results"][0]["images"][0]["url"]["o"].startswith(start)


def test_links_begin_with_the_public_address_if_there_is_one(
    make_client: Callable[..., TestClient], encode: Encode
) -> None:
    client = make_client(public_url="https://plants.example.org/flora/")
    response = client.post(f"{URL}?include-related-images=true", files={"images": encode(1)}, headers={"host": "evil"})
    assert response.json()["results"][0]["images"][0]["url"]["s"].startswith("https://plants.example.org/flora/v1/")


def test_results_are_never_more_than_the_most(client: TestClient, identifier: Any, encode: Encode) -> None:
    asked = []
    answer = identifier.answer
    identifier.answer = lambda *given, **named: asked.append(named["top_k"]) or answer(*given, **named)
    for count in (1, MAX_RESULTS, MAX_RESULTS + 1, 10**30):
        assert client.post(f"{URL}?nb-results={count}", files={"images": encode(1)}).status_code == 200
    assert asked == [1, MAX_RESULTS, MAX_RESULTS, MAX_RESULTS]


def test_a_full_queue_is_told_before_the_upload_is_read(make_client: Callable[..., TestClient], encode: Encode) -> None:
    client = make_client(max_buffered_bytes=1024)
    response = client.post(URL, files={"images": encode(1)})
    assert (response.status_code, response.json()["error"]) == (503, "Service Unavailable")
    assert response.headers["retry-after"]
    assert client.app.state.upload_budget.held_bytes == 0  # type: ignore[attr-defined]


# Errors


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/nothing", "/v2/identify", "/v2/identify/", "/v2//", "/v2/%00"])
def test_an_address_that_is_not_there_has_their_shape(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json() == {"statusCode": 404, "error": "Not Found", "message": "There is nothing at this address."}
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v2x", "/v1/nothing", "/v3/identify/all", "/V2/identify/all", "/v1/v2/x"])
def test_other_addresses_keep_problem_documents(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert not is_below(path)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_a_wrong_method_has_their_shape(client: TestClient, method: str) -> None:
    response = client.request(method, URL)
    assert response.status_code == 405
    assert response.json()["error"] == "Method Not Allowed"
    assert "GET" in response.headers["allow"] or "POST" in response.headers["allow"]


def test_a_head_of_nothing_has_no_body(client: TestClient) -> None:
    assert client.head("/v2/nothing").status_code == 404


def test_a_body_without_a_length_that_is_too_large_has_their_shape(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_request_bytes=2048)

    def chunks() -> Any:
        yield part('name="images"; filename="a.jpg"', b"\xff\xd8\xff")[:-2]
        for _ in range(10):
            yield bytes(1024)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = client.post(URL, content=chunks(), headers=headers)
    assert response.status_code == 413
    assert response.json()["error"] == "Payload Too Large"
    announced = client.post(URL, content=bytes(4096), headers=headers)
    assert announced.json()["statusCode"] == 413


def test_the_unexpected_has_their_shape_and_tells_nothing(client: TestClient, identifier: Any, encode: Encode) -> None:
    identifier.failure = RuntimeError("a secret of the network")
    response = client.post(URL, files={"images": encode(1)}, headers={"x-request-id": "abc-123"})
    assert (response.status_code, response.json()["error"]) == (500, "Internal Server Error")
    assert "abc-123" in response.json()["message"]
    assert "secret" not in response.text


def test_what_was_sent_is_not_told_again(client: TestClient, encode: Encode) -> None:
    image = {"images": encode(1)}
    for query in ("lang=<script>", "type=<script>", "nb-results=<script>", "no-reject=<script>", "organs=<script>"):
        response = client.post(f"{URL}?{query}", files=image)
        assert response.status_code == 400
        assert "script" not in response.text
    assert "script" not in client.post("/v2/identify/<script>", files=image).text


def test_an_error_of_any_status_has_a_name() -> None:
    problem = json.dumps({"detail": "what happened"}).encode()
    assert error_content(422, problem) == {"statusCode": 400, "error": "Bad Request", "message": "what happened"}
    assert error_content(499, problem)["error"] == "Client Closed Request"
    assert error_content(507, b"") == {
        "statusCode": 507,
        "error": "Insufficient Storage",
        "message": "Insufficient Storage",
    }


# Parts


@pytest.mark.parametrize(
    ("specimen", "rights_holder", "license", "citation"),
    [
        (Specimen("CAY", "herbarium", "CAY012345"), None, "CC BY 4.0", "CAY herbarium CAY012345, CC BY 4.0"),
        (Specimen("P", None, "P001"), "MNHN", "cc-by", "MNHN / P P001, cc-by"),
        (Specimen("P", None, "P001"), "P", None, "P P001"),
        (Specimen(), None, None, "sheet abc"),
        (Specimen(), "Ada", "CC0", "Ada / sheet abc, CC0"),
    ],
)
def test_a_citation_says_what_is_known(
    specimen: Specimen, rights_holder: str | None, license: str | None, citation: str
) -> None:
    sheet = Sheet("abc", NOBODY, IMAGE, "key", specimen, license=license, rights_holder=rights_holder)
    assert citation_of(sheet) == citation


def test_dates_are_told_twice() -> None:
    told = date_of(datetime(2022, 6, 17, 9, 57, 10, 138_000, tzinfo=UTC))
    assert (told.timestamp, told.string) == (1_655_459_830_138, "June 17, 2022")
    assert date_of(datetime(2022, 6, 17, 9, 57, 10, 138_000)) == told
    assert (date_of(None).timestamp, date_of(None).string) == (None, "")


def test_a_taxon_that_is_not_known_is_empty_and_there() -> None:
    assert set(taxon_of(None).model_dump(by_alias=True).values()) == {""}
    assert taxon_of("Costaceae Nakai").scientific_name_authorship == "Nakai"


def test_languages_are_told_once() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 52
