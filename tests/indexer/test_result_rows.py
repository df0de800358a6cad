import csv
import json
from pathlib import Path
from typing import Any

import pytest

from indexer.result_rows import ResultRows
from models.errors import InvalidConfig

ANSWER: dict[str, Any] = {
    "bundle_id": "index-1",
    "model_id": "model-1",
    "software": "voucher 1",
    "photo_count": 1,
    "outcome": "species",
    "roll_up": {"name": "Rosa canina L."},
    "unknown": None,
    "probability_outside": None,
    "decision": {"source": "fusion"},
    "candidates": [{"species_id": "7", "scientific_name": "Rosa canina L.", "genus": "Rosa", "family": "Rosaceae"}],
}
NAMES = ["a.jpg", "=b.jpg", 'c "d", e.jpg', "f\ng.jpg", "h\udcff.jpg", "'i.jpg"]


@pytest.fixture(params=["rows.csv", "rows.jsonl"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def files_in(out: Path) -> list[str]:
    if out.suffix == ".csv":
        with out.open(newline="", encoding="utf-8") as file:
            return [row["file"] for row in csv.DictReader(file)]
    return [json.loads(line)["file"] for line in out.read_text().splitlines()]


def test_every_row_is_on_the_disk_before_the_next_and_found_again(out: Path) -> None:
    with ResultRows(out) as rows:
        for number, name in enumerate(NAMES):
            rows.write(name, ANSWER, None)
            assert len(files_in(out)) == number + 1
        rows.write("bad.jpg", None, "it is damaged")
    with ResultRows(out) as rows:
        assert all(rows.has(name) for name in (*NAMES, "bad.jpg"))
        assert not rows.has("other.jpg")
        assert (rows.failed, rows.bundle_ids) == (1, {"index-1"})


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_half_a_row_is_cut_off_and_written_again(out: Path, cut: int) -> None:
    with ResultRows(out) as rows:
        for name in ("a.jpg", "b.jpg"):
            rows.write(name, ANSWER, None)
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    with ResultRows(out) as rows:
        assert (rows.has("a.jpg"), rows.has("b.jpg")) == (True, False)
        rows.write("b.jpg", ANSWER, None)
    assert out.read_bytes() == whole


def test_half_a_head_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    out.write_bytes(b"file,spec")
    with ResultRows(out) as rows:
        rows.write("a.jpg", ANSWER, None)
    assert files_in(out) == ["a.jpg"]


@pytest.mark.parametrize("content", ["name,count\na,1\n", "some notes\n", "no end", '{"a": 1}\n', "[1]\n"])
def test_a_file_that_holds_something_else_is_left_alone(out: Path, content: str) -> None:
    out.write_text(content)
    with pytest.raises(InvalidConfig, match="something else"), ResultRows(out):
        pass
    assert out.read_text() == content


def test_two_runs_do_not_write_to_one_file(out: Path) -> None:
    with ResultRows(out), pytest.raises(InvalidConfig, match="another run"), ResultRows(out):
        pass


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"\.csv or \.jsonl"):
        ResultRows(tmp_path / "rows.xlsx")
