"""Metadata removal: nothing private stays, not one pixel changes."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from models.decoding import decode_image
from models.errors import UnreadableImage
from models.metadata_removal import ImageFormat, detect_format, remove_metadata

SECRET = b"48.137154-11.576124"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:GPSLatitude>' + SECRET + b"</exif:GPSLatitude></x:xmpmeta>"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))


def exif_with_gps(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = SECRET.decode()
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 13.7), 29: SECRET.decode()}
    return exif


def encoded(format_name: str, orientation: int = 1, **options: object) -> bytes:
    buffer = io.BytesIO()
    options = {"exif": exif_with_gps(orientation).tobytes(), "xmp": XMP, "icc_profile": PROFILE} | options
    if format_name == "WEBP":
        options["lossless"] = True
    if format_name == "PNG":
        options.pop("xmp")
    photo().save(buffer, format_name, **options)
    return buffer.getvalue()


def with_png_text(data: bytes) -> bytes:
    chunks = b"".join(
        struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
        for kind, payload in (
            (b"tEXt", b"Location\0" + SECRET),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
            (b"tIME", b"\x07\xe9\1\1\1\1\1"),
        )
    )
    return data[:33] + chunks + data[33:] + SECRET


def original(format_name: str, orientation: int) -> bytes:
    data = encoded(format_name, orientation)
    match format_name:
        case "PNG":
            return with_png_text(data)
        case "JPEG":
            comment = b"\xff\xfe" + struct.pack(">H", len(SECRET) + 2) + SECRET
            panorama = b"\xff\xe2" + struct.pack(">H", len(SECRET) + 6) + b"MPF\0" + SECRET
            maker = b"\xff\xed" + struct.pack(">H", len(SECRET) + 2) + SECRET
            return data[:2] + comment + panorama + maker + data[2:] + data + SECRET
    return data


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_no_private_byte_is_left_and_no_pixel_changes(format_name: str, orientation: int) -> None:
    data = original(format_name, orientation)
    assert SECRET in data
    clean = remove_metadata(data)
    stored = clean.with_orientation()
    assert clean.orientation == orientation
    assert clean.removable
    for kept in (clean.data, stored):
        assert SECRET not in kept
        for trace in (b"GPS", b"xmpmeta", b"MPF\0", b"tEXt", b"tIME", b"XMP "):
            assert trace not in kept
    with Image.open(io.BytesIO(stored)) as opened:
        tags = dict(opened.getexif())
        assert tags == ({} if orientation == 1 else {0x0112: orientation})
        assert opened.info.get("icc_profile") == PROFILE
    assert decode_image(stored).tobytes() == decode_image(data).tobytes()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_cleaning_twice_changes_nothing(format_name: str, orientation: int) -> None:
    once = remove_metadata(original(format_name, orientation)).with_orientation()
    assert remove_metadata(once).with_orientation() == once


def test_thumbnail_inside_the_jfif_header_is_dropped() -> None:
    data = encoded("JPEG")
    size = int.from_bytes(data[4:6], "big")
    thumbnail = b"\x02\x02" + b"\x11" * 12
    header = data[6 : 6 + size - 2][:12] + thumbnail
    changed = data[:2] + b"\xff\xe0" + struct.pack(">H", len(header) + 2) + header + data[4 + size :]
    assert b"\x11" * 12 not in remove_metadata(changed).data


@pytest.mark.parametrize(
    ("marker", "payload"),
    [(0xE0, b"JFXX\0\x10" + SECRET), (0xEE, b"Adobe"), (0xEE, b"Ducky" + SECRET), (0xE2, b"FPXR\0" + SECRET)],
)
def test_foreign_jpeg_segments_are_dropped(marker: int, payload: bytes) -> None:
    data = encoded("JPEG")
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
    assert remove_metadata(data[:2] + segment + data[2:]).data == remove_metadata(data).data


def test_orientation_is_inserted_behind_the_jfif_header_or_first_without_one() -> None:
    data = encoded("JPEG", 6)
    stored = remove_metadata(data).with_orientation()
    assert stored[2:4] == b"\xff\xe0"
    size = int.from_bytes(stored[4:6], "big")
    headless = remove_metadata(data[:2] + data[data.index(b"\xff\xe1") :]).with_orientation()
    assert headless[2:4] == b"\xff\xe1"
    assert stored[4 + size : 4 + size + 2] == b"\xff\xe1"


def test_simple_webp_ignores_an_exif_chunk_that_nothing_announces() -> None:
    buffer = io.BytesIO()
    photo().save(buffer, "WEBP", lossless=True)
    exif = exif_with_gps(6).tobytes()
    chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) & 1)
    body = buffer.getvalue()[8:] + chunk
    clean = remove_metadata(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert clean.orientation == 1
    assert SECRET not in clean.data


def test_tiff_and_animated_webp_must_be_written_anew() -> None:
    assert not remove_metadata(encoded("TIFF")).removable
    buffer = io.BytesIO()
    photo().save(buffer, "WEBP", save_all=True, append_images=[photo().rotate(90)])
    assert not remove_metadata(buffer.getvalue()).removable


def test_oversized_png_profile_is_dropped() -> None:
    payload = b"p\0\0" + zlib.compress(b"\0" * 2_000_000)
    chunk = struct.pack(">I", len(payload)) + b"iCCP" + payload
    chunk += struct.pack(">I", zlib.crc32(b"iCCP" + payload))
    plain = encoded("PNG", icc_profile=None)
    assert b"iCCP" not in remove_metadata(plain[:33] + chunk + plain[33:]).data
    garbled = chunk.replace(payload, b"p\0\0" + b"\x01" * (len(payload) - 3))
    assert b"iCCP" not in remove_metadata(plain[:33] + garbled + plain[33:]).data


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1\xff\xff",
        b"\xff\xd8\xff\xe1\x00\x00",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR",
        b"RIFF\x16\0\0\0WEBPVP8X\x05\0\0\0aaaaa\0\0\0",
        b"RIFF\x10\0\0\0WEBPVP8 \xff\0\0\0aaaa",
    ],
)
def test_damaged_containers_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode_image(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xd8\xff\xe0", ImageFormat.JPEG),
        (b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
        (b"RIFF\0\0\0\0WEBP", ImageFormat.WEBP),
        (b"II*\0", ImageFormat.TIFF),
        (b"MM\0+", ImageFormat.TIFF),
    ],
)
def test_format_is_told_by_the_first_bytes(data: bytes, expected: ImageFormat) -> None:
    assert detect_format(data) is expected
    assert expected.suffix in (".jpg", ".png", ".webp", ".tif")


@given(
    head=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8X", b"II*\0"]),
    body=st.binary(max_size=300),
)
def test_arbitrary_bytes_are_cleaned_or_refused(head: bytes, body: bytes) -> None:
    with contextlib.suppress(UnreadableImage):
        remove_metadata(head + body).with_orientation()
