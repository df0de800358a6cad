"""The image store: content-addressed, private, atomic, and shared by processes."""

import errno
import hashlib
import io
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import image_store
from models.decoding import decode_image
from models.errors import CatalogueError, ImageTooLarge, StorageFull, StorageReadOnly, UnreadableImage, VoucherError
from models.image_store import ImageStore


def picture(seed: int, format_name: str = "JPEG", **options: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_name, **options)
    return buffer.getvalue()


def files_in(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_image_lies_at_the_digest_of_its_stored_bytes(tmp_path: Path) -> None:
    source = tmp_path / "a plant.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "garden of the Meyers"
    source.write_bytes(picture(1, exif=exif))
    store = ImageStore(tmp_path / "images")
    image = store.add(source)
    stored = store.path(image).read_bytes()
    assert image.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert image.stored_sha256 == hashlib.sha256(stored).hexdigest() != image.source_sha256
    assert store.path(image) == store.root / image.stored_sha256[:2] / image.stored_sha256[2:4] / (
        image.stored_sha256 + ".jpg"
    )
    assert (image.width, image.height, image.bytes) == (40, 30, len(stored))
    assert b"Meyers" not in stored
    assert image in store
    assert store.open(image).tobytes() == decode_image(source).tobytes()


@pytest.mark.parametrize(("format_name", "suffix"), [("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".png")])
def test_other_formats_keep_their_pixels(tmp_path: Path, format_name: str, suffix: str) -> None:
    data = picture(2, format_name)
    store = ImageStore(tmp_path)
    image = store.add(data)
    assert image.suffix == suffix
    assert store.open(image).tobytes() == decode_image(data).tobytes()


def test_16_bit_tiff_with_orientation_and_location_is_stored_upright_and_bare(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    exif[0x8825] = {1: "N", 29: "secret place"}
    buffer = io.BytesIO()
    Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50).save(buffer, "TIFF", exif=exif.tobytes())
    store = ImageStore(tmp_path)
    image = store.add(buffer.getvalue())
    assert (image.width, image.height) == (40, 30)
    assert b"secret place" not in store.path(image).read_bytes()
    assert store.open(image).tobytes() == decode_image(buffer.getvalue()).tobytes()


def test_adding_twice_keeps_one_file_untouched(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.add(picture(3))
    before = store.path(image).stat()
    assert store.add(picture(3)) == image
    assert store.path(image).stat().st_ino == before.st_ino
    assert store.path(image).stat().st_mtime_ns == before.st_mtime_ns
    assert len(files_in(tmp_path)) == 1


def test_damaged_stored_file_is_mended_by_adding_again(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.add(picture(4))
    store.path(image).write_bytes(b"bad sector")
    assert image not in store
    store.add(picture(4))
    assert image in store


def test_unusable_files_leave_nothing_behind(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", max_pixels=1000)
    data = picture(5)
    with pytest.raises(UnreadableImage):
        store.add(b"no image")
    with pytest.raises(UnreadableImage):
        store.add(picture(5, "PNG")[:900])
    with pytest.raises(ImageTooLarge, match="the limit is 1,000"):
        store.add(data)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_jpeg_that_is_cut_off_is_found_although_it_is_checked_at_reduced_scale(tmp_path: Path, keep: float) -> None:
    data = picture(6)
    with pytest.raises(UnreadableImage):
        ImageStore(tmp_path).add(data[: int(len(data) * keep)])


def test_missing_stored_file_names_the_remedy(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.add(picture(7))
    store.path(image).unlink()
    assert image not in store
    with pytest.raises(CatalogueError, match="voucher import"):
        store.open(image)


def test_minimum_side_is_passed_on(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (800, 600)).save(buffer, "JPEG")
    store = ImageStore(tmp_path)
    assert store.open(store.add(buffer.getvalue()), minimum_side=70).size == (100, 75)


@pytest.mark.parametrize(
    ("fault", "raised", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageFull, "free some space"),
        (OSError(errno.EROFS, "Read-only file system"), StorageReadOnly, "Read-only file system"),
        (OSError(errno.EIO, "Input/output error"), CatalogueError, "Input/output error; check"),
    ],
)
def test_full_or_forbidden_disk_is_told_and_leaves_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, raised: type[VoucherError], words: str
) -> None:
    store = ImageStore(tmp_path)

    def fail(descriptor: int) -> None:
        raise fault

    monkeypatch.setattr(image_store.os, "fsync", fail)
    with pytest.raises(raised, match=words):
        store.add(picture(8))
    assert files_in(tmp_path) == []


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_store, "_LARGE_PIXELS", 100)
    inside, most = 0, 0
    decode = image_store.decode_clean

    def counted(*args: object, **kwargs: object) -> Image.Image:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return decode(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(image_store, "decode_clean", counted)
    store = ImageStore(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store.add, [picture(seed) for seed in range(8)]))
    assert most == 1
    assert len(files_in(tmp_path)) == 8


def test_sweep_removes_only_old_remains(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.sweep() == 0
    image = store.add(picture(9))
    old, fresh = tmp_path / ".incoming" / "1-old", tmp_path / ".incoming" / "2-fresh"
    for file in (old, fresh):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    assert store.sweep() == 1
    assert fresh.exists()
    assert not old.exists()
    assert image in store


def _add_all(root: Path) -> list[str]:
    return [ImageStore(root).add(picture(seed)).stored_sha256 for seed in range(12)]


def test_processes_add_the_same_images_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_add_all, [tmp_path] * 2)
    assert results[0] == results[1]
    assert len(files_in(tmp_path)) == 12
