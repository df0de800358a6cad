import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.errors import BundleCorrupt, CatalogueError
from models.retrieval import Novelty, RollUp
from models.taxonomy import TaxonRank

URL = "/v1/identifications"
Encode = Callable[..., bytes]


def photos(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("photos", (f"secret-{n}.jpg", content, "image/jpeg")) for n, content in enumerate(contents)]


def test_one_photo_gets_candidates_decision_and_sheets(client: TestClient, encode: Encode) -> None:
    response = client.post(URL, files=photos(encode()))
    assert response.status_code == 200
    body = response.json()
    assert body["bundle_id"] == "bundle-1"
    assert body["photo_count"] == 1
    assert body["identification_id"] == response.headers["x-request-id"]
    assert body["decision"] == {
        "source": "generalist",
        "reason": "The sheets are close to the photo.",
        "evidence": {"distance": 0.4},
    }
    first = body["candidates"][0]
    assert first["scientific_name"] == "Costus arabicus L."
    assert (first["genus"], first["family"]) == ("Costus", "Costaceae")
    assert first["probability"] == pytest.approx(0.6)
    assert first["has_field_photos"]
    assert len(first["sheets"]) == 3
    assert [sheet["similarity"] for sheet in first["sheets"]] == pytest.approx([0.7, 0.6, 0.5])


def test_what_the_answer_comes_down_to_is_told_in_words_and_figures(client: TestClient, encode: Encode) -> None:
    body = client.post(URL, files=photos(encode())).json()
    assert body["outcome"] == "species"
    assert body["summary"] == "Costus arabicus L. (84 %)."
    assert body["calibrated"] is True
    assert body["roll_up"] == {
        "taxon_rank": "species",
        "name": "Costus arabicus L.",
        "probability": 0.84,
        "species_count": 1,
    }
    assert body["unknown"] == {"score": 0.2, "threshold": 0.7, "is_unknown": False}
    assert body["prediction_set"] == {
        "coverage": 0.9,
        "size": 2,
        "species": [
            {"species_id": "105951", "scientific_name": "Costus arabicus L."},
            {"species_id": "12254", "scientific_name": "Pinus sylvestris L."},
        ],
        "herbarium_only": 1,
        "guarantee": "It holds for the tested.",
    }


def test_an_unknown_plant_is_none_of_these_with_the_nearest(
    client: TestClient, identifier: Any, encode: Encode
) -> None:
    identifier.novelty = Novelty(unknown_score=0.9, threshold=0.7)
    body = client.post(URL, files=photos(encode())).json()
    assert (body["outcome"], body["unknown"]["is_unknown"]) == ("none of these", True)
    assert body["summary"] == "None of these. Nearest: Costus arabicus L."
    assert body["candidates"][0]["species_id"] == "105951"


def test_species_too_close_to_call_are_answered_as_their_genus(
    client: TestClient, identifier: Any, encode: Encode
) -> None:
    identifier.roll_up = RollUp(TaxonRank.GENUS, "Viola", 0.928, 12)
    body = client.post(URL, files=photos(encode())).json()
    assert body["outcome"] == "genus"
    assert body["summary"].startswith("Genus Viola (93 %): the species are too close to call.")


def test_without_calibration_photos_nothing_is_promised(client: TestClient, identifier: Any, encode: Encode) -> None:
    identifier.calibrated, identifier.roll_up, identifier.novelty, identifier.prediction_set = False, None, None, None
    body = client.post(URL, files=photos(encode())).json()
    assert (body["calibrated"], body["roll_up"], body["unknown"], body["prediction_set"]) == (False, None, None, None)
    assert body["outcome"] == "undecided"


def test_sheets_of_the_answer_can_be_fetched(client: TestClient, encode: Encode) -> None:
    body = client.post(URL, files=photos(encode())).json()
    for sheet in body["candidates"][0]["sheets"]:
        assert client.get(sheet["image_url"]).status_code == 200
        assert client.get(sheet["thumbnail_url"]).status_code == 200


def test_sheets_carry_what_a_herbarium_cites(client: TestClient, encode: Encode) -> None:
    body = client.post(URL, files=photos(encode())).json()
    cited = {
        (s["institution_code"], s["collection_code"], s["catalog_number"]) for s in body["candidates"][0]["sheets"]
    }
    assert ("CAY", "herbarium", "CAY012345") in cited
    assert (None, None, None) in cited


def test_five_photos_of_all_formats_are_one_plant(client: TestClient, encode: Encode) -> None:
    five = [encode(1), encode(2, "PNG"), encode(3, "WEBP"), encode(4, "TIFF"), encode(5)]
    response = client.post(URL, files=photos(*five), data={"organs": ["leaf", "flower", "fruit", "bark", "auto"]})
    assert response.status_code == 200
    assert response.json()["photo_count"] == 5


@pytest.mark.parametrize(
    ("fields", "sheet_counts"),
    [
        ({"top_k": "1"}, [3]),
        ({"top_k": "2", "sheets_per_candidate": "1"}, [1, 1]),
        ({"top_k": "50", "include_sheets": "false"}, [0, 0, 0]),
        ({"top_k": "3", "include_sheets": "TRUE", "sheets_per_candidate": "20"}, [3, 1, 0]),
    ],
)
def test_options_decide_how_much_comes_back(
    client: TestClient, encode: Encode, fields: dict[str, str], sheet_counts: list[int]
) -> None:
    body = client.post(URL, files=photos(encode()), data=fields).json()
    assert [len(candidate["sheets"]) for candidate in body["candidates"]] == sheet_counts


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_k": "0"}, "top_k"),
        ({"top_k": "51"}, "top_k"),
        ({"top_k": "five"}, "top_k"),
        ({"top_k": "٣"}, "top_k"),
        ({"top_k": ""}, "top_k"),
        ({"top_k": ["1", "2"]}, "top_k"),
        ({"sheets_per_candidate": "21"}, "sheets_per_candidate"),
        ({"sheets_per_candidate": "-1"}, "sheets_per_candidate"),
        ({"include_sheets": "perhaps"}, "include_sheets"),
        ({"organs": "root"}, "organs"),
        ({"organs": ["leaf", "leaf"]}, "organs"),
        ({"top_k": "9" * 101}, "top_k"),
        ({"photo": "typing mistake"}, "unknown form field 'photo'; expected photos (files)"),
        ({"organs": ["leaf"] * 41}, "fields"),
    ],
)
def test_a_wrong_field_is_422_and_named(client: TestClient, encode: Encode, fields: dict[str, str], named: str) -> None:
    response = client.post(URL, files=photos(encode()), data=fields)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:voucher:problem:invalid-form"
    assert named in response.json()["detail"]


def test_no_photo_is_422(client: TestClient) -> None:
    response = client.post(URL, files=[("top_k", (None, "3"))])
    assert response.status_code == 422
    assert "found none" in response.json()["detail"]


def test_six_photos_are_422(client: TestClient, encode: Encode) -> None:
    response = client.post(URL, files=photos(*[encode()] * 6))
    assert response.status_code == 422
    assert "at most 5 photos" in response.json()["detail"]


def test_an_empty_photo_is_422_and_named_by_its_position(client: TestClient, encode: Encode) -> None:
    response = client.post(URL, files=photos(encode(), b""))
    assert response.status_code == 422
    assert "photo 2 is empty" in response.json()["detail"]


@pytest.mark.parametrize("content", [b"GIF89a" + bytes(50), b"%PDF-1.7", b"<svg/>", b"PK\x03\x04" + bytes(40)])
def test_another_type_is_415(client: TestClient, encode: Encode, content: bytes) -> None:
    response = client.post(URL, files=photos(encode(), encode(), content))
    assert response.status_code == 415
    assert response.json()["detail"].startswith("photo 3: ")


def test_a_truncated_photo_is_422_and_named_by_its_position(client: TestClient, encode: Encode) -> None:
    response = client.post(URL, files=photos(encode(), encode(1)[:700]))
    assert response.status_code == 422
    assert response.json()["type"] == "urn:voucher:problem:unreadable-image"
    assert response.json()["detail"].startswith("photo 2: ")


def test_a_photo_with_too_many_pixels_is_413(make_client: Callable[..., TestClient], encode: Encode) -> None:
    client = make_client(max_pixels=10_000)
    assert client.post(URL, files=photos(encode(size=(100, 100)))).status_code == 200
    response = client.post(URL, files=photos(encode(size=(101, 100))))
    assert response.status_code == 413
    assert response.json()["type"] == "urn:voucher:problem:image-too-large"
    assert response.json()["detail"].startswith("photo 1: ")


def test_a_photo_with_too_many_bytes_is_413(make_client: Callable[..., TestClient], encode: Encode) -> None:
    photo = encode()
    client = make_client(max_upload_bytes=len(photo))
    assert client.post(URL, files=photos(photo)).status_code == 200
    response = client.post(URL, files=photos(photo, photo + b"\0"))
    assert response.status_code == 413
    assert response.json()["detail"].startswith("photo 2: ")


def test_a_body_of_another_type_is_415(client: TestClient, encode: Encode) -> None:
    for headers in ({"content-type": "image/jpeg"}, {"content-type": "application/json"}, {}):
        response = client.post(URL, content=encode(), headers=headers)
        assert response.status_code == 415
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--other\r\n",
        b"--b\r\nno colon\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="photos"\r\n\r\ncut off',
        b'--b\r\nContent-Disposition: attachment; name="photos"\r\n\r\nx\r\n--b--\r\n',
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--b--\r\n",
    ],
)
def test_a_body_that_is_no_form_is_400(client: TestClient, body: bytes) -> None:
    response = client.post(URL, content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.status_code == 400
    assert response.json()["type"] == "urn:voucher:problem:malformed-request"


@pytest.mark.parametrize("parameters", ["", "; boundary=", "; boundary=" + "b" * 71])
def test_a_body_without_a_usable_boundary_is_400(client: TestClient, parameters: str) -> None:
    response = client.post(URL, content=b"--b--", headers={"content-type": "multipart/form-data" + parameters})
    assert response.status_code == 400


def test_without_a_bundle_it_is_503_with_the_remedy(make_client: Callable[..., TestClient], encode: Encode) -> None:
    response = make_client(with_bundle=False).post(URL, files=photos(encode()))
    assert response.status_code == 503
    assert "voucher build" in response.json()["detail"]
    assert response.headers["retry-after"] == "30"


def test_uploads_beyond_the_memory_of_all_are_503_and_given_back(
    make_client: Callable[..., TestClient], encode: Encode
) -> None:
    photo = encode()
    client = make_client(max_buffered_bytes=2 * len(photo))
    response = client.post(URL, files=photos(photo, photo, photo))
    assert response.status_code == 503
    assert response.json()["type"] == "urn:voucher:problem:overloaded"
    assert client.post(URL, files=photos(photo, photo)).status_code == 200
    assert client.app.state.upload_budget.held_bytes == 0


def test_a_sheet_that_left_the_catalogue_is_left_out(client: TestClient, identifier, encode: Encode) -> None:
    identifier._sheets["105951"].insert(0, "0" * 20)
    response = client.post(URL, files=photos(encode()))
    assert response.status_code == 200
    assert len(response.json()["candidates"][0]["sheets"]) == 2


def test_an_unexpected_error_tells_the_client_nothing_but_the_request_id(
    client: TestClient, identifier, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    identifier.failure = RuntimeError("a secret of the network")
    response = client.post(URL, files=photos(encode()), headers={"x-request-id": "abc-123"})
    assert response.status_code == 500
    body = response.json()
    assert body["type"] == "urn:voucher:problem:internal-error"
    assert body["request_id"] == "abc-123"
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    failed = [record for record in caplog.records if record.exc_info]
    assert "abc-123" in failed[0].getMessage()
    assert "a secret of the network" in str(failed[0].exc_info[1])


@pytest.mark.parametrize(("failure", "status"), [(BundleCorrupt("file x changed"), 503), (CatalogueError("disk"), 500)])
def test_expected_failures_have_their_rows(
    client: TestClient, identifier, encode: Encode, failure: Exception, status: int
) -> None:
    identifier.failure = failure
    assert client.post(URL, files=photos(encode())).status_code == status


def test_an_identification_is_one_line_in_the_log_without_file_names(
    client: TestClient, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    client.post(URL, files=photos(encode(), encode(1)), headers={"x-request-id": "abc"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("app")]
    assert len(lines) == 1
    assert lines[0].startswith(
        "identification request_id=abc photos=2 outcome=species source=generalist top_similarity=0.800 milliseconds="
    )
    assert not any("secret" in record.getMessage() for record in caplog.records)


def test_position_of_the_camera_is_not_in_the_answer(client: TestClient, encode: Encode) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x010F] = "Camera of Linnaeus"
    packed = io.BytesIO()
    Image.open(io.BytesIO(encode())).save(packed, "JPEG", exif=exif)
    response = client.post(URL, files=photos(packed.getvalue()))
    assert response.status_code == 200
    assert "Linnaeus" not in response.text
