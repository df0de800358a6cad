import os
from pathlib import Path

import pytest

from models.cpu_cores import available_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("max 100000", CORES),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000", min(2, CORES)),
        ("99900000 100000", CORES),
        ("nonsense", CORES),
    ],
)
def test_a_container_has_no_more_cores_than_its_share_of_time(tmp_path: Path, written: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(written)
    assert available_cores(tmp_path / "cpu.max") == expected


def test_without_a_limit_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "none") == CORES
