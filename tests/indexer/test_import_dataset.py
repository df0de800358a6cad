"""Import: what is usable comes in once and whole, what is not is named, contradictions stop everything."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import import_dataset as module
from indexer.import_dataset import import_dataset
from indexer.import_report import ImportReport
from indexer.import_summary import summary_lines
from models.catalogue import Catalogue, CatalogueCounts
from models.curation import Curator
from models.errors import CatalogueError, InvalidDataset
from models.home import Home
from models.specimens import Organ, Split
from models.taxonomy import SpeciesId

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REPOSITORY = Path(__file__).resolve().parents[2]


def picture(seed: int, **options: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def put(root: Path, name: str, content: bytes | int) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(content) if isinstance(content, int) else content)


def manifest(root: Path, *lines: str) -> None:
    root.mkdir(exist_ok=True)
    (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def flora(tmp_path: Path) -> Path:
    """Two species: rose with two sheets and two photos, mint with one sheet."""
    root = tmp_path / "flora"
    for seed, name in enumerate(
        ("sheet/rose/1.jpg", "sheet/rose/2.jpg", "sheet/mint/3.jpg", "field/rose/4.jpg", "field/rose/5.jpg")
    ):
        put(root, name, seed)
    return root


def counts(home: Home) -> CatalogueCounts:
    with Catalogue.open(home) as catalogue:
        return catalogue.counts()


def refusal(path: Path, home: Home, **options: object) -> str:
    with pytest.raises(InvalidDataset) as error:
        import_dataset(path, home, **options)  # type: ignore[arg-type]
    return str(error.value)


def test_images_come_in_with_their_species_and_their_pixels(flora: Path, home: Home) -> None:
    report = import_dataset(flora, home)
    assert (report.added.sheets, report.added.field_photos, report.added.species) == (3, 2, 2)
    assert [(s.species_id, s.sheets, s.field_photos) for s in report.by_species] == [("mint", 1, 0), ("rose", 2, 2)]
    with Catalogue.open(home) as catalogue:
        by_path = {s.source_path: s for s in catalogue.sheets()}
        sheet = by_path["sheet/rose/2.jpg"]
        assert sheet.species_id == "rose"
        assert sheet.specimen_key == sheet.sheet_id == sheet.image.image_id
        stored = catalogue.image_store.open(sheet.image)
        assert stored.tobytes() == Image.open(flora / "sheet/rose/2.jpg").convert("RGB").tobytes()


def test_second_run_adds_nothing_and_decodes_nothing(flora: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import_dataset(flora, home)
    with Catalogue.open(home) as catalogue:
        digest = catalogue.content_digest()

    def refuse(*_: object) -> None:
        raise AssertionError("a known image was decoded again")

    monkeypatch.setattr(module.ImageStore, "add_read", refuse)
    report = import_dataset(flora, home)
    assert (report.added.sheets, report.added.field_photos, report.added.species) == (0, 0, 0)
    assert (report.already_present, report.updated, report.updated_species) == (5, 0, 0)
    with Catalogue.open(home) as catalogue:
        assert catalogue.content_digest() == digest


def test_lost_image_file_is_put_back(flora: Path, home: Home) -> None:
    import_dataset(flora, home)
    with Catalogue.open(home) as catalogue:
        image = next(catalogue.sheets()).image
        catalogue.image_store.path(image).unlink()
        import_dataset(flora, home)
        assert image in catalogue.image_store


def test_unusable_files_are_named_and_the_rest_comes_in(flora: Path, home: Home) -> None:
    put(flora, "field/rose/cut off.jpg", picture(90)[:500])
    put(flora, "field/rose/empty.jpg", b"")
    put(flora, "field/rose/notes.txt", b"collected in May")
    report = import_dataset(flora, home)
    assert report.added.field_photos == 2
    assert report.rejected_count == 3
    reasons = {r.path: r.reason for r in report.rejected}
    assert "cut off" in reasons["field/rose/cut off.jpg"]
    assert "empty" in reasons["field/rose/empty.jpg"]
    assert "not a JPEG" in reasons["field/rose/notes.txt"]


def test_missing_folder_and_outside_link_are_named(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "set"
    put(root, "ok.jpg", 1)
    put(tmp_path, "outside.jpg", 2)
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "inner.jpg").symlink_to(root / "ok.jpg")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    (root / "folder.jpg").mkdir()
    names = ("ok", "link", "inner", "loop", "folder", "absent")
    manifest(root, "path,species_id,role", *(f"{name}.jpg,rose,sheet" for name in names))
    report = import_dataset(root, home)
    assert report.added.sheets == 1
    assert {r.path: r.reason for r in report.rejected} == {
        "link.jpg": "it is a link that leads out of the dataset's folder; copy the file in",
        "loop.jpg": "there is no such file",
        "folder.jpg": "it is not a file",
        "absent.jpg": "there is no such file",
    }
    assert [(d.path, d.kept) for d in report.duplicates] == [("inner.jpg", "ok.jpg")]


def test_accents_composed_otherwise_on_disk_are_found(tmp_path: Path, home: Home) -> None:
    put(tmp_path / "set", "fleur e\u0301te\u0301.jpg", 1)
    manifest(tmp_path / "set", "path,species_id,role", "fleur \u00e9t\u00e9.jpg,rose,sheet")
    assert import_dataset(tmp_path / "set", home).added.sheets == 1


def test_dataset_without_one_usable_image_is_refused(tmp_path: Path, home: Home) -> None:
    manifest(tmp_path / "set", "path,species_id,role", "a.jpg,rose,sheet", "b.jpg,rose,sheet")
    message = refusal(tmp_path / "set", home)
    assert "none of the 2 images" in message
    assert "a.jpg: there is no such file" in message
    assert not home.catalogue_file.exists()


def test_exact_duplicates_are_kept_once_and_reported(flora: Path, home: Home) -> None:
    put(flora, "sheet/rose/copy of 1.jpg", 0)
    put(flora, "sheet/rose/same pixels, other date.jpg", picture(0, comment=b"scanned in 2019"))
    report = import_dataset(flora, home)
    assert report.added.sheets == 3
    assert report.duplicate_count == 2
    assert {d.path: d.kept for d in report.duplicates} == {
        "sheet/rose/copy of 1.jpg": "sheet/rose/1.jpg",
        "sheet/rose/same pixels, other date.jpg": "sheet/rose/1.jpg",
    }


def test_duplicate_of_an_image_in_the_catalogue_is_reported(flora: Path, home: Home, tmp_path: Path) -> None:
    import_dataset(flora, home)
    put(tmp_path / "more", "sheet/rose/again.jpg", picture(1, comment=b"other date"))
    report = import_dataset(tmp_path / "more", home)
    assert (report.added.sheets, report.already_present) == (0, 0)
    assert [(d.path, d.kept) for d in report.duplicates] == [("sheet/rose/again.jpg", "sheet/rose/2.jpg")]


@pytest.mark.parametrize(
    ("copy_to", "expected"),
    [
        ("sheet/mint/x.jpg", ("sheet of species mint (sheet/mint/x.jpg)", "sheet of species rose (sheet/rose/1.jpg)")),
        ("field/rose/x.jpg", ("field of species rose (field/rose/x.jpg)", "sheet of species rose (sheet/rose/1.jpg)")),
        ("test/sheet/rose/x.jpg", ("species rose in the split test (test/sheet/rose/x.jpg)", "sheet/rose/1.jpg")),
    ],
)  # fmt: skip
def test_same_image_with_two_meanings_stops_the_import(
    flora: Path, home: Home, copy_to: str, expected: tuple[str, str]
) -> None:
    put(flora, copy_to, 0)
    message = refusal(flora, home)
    assert "nothing was imported, because 1 images contradict" in message
    assert "--on-conflict skip" in message
    for side in expected:
        assert side in message
    assert counts(home) == CatalogueCounts(0, 0, 0)
    report = import_dataset(flora, home, on_conflict="skip")
    assert report.added.sheets == 2
    assert report.conflict_count == 1
    assert set(report.conflicts[0].paths) == {copy_to, "sheet/rose/1.jpg"}


def test_contradiction_with_the_catalogue_stops_the_import(flora: Path, home: Home, tmp_path: Path) -> None:
    import_dataset(flora, home)
    put(tmp_path / "more", "sheet/oak/1.jpg", 0)
    put(tmp_path / "more", "sheet/oak/2.jpg", 70)
    message = refusal(tmp_path / "more", home)
    assert "sheet of species oak (sheet/oak/1.jpg)" in message
    assert "sheet of species rose (sheet/rose/1.jpg, in the catalogue since an earlier import)" in message
    assert counts(home) == CatalogueCounts(2, 3, 2)
    report = import_dataset(tmp_path / "more", home, on_conflict="skip")
    assert (report.added.sheets, report.conflict_count) == (1, 1)


def test_first_twenty_conflicts_are_listed(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "set"
    for seed in range(23):
        put(root, f"sheet/rose/{seed}.jpg", seed)
        put(root, f"sheet/mint/{seed}.jpg", seed)
    message = refusal(root, home)
    assert "because 23 images" in message
    assert message.count("the same image is a") == 20
    assert "… and 3 more" in message


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("1.jpg,rose,sheet,A,,train", "2.jpg,rose,sheet,A,,test"), "specimen A: species rose in the split t"),
        (("1.jpg,rose,field,,B,", "2.jpg,rose,field,,B,test"), "observation B: species rose without a split (1.jpg)"),
        (("1.jpg,rose,sheet,A,,", "2.jpg,mint,sheet,A,,"), "specimen A: species mint without a split (2.jpg)"),
    ],
)  # fmt: skip
def test_siblings_of_one_plant_must_agree(tmp_path: Path, home: Home, rows: tuple[str, str], expected: str) -> None:
    root = tmp_path / "set"
    put(root, "1.jpg", 1)
    put(root, "2.jpg", 2)
    manifest(root, "path,species_id,role,specimen,observation,split", *rows)
    message = refusal(root, home)
    assert "one species and one split" in message
    assert expected in message
    assert counts(home) == CatalogueCounts(0, 0, 0)


def test_sibling_of_a_plant_in_the_catalogue_must_agree_with_it(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "set"
    put(root, "1.jpg", 1)
    put(root, "2.jpg", 2)
    header = "path,species_id,role,specimen,split"
    manifest(root, header, "1.jpg,rose,sheet,A,train")
    import_dataset(root, home)
    manifest(root, header, "2.jpg,rose,sheet,A,test")
    assert "specimen A" in refusal(root, home)
    assert counts(home).sheets == 1


def test_changed_metadata_is_updated_and_counted(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "set"
    put(root, "1.jpg", 1)
    put(root, "2.jpg", 2)
    header = "path,species_id,role,scientific_name,organ,split,catalog_number,license"
    manifest(root, header, "1.jpg,rose,sheet,Rosa,,train,17,CC0", "2.jpg,rose,field,Rosa,leaf,test,,CC0")
    import_dataset(root, home)
    manifest(root, header, "1.jpg,rose,sheet,Rosa canina L.,,,18,CC0", "2.jpg,rose,field,,flower,test,,CC0")
    report = import_dataset(root, home)
    assert (report.already_present, report.updated, report.updated_species) == (2, 2, 1)
    assert import_dataset(root, home).updated == 0
    with Catalogue.open(home) as catalogue:
        (sheet,), (photo,) = catalogue.sheets(), catalogue.field_photos()
        assert (sheet.split, sheet.specimen.catalog_number, sheet.specimen_key) == (None, "18", "::18")
        assert (photo.organ, photo.split) == (Organ.FLOWER, Split.TEST)
        assert catalogue.get_species(sheet.species_id).scientific_name == "Rosa canina L."


def test_what_a_dataset_does_not_mention_stays(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "set"
    put(root, "1.jpg", 1)
    manifest(root, "path,species_id,role,split,license", "1.jpg,rose,sheet,test,CC0")
    import_dataset(root, home)
    manifest(root, "path,species_id,role", "1.jpg,rose,sheet")
    assert import_dataset(root, home).updated == 0
    with Catalogue.open(home) as catalogue:
        (sheet,) = catalogue.sheets()
    assert (sheet.split, sheet.license) == (Split.TEST, "CC0")


def test_an_import_is_one_revision_and_one_that_changes_nothing_is_none(flora: Path, empty_home: Home) -> None:
    import_dataset(flora, empty_home, actor="Ada")
    import_dataset(flora, empty_home, actor="Eve")
    with Catalogue.open(empty_home) as catalogue:
        (only,) = catalogue.revisions()
        assert (only.revision, only.actor, only.action, only.sheets) == (1, "Ada", "import", 3)
        assert list(catalogue.changes()) == []
    put(flora, "sheet/mint/9.jpg", 9)
    import_dataset(flora, empty_home, actor="Eve")
    with Catalogue.open(empty_home) as catalogue:
        assert [s.source_path for s in catalogue.changed_sheets(1)] == ["sheet/mint/9.jpg"]


def test_what_a_curator_removed_stays_removed_and_is_told(flora: Path, empty_home: Home) -> None:
    import_dataset(flora, empty_home)
    with Catalogue.open(empty_home) as catalogue:
        mint = next(iter(list(catalogue.sheets(SpeciesId("mint")))))
        curator = Curator(catalogue, "Ada")
        curator.remove([mint.sheet_id])
        for purge in (False, True):
            if purge:
                curator.purge(catalogue.revision().revision)
            before = catalogue.revision()
            report = import_dataset(flora, empty_home)
            assert (report.added.sheets, report.already_present, report.already_removed) == (0, 4, 1)
            assert report.to_json()["already_removed"] == 1
            assert any("removed by a curator, and left so: 1" in line for line in summary_lines(report))
            assert catalogue.revision() == before
            assert catalogue.counts().sheets == 2


def test_a_removed_sheet_does_not_contradict_what_is_imported_of_its_specimen(tmp_path: Path, empty_home: Home) -> None:
    root = tmp_path / "set"
    for number in (1, 2):
        put(root, f"{number}.jpg", number)
    manifest(root, "path,species_id,role,catalog_number", "1.jpg,rose,sheet,17")
    import_dataset(root, empty_home)
    with Catalogue.open(empty_home) as catalogue:
        Curator(catalogue, "Ada").remove([next(iter(list(catalogue.sheets()))).sheet_id])
    manifest(root, "path,species_id,role,catalog_number", "2.jpg,mint,sheet,17")
    assert import_dataset(root, empty_home).added.sheets == 1
    manifest(root, "path,species_id,role", "1.jpg,rose,field")
    assert "the same image is a field of species rose" in refusal(root, empty_home)


def test_files_that_are_swept_away_during_an_import_stop_it(
    flora: Path, empty_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = module._stage

    def stage_then_lose(dataset: object, home: Home, *more: object) -> None:
        stage(dataset, home, *more)  # type: ignore[arg-type]
        next(home.images.glob("??/??/*")).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(module, "_stage", stage_then_lose)
        with pytest.raises(CatalogueError, match="Run the same import again"):
            import_dataset(flora, empty_home)
    assert counts(empty_home) == CatalogueCounts(0, 0, 0)
    assert import_dataset(flora, empty_home).added.sheets == 3


def test_progress_counts_every_file(flora: Path, home: Home) -> None:
    seen: list[tuple[int, int]] = []
    put(flora, "field/rose/broken.jpg", b"")
    import_dataset(flora, home, workers=3, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_number_of_workers_changes_nothing(flora: Path, tmp_path: Path) -> None:
    put(flora, "sheet/rose/copy.jpg", 0)
    reports = [import_dataset(flora, Home(tmp_path / f"h{n}"), workers=n).to_json() for n in (1, 7)]
    for report in reports:
        del report["seconds"]
    assert reports[0] == reports[1]


def test_interrupt_leaves_the_catalogue_as_it_was(flora: Path, home: Home) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_dataset(flora, home, on_progress=interrupt)
    assert not home.catalogue_file.exists()
    assert import_dataset(flora, home).added.sheets == 3


def test_failing_image_store_stops_the_import(flora: Path, home: Home) -> None:
    home.root.mkdir()
    home.images.write_text("in the way")
    with pytest.raises(CatalogueError, match="cannot be written"):
        import_dataset(flora, home)


def test_killed_import_leaves_the_catalogue_as_it_was_and_the_next_completes_it(
    flora: Path, home: Home, tmp_path: Path
) -> None:
    import_dataset(flora, home)
    more = tmp_path / "more"
    for seed in range(100, 220):
        put(more, f"field/rose/{seed}.jpg", seed)
    script = (
        "import sys, time; from pathlib import Path; from models.home import Home\n"
        "from indexer.import_dataset import import_dataset\n"
        "import_dataset(Path(sys.argv[1]), Home(Path(sys.argv[2])), on_progress=lambda d, t: print(d, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(more), str(home.root)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 20:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert counts(home) == CatalogueCounts(2, 3, 2)
    report = import_dataset(more, home)
    assert report.added.field_photos == 120
    assert counts(home) == CatalogueCounts(2, 3, 122)


def test_report_is_json_with_stable_keys(flora: Path, home: Home) -> None:
    put(flora, "field/rose/broken.jpg", b"")
    put(flora, "field/rose/copy.jpg", 3)
    report = json.loads(json.dumps(import_dataset(flora, home).to_json()))
    assert report["layout"] == "folders"
    assert report["added"] == {"sheets": 3, "field_photos": 2, "species": 2}
    assert report["already_present"] == report["updated"] == 0
    assert report["duplicates"] == [{"path": "field/rose/copy.jpg", "kept": "field/rose/4.jpg"}]
    assert [sorted(r) for r in report["rejected"]] == [["path", "reason"]]
    assert report["by_species"][1] == {
        "species_id": "rose",
        "scientific_name": "rose",
        "sheets": 2,
        "field_photos": 2,
    }


def assert_real_import(name: str, home: Home, expected: CatalogueCounts) -> ImportReport:
    source = SHARED / name
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    report = import_dataset(source, home)
    assert counts(home) == expected
    again = import_dataset(source, home)
    assert (again.added.sheets, again.added.field_photos, again.added.species) == (0, 0, 0)
    return report


@pytest.mark.weights
def test_plantclef100_comes_in_whole(home: Home) -> None:
    report = assert_real_import("plantclef100", home, CatalogueCounts(100, 100, 197))
    assert (report.duplicate_count, report.rejected_count) == (3, 0)
    assert report.notes == ("the folder test/ is absent: its 207 listed test photos were left out",)
    with Catalogue.open(home) as catalogue:
        renamed = next(s for s in catalogue.species() if s.species_id == "106023")
    assert (renamed.scientific_name, renamed.genus) == ("Merremia umbellata (L.) Hallier f.", "Camonea")


@pytest.mark.weights
def test_fruit_comes_in_whole(home: Home) -> None:
    assert_real_import("fruit_lab_vs_store", home, CatalogueCounts(14, 840, 1185))


@pytest.mark.weights
def test_folders_of_species_alone_are_explained(home: Home) -> None:
    if not (SHARED / "violaceae").is_dir():
        pytest.skip("violaceae is absent")
    assert "voucher reads three layouts" in refusal(SHARED / "violaceae", home)
