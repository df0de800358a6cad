"""Room for the files that processes count in: taken beforehand, since a page without a block ends a process."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from app.metrics_folder import metrics_folder
from app.metrics_space import VARIABLE, reserve, reserve_for_this_process


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_files_have_their_blocks(tmp_path: Path) -> None:
    reserve(tmp_path, "7")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_7.db", "gauge_livesum_7.db", "histogram_7.db"]
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size > 0 for file in tmp_path.iterdir())


def test_a_process_without_room_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {VARIABLE: str(tmp_path)}
    assert reserve_for_this_process(environment) is None
    assert len(list(tmp_path.glob(f"*_{os.getpid()}.db"))) == 3
    for file in tmp_path.iterdir():
        file.unlink()
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    complaint = reserve_for_this_process(environment)
    assert complaint is not None
    assert "No space left" in complaint
    assert environment == {}
    assert list(tmp_path.iterdir()) == []
    assert reserve_for_this_process({}) is None


def test_without_room_there_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with metrics_folder() as folder:
        assert folder is None
    assert "each process tells its own metrics" in caplog.text
    assert list(tmp_path.iterdir()) == []
