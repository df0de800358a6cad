"""The EXIF orientation: read from hostile bytes, and written alone.

A general EXIF parser can be made to read gigabytes, and only one tag is wanted here.
"""

import re
import struct


def orientation_of(exif: bytes, xmp: bytes) -> int:
    """Orientation 1 … 8 by EXIF, else by XMP, which some programs write instead, else 1 (upright)."""
    return _by_exif(exif) or _by_xmp(xmp) or 1


def minimal_exif(orientation: int) -> bytes:
    """An EXIF block (without its ``Exif`` prefix) that holds the orientation and nothing else."""
    # One directory at offset 8 with one entry: tag 0x0112, type SHORT, one value; no next directory.
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _by_exif(exif: bytes) -> int | None:
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return None
    (offset,) = struct.unpack_from(f"{order}I", exif, 4)
    if offset + 2 > len(exif):
        return None
    (entries,) = struct.unpack_from(f"{order}H", exif, offset)
    for position in range(offset + 2, min(offset + 2 + 12 * entries, len(exif) - 11), 12):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, position)
        if tag == 0x0112:
            return value if kind == 3 and count == 1 and 1 <= value <= 8 else None
    return None


def _by_xmp(xmp: bytes) -> int | None:
    found = re.search(rb'tiff:Orientation(?:\s*=\s*["\']|>)([1-8])["\'<]', xmp)
    return int(found[1]) if found else None
