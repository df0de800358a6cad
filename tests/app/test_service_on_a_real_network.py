"""The whole service over a small trained network: an answer, and every row of the error table."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message
from tests_support import noise_picture

from app.error_responses import TABLE
from app.main import create_app
from app.refusals import (
    AddressTooLong,
    AnswerTimeout,
    BatchUnfinished,
    BodyTimeout,
    ClientGone,
    CurationOff,
    ExplanationsOff,
    ForeignPage,
    KeyMissing,
    KeyWrong,
    MalformedRequest,
    MetricsRefused,
    NoKnownPlant,
    NotReady,
    QuotaSpent,
    RateExceeded,
    RemoteImageRefused,
    RequestTooLarge,
    ScopeMissing,
    ShuttingDown,
    TooManyFailures,
    UnacceptableForm,
    UnknownExplanation,
    UnknownProject,
    UnsupportedUpload,
)
from app.serve import build_server
from app.settings import Settings
from models import catalogue_engine
from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.errors import (
    BundleError,
    CatalogueBusy,
    CatalogueError,
    DeviceUnavailable,
    EmbeddingSpaceMismatch,
    ImageTooLarge,
    InvalidBatch,
    InvalidCandidateFilter,
    InvalidImage,
    InvalidSheetDetails,
    JobQueueError,
    ServiceOverloaded,
    SheetConflict,
    SpeciesConflict,
    StorageFull,
    StorageReadOnly,
    UnknownBatch,
    UnknownBundle,
    UnknownJob,
    UnknownSheet,
    UnknownSpecies,
)
from models.home import Home
from models.retrieval import Novelty
from models.specimens import FieldPhoto

URL = "/v1/identifications"
FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def service(trained_home: Home) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=trained_home.root, device="cpu"))) as client:
        yield client


@pytest.fixture(scope="module")
def field_photo(trained_home: Home) -> tuple[FieldPhoto, bytes]:
    with Catalogue.open(trained_home) as catalogue:
        photo = next(catalogue.field_photos())
        return photo, catalogue.image_store.path(photo.image).read_bytes()


def send(service: TestClient, *photos: bytes, **fields: str) -> object:
    return service.post(URL, files=[("photos", ("p", photo, "image/jpeg")) for photo in photos], data=fields)


def test_a_field_photo_is_named_with_sheets_that_can_be_seen(service: TestClient, field_photo) -> None:
    _, content = field_photo
    response = send(service, content, top_k="6")
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["bundle_id"] == service.get("/readyz").json()["bundle_id"]
    known = {species["species_id"] for species in service.get("/v1/species").json()["species"]}
    assert {candidate["species_id"] for candidate in body["candidates"]} == known
    probabilities = [candidate["probability"] for candidate in body["candidates"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    assert body["decision"]["reason"]
    for candidate in body["candidates"]:
        assert len(candidate["sheets"]) == 3
        for sheet in candidate["sheets"]:
            assert service.get(f"/v1/sheets/{sheet['sheet_id']}").json()["species_id"] == candidate["species_id"]
            assert service.get(sheet["thumbnail_url"]).headers["content-type"] == "image/jpeg"
    assert sum(not candidate["has_field_photos"] for candidate in body["candidates"]) == 2


def test_the_same_photos_get_the_same_answer(service: TestClient, field_photo) -> None:
    _, content = field_photo
    first, second = (send(service, content, content).json()["candidates"] for _ in range(2))
    assert first == second


class Rig:
    """Makes services over one home, and asks them in ways that a well-behaved client does not."""

    def __init__(self, home: Home, photo: bytes) -> None:
        self.home = home
        self.photo = photo
        self._opened: list[TestClient] = []

    def service(self, **given: object) -> TestClient:
        settings = Settings(**({"home": self.home.root, "device": "cpu"} | given))
        client = TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        self._opened.append(client)
        return client

    def key(self, **given: Any) -> str:
        with KeyStore.open(self.home) as store:
            return store.create(NewKey("Ada", **given))[1]

    def close(self) -> None:
        for client in self._opened:
            client.__exit__(None, None, None)

    def status_for(self, receive: Callable[[], Awaitable[Message]], **given: object) -> int:
        """Status that the application answers with when its client behaves as `receive` does."""
        client = self.service(**given)
        headers = [(b"content-type", FORM["content-type"].encode()), (b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "POST", "path": URL, "headers": headers, "query_string": b""}
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(client.app(scope, receive, send))
        return int(sent[0]["status"])


@pytest.fixture
def rig(tiny_home: Home, field_photo: tuple[FieldPhoto, bytes]) -> Iterator[Rig]:
    made = Rig(tiny_home, field_photo[1])
    yield made
    made.close()


def with_keys(rig: Rig, keys: list[str]) -> int:
    """What the last of several requests is answered with."""
    service = rig.service(access="keys")
    photos = [("photos", ("p", rig.photo, "image/jpeg"))]
    return [service.post(URL, files=photos, headers={"x-api-key": key}).status_code for key in keys][-1]


def too_slow(rig: Rig) -> int:
    async def receive() -> Message:
        await asyncio.sleep(10)
        return {"type": "http.disconnect"}

    return rig.status_for(receive, body_timeout_seconds=0.05)


def while_the_service_stops(rig: Rig) -> int:
    async def receive() -> Message:
        raise asyncio.CancelledError

    return rig.status_for(receive)


def gone(rig: Rig) -> int:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    return rig.status_for(receive)


def without_its_file(rig: Rig) -> int:
    with Catalogue.open(rig.home) as catalogue:
        sheet = next(catalogue.sheets())
        catalogue.image_store.path(sheet.image).unlink()
    return rig.service().get(f"/v1/sheets/{sheet.sheet_id}/image").status_code


def with_a_failing_network(rig: Rig, failure: Exception) -> int:
    service = rig.service()

    def fail(*arguments: object, **named: object) -> None:
        raise failure

    service.app.state.serving.identifier.encode = fail
    return send(service, rig.photo).status_code


def add(rig: Rig, photo: bytes, *, at: TestClient | None = None, **fields: str) -> int:
    service = at or rig.service()
    return service.post("/v1/sheets", files=[("images", ("p", photo, "image/jpeg"))], data=fields).status_code


def new_picture() -> bytes:
    content = BytesIO()
    noise_picture(7).save(content, "PNG")
    return content.getvalue()


def species_of(rig: Rig) -> str:
    with Catalogue.open(rig.home) as catalogue:
        return str(catalogue.species()[0].species_id)


def on_a_disk_with(code: int, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> int:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    service = rig.service()
    species = species_of(rig)
    monkeypatch.setattr("models.image_store.os.fsync", fail)
    return add(rig, new_picture(), at=service, species_id=species)


def while_another_writes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> int:
    connect = catalogue_engine._connect_sqlite
    monkeypatch.setattr(catalogue_engine, "_connect_sqlite", lambda file, seconds: connect(file, min(seconds, 0.5)))
    service = rig.service()
    with closing(sqlite3.connect(rig.home.catalogue_file)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        body = {"scientific_name": "Viola nova"}
        return service.post("/v1/species", json=body).status_code


def without_a_queue(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> int:
    def fail(*arguments: object, **named: object) -> None:
        raise JobQueueError("the queue cannot be written")

    service = rig.service()
    monkeypatch.setattr(service.app.state.jobs, "enqueue_build", fail)
    return service.post("/v1/index-builds").status_code


def with_an_unknown_plant(rig: Rig) -> int:
    service = rig.service()
    identifier = service.app.state.serving.identifier
    answer = identifier.answer
    identifier.answer = lambda *given, **named: replace(answer(*given, **named), novelty=Novelty(0.9, 0.5))
    return service.post("/v2/identify/all", files={"images": rig.photo}).status_code


def while_a_batch_waits(rig: Rig) -> int:
    service = rig.service()
    batch = service.post("/v1/batches", files={"photos": rig.photo}).json()
    return service.get(batch["results_url"]).status_code


WAYS: dict[type[Exception], Callable[[Rig], int]] = {
    KeyMissing: lambda rig: send(rig.service(access="keys"), rig.photo).status_code,
    KeyWrong: lambda rig: with_keys(rig, ["wrong"]),
    TooManyFailures: lambda rig: with_keys(rig, [f"wrong {number}" for number in range(30)]),
    ScopeMissing: lambda rig: with_keys(rig, [rig.key(scopes=frozenset({Scope.CURATE}))]),
    RateExceeded: lambda rig: with_keys(rig, 2 * [rig.key(per_minute=1)]),
    QuotaSpent: lambda rig: with_keys(rig, 2 * [rig.key(daily_quota=1)]),
    CurationOff: lambda rig: rig.service(host="0.0.0.0", access="open").post("/v1/index-builds").status_code,
    ExplanationsOff: lambda rig: rig.service(explanations=False).post("/v1/explanations").status_code,
    ForeignPage: lambda rig: (
        rig.service().post("/v1/index-builds", headers={"sec-fetch-site": "cross-site"}).status_code
    ),
    ShuttingDown: while_the_service_stops,
    MetricsRefused: lambda rig: rig.service(metrics="off").get("/metrics").status_code,
    UnknownJob: lambda rig: rig.service().get("/v1/jobs/none").status_code,
    UnknownExplanation: lambda rig: rig.service().get("/v1/explanations/none/photo-1.png").status_code,
    UnknownBatch: lambda rig: rig.service().get("/v1/batches/none").status_code,
    BatchUnfinished: while_a_batch_waits,
    InvalidBatch: lambda rig: rig.service().post("/v1/batches", files={"archive": b"no archive"}).status_code,
    InvalidCandidateFilter: lambda rig: send(rig.service(), rig.photo, genera="Nonexistus").status_code,
    UnknownBundle: lambda rig: rig.service().get("/v1/bundles/none").status_code,
    SheetConflict: lambda rig: add(rig, rig.photo, species_id=species_of(rig)),
    SpeciesConflict: lambda rig: (
        rig.service()
        .post("/v1/species", json={"species_id": species_of(rig), "scientific_name": "Viola nova"})
        .status_code
    ),
    InvalidSheetDetails: lambda rig: add(rig, new_picture(), species_id=species_of(rig), license="a\x07b"),
    MalformedRequest: lambda rig: rig.service().post(URL, content=b"--b\r\n", headers=FORM).status_code,
    UnknownSpecies: lambda rig: rig.service().get("/v1/species/none").status_code,
    UnknownSheet: lambda rig: rig.service().get("/v1/sheets/none/image").status_code,
    RemoteImageRefused: lambda rig: rig.service().get("/v2/identify/all?images=https://a.example/b.jpg").status_code,
    AddressTooLong: lambda rig: rig.service().get(f"/v2/species?x={'a' * 20_000}").status_code,
    UnknownProject: lambda rig: rig.service().get("/v2/projects/none/species").status_code,
    NoKnownPlant: with_an_unknown_plant,
    BodyTimeout: too_slow,
    RequestTooLarge: lambda rig: send(rig.service(max_request_bytes=1024), rig.photo).status_code,
    ImageTooLarge: lambda rig: send(rig.service(max_pixels=4096), rig.photo).status_code,
    UnsupportedUpload: lambda rig: send(rig.service(), b"GIF89a").status_code,
    InvalidImage: lambda rig: send(rig.service(), rig.photo[: len(rig.photo) // 2]).status_code,
    UnacceptableForm: lambda rig: send(rig.service(), rig.photo, top_k="0").status_code,
    ClientGone: gone,
    CatalogueError: without_its_file,
    NotReady: lambda rig: send(rig.service(home=rig.home.root / "nothing"), rig.photo).status_code,
    BundleError: lambda rig: with_a_failing_network(rig, EmbeddingSpaceMismatch("of another network")),
    ServiceOverloaded: lambda rig: send(rig.service(max_buffered_bytes=1024), rig.photo).status_code,
    AnswerTimeout: lambda rig: send(rig.service(request_timeout_seconds=0.0001), rig.photo).status_code,
}


BREAKING: dict[type[Exception], Callable[[Rig, pytest.MonkeyPatch], int]] = {
    StorageFull: partial(on_a_disk_with, errno.ENOSPC),
    StorageReadOnly: partial(on_a_disk_with, errno.EROFS),
    CatalogueBusy: while_another_writes,
    JobQueueError: without_a_queue,
}


@pytest.mark.parametrize("kind", list(TABLE))
def test_every_row_of_the_table_is_reached(rig: Rig, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    status = WAYS[kind](rig) if kind in WAYS else BREAKING[kind](rig, monkeypatch)
    assert status == TABLE[kind].status


def test_what_is_not_in_the_table_is_500(rig: Rig) -> None:
    assert with_a_failing_network(rig, ZeroDivisionError()) == 500


def test_a_home_without_a_bundle_is_served_and_tells_what_to_do(rig: Rig) -> None:
    rig.home.active_pointer.unlink()
    service = rig.service()
    assert service.get("/healthz").status_code == 200
    response = service.get("/readyz")
    assert response.status_code == 503
    assert "voucher" in response.json()["detail"]
    assert service.get("/v1/species").json()["total"] == 6


def test_a_device_that_is_not_there_keeps_the_service_from_starting(rig: Rig) -> None:
    with pytest.raises(DeviceUnavailable):
        build_server(Settings(home=rig.home.root, device="cuda:99"), announce=pytest.fail)
