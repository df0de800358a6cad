"""JPEG files without metadata."""

import re
import struct

from models.containers.orientation import orientation_of
from models.errors import UnreadableImage

_ENTROPY_END = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
_MAX_SCANS = 64
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))


def clean_jpeg(data: bytes) -> tuple[bytes, int]:
    """The file without metadata, and its EXIF orientation 1 … 8. Raises `UnreadableImage`."""
    kept = [b"\xff\xd8"]
    exif, xmp = b"", b""
    position, scans = 2, 0
    while True:
        marker, position = _next_jpeg_marker(data, position)
        if marker == 0xD9:
            kept.append(b"\xff\xd9")
            break
        if marker in _STANDALONE:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        if end < position + 2 or end > len(data):
            raise UnreadableImage("the JPEG file is cut off or damaged")
        payload = data[position + 2 : end]
        if marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:  # each scan costs a pass over all pixels, and only a few bytes
                raise UnreadableImage(f"the JPEG file has more than {_MAX_SCANS} scans")
            following = _ENTROPY_END.search(data, end)
            end = following.start() if following else len(data)
            kept.append(b"\xff\xda" + data[position:end])
            if not following:  # cut off: left to the decoder, which says so
                break
        elif marker == 0xE1 and payload.startswith(b"Exif\0\0"):
            exif = exif or payload
        elif marker == 0xE1 and payload.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = xmp or payload
        elif segment := _kept_jpeg_segment(marker, payload):
            kept.append(segment)
        position = end
    return b"".join(kept), orientation_of(exif, xmp)


def _next_jpeg_marker(data: bytes, position: int) -> tuple[int, int]:
    """The next marker's code and the position behind it; stray bytes before it are skipped, as libjpeg does."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise UnreadableImage("the JPEG file is cut off")
        if data[position + 1] not in (0x00, 0xFF):
            return data[position + 1], position + 2
        position += 1


def _kept_jpeg_segment(marker: int, payload: bytes) -> bytes:
    """The segment as it is kept, empty when it is metadata."""
    if marker == 0xE0:
        if not payload.startswith(b"JFIF\0") or len(payload) < 14:
            return b""
        payload = payload[:12] + b"\0\0"  # without its thumbnail
    elif marker == 0xEE:
        if not payload.startswith(b"Adobe") or len(payload) < 12:
            return b""
        payload = payload[:12]
    elif marker == 0xE2:
        if not payload.startswith(b"ICC_PROFILE\0"):
            return b""
    elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
        return b""
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def insert_jpeg_exif(data: bytes, exif: bytes) -> bytes:
    """The cleaned file with an EXIF block."""
    payload = b"Exif\0\0" + exif
    at = 2
    if data[2:4] == b"\xff\xe0":  # JFIF demands to be first
        at = 4 + int.from_bytes(data[4:6], "big")
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[at:]
