"""A build continues the latest index: what it does with each kind of change, and that nobody can tell."""

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import noise_picture, sheet_of

from indexer import build_gallery
from indexer.build_cache import BuildCache
from indexer.build_gallery import BuiltIndex, build
from indexer.build_lock import alone_at_building
from models import segment_merging
from models.artifacts import activate, active_artifact_id, list_artifacts
from models.bundle import Bundle, load_bundle
from models.bundle_history import difference, get_bundle, list_bundles
from models.catalogue import Catalogue
from models.compute import Compute
from models.curation import Curator, NewSpecies
from models.errors import InsufficientData, JobCancelled, UnknownBundle
from models.home import Home
from models.identifier import Identifier

CPU = Compute.resolve("cpu", precision="float32")


def assert_same_answers(one: Bundle, other: Bundle) -> None:
    """Same sheets, vectors and prototypes to 1e-6, and the same candidates and evidence for some pictures."""
    assert one.gallery.sheet_columns() == other.gallery.sheet_columns()
    sheets = one.gallery.sheet_columns()["sheet_id"].to_pylist()
    np.testing.assert_allclose(one.gallery.vectors_for(sheets), other.gallery.vectors_for(sheets), atol=1e-6)
    np.testing.assert_allclose(one.gallery.prototype_matrix(), other.gallery.prototype_matrix(), atol=1e-6)
    assert one.gate.to_json() == other.gate.to_json()
    assert one.reliability.to_json() == other.reliability.to_json()
    assert one.species == other.species
    answers = [Identifier(b).identify([noise_picture(900)], top_k=5, sheets_per_candidate=4) for b in (one, other)]
    for a, b in zip(answers[0].candidates, answers[1].candidates, strict=True):
        assert (a.species, a.in_classifier) == (b.species, b.in_classifier)
        assert a.probability == pytest.approx(b.probability, abs=1e-6)
        assert [s.sheet_id for s in a.sheets] == [s.sheet_id for s in b.sheets]


def build_both(home: Home, catalogue: Catalogue, cache: BuildCache) -> tuple[BuiltIndex, Bundle]:
    """A continued build, which equals the one from nothing that follows, which is thrown away again."""
    built = build(home, catalogue, CPU, cache=cache, most_fall=1.0)
    continued = load_bundle(home, CPU, built.bundle_id)
    assert built.base is not None
    whole = build(home, catalogue, CPU, from_nothing=True, activate_it=False)
    assert whole.base is None
    assert_same_answers(continued, load_bundle(home, CPU, whole.bundle_id))
    shutil.rmtree(home.indexes / whole.bundle_id)
    return built, continued


@pytest.mark.parametrize("fewest_rows", [1, 4096])
def test_random_changes_give_what_a_build_from_nothing_gives(
    tiny_home: Home, monkeypatch: pytest.MonkeyPatch, fewest_rows: int
) -> None:
    monkeypatch.setattr(segment_merging, "FEWEST_ROWS", fewest_rows)
    generator = np.random.default_rng(4)
    cache = BuildCache()
    with Catalogue.open(tiny_home) as catalogue:
        curator = Curator(catalogue, "tester")
        known = [s.species_id for s in catalogue.species()]
        for step in range(6):
            living = [s.sheet_id for s in catalogue.sheets()]
            gone = [str(s) for s in generator.choice(living, 3, replace=False)]
            curator.remove(gone[:2])
            curator.move(gone[2], known[int(generator.integers(len(known)))])
            new = NewSpecies(f"Novus species{step}", genus="Novus", family="Novaceae")
            added = curator.add([sheet_of(10 * step + 1, new), sheet_of(10 * step + 2, known[step])])
            if step % 2:
                curator.remove([added[0].sheet.sheet_id])
                curator.restore(gone[:1])
            built, _ = build_both(tiny_home, catalogue, cache)
            assert built.embedded == (1 if step % 2 else 2)
            assert built.sheets == len(list(catalogue.sheets()))


def test_changes_are_counted_and_told_with_their_authors(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, CPU)
        before = active_artifact_id(tiny_home)
        sheets = list(catalogue.sheets())
        other = next(s.species_id for s in sheets if s.species_id != sheets[0].species_id)
        Curator(catalogue, "Ada").add([sheet_of(1, sheets[0].species_id), sheet_of(2, NewSpecies("Novus novus"))])
        Curator(catalogue, "Ben").remove([sheets[1].sheet_id])
        Curator(catalogue, "Cem").move(sheets[0].sheet_id, other)
        built = build(tiny_home, catalogue, CPU, most_fall=1.0, built_by="Ada")
    assert (built.added, built.removed, built.moved, built.base) == (2, 1, 1, before)
    record = get_bundle(tiny_home, built.bundle_id)
    assert record.is_active
    assert (record.built_by, record.changes["species_added"], record.changes["species"]["removed"]) == ("Ada", 1, [])
    assert [r["by"] for r in record.changes["revisions"]] == ["Ada", "Ben", "Cem"]
    found = difference(tiny_home, before, built.bundle_id)
    assert (found.added.num_rows, found.removed.num_rows, found.moved.num_rows) == (2, 1, 1)
    assert found.removed["sheet_id"].to_pylist() == [sheets[1].sheet_id]
    assert found.moved.to_pylist() == [
        {"sheet_id": sheets[0].sheet_id, "species_id": other, "previous_species_id": sheets[0].species_id}
    ]
    backwards = difference(tiny_home, built.bundle_id, before)
    assert backwards.species_removed == found.species_added != ()
    assert (backwards.added.num_rows, backwards.removed.num_rows) == (1, 2)
    with pytest.raises(UnknownBundle):
        difference(tiny_home, before, "index-of-nobody")


def test_vectors_of_the_base_are_shared_and_not_written_again(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_merging, "FEWEST_ROWS", 1)
    with Catalogue.open(tiny_home) as catalogue:
        species = next(catalogue.sheets()).species_id
        first = build(tiny_home, catalogue, CPU)
        Curator(catalogue, "tester").add([sheet_of(1, species)])
        second = build(tiny_home, catalogue, CPU, most_fall=1.0)

    def vector_files(bundle_id: str) -> dict[int, Path]:
        segments = tiny_home.indexes / bundle_id / "segments"
        return {path.stat().st_ino: path for path in segments.rglob("*") if path.is_file()}

    shared = vector_files(first.bundle_id).keys() & vector_files(second.bundle_id).keys()
    assert len(shared) == len(vector_files(first.bundle_id))
    shutil.rmtree(tiny_home.indexes / first.bundle_id)
    assert load_bundle(tiny_home, CPU, second.bundle_id).gallery.sheet_count == 25


def test_a_sheet_whose_stored_image_is_damaged_is_left_out_and_tried_again(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, CPU)
        species = next(catalogue.sheets()).species_id
        good, bad = Curator(catalogue, "tester").add([sheet_of(1, species), sheet_of(2, species)])
        path = catalogue.image_store.path(bad.sheet.image)
        content = path.read_bytes()
        path.write_bytes(b"damaged")
        built = build(tiny_home, catalogue, CPU, most_fall=1.0)
        assert (built.added, built.unreadable) == (1, (bad.sheet.sheet_id,))
        path.write_bytes(content)
        mended = build(tiny_home, catalogue, CPU, most_fall=1.0)
        assert (mended.added, mended.unreadable, mended.sheets) == (1, (), 26)
        assert good.sheet.sheet_id in load_bundle(tiny_home, CPU).gallery.sheet_columns()["sheet_id"].to_pylist()


def test_a_fall_on_the_validation_photos_is_kept_but_not_served(
    tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"digest": "d", "photos": 100, "species": 4, "top1": 0.80, "top1_interval": None, "top5": 1.0, "mrr": 0.9}
    top1 = iter([0.80, 0.77, 0.785])
    monkeypatch.setattr(build_gallery, "validation_figures", lambda *_: {**figures, "top1": next(top1)})
    with Catalogue.open(tiny_home) as catalogue:
        good = build(tiny_home, catalogue, CPU)
        fallen = build(tiny_home, catalogue, CPU)
        assert not fallen.activated
        assert "80.0 to 77.0" in fallen.held_back
        assert active_artifact_id(tiny_home) == good.bundle_id
        assert get_bundle(tiny_home, fallen.bundle_id).held_back == fallen.held_back
        # Measured against what is served, not against what was held back.
        assert build(tiny_home, catalogue, CPU).activated


def test_a_build_that_nobody_asked_for_does_not_undo_a_roll_back(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        first = build(tiny_home, catalogue, CPU)
        build(tiny_home, catalogue, CPU)
        activate(tiny_home, first.bundle_id)
        automatic = build(tiny_home, catalogue, CPU, automatic=True)
        assert not automatic.activated
        assert "went back" in automatic.held_back
        assert active_artifact_id(tiny_home) == first.bundle_id
        asked = build(tiny_home, catalogue, CPU)
        assert asked.activated


def test_a_job_that_was_finished_is_not_done_twice(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with Catalogue.open(tiny_home) as catalogue:
        with monkeypatch.context() as patched:
            patched.setattr(build_gallery, "activate", killed)
            with pytest.raises(KeyboardInterrupt):
                build(tiny_home, catalogue, CPU, job_id="build-1")
        count = len(list_artifacts(tiny_home.indexes))
        again = build(tiny_home, catalogue, CPU, job_id="build-1")
        assert len(list_artifacts(tiny_home.indexes)) == count
        assert again.activated
        assert active_artifact_id(tiny_home) == again.bundle_id


def test_a_cancelled_build_keeps_what_it_embedded(tiny_home: Home) -> None:
    def cancel(stage: str, done: int, total: int) -> None:
        if stage == "embedding images" and done:
            raise JobCancelled("cancelled")

    with Catalogue.open(tiny_home) as catalogue:
        species = next(catalogue.sheets()).species_id
        active = active_artifact_id(tiny_home)
        Curator(catalogue, "tester").add([sheet_of(n, species) for n in range(20)])
        with pytest.raises(JobCancelled):
            build(tiny_home, catalogue, CPU, report=cancel)
        assert active_artifact_id(tiny_home) == active
        built = build(tiny_home, catalogue, CPU, most_fall=1.0)
        assert (built.embedded, built.added) == (4, 20)


def test_a_damaged_base_is_not_continued(tiny_home: Home, caplog: pytest.LogCaptureFixture) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        built = build(tiny_home, catalogue, CPU)
        # Several bundles share one file.
        tables = {path.stat().st_ino: path for path in tiny_home.indexes.rglob("segments/*/*.parquet")}
        for table in tables.values():
            table.chmod(0o644)
            content = bytearray(table.read_bytes())
            content[len(content) // 2] ^= 1
            table.write_bytes(bytes(content))
        whole = build(tiny_home, catalogue, CPU)
    assert whole.base is None
    assert f"index {built.bundle_id} is not continued" in caplog.text
    assert whole.activated


def test_a_catalogue_from_a_backup_is_not_taken_for_the_one_that_was_built(tiny_home: Home, tmp_path: Path) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        species = next(catalogue.sheets()).species_id
    shutil.copy(tiny_home.catalogue_file, tmp_path / "backup.sqlite")
    with Catalogue.open(tiny_home) as catalogue:
        Curator(catalogue, "tester").add([sheet_of(1, species)])
        with_one = build(tiny_home, catalogue, CPU, most_fall=1.0)
    for file in tiny_home.root.glob("catalogue.sqlite*"):
        file.unlink()
    shutil.copy(tmp_path / "backup.sqlite", tiny_home.catalogue_file)
    with Catalogue.open(tiny_home) as catalogue:
        # The same number of changes as before, but not the same change.
        (other,) = Curator(catalogue, "tester").add([sheet_of(2, species)])
        built = build(tiny_home, catalogue, CPU, most_fall=1.0)
        assert built.base != with_one.bundle_id
        sheets = load_bundle(tiny_home, CPU, built.bundle_id).gallery.sheet_columns()["sheet_id"].to_pylist()
        assert sorted(sheets) == sorted(s.sheet_id for s in catalogue.sheets())
        assert other.sheet.sheet_id in sheets


def test_an_index_without_a_sheet_is_refused_and_the_last_one_stays(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        built = build(tiny_home, catalogue, CPU)
        Curator(catalogue, "tester").remove([s.sheet_id for s in catalogue.sheets()])
        for from_nothing in (False, True):
            with pytest.raises(InsufficientData):
                build(tiny_home, catalogue, CPU, from_nothing=from_nothing)
    assert active_artifact_id(tiny_home) == built.bundle_id


def test_builds_of_one_home_wait_for_each_other(tiny_home: Home) -> None:
    waiting = threading.Event()

    def report(stage: str, done: int, total: int) -> None:
        if stage == "waiting for another build":
            waiting.set()

    with Catalogue.open(tiny_home) as catalogue:
        results: list[BuiltIndex] = []
        with alone_at_building(tiny_home, report):
            second = threading.Thread(target=lambda: results.append(build(tiny_home, catalogue, CPU, report=report)))
            second.start()
            assert waiting.wait(20)
            assert results == []
        second.join(60)
        assert results[0].activated


def test_a_new_species_is_found_by_its_sheets_and_named_as_such(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, CPU)
        Curator(catalogue, "tester").add([sheet_of(n, NewSpecies("Novus novus", "Novus")) for n in (70, 71, 72)])
        build(tiny_home, catalogue, CPU, most_fall=1.0)
    identifier = Identifier.load(tiny_home, CPU)
    answer = identifier.identify([noise_picture(70)], top_k=7)
    novus = next(c for c in answer.candidates if c.species.scientific_name == "Novus novus")
    assert not novus.in_classifier
    assert not novus.has_field_photos
    assert len(novus.sheets) == 3
    assert novus.similarity is not None
    assert len(list_bundles(tiny_home)) == 3
