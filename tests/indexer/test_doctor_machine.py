"""What `voucher doctor` finds of machine."""

from pathlib import Path

import pytest
from findings_support import bad, told

from indexer import doctor_machine
from indexer.doctor_machine import check_clock, check_compute, check_machine, memory_bytes
from models.home import Home


def test_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "available_cores", lambda: 1)
    assert ("cores", "warning") in bad(check_machine())


@pytest.mark.parametrize(("total", "free"), [(1 << 30, 1 << 30), (8 << 30, 1 << 28)])
def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    monkeypatch.setattr(doctor_machine, "memory_bytes", lambda: (total, free))
    assert ("memory", "warning") in bad(check_machine())


def test_the_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 6000 kB\n")
    limit = tmp_path / "memory.max"
    assert memory_bytes(tmp_path / "meminfo", limit) == (8_192_000, 6_144_000)
    limit.write_text("max\n")
    assert memory_bytes(tmp_path / "meminfo", limit) == (8_192_000, 6_144_000)
    limit.write_text("4000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory_bytes(tmp_path / "meminfo", limit) == (4_000_000, 3_000_000)
    assert memory_bytes(tmp_path / "nothing", limit) == (None, None)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there(device: str) -> None:
    assert bad(check_compute(device)) == [("device", "fault")]


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor_machine, "_DRIVER", tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert bad(check_compute("cpu")) == [("gpu", "warning")]


def test_a_gpu_that_faiss_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (1 << 30, 2 << 30))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "a GPU")
    monkeypatch.setattr("models.gpu_search.searchable_gpus", lambda: 0)
    findings = list(check_compute("cpu"))
    assert bad(findings) == [("faiss gpu", "warning")]
    assert "cuda:0 a GPU, 1024 of 2048 MiB free" in told(findings)
    monkeypatch.setattr("models.gpu_search.searchable_gpus", lambda: 1)
    assert bad(check_compute("cpu")) == []


def test_a_clock_that_is_behind(trained_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bad(check_clock(trained_home)) == []
    future = next(iter(doctor_machine._times_of_artifacts(trained_home)))
    later = future.replace(year=future.year + 1)
    monkeypatch.setattr(doctor_machine, "_times_of_artifacts", lambda home: [later])
    assert bad(check_clock(trained_home)) == [("clock", "warning")]
    monkeypatch.setattr(doctor_machine, "_SINCE", later)
    assert bad(check_clock(trained_home)) == [("clock", "fault")]
