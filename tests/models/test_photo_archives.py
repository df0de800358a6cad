import io
import struct
import zipfile
from collections.abc import Callable

import pytest

from models.errors import ImageTooLarge, InvalidBatch, UnreadableImage
from models.photo_archives import ArchivedPhoto, ArchiveLimits, read_archive

LIMITS = ArchiveLimits(max_entries=5, max_photo_bytes=3_000_000, max_bytes=5_000_000)


def packed(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED, **external: int) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = external.get("mode", 0o644) << 16
            archive.writestr(info, content)
    return file


def read(file: io.BytesIO, limits: ArchiveLimits = LIMITS) -> list[ArchivedPhoto]:
    return list(read_archive(file, limits))


def test_files_come_by_their_names_and_folders_and_litter_are_left_out() -> None:
    file = packed(
        ("b/2.jpg", b"two"),
        ("a/", b""),
        ("a/1.jpg", b"one"),
        ("__MACOSX/a/1.jpg", b"fork"),
        ("a/.DS_Store", b"x"),
        ("Thumbs.db", b"x"),
        ("a/Notes.TXT", b"x"),
        ("list.csv", b"x"),
        ("c.jpg", b"three"),
        method=zipfile.ZIP_DEFLATED,
    )
    found = read(file)
    assert [(p.name, p.content) for p in found] == [("a/1.jpg", b"one"), ("b/2.jpg", b"two"), ("c.jpg", b"three")]
    assert [p.folder for p in found] == ["a", "b", "c.jpg"]


@pytest.mark.parametrize(
    "name",
    ["../up.jpg", "a/../../up.jpg", "/etc/passwd", "..\\up.jpg", "C:\\photo.jpg", "a" * 501],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidBatch, match="entry 1"):
        read(packed((name, b"x")))


def test_a_link_is_refused() -> None:
    with pytest.raises(InvalidBatch, match="a link"):
        read(packed(("link.jpg", b"/etc/passwd"), mode=0o120777))


def test_the_same_name_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        file = packed(("a.jpg", b"1"), ("a.jpg", b"2"))
    with pytest.raises(InvalidBatch, match="used twice"):
        read(file)


def encrypted() -> io.BytesIO:
    content = bytearray(packed(("a.jpg", b"secret")).getvalue())
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(marker) + offset
        content[at : at + 2] = struct.pack("<H", 1)
    return io.BytesIO(bytes(content))


def with_a_directory_of(entries: int, size: int) -> io.BytesIO:
    content = bytearray(packed(("a.jpg", b"x")).getvalue())
    at = content.index(b"PK\x05\x06")
    content[at + 8 : at + 16] = struct.pack("<HHL", entries & 0xFFFF, entries & 0xFFFF, size)
    return io.BytesIO(bytes(content))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (encrypted, "encrypted"),
        (lambda: io.BytesIO(b""), "expected a ZIP"),
        (lambda: io.BytesIO(b"no archive at all"), "expected a ZIP"),
        (lambda: io.BytesIO(packed(("a.jpg", b"x" * 99)).getvalue()[40:]), "expected a ZIP"),
        (lambda: packed(), "no file"),
        (lambda: packed(*[(f"{n}.jpg", b"x") for n in range(6)]), "at most 5 files"),
        (lambda: packed(*[(f"{n}.jpg", bytes(2_000_000)) for n in range(3)]), "unpacks to more"),
        (lambda: packed(("bomb.jpg", bytes(2_900_000)), method=zipfile.ZIP_DEFLATED), "grows more"),
        (lambda: with_a_directory_of(70_000, 100), "at most 5 files"),
        (lambda: with_a_directory_of(1, 10_000_000), "plain ZIP"),
    ],
)
def test_archives_that_are_no_batch_are_refused(make: Callable[[], io.BytesIO], words: str) -> None:
    with pytest.raises(InvalidBatch, match=words):
        read(make())


def test_what_is_wrong_with_one_entry_is_told_in_its_place() -> None:
    inner = packed(("deep.jpg", b"x")).getvalue()
    damaged = bytearray(packed(("bad.jpg", b"intact bytes"), ("inner.zip", inner), ("ok.jpg", b"fine")).getvalue())
    at = damaged.index(b"intact")
    damaged[at] ^= 1
    bad, nested, fine = read(io.BytesIO(bytes(damaged)))
    assert isinstance(bad.content, UnreadableImage)
    assert "damaged" in str(bad.content)
    assert isinstance(nested.content, UnreadableImage)
    assert "not opened" in str(nested.content)
    assert fine.content == b"fine"


def test_a_photo_that_is_too_large_is_told_in_its_place() -> None:
    large, small = read(packed(("large.jpg", bytes(3_000_001)), ("small.jpg", b"x")))
    assert isinstance(large.content, ImageTooLarge)
    assert small.content == b"x"


def test_an_uncommon_method_is_told_in_its_place() -> None:
    (only,) = read(packed(("a.jpg", b"x" * 100), method=zipfile.ZIP_LZMA))
    assert "deflate" in str(only.content)


def test_the_size_in_the_header_is_not_believed() -> None:
    content = bytearray(packed(("a.jpg", bytes(4_000_000)), method=zipfile.ZIP_DEFLATED).getvalue())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<L", 10)
    (only,) = read(io.BytesIO(bytes(content)))
    assert isinstance(only.content, UnreadableImage)
