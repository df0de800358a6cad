"""Vectors over HTTP, on a small real network."""

from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from models.catalogue import Catalogue
from models.home import Home

URL = "/v1/embeddings"


@pytest.fixture(scope="module")
def service(trained_home: Home) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=trained_home.root, device="cpu"))) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(trained_home: Home) -> tuple[bytes, bytes, str]:
    """A field photo, a sheet, and the sheet's id."""
    with Catalogue.open(trained_home) as catalogue:
        photo, sheet = next(catalogue.field_photos()), next(catalogue.sheets())
        paths = [catalogue.image_store.path(image) for image in (photo.image, sheet.image)]
        return paths[0].read_bytes(), paths[1].read_bytes(), sheet.sheet_id


def send(service: TestClient, *contents: bytes, headers: dict[str, str] | None = None, **fields: str) -> object:
    files = [("photos", ("p", content)) for content in contents]
    return service.post(URL, files=files, data=fields, headers=headers or {})


def test_each_image_gets_a_unit_vector(service: TestClient, pictures: tuple[bytes, bytes, str]) -> None:
    photo, sheet, _ = pictures
    body = send(service, photo, sheet, photo).json()
    rows = np.array(body["embeddings"])
    assert rows.shape == (3, body["dimensions"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)
    ready = service.get("/readyz").json()
    assert (body["bundle_id"], body["model_id"], body["role"]) == (ready["bundle_id"], ready["model_id"], None)


def test_numbers_alone_are_the_same_numbers(service: TestClient, pictures: tuple[bytes, bytes, str]) -> None:
    photo, sheet, _ = pictures
    body = send(service, photo, sheet).json()
    response = send(service, photo, sheet, headers={"accept": "application/octet-stream"})
    assert response.headers["content-type"] == "application/octet-stream"
    dimensions = int(response.headers["x-voucher-dimensions"])
    rows = np.frombuffer(response.content, "<f4").reshape(2, dimensions)
    np.testing.assert_allclose(rows, np.array(body["embeddings"]), atol=1e-5)
    assert response.headers["x-voucher-space-id"] == body["space_id"]
    assert response.headers["x-voucher-bundle-id"] == body["bundle_id"]
    assert response.headers["x-voucher-model-id"] == body["model_id"]


def test_cosines_in_the_metric_are_the_similarities_of_answers(
    service: TestClient, pictures: tuple[bytes, bytes, str]
) -> None:
    photo, sheet, sheet_id = pictures
    as_photo, as_sheet = send(service, photo, role="field").json(), send(service, sheet, role="sheet").json()
    assert as_photo["space_id"] == as_sheet["space_id"] != send(service, photo).json()["space_id"]
    fields = {"top_k": "50", "sheets_per_candidate": "20"}
    answer = service.post("/v1/identifications", files={"photos": photo}, data=fields).json()
    matches = {s["sheet_id"]: s["similarity"] for c in answer["candidates"] for s in c["sheets"]}
    cosine = float(np.dot(as_photo["embeddings"][0], as_sheet["embeddings"][0]))
    assert cosine == pytest.approx(matches[sheet_id], abs=0.02)


@pytest.mark.parametrize(
    ("contents", "fields", "status"),
    [([b"GIF89a"], {}, 415), ([b""], {}, 422), ([], {"role": "field"}, 422)],
)
def test_what_cannot_be_embedded_is_refused(
    service: TestClient, contents: list[bytes], fields: dict[str, str], status: int
) -> None:
    files = [("photos", ("p", c)) for c in contents] or [("role", (None, "field"))]
    assert service.post(URL, files=files).status_code == status


def test_a_role_is_one_of_two(service: TestClient, pictures: tuple[bytes, bytes, str]) -> None:
    response = send(service, pictures[0], role="herbarium")
    assert response.status_code == 422
    assert "sheet or field" in response.json()["detail"]
