"""PNG files without metadata."""

import struct
import zlib
from collections.abc import Iterator

from models.containers.orientation import orientation_of
from models.errors import UnreadableImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP")
)
_MAX_PROFILE_BYTES = 1_000_000
"""Pillow refuses the whole file when a compressed PNG profile is larger than 1 MiB."""


def clean_png(data: bytes) -> tuple[bytes, int]:
    """The file without metadata, and its EXIF orientation 1 … 8. Raises `UnreadableImage`."""
    kept = [PNG_SIGNATURE]
    exif, xmp = b"", b""
    for kind, chunk in _png_chunks(data):
        payload = chunk[8:-4]
        if kind in _PNG_KEPT:
            if kind != b"iCCP" or _profile_is_small(payload):
                kept.append(chunk)
        elif kind == b"eXIf":
            exif = exif or payload
        elif kind == b"iTXt" and payload.startswith(b"XML:com.adobe.xmp\0\0"):
            xmp = xmp or payload
    return b"".join(kept), orientation_of(exif, xmp)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and full bytes of each chunk up to IEND; an absent IEND is left to the decoder."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise UnreadableImage("the PNG file is cut off or damaged")
        yield kind, data[position:end]
        if kind == b"IEND":
            return
        position = end


def _profile_is_small(payload: bytes) -> bool:
    """Whether a compressed colour profile unpacks to a sane size."""
    _, _, packed = payload.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        size = len(inflater.decompress(packed[1:], _MAX_PROFILE_BYTES))
    except zlib.error:
        return False
    return size < _MAX_PROFILE_BYTES


def insert_png_exif(data: bytes, exif: bytes) -> bytes:
    """The cleaned file with an EXIF block."""
    chunk = b"eXIf" + exif
    packed = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    after_header = len(PNG_SIGNATURE) + 25
    return data[:after_header] + packed + data[after_header:]
