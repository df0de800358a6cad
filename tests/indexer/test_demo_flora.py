import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from indexer.demo_flora import FloraSummary, draw_contact_sheet, draw_flora
from indexer.demo_flora.plan import FloraParameters, plan_pictures
from indexer.demo_flora.spread import design_flora
from models.errors import InvalidConfig, VoucherError

TINY = {
    "seed": 3,
    "species": 3,
    "herbarium_only": 1,
    "sheets_per_species": 2,
    "photos_per_species": 3,
    "test_photos_per_species": 2,
    "image_height": 64,
}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def flora(tmp_path_factory: pytest.TempPathFactory) -> FloraSummary:
    return draw_flora(tmp_path_factory.mktemp("drawn") / "flora", workers=1, **TINY)


def test_summary_counts_what_the_manifest_lists(flora: FloraSummary) -> None:
    rows = rows_of(flora.folder)
    assert len(rows) == flora.images == 3 * 2 + 2 * 3 + 3 * 2
    assert (flora.species, flora.herbarium_only) == (3, 1)
    assert sum(row["role"] == "sheet" for row in rows) == flora.sheets == 6
    assert sum(row["split"] == "test" for row in rows) == flora.test_photos == 6
    assert flora.training_photos == 6
    assert flora.bytes == sum((flora.folder / row["path"]).stat().st_size for row in rows)


def test_manifest_has_the_columns_that_an_import_reads(flora: FloraSummary) -> None:
    with flora.manifest.open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert set(columns) == {
        "path", "species_id", "role", "scientific_name", "genus", "family", "specimen", "observation",
        "organ", "split", "institution_code", "catalog_number",
    }  # fmt: skip


def test_every_specimen_has_one_catalogue_number_of_its_own(flora: FloraSummary) -> None:
    pairs = {(row["specimen"], row["catalog_number"]) for row in rows_of(flora.folder) if row["role"] == "sheet"}
    assert len(pairs) == len({specimen for specimen, _ in pairs}) == len({number for _, number in pairs})
    assert all(number.isdigit() for _, number in pairs)


def test_every_row_names_a_readable_image_in_the_folder_of_its_role_and_species(flora: FloraSummary) -> None:
    for row in rows_of(flora.folder):
        assert row["path"].startswith(f"{row['role']}/{row['species_id']}/")
        with Image.open(flora.folder / row["path"]) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            image.load()
            assert max(image.size) == 64
            if row["role"] == "sheet":
                assert image.width * 3 == pytest.approx(image.height * 2, abs=3)


def test_herbarium_only_species_have_sheets_and_test_photos_but_no_training_photos(flora: FloraSummary) -> None:
    kinds = defaultdict(set)
    for row in rows_of(flora.folder):
        kinds[row["species_id"]].add((row["role"], row["split"]))
    everything = {("sheet", ""), ("field", ""), ("field", "test")}
    assert sorted(map(len, kinds.values())) == [2, 3, 3]
    assert all(found in (everything, everything - {("field", "")}) for found in kinds.values())


def test_no_plant_is_shown_on_both_sides_of_a_split() -> None:
    parameters = FloraParameters(seed=5, species=6, herbarium_only=2)
    flora = design_flora(5, 6, 2)
    splits, shown = defaultdict(set), defaultdict(int)
    for picture in plan_pictures(flora, parameters):
        splits[picture.plant_key].add((picture.species_position, picture.role, picture.split))
        shown[picture.plant_key] += 1
    assert all(len(found) == 1 for found in splits.values())
    assert max(shown.values()) > 1, "no plant has siblings, so this test tests nothing"


def test_names_and_lineage_are_consistent() -> None:
    flora = design_flora(7, 30, 10)
    assert len({one.scientific_name for one in flora}) == len({one.species_id for one in flora}) == 30
    assert sum(not one.has_photos for one in flora) == 10
    families = defaultdict(set)
    for one in flora:
        assert one.scientific_name.startswith(f"{one.genus} ")
        families[one.genus].add(one.family)
    assert all(len(found) == 1 for found in families.values())
    assert 1 < len({one.family for one in flora}) < len(families) < 30


def test_names_do_not_run_out() -> None:
    assert len({one.scientific_name for one in design_flora(1, 35, 0)}) == 35


def test_worker_processes_draw_the_same_bytes_as_one_process(flora: FloraSummary, tmp_path: Path) -> None:
    draw_flora(tmp_path / "again", workers=2, **TINY)
    assert file_bytes(tmp_path / "again") == file_bytes(flora.folder)


def test_another_seed_draws_another_flora(flora: FloraSummary, tmp_path: Path) -> None:
    other = draw_flora(tmp_path / "other", workers=1, **{**TINY, "seed": 4})
    assert not set(file_bytes(other.folder).values()) & set(file_bytes(flora.folder).values())


def test_a_complete_flora_is_reused_and_left_alone(tmp_path: Path) -> None:
    first = draw_flora(tmp_path / "flora", workers=1, **TINY)
    before = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}
    calls: list[tuple[int, int]] = []
    second = draw_flora(tmp_path / "flora", workers=1, on_progress=lambda *done: calls.append(done), **TINY)
    assert (first.reused, second.reused) == (False, True)
    assert {p: p.stat().st_mtime_ns for p in second.folder.rglob("*")} == before
    assert calls == [(second.images, second.images)]
    assert second.bytes == first.bytes


@pytest.mark.parametrize("damage", ["missing", "cut short", "other parameters"])
def test_a_damaged_or_different_flora_is_drawn_again(tmp_path: Path, damage: str) -> None:
    first = draw_flora(tmp_path / "flora", workers=1, **TINY)
    before = file_bytes(first.folder)
    victim = first.folder / rows_of(first.folder)[0]["path"]
    wanted = dict(TINY)
    if damage == "missing":
        victim.unlink()
    elif damage == "cut short":
        victim.write_bytes(victim.read_bytes()[:-10])
    else:
        wanted["sheets_per_species"] = 1
    second = draw_flora(tmp_path / "flora", workers=1, **wanted)
    assert not second.reused
    assert (file_bytes(second.folder) == before) is (damage != "other parameters")
    assert [p.name for p in tmp_path.iterdir()] == ["flora"]


def test_a_folder_with_other_things_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(InvalidConfig, match="holds something else"):
        draw_flora(tmp_path / "letters", workers=1, **TINY)
    assert file_bytes(tmp_path) == {"letters/love.txt": b"dear"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "flora").mkdir()
    assert draw_flora(tmp_path / "flora", workers=1, **TINY).manifest.is_file()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_flora(tmp_path / "flora", workers=workers, on_progress=interrupt, **TINY)
    assert list(tmp_path.iterdir()) == []


_SLOW_RUN = """
import signal
import sys
from pathlib import Path
from indexer.demo_flora import draw_flora
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    draw_flora(Path(sys.argv[1]), workers=2, image_height=64, on_progress=lambda done, _: print(done, flush=True))
"""


def _start(script: Path, destination: Path) -> "subprocess.Popen[str]":
    script.write_text(_SLOW_RUN)
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, str(script), str(destination)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )


def _await_pictures(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    while int(process.stdout.readline()) == 0:
        pass


def _group_ends(group: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return False


def test_ctrl_c_ends_all_processes_and_leaves_nothing(tmp_path: Path) -> None:
    process = _start(tmp_path / "run.py", tmp_path / "flora")
    _await_pictures(process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert _group_ends(process.pid)
    assert [p.name for p in tmp_path.iterdir()] == ["run.py"]


def test_a_killed_run_leaves_no_processes_and_the_next_run_clears_its_rest(tmp_path: Path) -> None:
    process = _start(tmp_path / "run.py", tmp_path / "flora")
    _await_pictures(process)
    process.kill()
    process.communicate(timeout=30)
    assert _group_ends(process.pid)
    assert not (tmp_path / "flora").exists()
    drawn = draw_flora(tmp_path / "flora", workers=1, **TINY)
    listed = {row["path"] for row in rows_of(drawn.folder)} | {"manifest.csv", "flora.json"}
    assert set(file_bytes(drawn.folder)) == listed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flora", "run.py"]


def test_two_runs_into_one_folder_exclude_each_other(tmp_path: Path) -> None:
    def draw_too(done: int, total: int) -> None:
        with pytest.raises(InvalidConfig, match="another process"):
            draw_flora(tmp_path / "flora", workers=1, **TINY)

    assert not draw_flora(tmp_path / "flora", workers=1, on_progress=draw_too, **TINY).reused


def test_a_dead_worker_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.demo_flora.workers._begin_worker", _die)
    with pytest.raises(VoucherError, match="ended before its time"):
        draw_flora(tmp_path / "flora", workers=2, **TINY)
    assert list(tmp_path.iterdir()) == []


def _die() -> None:
    os._exit(3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"species": 0}, "1 to 1000 species"),
        ({"herbarium_only": 4}, "expected 0 to 3"),
        ({"herbarium_only": -1}, "expected 0 to 3"),
        ({"sheets_per_species": 0}, "at least one sheet"),
        ({"photos_per_species": -1}, "cannot be negative"),
        ({"seed": -1}, "cannot be negative"),
        ({"image_height": 10}, "64 to 4096"),
        ({"workers": 0}, "workers"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        draw_flora(tmp_path / "flora", **{**TINY, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    drawn = draw_flora(tmp_path / "flora", workers=1, on_progress=lambda *done: calls.append(done), **TINY)
    assert calls[0] == (0, drawn.images)
    assert calls[-1] == (drawn.images, drawn.images)
    assert calls == sorted(calls)


def test_stamp_holds_the_parameters(flora: FloraSummary) -> None:
    stamp = json.loads((flora.folder / "flora.json").read_text(encoding="utf-8"))
    assert {name: stamp["parameters"][name] for name in TINY} == TINY


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_contact_sheet_is_small_and_not_blank(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "docs" / f"contact{suffix}"
    draw_contact_sheet(target, species=5, herbarium_only=2, rows=3, image_height=96)
    assert target.stat().st_size < 400_000
    with Image.open(target) as image:
        assert len(image.convert("RGB").resize((32, 32)).getcolors(1024) or []) > 200
