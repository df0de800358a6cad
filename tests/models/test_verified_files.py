import hashlib
import os
import threading
import time

import pytest

from models import verified_files
from models.errors import BundleCorrupt
from models.manifest import FileRecord
from models.verified_files import forget, hashed, is_known, link_or_copy, record_of

LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture(autouse=True)
def _as_in_a_fresh_process():
    forget()
    yield
    forget()


@pytest.fixture
def reads(monkeypatch):
    """Grows by one whenever a file is hashed."""
    count = []
    wanted = hashlib.file_digest

    def counting(file, kind):
        count.append(file.name)
        return wanted(file, kind)

    monkeypatch.setattr(verified_files.hashlib, "file_digest", counting)
    return count


def settled(path, content=b"vectors"):
    path.write_bytes(content)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def expected(content):
    return FileRecord(hashlib.sha256(content).hexdigest(), len(content))


def test_a_file_is_hashed_once_under_all_its_names(tmp_path, reads):
    path = settled(tmp_path / "a")
    assert not is_known(path)
    assert record_of(path) == record_of(path) == expected(b"vectors")
    os.link(path, tmp_path / "b")
    assert is_known(tmp_path / "b")
    assert record_of(tmp_path / "b") == expected(b"vectors")
    path.unlink()
    assert record_of(tmp_path / "b") == expected(b"vectors")
    assert len(reads) == 1


def test_a_copy_of_a_file_is_another_file(tmp_path, reads):
    record_of(settled(tmp_path / "a"))
    assert record_of(settled(tmp_path / "b")) == expected(b"vectors")
    assert len(reads) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.write_bytes(b"vectorz"),
        lambda p: settled(p, b"vectors and more"),
        lambda p: os.utime(p, ns=(LONG_AGO, LONG_AGO + 1)),
    ],
)
def test_a_file_that_was_changed_is_hashed_again(tmp_path, reads, change):
    path = settled(tmp_path / "a")
    record_of(path)
    change(path)
    assert not is_known(path)
    assert record_of(path) == expected(path.read_bytes())
    assert len(reads) == 2


@pytest.mark.parametrize("moment", [0, 1_000_000_000, -3_600_000_000_000])
def test_a_file_that_was_written_just_now_or_in_the_future_is_not_remembered(tmp_path, reads, moment):
    path = tmp_path / "a"
    path.write_bytes(b"vectors")
    written = time.time_ns() - moment
    os.utime(path, ns=(written, written))
    record_of(path)
    assert not is_known(path)
    record_of(path)
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, monkeypatch):
    path = settled(tmp_path / "a")
    wanted = hashlib.file_digest

    def changing(file, kind):
        digest = wanted(file, kind)
        path.write_bytes(b"other vectors")
        return digest

    monkeypatch.setattr(verified_files.hashlib, "file_digest", changing)
    record_of(path)
    monkeypatch.undo()
    assert record_of(path) == expected(b"other vectors")


def test_hashing_alone_remembers_nothing(tmp_path):
    path = settled(tmp_path / "a")
    assert hashed(path) == expected(b"vectors")
    assert not is_known(path)


def test_only_so_many_files_are_remembered_and_the_latest_used(tmp_path, monkeypatch):
    monkeypatch.setattr(verified_files, "_MOST", 3)
    paths = [settled(tmp_path / name) for name in "abcd"]
    for path in paths[:3]:
        record_of(path)
    record_of(paths[0])
    record_of(paths[3])
    assert [is_known(p) for p in paths] == [True, False, True, True]


def test_threads_agree(tmp_path):
    paths = [settled(tmp_path / f"{i}", bytes([i]) * 1_000) for i in range(20)]
    wrong = []

    def read_all():
        wrong.extend(p for p in paths * 5 if record_of(p) != expected(p.read_bytes()))

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_link_is_the_same_file(tmp_path):
    path = settled(tmp_path / "a")
    link_or_copy(path, tmp_path / "b")
    assert (tmp_path / "b").stat().st_ino == path.stat().st_ino


@pytest.mark.parametrize(
    "refusal", [OSError(18, "Invalid cross-device link"), PermissionError(1, "no"), OSError(31, "")]
)
def test_where_links_are_refused_a_copy_is_made(tmp_path, monkeypatch, refusal):
    def refused(*_, **__):
        raise refusal

    path = settled(tmp_path / "a")
    monkeypatch.setattr(os, "link", refused)
    link_or_copy(path, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"vectors"
    assert (tmp_path / "b").stat().st_ino != path.stat().st_ino


def test_a_copy_that_is_not_what_was_verified_is_refused(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    path = settled(tmp_path / "a")
    record_of(path)
    # As a disk that loses a bit: another content, and nothing else that tells.
    settled(path, b"vectorz")
    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(BundleCorrupt, match="could not be copied unchanged"):
        link_or_copy(path, tmp_path / "b")


def test_a_source_that_is_gone_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "absent", tmp_path / "b")
