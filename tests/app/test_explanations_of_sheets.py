"""Heat maps of sheets of one's choice over HTTP, of a small trained network."""

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import numpy as np
import pytest
from explanation_support import PHOTO, identify, jpeg, picture_at
from fastapi.testclient import TestClient
from services import Service, services
from tests_support import noise_picture

import app.explanations
import models.explanation
from app.explanations import Asked, Explainer
from app.refusals import ClientGone
from models.api_keys import NewKey
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.home import Home

EXPLAIN = "/v1/explanations"


@pytest.fixture
def service(tiny_home: Home) -> Iterator[Service]:
    with services(tiny_home) as service:
        yield service


def ask_for(client: TestClient, *sheet_ids: str, photos: tuple[bytes, ...] = (PHOTO,), **more: Any) -> Any:
    files = [("photos", ("p.jpg", photo, "image/jpeg")) for photo in photos]
    return client.post(EXPLAIN, files=files, data={"sheet_ids": list(sheet_ids)} | more)


def sheets_of(tiny_home: Home, count: int) -> list[str]:
    with Catalogue.open(tiny_home) as catalogue:
        return [sheet.sheet_id for sheet, _ in zip(catalogue.sheets(), range(count), strict=False)]


def test_sheets_of_ones_choice_are_explained_in_their_order(service: Service, tiny_home: Home) -> None:
    client = service()
    third, first, second = sheets_of(tiny_home, 3)
    body = ask_for(client, first, f"{second},{third}", first).json()
    assert body["bundle_id"] == client.get("/readyz").json()["bundle_id"]
    assert [each["sheet_id"] for each in body["explanations"]] == [first, second, third]
    for each in body["explanations"]:
        assert each["explanation"]["photo_position"] == 1
        for url in (each["explanation"]["photo_heat_map_url"], each["explanation"]["sheet_heat_map_url"]):
            assert picture_at(client, url).mode == "RGBA"


def test_it_is_the_same_map_as_that_of_an_answer(service: Service, tiny_home: Home) -> None:
    client = service()
    with_answer = identify(client, explain="true", explained_candidates="1")["candidates"][0]["sheets"][0]
    (alone,) = ask_for(client, with_answer["sheet_id"]).json()["explanations"]
    for side in ("photo_heat_map_url", "sheet_heat_map_url"):
        one, other = (
            np.asarray(picture_at(client, e[side])) for e in (with_answer["explanation"], alone["explanation"])
        )
        assert np.array_equal(one, other)


def test_of_several_photos_the_most_similar_is_explained(service: Service, tiny_home: Home) -> None:
    client = service()
    (sheet,) = sheets_of(tiny_home, 1)
    photos = tuple(jpeg(noise_picture(seed, (60, 40))) for seed in (1, 2, 3))
    (found,) = ask_for(client, sheet, photos=photos).json()["explanations"]
    position = found["explanation"]["photo_position"]
    (alone,) = ask_for(client, sheet, photos=(photos[position - 1],)).json()["explanations"]
    one, other = (
        np.asarray(picture_at(client, e["explanation"]["photo_heat_map_url"]), dtype=float) for e in (found, alone)
    )
    assert np.abs(one - other).mean() < 1.0


def test_a_sheet_whose_picture_is_gone_has_no_explanation(service: Service, tiny_home: Home) -> None:
    gone, there = sheets_of(tiny_home, 2)
    with Catalogue.open(tiny_home) as catalogue:
        catalogue.image_store.path(catalogue.get_sheet(gone).image).unlink()
    body = ask_for(service(), gone, there).json()
    assert [each["explanation"] is None for each in body["explanations"]] == [True, False]


@pytest.mark.parametrize(
    ("sheets", "status", "kind"),
    [
        ([], 422, "invalid-form"),
        ([",", " "], 422, "invalid-form"),
        ([f"{n:020}" for n in range(6)], 422, "invalid-form"),
        (["0" * 20], 404, "unknown-sheet"),
    ],
)
def test_what_cannot_be_explained_is_refused(service: Service, sheets: list[str], status: int, kind: str) -> None:
    response = ask_for(service(), *sheets)
    assert (response.status_code, response.json()["type"]) == (status, f"urn:voucher:problem:{kind}")


def test_a_photo_that_cannot_be_read_is_named(service: Service, tiny_home: Home) -> None:
    response = ask_for(service(), *sheets_of(tiny_home, 1), photos=(PHOTO, PHOTO[:300]))
    assert response.status_code == 422
    assert "photo 2" in response.json()["detail"]


def test_where_heat_maps_are_switched_off_they_are_refused(service: Service, tiny_home: Home) -> None:
    client = service(explanations=False)
    response = ask_for(client, *sheets_of(tiny_home, 1))
    assert (response.status_code, response.json()["type"]) == (403, "urn:voucher:problem:explanations-off")
    assert 'data-explanations="false"' in client.get("/").text
    assert 'data-explanations="true"' in service().get("/").text


def test_a_busy_service_says_so(service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = service()
    (sheet,) = sheets_of(tiny_home, 1)

    queue = client.app.state.serving.queue
    monkeypatch.setattr(queue, "_admitted", queue.limit)
    response = ask_for(client, sheet)
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


def test_heat_maps_that_take_too_long_are_given_up(
    service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(models.explanation, "explain", lambda *_: release.wait(10))
    client = service(request_timeout_seconds=0.5)
    response = ask_for(client, *sheets_of(tiny_home, 1))
    release.set()
    assert (response.status_code, response.json()["type"]) == (503, "urn:voucher:problem:answer-timeout")


def test_explaining_counts_as_one_identification(service: Service, tiny_home: Home) -> None:
    with KeyStore.open(tiny_home, create=True) as store:
        _, key = store.create(NewKey("app", daily_quota=1))
    client = service()
    (sheet,) = sheets_of(tiny_home, 1)
    files = [("photos", ("p.jpg", PHOTO, "image/jpeg"))]
    for status in (401, 200, 429):
        headers = {} if status == 401 else {"Authorization": f"Bearer {key}"}
        assert client.post(EXPLAIN, files=files, data={"sheet_ids": sheet}, headers=headers).status_code == status


def test_whoever_waits_for_heat_maps_has_a_place_in_the_queue(
    service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, held = threading.Event(), threading.Semaphore(0)
    real = app.explanations._sheet_pixels

    def slow(*given: Any) -> Any:
        held.release()
        assert release.wait(10)
        return real(*given)

    monkeypatch.setattr(app.explanations, "_sheet_pixels", slow)
    client = service(queue_limit=1)
    (sheet,) = sheets_of(tiny_home, 1)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask_for(client, sheet).status_code))
    asking.start()
    assert held.acquire(timeout=10)
    assert client.app.state.serving.queue.admitted == 1
    assert ask_for(client, sheet).status_code == 503
    assert client.post("/v1/identifications", files={"photos": ("x", PHOTO)}).status_code == 503
    release.set()
    asking.join(10)
    assert answers == [200]
    assert client.app.state.serving.queue.admitted == 0


def test_heat_maps_nobody_waits_for_any_more_are_given_up(
    service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = anyio.Event()

    async def gone() -> None:
        await waiting.wait()

    made: list[str] = []

    async def forever(self: object, asked: Asked, sheet_id: str) -> None:
        made.append(sheet_id)
        waiting.set()
        await anyio.sleep(30)

    monkeypatch.setattr(Explainer, "_made", forever)
    client = service()
    asked = Asked(client.app.state.serving, client.app.state.serving.identifier, None, client_gone=gone)
    with pytest.raises(ClientGone):
        anyio.run(lambda: client.app.state.explainer.explain_sheets(asked, ["a", "b"]))
    assert made == ["a"]
