"""What `voucher doctor` finds of home."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from findings_support import bad, told

from indexer import doctor_home
from indexer.doctor_home import check_disk, check_home, file_system_of
from models.home import Home


def test_one_that_is_sound_is_left_as_it_was(home: Home) -> None:
    before = sorted(home.root.rglob("*"))
    assert bad(check_home(home)) == bad(check_disk(home)) == []
    assert sorted(home.root.rglob("*")) == before


def test_one_that_does_not_exist_or_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        assert bad(check_home(Home(tmp_path / name))) == [("home", "fault")]


def test_one_that_cannot_be_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor_home.os, "fsync", fail)
    findings = list(check_home(home))
    assert set(bad(findings)) == {("home", "fault")}
    assert "Read-only file system" in told(findings)
    assert not list(home.root.rglob(".doctor-*"))


def test_one_without_hard_links(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(doctor_home.os, "link", fail)
    assert set(bad(check_home(home))) == {("home", "warning")}


def test_another_file_system_further_down(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = next(path for path in home.images.iterdir() if path.is_dir())
    real = Path.stat

    def stat(path: Path, **given: Any) -> Any:
        found = real(path, **given)
        if path != inner:
            return found
        return SimpleNamespace(st_dev=found.st_dev + 1, st_mode=found.st_mode, st_mtime=found.st_mtime)

    monkeypatch.setattr(Path, "stat", stat)
    findings = list(check_home(home))
    assert bad(findings) == [("home", "fault")]
    assert str(inner) in told(findings)


def test_sqlite_on_a_network_file_system(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_home, "file_system_of", lambda folder: "nfs4")
    assert bad(check_home(home)) == [("file system", "warning")]
    assert bad(check_home(Home(home.root, "postgresql://someone@server/voucher"))) == []


def test_the_kind_of_a_file_system_is_that_of_the_closest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:9 / {tmp_path} rw shared:1 - nfs4 server:/home rw\n"
        f"3 1 0:9 / {tmp_path}/b rw - tmpfs tmpfs rw\n"
    )
    assert file_system_of(tmp_path / "a", mounts) == "nfs4"
    assert file_system_of(tmp_path / "b" / "c", mounts) == "tmpfs"
    assert file_system_of(tmp_path.parent, mounts) == "ext4"
    assert file_system_of(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(("free", "severity"), [(1 << 20, "fault"), (1 << 29, "warning")])
def test_a_disk_without_room(trained_home: Home, monkeypatch: pytest.MonkeyPatch, free: int, severity: str) -> None:
    monkeypatch.setattr(doctor_home.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert bad(check_disk(trained_home)) == [("disk", severity)]


def test_a_disk_without_room_for_files(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"f_files": 10, "f_favail": 3, "f_bavail": 1 << 30, "f_blocks": 1 << 30, "f_bfree": 1 << 30}
    entries["f_frsize"] = 4096
    monkeypatch.setattr(doctor_home.os, "statvfs", lambda path: SimpleNamespace(**entries))
    assert bad(check_disk(home)) == [("disk", "warning")]
