"""Heat maps over HTTP, of a small trained network."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explanation_support import PHOTO, URL, explanations, files_below, identify, jpeg, picture_at
from PIL import Image
from services import Service, services
from tests_support import noise_picture

import app.explanations
import models.explanation
from models.catalogue import Catalogue
from models.errors import ServiceOverloaded
from models.explanation import Explanation
from models.home import Home
from models.specimens import Role


@pytest.fixture
def service(tiny_home: Home) -> Iterator[Service]:
    with services(tiny_home) as service:
        yield service


@pytest.mark.parametrize(
    ("fields", "count"),
    [({}, 3), ({"explained_candidates": "1"}, 1), ({"explained_candidates": "5"}, 5), ({"top_k": "2"}, 2)],
)
def test_the_best_sheet_of_the_first_candidates_is_explained(
    service: Service, tiny_home: Home, fields: dict[str, str], count: int
) -> None:
    client = service()
    body = identify(client, explain="true", **fields)
    assert len(explanations(body)) == count
    assert all(c["sheets"][0]["explanation"] for c in body["candidates"][:count])
    for candidate in body["candidates"][:count]:
        sheet = candidate["sheets"][0]
        assert sheet["explanation"]["photo_position"] == 1
        of_photo = picture_at(client, sheet["explanation"]["photo_heat_map_url"])
        assert (of_photo.format, of_photo.mode, of_photo.size) == ("PNG", "RGBA", (480, 320))
        of_sheet = picture_at(client, sheet["explanation"]["sheet_heat_map_url"])
        known = client.get(f"/v1/sheets/{sheet['sheet_id']}").json()
        assert of_sheet.width / of_sheet.height == pytest.approx(known["width"] / known["height"], rel=0.01)
        for heat in (of_photo, of_sheet):
            alpha = np.asarray(heat)[..., 3]
            assert alpha.max() > 150
            assert alpha.min() == 0
    assert len(files_below(tiny_home.explanations)) == 1 + 2 * count


@pytest.mark.parametrize("fields", [{}, {"explain": "false"}, {"explained_candidates": "5"}])
def test_without_being_asked_nothing_is_explained_or_written(
    service: Service, tiny_home: Home, fields: dict[str, str]
) -> None:
    assert explanations(identify(service(), **fields)) == []
    assert not tiny_home.explanations.exists()


def test_answers_are_otherwise_the_same(service: Service) -> None:
    client = service()
    plain, explained = identify(client), identify(client, explain="true")
    for body in (plain, explained):
        for candidate in body["candidates"]:
            for sheet in candidate["sheets"]:
                sheet.pop("explanation")
    assert plain["candidates"] == explained["candidates"]
    assert plain["decision"] == explained["decision"]


def test_without_sheets_there_is_nothing_to_explain(service: Service, tiny_home: Home) -> None:
    body = identify(service(), explain="true", include_sheets="false")
    assert [c["sheets"] for c in body["candidates"]] == [[]] * 5
    assert not tiny_home.explanations.exists()


@pytest.mark.parametrize(
    "fields",
    [{"explain": "perhaps"}, {"explained_candidates": "0"}, {"explained_candidates": "6"}, {"explain": ["1", "0"]}],
)
def test_a_wrong_field_is_named(service: Service, fields: dict[str, Any]) -> None:
    response = service().post(URL, files=[("photos", ("p", PHOTO, "image/jpeg"))], data=fields)
    assert response.status_code == 422
    assert next(iter(fields)) in response.json()["detail"]


def by_brightness(encoder: Any, metric: Any, photo: np.ndarray, sheets: list[np.ndarray]) -> list[Explanation]:
    """In place of the network's view: bright places count."""

    def places(pixels: np.ndarray) -> np.ndarray:
        grey = pixels.mean(axis=0)
        blocks = grey.reshape(6, grey.shape[0] // 6, 6, grey.shape[1] // 6).mean(axis=(1, 3))
        return np.asarray(blocks - np.median(blocks), dtype=np.float32)

    return [Explanation(places(photo), places(sheet), 0.5) for sheet in sheets]


# EXIF orientation, and how the upright picture is to be stored for it.
TURNS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_map_belongs_to_the_upright_photo(
    service: Service, monkeypatch: pytest.MonkeyPatch, orientation: int, corner: tuple[int, int]
) -> None:
    """A marker in a corner of what a centre crop leaves of a tall photo."""
    monkeypatch.setattr(models.explanation, "explain", by_brightness)
    width, height = 96, 160
    photo = Image.new("RGB", (width, height), (30, 60, 30))
    # The network sees nine tenths of the width, and a square of that in the middle of the height.
    seen = 0.9 * width
    left, top = (width - seen) / 2, (height - seen) / 2
    x, y = (round(start + (seen - 16) * which) for start, which in zip((left, top), corner, strict=True))
    photo.paste((255, 255, 255), (x, y, x + 16, y + 16))
    stored = photo if TURNS[orientation] is None else photo.transpose(TURNS[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    client = service()
    (found,) = explanations(identify(client, jpeg(stored, exif=exif), explain="true", explained_candidates="1"))
    heat = picture_at(client, found["photo_heat_map_url"])
    assert heat.size == (288, 480)
    alpha = np.asarray(heat)[..., 3].astype(float)
    down, across = np.nonzero(alpha > 0.8 * alpha.max())
    assert across.mean() / 3 == pytest.approx(x + 8, abs=6)
    assert down.mean() / 3 == pytest.approx(y + 8, abs=6)
    # What the crop took away was not seen.
    assert not alpha[: int(3 * top) - 1].any()
    assert not alpha[-(int(3 * top) - 1) :].any()


def test_of_several_photos_the_one_most_like_the_sheet_is_explained(service: Service) -> None:
    client = service()
    identifier = client.app.state.serving.identifier
    photos = [jpeg(noise_picture(seed, (60, 40 + 5 * seed))) for seed in range(4)]
    body = identify(client, *photos, explain="true", explained_candidates="5")
    pixels = np.stack([identifier.preprocess(identifier.decode(p, max_pixels=10**6)) for p in photos])
    gallery = identifier.bundle.gallery
    of_photos = gallery.metric.apply(identifier.encode(pixels).embeddings, Role.FIELD)
    positions = set()
    for candidate in body["candidates"]:
        sheet = candidate["sheets"][0]
        of_sheet = gallery.metric.apply(gallery.vectors_for([sheet["sheet_id"]]), Role.SHEET)[0]
        position = sheet["explanation"]["photo_position"]
        assert position == 1 + int(np.argmax(of_photos @ of_sheet))
        heat = picture_at(client, sheet["explanation"]["photo_heat_map_url"])
        assert heat.height / heat.width == pytest.approx((40 + 5 * (position - 1)) / 60, rel=0.01)
        positions.add(position)
    assert len(positions) > 1


HOSTILE = [
    "/v1/explanations/{id}/photo-2.png",
    "/v1/explanations/{id}/secret.png",
    "/v1/explanations/{id}/photo-1.jpg",
    "/v1/explanations/{id}/photo-1",
    "/v1/explanations/{id}/..%2F..%2Factive.png",
    "/v1/explanations/{id}/photo-1.png.png",
    "/v1/explanations/{id}/photo-1%00.png",
    "/v1/explanations/{id}/%2e%2e/photo-1.png",
    "/v1/explanations/{ID}/photo-1.png",
    "/v1/explanations/{id}0/photo-1.png",
    "/v1/explanations/%2e%2e/photo-1.png",
    "/v1/explanations/..%2f{id}/photo-1.png",
    "/v1/explanations/" + "0" * 32 + "/photo-1.png",
    "/v1/explanations/" + "a" * 5000 + "/photo-1.png",
    "/v1/explanations/{id}/",
    "/v1/explanations/{id}",
    "/v1/explanations/",
]


def test_no_other_address_leads_anywhere(service: Service, tiny_home: Home) -> None:
    client = service()
    found = explanations(identify(client, explain="true", explained_candidates="1"))[0]
    identity = found["photo_heat_map_url"].split("/")[3]
    folder = tiny_home.explanations / identity
    expires = folder.stat().st_mtime
    (folder / "secret.png").write_bytes(b"x")
    os.utime(folder, (expires, expires))
    (tiny_home.root / "active.png").write_bytes(b"x")
    for address in HOSTILE:
        response = client.get(address.format(id=identity, ID=identity.upper()))
        assert response.status_code == 404, address
        assert response.headers["content-type"] == "application/problem+json"
    assert client.get(found["photo_heat_map_url"]).status_code == 200


def test_they_may_be_kept_by_the_browser_for_as_long_as_they_last_and_by_nobody_between(service: Service) -> None:
    client = service(explanation_seconds=600)
    (found,) = explanations(identify(client, explain="true", explained_candidates="1"))
    headers = client.get(found["sheet_heat_map_url"]).headers
    assert headers["content-type"] == "image/png"
    private, age = headers["cache-control"].split(", ")
    assert private == "private"
    assert 500 < int(age.removeprefix("max-age=")) <= 600
    assert headers["x-content-type-options"] == "nosniff"


def test_they_expire(service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = service(explanation_seconds=60)
    (found,) = explanations(identify(client, explain="true", explained_candidates="1"))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    response = client.get(found["photo_heat_map_url"])
    assert response.status_code == 404
    assert response.json()["type"] == "urn:voucher:problem:unknown-explanation"
    assert "POST /v1/explanations" in response.json()["detail"]


def test_a_running_service_removes_what_expired(
    service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.explanations, "_SWEEP_SECONDS", 0.05)
    identify(service(explanation_seconds=60), explain="true")
    time.sleep(0.2)
    assert files_below(tiny_home.explanations)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    until = time.monotonic() + 10
    while files_below(tiny_home.explanations) and time.monotonic() < until:
        time.sleep(0.02)
    assert not files_below(tiny_home.explanations)


def test_each_service_over_a_home_serves_what_another_made(service: Service) -> None:
    one, other = service(), service()
    (found,) = explanations(identify(one, explain="true", explained_candidates="1"))
    for url in (found["photo_heat_map_url"], found["sheet_heat_map_url"]):
        assert other.get(url).content == one.get(url).content


def test_two_answers_share_no_address(service: Service) -> None:
    client = service()
    urls = {
        url
        for _ in range(2)
        for found in explanations(identify(client, explain="true"))
        for url in (found["photo_heat_map_url"], found["sheet_heat_map_url"])
    }
    assert len(urls) == 12


@pytest.mark.parametrize("break_it", ["damage", "remove"])
def test_an_unreadable_sheet_is_not_explained_and_the_others_are(
    service: Service, tiny_home: Home, caplog: pytest.LogCaptureFixture, break_it: str
) -> None:
    client = service()
    first = identify(client)["candidates"][0]["sheets"][0]["sheet_id"]
    with Catalogue.open(tiny_home) as catalogue:
        path = catalogue.image_store.path(catalogue.get_sheet(first).image)
    if break_it == "damage":
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        body = identify(client, explain="true")
    assert body["candidates"][0]["sheets"][0]["explanation"] is None
    assert len(explanations(body)) == 2
    assert f"sheet {first} is not explained" in caplog.text
    for found in explanations(body):
        assert client.get(found["photo_heat_map_url"]).status_code == 200


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*given: object, **named: object) -> None:
        raise error

    return fail


def test_a_full_disk_costs_the_heat_maps_and_not_the_answer(
    service: Service, tiny_home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = service()
    monkeypatch.setattr(Path, "write_bytes", fail_with(OSError(28, "No space left on device")))
    with caplog.at_level(logging.WARNING):
        body = identify(client, explain="true")
    assert explanations(body) == []
    assert len(body["candidates"]) == 5
    assert "heat maps cannot be kept" in caplog.text
    assert not files_below(tiny_home.explanations)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ServiceOverloaded("full"), MemoryError(), KeyError()])
def test_a_failing_network_costs_the_heat_maps_and_not_the_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    client = service()
    monkeypatch.setattr(models.explanation, "explain", fail_with(error))
    with caplog.at_level(logging.WARNING):
        body = identify(client, explain="true")
    assert explanations(body) == []
    assert len(body["candidates"]) == 5
    assert "is not explained" in caplog.text


def test_what_takes_too_long_is_left_out(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = service()
    monkeypatch.setattr(client.app.state.explainer, "_timeout_seconds", 0.3)
    real, calls = models.explanation.explain, []

    def slow_from_the_second_on(*given: Any) -> list[Explanation]:
        calls.append(given)
        time.sleep(0.5 * (len(calls) > 1))
        return real(*given)

    monkeypatch.setattr(models.explanation, "explain", slow_from_the_second_on)
    with caplog.at_level(logging.WARNING):
        body = identify(client, explain="true")
    assert len(explanations(body)) == 1
    assert "1 of 3 sheets were explained in time" in caplog.text


def test_an_operator_can_switch_it_off(service: Service, tiny_home: Home) -> None:
    assert explanations(identify(service(explanations=False), explain="true")) == []
    assert not tiny_home.explanations.exists()


def test_what_is_stored_holds_no_pixel_of_the_photo(service: Service, tiny_home: Home) -> None:
    """The colours are those of the map alone, whatever the photo is."""
    client = service()
    identify(client, jpeg(Image.effect_noise((200, 200), 100).convert("RGB")), explain="true")
    for path in tiny_home.explanations.rglob("*.png"):
        pixels = np.asarray(Image.open(path)).reshape(-1, 4)
        assert len(np.unique(pixels, axis=0)) <= 40
