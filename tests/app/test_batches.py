"""Batches over HTTP, on a small real network and a real worker."""

import csv
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from services import Service, services
from tests_support import picture_bytes

from indexer.worker import Worker
from models.batches import BatchOptions, BatchPlant, BatchStore
from models.catalogue import Catalogue
from models.errors import JobQueueError
from models.home import Home

URL = "/v1/batches"


@pytest.fixture
def make(tiny_home: Home) -> Iterator[Service]:
    with services(tiny_home) as make:
        yield make


@pytest.fixture
def service(make: Service) -> TestClient:
    return make()


@pytest.fixture
def worker(tiny_home: Home) -> Iterator[Worker]:
    found, ready = Worker(tiny_home, device="cpu"), threading.Event()
    thread = threading.Thread(target=found.run, args=(lambda _: ready.set(),))
    thread.start()
    assert ready.wait(30)
    yield found
    found.stop.set()
    thread.join(30)


@pytest.fixture
def leaf(tiny_home: Home) -> bytes:
    with Catalogue.open(tiny_home) as catalogue:
        return catalogue.image_store.path(next(catalogue.field_photos()).image).read_bytes()


def send(service: TestClient, *photos: tuple[str, bytes], **fields: Any) -> Any:
    return service.post(URL, files=[("photos", (name, content)) for name, content in photos], data=fields)


def send_zip(service: TestClient, *photos: tuple[str, bytes], **fields: Any) -> Any:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in photos:
            archive.writestr(name, content)
    return service.post(URL, files={"archive": ("photos.zip", packed.getvalue())}, data=fields)


def done(service: TestClient, asked: Any) -> dict[str, Any]:
    assert asked.status_code == 202, asked.text
    deadline = time.monotonic() + 60
    while (body := service.get(asked.headers["location"]).json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, body
        time.sleep(0.05)
    return body


def lines(service: TestClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = service.get(body["results_url"])
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.usefixtures("worker")
def test_photos_are_answered_as_one_by_one_and_a_bad_one_stops_nothing(
    service: TestClient, tiny_home: Home, leaf: bytes
) -> None:
    asked = send(service, ("=leaf.jpg", leaf), ("bad.jpg", leaf[:400]), ("no.txt", b"text"), top_k="3")
    first = asked.json()
    assert (first["state"], first["plants"], first["photos"], first["expires_at"]) == ("queued", 3, 1, None) or first[
        "photos"
    ] == 2
    body = done(service, asked)
    assert (body["state"], body["done"], body["failed"]) == ("succeeded", 3, 2)
    assert body["expires_at"] > body["finished_at"]
    assert body["progress"]["total"] == 3
    rows = lines(service, body)
    assert [row["file"] for row in rows] == ["=leaf.jpg", "bad.jpg", "no.txt"]
    assert [row["error"] is None for row in rows] == [True, False, False]
    alone = service.post("/v1/identifications", files={"photos": leaf}, data={"top_k": "3"}).json()
    answer = rows[0]["answer"]
    assert answer["bundle_id"] == alone["bundle_id"] == body["bundle_id"]
    for one, other in zip(answer["candidates"], alone["candidates"], strict=True):
        assert one["species_id"] == other["species_id"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
    assert set(alone) - set(answer) == {"identification_id", "ignored", "milliseconds"}

    table = service.get(body["results_url"], params={"format": "csv"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="{body["batch_id"]}.csv"' in table.headers["content-disposition"]
    cells = list(csv.DictReader(io.StringIO(table.text)))
    assert cells[0]["file"] == "'=leaf.jpg"
    assert cells[0]["species_id"] == alone["candidates"][0]["species_id"]
    assert cells[1]["error"]
    assert service.get(body["results_url"], headers={"accept": "text/csv"}).text == table.text
    assert not (tiny_home.batches / body["batch_id"] / "photos").exists()


@pytest.mark.usefixtures("worker")
def test_folders_of_an_archive_are_plants_when_asked(service: TestClient, leaf: bytes) -> None:
    photos = [("b/1.jpg", leaf), ("a/1.jpg", leaf), ("a/2.png", picture_bytes(1)), ("c/1.jpg", b"x")]
    body = done(service, send_zip(service, *photos, folders_are_plants="true"))
    assert (body["plants"], body["failed"]) == (3, 1)
    rows = lines(service, body)
    assert [(row["file"], row["answer"] and row["answer"]["photo_count"]) for row in rows] == [
        ("a", 2),
        ("b", 1),
        ("c", None),
    ]
    assert rows[2]["error"].startswith("c/1.jpg: ")
    each = done(service, send_zip(service, *photos))
    assert [row["file"] for row in lines(service, each)] == ["a/1.jpg", "a/2.png", "b/1.jpg", "c/1.jpg"]


def photo_with_place() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Camera of Linnaeus"
    packed = io.BytesIO()
    Image.open(io.BytesIO(picture_bytes(3))).save(packed, "JPEG", exif=exif)
    return packed.getvalue()


def test_what_waits_on_the_disk_tells_nothing_of_place_and_camera(service: TestClient, tiny_home: Home) -> None:
    tiff = io.BytesIO()
    Image.open(io.BytesIO(picture_bytes(4))).save(tiff, "TIFF", tiffinfo={271: "Camera of Linnaeus"})
    assert b"Linnaeus" in photo_with_place()
    assert b"Linnaeus" in tiff.getvalue()
    for response in (
        send(service, ("a.jpg", photo_with_place()), ("b.tif", tiff.getvalue())),
        send_zip(service, ("a.jpg", photo_with_place()), ("b.tif", tiff.getvalue())),
    ):
        assert response.json()["photos"] == 2
    files = [path for path in tiny_home.batches.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert not any(b"Linnaeus" in path.read_bytes() for path in files)
    assert {path.name for path in files} == {"000000", "000001", "batch.json"}


def test_results_of_an_unfinished_batch_are_409_unless_asked_for_in_part(service: TestClient, leaf: bytes) -> None:
    body = send(service, ("a.jpg", leaf)).json()
    response = service.get(body["results_url"])
    assert (response.status_code, response.json()["type"]) == (409, "urn:voucher:problem:batch-unfinished")
    partial = service.get(body["results_url"], params={"partial": "true", "format": "csv"})
    assert partial.status_code == 200
    assert len(partial.text.splitlines()) == 1


def test_a_deleted_batch_is_cancelled_and_gone(service: TestClient, tiny_home: Home, leaf: bytes) -> None:
    body = send(service, ("a.jpg", leaf)).json()
    address = f"{URL}/{body['batch_id']}"
    assert service.delete(address).status_code == 204
    for response in (service.get(address), service.delete(address), service.get(body["results_url"])):
        assert (response.status_code, response.json()["type"]) == (404, "urn:voucher:problem:unknown-batch")
    assert service.get(f"/v1/jobs/{body['batch_id']}").json()["state"] == "cancelled"
    assert list(tiny_home.batches.iterdir()) == []


def test_a_batch_is_its_senders_business(service: TestClient, tiny_home: Home, leaf: bytes) -> None:
    with BatchStore(tiny_home).receive() as (draft, keep):
        draft.plants = [BatchPlant("a", (draft.add_photo(leaf),))]
        batch = keep(BatchOptions(key_id="somebody-else"))
    for path in (batch.batch_id, f"{batch.batch_id}/results"):
        assert service.get(f"{URL}/{path}").status_code == 404
    assert service.delete(f"{URL}/{batch.batch_id}").status_code == 404
    assert batch.folder.exists()
    asked = send(service, ("a.jpg", leaf)).json()
    assert asked["batch_id"] not in service.get("/v1/jobs").text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_k": "0"}, "top_k"),
        ({"folders_are_plants": "perhaps"}, "folders_are_plants"),
        ({"genera": "Nonexistus"}, "'Nonexistus'"),
        ({"families": " , "}, "families"),
        ({"colour": "red"}, "unknown form field 'colour'; expected archive (a ZIP) or photos (files)"),
    ],
)
def test_a_wrong_field_is_422_and_leaves_nothing(
    service: TestClient, tiny_home: Home, leaf: bytes, fields: dict[str, str], named: str
) -> None:
    response = send(service, ("a.jpg", leaf), **fields)
    assert response.status_code == 422
    assert named in response.json()["detail"]
    assert not tiny_home.batches.exists() or list(tiny_home.batches.iterdir()) == []


def test_neither_nothing_nor_both_is_a_batch(service: TestClient, leaf: bytes) -> None:
    assert service.post(URL, files=[("top_k", (None, "3"))]).status_code == 422
    both = [("photos", ("a.jpg", leaf)), ("archive", ("a.zip", b"PK"))]
    assert service.post(URL, files=both).status_code == 422
    no_zip = service.post(URL, files={"archive": ("a.zip", b"no archive")})
    assert (no_zip.status_code, no_zip.json()["type"]) == (422, "urn:voucher:problem:invalid-batch")


def test_limits_of_photos_bytes_and_batches(make: Service, leaf: bytes) -> None:
    service = make(batch_photos=2, batch_jobs=1, max_upload_bytes=len(leaf), batch_upload_bytes=20 * len(leaf))
    assert send(service, *[("a.jpg", leaf)] * 3).status_code == 422
    assert send_zip(service, *[(f"{n}.jpg", leaf) for n in range(3)]).status_code == 422
    response = service.post(URL, files={"archive": ("a.zip", bytes(21 * len(leaf)))})
    assert response.status_code == 413
    taken = send(service, ("a.jpg", leaf), ("large.jpg", leaf + b"\0"))
    assert (taken.status_code, taken.json()["photos"], taken.json()["plants"]) == (202, 1, 2)
    full = send(service, ("a.jpg", leaf))
    assert (full.status_code, full.headers["retry-after"]) == (503, "2")


def test_larger_bodies_are_taken_here_and_nowhere_else(make: Service, leaf: bytes) -> None:
    service = make(max_request_bytes=len(leaf))
    assert send(service, ("a.jpg", leaf), ("b.jpg", leaf)).status_code == 202
    assert service.post("/v1/identifications", files={"photos": leaf}).status_code == 413


@pytest.mark.parametrize("body", [b"--b\r\n", b'--b\r\nContent-Disposition: form-data; name="photos"\r\n\r\ncut off'])
def test_a_body_that_is_no_form_is_400(service: TestClient, tiny_home: Home, body: bytes) -> None:
    response = service.post(URL, content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.status_code == 400
    assert list(tiny_home.batches.iterdir()) == []


def test_without_a_queue_nothing_is_kept(
    service: TestClient, tiny_home: Home, leaf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise JobQueueError("the queue cannot be written")

    monkeypatch.setattr(service.app.state.jobs, "enqueue_batch", fail)
    assert send(service, ("a.jpg", leaf)).status_code == 503
    assert list(tiny_home.batches.iterdir()) == []


def test_names_of_files_lead_nowhere_and_are_shown_on_one_line(
    service: TestClient, tiny_home: Home, leaf: bytes
) -> None:
    before = _files_beside(tiny_home.root)
    response = send(service, ("../../../etc/passwd", leaf), ("a\tb.jpg", leaf), ("", leaf))
    assert response.status_code == 202
    batch = BatchStore(tiny_home).get(response.json()["batch_id"])
    assert len(batch.plants) >= 2
    assert not any("\t" in plant.name for plant in batch.plants)
    assert _files_beside(tiny_home.root) == before


def _files_beside(root: Path) -> set[Path]:
    """Everything but the batches and the database."""
    return {path for path in root.rglob("*") if "batches" not in path.parts and "sqlite" not in path.name}
