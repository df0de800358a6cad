"""Photos in a ZIP archive from outside, read one after the other. Nothing is ever written by the name it has there."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from models.errors import ImageTooLarge, InvalidBatch, InvalidImage, UnreadableImage

MEBIBYTE = 1024 * 1024

_MAX_NAME = 500
_END = b"PK\x05\x06"
_END_BYTES = 22
_LONGEST_COMMENT = 0xFFFF
_ZIP64_LOCATOR = b"PK\x06\x07"
_ENTRY_BYTES = 1024
"""Of the directory for each entry, on average; its fixed part has 46."""
_RATIO = 100
_RATIO_FROM = MEBIBYTE
"""Images are compressed already: what grows a hundredfold to more than a megabyte is no photo."""
_CHUNK = 256 * 1024
_LITTER = ("__MACOSX/", ".")
# fmt: off
_NOTES = (
    ".txt", ".md", ".csv", ".tsv", ".xml", ".json", ".html", ".pdf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods",
    ".gpx", ".kml", ".ini", ".db",
)
# fmt: on
"""What people, and Windows, keep beside photos, by the end of its name; it is passed over."""
_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may hold: entries, bytes of one photo and of all together once they are unpacked."""

    max_entries: int
    max_photo_bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ArchivedPhoto:
    """An entry's name, and its bytes or why they cannot be had."""

    name: str
    content: bytes | InvalidImage

    @property
    def folder(self) -> str:
        """The folder it lies in; its own name where it lies in none."""
        return self.name.rpartition("/")[0] or self.name


def read_archive(file: IO[bytes], limits: ArchiveLimits) -> Iterator[ArchivedPhoto]:
    """The files of an archive in the order of their names; folders and what systems leave behind are passed over.

    One photo that is too large or damaged has its error in its place. Raises `InvalidBatch` for what is no ZIP
    archive, is encrypted, has names that lead elsewhere, links, too many entries, or unpacks to too much.
    """
    _check_end(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            _check_names(archive.infolist())
            entries = [entry for entry in archive.infolist() if not _is_litter(entry)]
            _check_sizes(entries, limits)
            total = 0
            for entry in sorted(entries, key=lambda e: e.filename):
                content = _content(archive, entry, limits)
                if isinstance(content, bytes):
                    total += len(content)
                    if total > limits.max_bytes:
                        raise _too_much(limits)
                yield ArchivedPhoto(entry.filename, content)
    except (zipfile.BadZipFile, struct.error, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise _no_archive() from error


def _check_end(file: IO[bytes], limits: ArchiveLimits) -> None:
    """Look at the archive's end before the library reads its directory, however large that says it is, into memory."""
    size = file.seek(0, 2)
    tail_bytes = min(size, _END_BYTES + _LONGEST_COMMENT + 20)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    position = tail.rfind(_END)
    if position < 0 or len(tail) - position < _END_BYTES:
        raise _no_archive()
    entries, directory_bytes = struct.unpack("<HL", tail[position + 10 : position + 16])
    # Folders, and the second file that macOS puts beside each, are entries too.
    most = 3 * limits.max_entries + 100
    if entries > most:
        raise _too_many(limits)
    if _ZIP64_LOCATOR in tail[max(0, position - 20) : position] or directory_bytes > most * _ENTRY_BYTES:
        raise InvalidBatch(
            "expected a plain ZIP archive, found one for more or larger files; send several smaller ones"
        )
    file.seek(0)


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for number, entry in enumerate(entries, 1):
        name = entry.filename
        if entry.flag_bits & 0x1:
            raise InvalidBatch("the archive is encrypted; send it without a password")
        if not name or len(name) > _MAX_NAME or _leads_elsewhere(name) or name in seen:
            raise InvalidBatch(
                f"entry {number} of the archive has a name that is empty, used twice, longer than {_MAX_NAME} "
                "characters, or leads out of the archive; pack the photos anew"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InvalidBatch(f"entry {number} of the archive is a link; pack the photos themselves")
        seen.add(name)


def _check_sizes(entries: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if not entries:
        raise InvalidBatch("the archive holds no file; put photos into it")
    if len(entries) > limits.max_entries:
        raise _too_many(limits)
    if sum(entry.file_size for entry in entries) > limits.max_bytes:
        raise _too_much(limits)


def _leads_elsewhere(name: str) -> bool:
    """Also by the rules of Windows, since the name is shown to people there."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\x00" in name


def _is_litter(entry: zipfile.ZipInfo) -> bool:
    name = entry.filename
    last = name.rpartition("/")[2]
    is_hidden = name.startswith(_LITTER[0]) or last.startswith(_LITTER[1])
    return entry.is_dir() or is_hidden or last.lower().endswith(_NOTES)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ArchiveLimits) -> bytes | InvalidImage:
    """The bytes of one entry, counted as they come; what its header says of their number is not believed."""
    if entry.compress_type not in _KNOWN:
        return UnreadableImage("it is packed in an uncommon way; pack it anew with the usual method (deflate)")
    content = bytearray()
    try:
        with archive.open(entry) as opened:
            while chunk := opened.read(_CHUNK):
                content += chunk
                if len(content) > limits.max_photo_bytes:
                    mebibytes = limits.max_photo_bytes / MEBIBYTE
                    return ImageTooLarge(f"expected at most {mebibytes:.0f} MiB, found more; send a smaller copy")
                if len(content) > max(_RATIO_FROM, _RATIO * entry.compress_size):
                    raise InvalidBatch("an entry of the archive grows more than a photo can; pack the photos anew")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        return UnreadableImage("it is damaged in the archive; pack it anew")
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06", b"Rar!", b"7z\xbc\xaf")):
        return UnreadableImage("it is an archive; archives in archives are not opened")
    return bytes(content)


def _no_archive() -> InvalidBatch:
    return InvalidBatch("expected a ZIP archive, found something that cannot be read as one; pack the photos anew")


def _too_many(limits: ArchiveLimits) -> InvalidBatch:
    return InvalidBatch(f"expected at most {limits.max_entries:,} files in the archive, found more; send several")


def _too_much(limits: ArchiveLimits) -> InvalidBatch:
    return InvalidBatch(
        f"the archive unpacks to more than {limits.max_bytes / MEBIBYTE:,.0f} MiB; send several smaller ones"
    )
