"""Photos that are sent leave nothing on disk, unless the operator wants them kept."""

import io
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageCms
from services import Service, services
from tests_support import noise_picture

from app.kept_photos import KeptPhotos, kept_photos_for
from app.main import create_app
from app.settings import Settings
from models.home import Home
from models.retrieval import Candidate, DecisionSource, GateDecision, Identification
from models.taxonomy import Species, SpeciesId

URL = "/v1/identifications"

ANSWER = Identification(
    (Candidate(Species(SpeciesId("7"), "Viola odorata L."), 0.75, 0.5, True, True),),
    GateDecision(DecisionSource.FUSION, "Both.", {}),
    "index-1",
    1,
)


@pytest.fixture
def service(tiny_home: Home) -> Iterator[Service]:
    with services(tiny_home) as make:
        yield make


def jpeg(seed: int = 1, size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    packed = io.BytesIO()
    noise_picture(seed, size).save(packed, "JPEG", quality=95, **options)
    return packed.getvalue()


def telltale(size: tuple[int, int] = (60, 40)) -> bytes:
    """A JPEG that lies on its side, with a position, an owner, a colour profile and a comment."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0xA430] = "OWNER-NAME"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0), 29: "GPS-DATE"})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return jpeg(size=size, exif=exif, icc_profile=profile, comment=b"COMMENT-TEXT")


def send(client: TestClient, *photos: bytes, **headers: str) -> Any:
    files = [("photos", ("IMG-holiday.jpg", photo, "image/jpeg")) for photo in photos]
    return client.post(URL, files=files, headers=headers)


def state_of(*folders: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file; SQLite's shared memory is none that says anything."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.endswith(("-shm", "-wal")):
                status = path.stat()
                found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def test_when_not_asked_for_no_file_below_the_home_or_the_temporary_folder_changes(
    service: Service, tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    client = service()
    assert send(client, jpeg()).status_code == 200
    before = state_of(tiny_home.root, temporary)
    assert len(before) > 10
    # More than a body that frameworks hold in memory.
    large = jpeg(2, (2000, 1500))
    assert len(large) > 2**21
    assert send(client, telltale()).status_code == 200
    assert send(client, *(jpeg(seed) for seed in range(5))).status_code == 200
    assert send(client, large).status_code == 200
    assert send(client, large[: len(large) // 2]).status_code == 422
    assert send(client, b"GIF89a").status_code == 415
    assert send(client, *(jpeg(seed) for seed in range(6))).status_code == 422
    monkeypatch.setattr(client.app.state.serving.identifier, "answer", lambda *a, **k: 1 / 0)
    assert send(client, jpeg()).status_code == 500
    assert state_of(tiny_home.root, temporary) == before
    assert not tiny_home.received.exists()


def kept(home: Home) -> list[tuple[dict[str, Any], Path]]:
    """What is noted of each identification, and its folder."""
    notes = sorted(home.received.glob("*/*/identification.json"), key=lambda p: p.stat().st_mtime_ns)
    return [(json.loads(path.read_text()), path.parent) for path in notes]


def test_photos_are_kept_with_their_answer(service: Service, tiny_home: Home) -> None:
    client = service(keep_photos=True)
    bodies = [send(client, jpeg()).json(), send(client, jpeg(2), jpeg(3, (80, 50))).json()]
    assert send(client, b"\xff\xd8\xff cut off").status_code == 422
    client.app.state.kept_photos.stop()
    found = kept(tiny_home)
    assert len(found) == 2
    for (note, folder), body, count in zip(found, bodies, (1, 2), strict=True):
        assert note["request_id"] == body["identification_id"]
        assert note["bundle_id"] == body["bundle_id"]
        assert note["outcome"] == body["outcome"]
        assert [c["species_id"] for c in note["candidates"]] == [c["species_id"] for c in body["candidates"]]
        assert note["candidates"][0]["probability"] == pytest.approx(body["candidates"][0]["probability"])
        assert {p.name for p in folder.iterdir()} == {"identification.json", *(f"{n + 1}.jpg" for n in range(count))}
        assert folder.parent.name == note["received_on"]
        assert set(note) == {"request_id", "received_on", "bundle_id", "outcome", "candidates", "photos"}
    second = Image.open(found[1][1] / "2.jpg")
    assert second.size == (80, 50) == (found[1][0]["photos"][1]["width"], found[1][0]["photos"][1]["height"])
    sent = Image.open(io.BytesIO(jpeg(3, (80, 50))))
    difference = np.asarray(second.convert("L"), dtype=int) - np.asarray(sent.convert("L"), dtype=int)
    assert np.abs(difference).mean() < 5


def test_nothing_that_tells_of_the_sender_is_kept(service: Service, tiny_home: Home) -> None:
    client = service(keep_photos=True)
    headers = {"User-Agent": "AGENT-NAME", "X-Forwarded-For": "203.0.113.77", "Authorization": "Bearer SECRET-KEY"}
    assert send(client, telltale(), **headers).status_code == 200
    client.app.state.kept_photos.stop()
    ((note, folder),) = kept(tiny_home)
    stored = (folder / "1.jpg").read_bytes()
    for word in (b"OWNER-NAME", b"GPS-DATE", b"COMMENT-TEXT", b"Exif", b"ICC_PROFILE", b"http"):
        assert word not in stored
    picture = Image.open(io.BytesIO(stored))
    assert picture.size == (40, 60)  # upright
    assert not picture.getexif()
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    text = json.dumps(note)
    for word in ("AGENT-NAME", "203.0.113.77", "SECRET-KEY", "holiday", "testclient"):
        assert word not in text
    assert (tiny_home.received.stat().st_mode & 0o077) == 0


@pytest.fixture
def made() -> Iterator[Callable[..., KeptPhotos]]:
    keepers: list[KeptPhotos] = []

    def make(folder: Path, *, most_bytes: int = 10**9, start: bool = True) -> KeptPhotos:
        keeper = KeptPhotos(folder, most_bytes=most_bytes, max_pixels=10**7)
        keepers.append(keeper)
        if start:
            keeper.start()
        return keeper

    yield make
    for keeper in keepers:
        keeper.stop()


def test_the_folder_never_holds_more_than_it_may(
    made: Callable[..., KeptPhotos], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for run in range(2):  # the second begins with what is there
            keeper = made(tmp_path, most_bytes=20_000)
            for number in range(10):
                keeper.keep([jpeg(number)], ANSWER, f"request-{run}-{number}")
            keeper.stop()
            held = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
            assert 12_000 < held <= 20_000
    assert "VOUCHER_KEPT_PHOTOS_MAX_BYTES" in caplog.text


def test_several_processes_together_hold_no_more(made: Callable[..., KeptPhotos], tmp_path: Path) -> None:
    keepers = [made(tmp_path, most_bytes=20_000) for _ in range(4)]
    for number in range(12):
        for which, keeper in enumerate(keepers):
            keeper.keep([jpeg(number)], ANSWER, f"request-{which}-{number}")
            time.sleep(0.01)
    for keeper in keepers:
        keeper.stop()
    held = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    # Those that write at the same moment may each write once more.
    assert 12_000 < held <= 20_000 + 3 * 4_000


def test_a_photo_that_cannot_be_written_is_told_and_the_next_is_kept(
    made: Callable[..., KeptPhotos], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = made(tmp_path)
    real, failures = Path.write_bytes, [OSError(28, "No space left on device"), ValueError("surprise")]

    def fail_twice(self: Path, content: bytes) -> int:
        if failures:
            raise failures.pop(0)
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", fail_twice)
    with caplog.at_level(logging.WARNING):
        for name in ("full", "odd", "good"):
            keeper.keep([jpeg()], ANSWER, name)
        keeper.keep([b"not an image"], ANSWER, "damaged")
        keeper.stop()
    assert "photos of request full are not kept: [Errno 28]" in caplog.text
    assert "photos of request odd are not kept" in caplog.text
    assert "photos of request damaged are not kept" in caplog.text
    (note,) = tmp_path.glob("*/*/identification.json")
    assert json.loads(note.read_text())["request_id"] == "good"
    assert not list(tmp_path.glob("*/.staging*"))


def test_when_too_many_wait_the_rest_is_not_kept_and_nobody_waits(
    made: Callable[..., KeptPhotos], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = made(tmp_path, start=False)
    done = threading.Event()

    def keep_many() -> None:
        for number in range(40):
            keeper.keep([jpeg()], ANSWER, str(number))
        done.set()

    with caplog.at_level(logging.WARNING):
        threading.Thread(target=keep_many, daemon=True).start()
        assert done.wait(5)
    assert 20 < caplog.text.count("too many are waiting") < 40
    keeper.start()
    keeper.stop()
    assert 10 <= len(list(tmp_path.glob("*/*/1.jpg"))) <= 20


def test_what_waits_is_bounded_in_bytes(
    made: Callable[..., KeptPhotos], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = made(tmp_path, start=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            keeper.keep([bytes(20 * 2**20)], ANSWER, "large")
    assert caplog.text.count("too many are waiting") == 1
    keeper.start()


def test_what_waits_is_written_before_the_service_ends(tiny_home: Home) -> None:
    settings = Settings(home=tiny_home.root, device="cpu", worker=False, keep_photos=True)
    with TestClient(create_app(settings)) as client:
        for seed in range(4):
            assert send(client, jpeg(seed)).status_code == 200
    assert len(kept(tiny_home)) == 4


def test_it_is_off_unless_it_is_set(tmp_path: Path) -> None:
    assert kept_photos_for(Settings(home=tmp_path)) is None
    assert kept_photos_for(Settings(home=tmp_path, keep_photos=True)) is not None
    assert list(tmp_path.iterdir()) == []
