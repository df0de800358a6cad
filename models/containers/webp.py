"""WebP files without metadata."""

import struct
from collections.abc import Iterator

from models.containers.orientation import orientation_of
from models.errors import UnreadableImage

_WEBP_KEPT = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP"))
_WEBP_EXIF, _WEBP_XMP, _WEBP_ANIMATION = 0x08, 0x04, 0x02


def clean_webp(data: bytes) -> tuple[bytes, int]:
    """The file without metadata, and its EXIF orientation 1 … 8. Raises `UnreadableImage`."""
    kept: list[bytes] = []
    exif, xmp = b"", b""
    for kind, payload in _webp_chunks(data):
        if kind == b"VP8X":
            if len(payload) < 10:
                raise UnreadableImage("the WebP file is damaged")
            payload = bytes((payload[0] & ~(_WEBP_EXIF | _WEBP_XMP),)) + payload[1:10]
        if kind in _WEBP_KEPT:
            kept.append(_webp_chunk(kind, payload))
        elif kind == b"EXIF":
            exif = exif or payload
        elif kind == b"XMP ":
            xmp = xmp or payload
    # EXIF without an extended header does not count.
    extended = bool(kept) and kept[0].startswith(b"VP8X")
    return _webp_file(kept), orientation_of(exif, xmp) if extended else 1


def is_animated(data: bytes) -> bool:
    """Whether a WebP file holds more than a still picture, so that it cannot be cleaned in place."""
    return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & _WEBP_ANIMATION)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    end_of_file = 8 + int.from_bytes(data[4:8], "little")
    if end_of_file > len(data) + 1:  # the last padding byte is often forgotten
        raise UnreadableImage("the WebP file is cut off")
    position = 12
    while position + 8 <= end_of_file:
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        if end > len(data):
            raise UnreadableImage("the WebP file is cut off or damaged")
        yield kind, data[position + 8 : end]
        position = end + (length & 1)


def _webp_chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) & 1)


def _webp_file(chunks: list[bytes]) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def insert_webp_exif(data: bytes, exif: bytes) -> bytes:
    """The cleaned file with an EXIF block."""
    chunks = [_webp_chunk(kind, payload) for kind, payload in _webp_chunks(data)]
    extended = bytearray(chunks[0])
    extended[8] |= _WEBP_EXIF
    return _webp_file([bytes(extended), *chunks[1:], _webp_chunk(b"EXIF", exif)])
