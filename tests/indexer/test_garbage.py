import os
from pathlib import Path

import numpy as np
import pytest
from tests_support import sheet_of
from typer.testing import CliRunner

from indexer.build_gallery import build
from indexer.cli import assemble
from indexer.embedding_store import EmbeddingStore
from indexer.garbage import collect
from models.artifacts import activate, active_artifact_id, list_artifacts
from models.bundle import load_bundle
from models.catalogue import Catalogue
from models.compute import Compute
from models.curation import Curator, Outcome
from models.errors import UnknownSheet
from models.explanation_store import ExplanationStore
from models.home import Home

CPU = Compute.resolve("cpu", precision="float32")


def unit_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_removed_sheet_leaves_the_disk_only_after_it_has_left_the_answers(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, CPU)
        sheet = next(catalogue.sheets())
        path = catalogue.image_store.path(sheet.image)
        rendition = tiny_home.renditions / sheet.image.stored_sha256[:2] / f"{sheet.image.stored_sha256}-320.jpg"
        rendition.parent.mkdir(parents=True, exist_ok=True)
        rendition.write_bytes(b"a thumbnail")
        Curator(catalogue, "tester").remove([sheet.sheet_id])
        assert collect(tiny_home, catalogue).purged_sheets == 0
        assert path.exists()
        assert sheet.sheet_id in load_bundle(tiny_home, CPU).gallery.sheet_columns()["sheet_id"].to_pylist()

        build(tiny_home, catalogue, CPU, most_fall=1.0)
        would = collect(tiny_home, catalogue, dry_run=True)
        assert (would.purged_sheets, path.exists()) == (1, True)
        garbage = collect(tiny_home, catalogue, by="tester")
        assert (garbage.purged_sheets, garbage.embeddings) == (1, 1)
        assert not path.exists()
        assert not rendition.exists()
        with pytest.raises(UnknownSheet):
            catalogue.get_sheet(sheet.sheet_id)
        model = load_bundle(tiny_home, CPU).model
        store = EmbeddingStore(tiny_home, model.encoder.stored_as, model.encoder.dimensions)
        assert store.missing([sheet.image.stored_sha256])
        assert len(store.missing([s.image.stored_sha256 for s in catalogue.sheets()])) == 0
        assert build(tiny_home, catalogue, CPU, from_nothing=True).embedded == 0


def test_it_can_be_added_again_afterwards(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, CPU)
        species = next(catalogue.sheets()).species_id
        curator = Curator(catalogue, "tester")
        (added,) = curator.add([sheet_of(1, species)])
        curator.remove([added.sheet.sheet_id])
        build(tiny_home, catalogue, CPU, most_fall=1.0)
        assert collect(tiny_home, catalogue).purged_sheets == 1
        (again,) = curator.add([sheet_of(1, species)])
        assert again.outcome in (Outcome.RESTORED, Outcome.ADDED)
        built = build(tiny_home, catalogue, CPU, most_fall=1.0)
        assert (built.added, built.embedded, built.unreadable) == (1, 1, ())


def test_the_served_bundle_the_one_before_and_the_latest_stay(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        first = active_artifact_id(tiny_home)
        built = [build(tiny_home, catalogue, CPU).bundle_id for _ in range(5)]
        activate(tiny_home, first)
        garbage = collect(tiny_home, catalogue, keep_bundles=2)
    assert sorted(list_artifacts(tiny_home.indexes)) == sorted([first, built[4], built[3]])
    assert sorted(garbage.bundles) == sorted(built[:3])
    for bundle_id in list_artifacts(tiny_home.indexes):
        assert load_bundle(tiny_home, CPU, bundle_id).gallery.sheet_count == 24


def test_embeddings_of_other_models_and_leftovers_of_killed_processes_go(tiny_home: Home) -> None:
    EmbeddingStore(tiny_home, "space-of-nobody-float32", 4).add(["a"], unit_rows(1))
    left = tiny_home.indexes / ".staging-index-x-999999-0123abcd"
    left.mkdir()
    old_cache = tiny_home.cache / "20200101-000000-abcdef"
    old_cache.mkdir(parents=True)
    os.utime(old_cache, (0, 0))
    with Catalogue.open(tiny_home) as catalogue:
        garbage = collect(tiny_home, catalogue)
    assert not (tiny_home.embeddings / "space-of-nobody-float32").exists()
    assert not left.exists()
    assert not old_cache.exists()
    assert "embeddings/space-of-nobody-float32" in garbage.leftovers


def test_heat_maps_go_when_they_have_expired_and_not_before(tiny_home: Home) -> None:
    young = ExplanationStore(tiny_home.explanations, seconds=1000).put({"photo-1": b"png"})
    old = ExplanationStore(tiny_home.explanations, seconds=-1).put({"photo-1": b"png"})
    os.utime(tiny_home.explanations, (0, 0))
    with Catalogue.open(tiny_home) as catalogue:
        assert collect(tiny_home, catalogue, dry_run=True).explanations == 1
        assert (tiny_home.explanations / old).exists()
        garbage = collect(tiny_home, catalogue)
    assert garbage.explanations == garbage.to_json()["explanations"] == 1
    assert garbage.leftovers == []
    assert [path.name for path in tiny_home.explanations.iterdir()] == [young]


def test_small_shards_are_joined_and_needless_embeddings_dropped(tmp_path: Path) -> None:
    home = Home(tmp_path)
    store = EmbeddingStore(home, "space", 4)
    rows = unit_rows(6)
    for i in range(6):
        store.add([f"digest-{i}"], rows[i : i + 1])
    assert EmbeddingStore.compact(store.folder, {f"digest-{i}" for i in range(5)}, dry_run=True) == 1
    assert len(list(store.folder.iterdir())) == 6
    assert EmbeddingStore.compact(store.folder, {f"digest-{i}" for i in range(5)}) == 1
    assert len(list(store.folder.iterdir())) == 1
    for reopened in (store, EmbeddingStore(home, "space", 4)):
        reopened.refresh()
        assert reopened.missing(["digest-5", "digest-0"]) == ["digest-5"]
        np.testing.assert_array_equal(reopened.vectors(["digest-4", "digest-1"]), rows[[4, 1]])
    assert EmbeddingStore.compact(store.folder, {f"digest-{i}" for i in range(5)}) == 0


def test_commands_list_show_compare_verify_and_go_back(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        first = build(tiny_home, catalogue, CPU).bundle_id
        species = next(catalogue.sheets()).species_id
        Curator(catalogue, "Ada").add([sheet_of(1, species)])
        second = build(tiny_home, catalogue, CPU, most_fall=1.0).bundle_id
    app, home = assemble(), ["--home", str(tiny_home.root)]

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, *home])
        return result.exit_code, result.output

    status, output = run("bundles", "list")
    assert (status, f"→ {second}" in output, first in output) == (0, True, True)
    status, output = run("bundles", "show", second)
    assert "by Ada" in output
    assert f"since {first}" in output
    status, output = run("bundles", "diff", first, second)
    assert "sheets added: 1" in output
    status, output = run("bundles", "rollback")
    assert status == 0
    assert active_artifact_id(tiny_home) == first
    assert run("bundles", "activate", second)[0] == 0
    assert active_artifact_id(tiny_home) == second
    assert run("bundles", "verify")[0] == 0
    damaged = tiny_home.indexes / first / "gate.json"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes().replace(b"0", b"1", 1))
    status, output = run("bundles", "verify")
    assert status == 1
    assert "gate.json was changed" in output.replace("\n", " ")
    assert run("gc", "--keep", "1", "--dry-run")[0] == 0
    status, output = run("jobs", "list")
    assert status == 0
