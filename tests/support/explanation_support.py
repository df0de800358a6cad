"""Services over a small trained network, photos for them, and heat maps taken from their answers."""

import io
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image
from tests_support import noise_picture

URL = "/v1/identifications"


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
