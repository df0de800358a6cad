import errno
import fcntl
import os
import subprocess
import sys

import pytest

from models import durable
from models.durable import make_folder, remove_stale_staging, replace_file, staging_folder, staging_path


@pytest.fixture(scope="module")
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_staging_of_a_dead_process_is_removed_files_and_folders(tmp_path, dead_pid):
    folder = tmp_path / f".staging-my-index-{dead_pid}-0123abcd"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "half").write_bytes(b"x")
    file = tmp_path / f".staging-active.json-{dead_pid}-0123abcd"
    file.write_bytes(b"{")
    assert set(remove_stale_staging(tmp_path)) == {folder.name, file.name}
    assert list(tmp_path.iterdir()) == []


def test_staging_of_a_living_process_stays(tmp_path):
    mine = staging_path(tmp_path, "a1")
    mine.mkdir()
    root_owned = tmp_path / ".staging-a1-1-0123abcd"
    root_owned.mkdir()
    assert remove_stale_staging(tmp_path) == []
    assert mine.is_dir()
    assert root_owned.is_dir()


def test_process_of_another_user_counts_as_alive(tmp_path, monkeypatch):
    folder = tmp_path / ".staging-a1-77-0123abcd"
    folder.mkdir()

    def not_ours(pid, signal_number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(durable.os, "kill", not_ours)
    assert remove_stale_staging(tmp_path) == []


def test_staging_locked_by_another_container_stays(tmp_path, dead_pid):
    folder = tmp_path / f".staging-a1-{dead_pid}-0123abcd"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert remove_stale_staging(tmp_path) == []
    finally:
        os.close(descriptor)
    assert remove_stale_staging(tmp_path) == [folder.name]


def test_file_system_without_locks_falls_back_to_the_process(tmp_path, dead_pid, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(durable.fcntl, "flock", no_locks)
    stale = tmp_path / f".staging-a1-{dead_pid}-0123abcd"
    stale.mkdir()
    with staging_folder(tmp_path, "a2") as mine:
        assert remove_stale_staging(tmp_path) == [stale.name]
        assert mine.is_dir()


def test_stale_link_is_removed_without_following_it(tmp_path, dead_pid):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / f".staging-a1-{dead_pid}-0123abcd").symlink_to(outside)
    remove_stale_staging(parent)
    assert list(parent.iterdir()) == []
    assert (outside / "kept").exists()


@pytest.mark.parametrize("name", [".staging-a1", ".staging-a1-x-0123abcd", ".staging-a1-0-0123abcd", "a1", ".git"])
def test_other_names_are_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    assert remove_stale_staging(tmp_path) == []


def test_impossible_process_number_counts_as_dead(tmp_path):
    (tmp_path / f".staging-a1-{10**30}-0123abcd").mkdir()
    assert len(remove_stale_staging(tmp_path)) == 1


def test_no_folder_means_nothing_stale(tmp_path):
    assert remove_stale_staging(tmp_path / "absent") == []


def test_staging_folder_is_locked_while_it_is_written(tmp_path):
    with staging_folder(tmp_path / "new" / "deep", "a1") as folder:
        assert durable._is_locked(folder)
    assert not durable._is_locked(folder)


def test_replaced_file_holds_the_new_content_and_leaves_no_sibling(tmp_path):
    path = tmp_path / "active.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_make_folder_syncs_every_parent_that_it_made(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert set(synced) == {tmp_path, tmp_path / "a"}
    assert (tmp_path / "a" / "b").is_dir()
