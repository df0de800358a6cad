"""Services over a small trained network, photos for them, and heat maps taken from their answers."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image
from tests_support import noise_picture

from app.main import create_app
from app.settings import Settings
from models.home import Home

URL = "/v1/identifications"
Service = Callable[..., TestClient]


@contextmanager
def services(home: Home) -> Iterator[Service]:
    """Makes services over one home that a test may change."""
    opened: list[TestClient] = []

    def make(**given: object) -> TestClient:
        settings = Settings(home=home.root, device="cpu", worker=False, **given)
        client = TestClient(create_app(settings), raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=95, **options)
    return packed.getvalue()


PHOTO = jpeg(noise_picture(1, (60, 40)))


def identify(client: TestClient, *photos: bytes, **fields: str) -> dict[str, Any]:
    files = [("photos", ("p.jpg", photo, "image/jpeg")) for photo in photos or (PHOTO,)]
    response = client.post(URL, files=files, data=fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def explanations(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the best sheet of each candidate, where there is one; no other sheet has any."""
    assert all(s["explanation"] is None for c in body["candidates"] for s in c["sheets"][1:])
    return [found for c in body["candidates"] if c["sheets"] and (found := c["sheets"][0]["explanation"])]


def picture_at(client: TestClient, url: str) -> Image.Image:
    response = client.get(url)
    assert response.status_code == 200, response.text
    picture = Image.open(io.BytesIO(response.content))
    picture.load()
    return picture


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")} if folder.exists() else set()
