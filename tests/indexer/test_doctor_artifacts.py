"""What `voucher doctor` finds of artifacts."""

import os
import shutil
import time

import pytest
from findings_support import bad, told

from indexer import doctor_artifacts
from indexer.doctor_artifacts import check_active_bundle, check_artifacts
from models.artifacts import list_artifacts
from models.home import Home


def test_those_that_are_sound(trained_home: Home) -> None:
    assert bad(check_artifacts(trained_home, thorough=True)) == []
    findings = list(check_active_bundle(trained_home, "cpu"))
    assert bad(findings) == []
    assert "with 6 species loads in" in told(findings)


def test_a_file_that_is_missing(tiny_home: Home) -> None:
    next(tiny_home.indexes.glob("*/gate.json")).unlink()
    assert bad(check_artifacts(tiny_home, thorough=False)) == [("index", "fault")]
    assert bad(check_active_bundle(tiny_home, "cpu")) == [("active bundle", "fault")]


def test_a_byte_that_was_changed_is_found_where_all_are_read(tiny_home: Home) -> None:
    weights = next(tiny_home.models.glob("*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    assert bad(check_artifacts(tiny_home, thorough=False)) == []
    assert ("model", "fault") in bad(check_artifacts(tiny_home, thorough=True))
    assert bad(check_active_bundle(tiny_home, "cpu")) == [("active bundle", "fault")]


def test_an_index_without_its_model(tiny_home: Home) -> None:
    shutil.rmtree(next(tiny_home.models.iterdir()))
    findings = list(check_artifacts(tiny_home, thorough=False))
    assert bad(findings) == [("index", "fault")]
    assert "is missing" in told(findings)


def test_an_index_of_another_network(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_artifacts, "_space_of", lambda index: "another")
    assert bad(check_artifacts(tiny_home, thorough=False)) == [("index", "fault")]


def test_the_space_of_an_index_is_read(trained_home: Home) -> None:
    index_id = list_artifacts(trained_home.indexes)[0]
    index = doctor_artifacts.read(trained_home.indexes / index_id, kind="index", verify=False)
    assert doctor_artifacts._space_of(index)


def test_what_was_never_finished_is_told_after_a_day(tiny_home: Home) -> None:
    left = tiny_home.indexes / ".staging-index-1-0badcafe"
    left.mkdir()
    assert bad(check_artifacts(tiny_home, thorough=False)) == []
    os.utime(left, (time.time() - 100_000,) * 2)
    assert bad(check_artifacts(tiny_home, thorough=False)) == [("leftover", "warning")]


def test_nothing_active_and_a_pointer_that_cannot_be_read(tiny_home: Home) -> None:
    tiny_home.active_pointer.write_text("{")
    assert bad(check_active_bundle(tiny_home, "cpu")) == [("active bundle", "fault")]
    tiny_home.active_pointer.unlink()
    findings = list(check_active_bundle(tiny_home, "cpu"))
    assert bad(findings) == [("active bundle", "fault")]
    assert "voucher build" in told(findings)
