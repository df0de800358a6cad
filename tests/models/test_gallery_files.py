import json
import os
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gallery_support import SPACE, batch, clustered_rows, random_gallery, random_metric, unit_rows
from safetensors.numpy import load_file, save_file

from models.errors import BundleCorrupt, BundleError, EmbeddingSpaceMismatch
from models.gallery import Gallery, read_sheet_columns
from models.metric import Metric
from models.taxonomy import SpeciesId


def load(folder, **options):
    return Gallery.load(folder, expected_space_id=SPACE, **options)


@pytest.fixture
def saved(tmp_path):
    random_gallery()[0].save(tmp_path)
    return tmp_path


def of_two_segments(folder: Path) -> Gallery:
    """A saved gallery of 5,000 sheets with three dead rows, and a segment of six."""
    rng = np.random.default_rng(2)
    names = [SpeciesId(f"s{i % 50:02d}") for i in range(5_000)]
    base = Gallery.build(batch(unit_rows(rng, 5_000, 8)), names)
    added = batch(unit_rows(rng, 6, 8), [f"new{i}" for i in range(6)])
    gallery = base.updated(added, [SpeciesId("s07")] * 6, ["sheet0000", "sheet0009", "sheet4999"])
    gallery.save(folder)
    return gallery


def assert_same_answers(loaded: Gallery, built: Gallery, queries: np.ndarray) -> None:
    np.testing.assert_allclose(loaded.prototype_similarities(queries), built.prototype_similarities(queries), atol=1e-6)
    for found, expected in zip(loaded.nearest_sheets(queries, 7), built.nearest_sheets(queries, 7), strict=True):
        assert [m.sheet_id for m in found] == [m.sheet_id for m in expected]
        assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=1e-6)


def test_the_metric_is_stored_with_the_gallery(tmp_path):
    metric = random_metric()
    built, _, _ = random_gallery(metric=metric)
    built.save(tmp_path)
    loaded = load(tmp_path)
    for name, part in metric.arrays().items():
        np.testing.assert_array_equal(loaded.metric.arrays()[name], part)
    asked = unit_rows(np.random.default_rng(1), 5, 16)
    np.testing.assert_allclose(loaded.prototype_similarities(asked), built.prototype_similarities(asked), atol=1e-6)
    species_id = built.species_ids[0]
    found, expected = (g.supporting_sheets(asked[0], species_id, 3) for g in (loaded, built))
    assert [m.sheet_id for m in found] == [m.sheet_id for m in expected]
    assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=1e-6)


@pytest.mark.parametrize("memory_map", [True, False])
def test_loaded_gallery_equals_the_saved_one(tmp_path, memory_map):
    built, vectors, _ = random_gallery(count=300, dimensions=33, species=20)
    built.save(tmp_path)
    loaded = load(tmp_path, memory_map=memory_map)
    assert (loaded.space_id, loaded.dimensions, loaded.sheet_count) == (SPACE, 33, 300)
    assert loaded.species_ids == built.species_ids
    assert loaded.sheet_columns() == built.sheet_columns() == read_sheet_columns(tmp_path)
    np.testing.assert_array_equal(loaded.vectors_for(list(vectors)), list(vectors.values()))
    np.testing.assert_array_equal(loaded.prototype_matrix(), built.prototype_matrix())
    assert [p.sheet_count for p in loaded.prototypes()] == [p.sheet_count for p in built.prototypes()]
    assert_same_answers(loaded, built, unit_rows(np.random.default_rng(2), 70, 33))


@pytest.mark.parametrize("memory_map", [True, False])
def test_several_segments_and_dead_rows_come_back(tmp_path, memory_map):
    built = of_two_segments(tmp_path)
    loaded = load(tmp_path, memory_map=memory_map)
    assert [(len(s.segment), len(s.dead)) for s in loaded.parts.segments] == [(5_000, 3), (6, 0)]
    assert loaded.sheet_count == 5_003
    assert loaded.sheet_columns() == built.sheet_columns() == read_sheet_columns(tmp_path)
    np.testing.assert_array_equal(loaded.prototype_matrix(), built.prototype_matrix())
    assert_same_answers(loaded, built, unit_rows(np.random.default_rng(3), 5, 8))


@pytest.mark.parametrize("kind", ["hnsw", "ivf-sq8", "binary"])
@pytest.mark.parametrize("memory_map", [True, False])
def test_an_approximate_index_comes_back_with_its_effort_and_recall(tmp_path, kind, memory_map):
    rng = np.random.default_rng(1)
    vectors = clustered_rows(rng, 2_000, 24, 100)
    built = Gallery.build(batch(vectors), [SpeciesId("s")] * 2_000, kind=kind)
    built.save(tmp_path)
    described = json.loads((tmp_path / "gallery.json").read_text())
    assert described["requested_kind"] == described["segments"][0]["kind"] == kind
    assert described["segments"][0]["search"]["recall"] >= described["recall"]["floor"] == 0.95
    loaded = load(tmp_path, memory_map=memory_map)
    (segment,) = loaded.parts.segments
    assert segment.segment.effort == built.parts.segments[0].segment.effort
    assert_same_answers(loaded, built, clustered_rows(rng, 20, 24, 100))


def test_memory_mapped_vectors_are_not_copied(saved):
    def lies_in_a_file(gallery):
        return isinstance(gallery.parts.segments[0].segment.vectors.base, np.memmap)

    assert lies_in_a_file(load(saved))
    assert not lies_in_a_file(load(saved, memory_map=False))


def test_a_segment_that_two_galleries_have_open_is_there_once(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    random_gallery(count=5_000)[0].save(first)
    base = load(first)
    base.updated(removed=["sheet0001"]).save(second)
    continued = load(second)
    one, two = base.parts.segments[0].segment, continued.parts.segments[0].segment
    assert one.vectors is two.vectors
    assert one.table is two.table
    assert (one.folder.parent.parent, two.folder.parent.parent) == (first, second)
    assert (base.sheet_count, continued.sheet_count) == (5_000, 4_999)


def test_what_a_gallery_shares_is_linked_and_outlives_its_origin(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    random_gallery(count=5_000)[0].save(first)
    load(first).updated(batch(np.eye(16)[:1], ["new"]), [SpeciesId("new")]).save(second)
    (old,) = (first / "segments").iterdir()
    for path in old.iterdir():
        assert (second / "segments" / old.name / path.name).stat().st_ino == path.stat().st_ino
    assert len(list((second / "segments").iterdir())) == 2
    shutil.rmtree(first)
    assert load(second).sheet_count == 5_001


def test_where_files_cannot_be_linked_they_are_copied(tmp_path, monkeypatch):
    def refused(source, target, **_):
        raise OSError(18, "Invalid cross-device link")

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    random_gallery(count=5_000)[0].save(first)
    base = load(first)
    monkeypatch.setattr(os, "link", refused)
    base.updated(removed=["sheet0001"]).save(second)
    shutil.rmtree(first)
    assert load(second).sheet_count == 4_999


def test_a_base_that_was_removed_meanwhile_is_reported(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    random_gallery(count=5_000)[0].save(first)
    base = load(first)
    shutil.rmtree(first)
    with pytest.raises(BundleError, match="cannot write the index"):
        base.updated(removed=["sheet0001"]).save(second)


def test_another_space_is_refused(saved):
    with pytest.raises(EmbeddingSpaceMismatch, match=r"space-1.*space-2.*voucher build"):
        Gallery.load(saved, expected_space_id="space-2")


def test_write_failure_is_a_bundle_error(tmp_path):
    built, _, _ = random_gallery()
    with pytest.raises(BundleError, match="cannot write the index"):
        built.save(tmp_path / "absent")


def part(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def vectors_of(folder: Path) -> Path:
    return part(folder, "segments/*/vectors.npy")


def table_of(folder: Path) -> Path:
    return part(folder, "segments/*/sheets.parquet")


def norms_of(folder: Path) -> Path:
    return part(folder, "norms/*.npy")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_segment(folder, **changes):
    (segment,) = json.loads((folder / "gallery.json").read_text())["segments"]
    edit(folder / "gallery.json", segments=[{**segment, **changes}])


def edit_table(folder, change):
    pq.write_table(change(pq.read_table(table_of(folder))), table_of(folder))


def edit_array(path, change):
    np.save(path, change(np.load(path)))


def edit_metric(folder, **changes):
    arrays = {**load_file(folder / "metric.safetensors"), **changes}
    save_file({name: array for name, array in arrays.items() if array is not None}, folder / "metric.safetensors")


def spoiled(value):
    def change(array):
        array[(3,) * array.ndim] = value
        return array

    return change


def removing(*rows, dtype=np.int64):
    """Dead rows that a gallery of 40 sheets then names."""

    def damage(folder):
        name = next((folder / "segments").iterdir()).name
        np.save(folder / "removed" / f"{name}.npy", np.array(rows, dtype=dtype))
        edit_segment(folder, removed=len(rows))
        edit(folder / "gallery.json", sheet_count=40 - len(rows))

    return damage


def other_table(folder):
    other, _, _ = random_gallery(seed=5, count=30)
    (folder / "other").mkdir()
    other.save(folder / "other")
    return table_of(folder / "other").read_bytes()


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])


INCONSISTENCIES = {
    "no description": lambda f: (f / "gallery.json").unlink(),
    "description garbled": lambda f: (f / "gallery.json").write_bytes(b"{"),
    "description a list": lambda f: (f / "gallery.json").write_text("[]"),
    "no space": lambda f: edit(f / "gallery.json", space_id=""),
    "negative count": lambda f: edit(f / "gallery.json", sheet_count=-1),
    "count a string": lambda f: edit(f / "gallery.json", species_count="7"),
    "wrong count": lambda f: edit(f / "gallery.json", sheet_count=39),
    "wrong count of species": lambda f: edit(f / "gallery.json", species_count=8),
    "wrong dimensions": lambda f: edit(f / "gallery.json", dimensions=15),
    "huge dimensions": lambda f: edit(f / "gallery.json", dimensions=10**30),
    "unknown kind asked for": lambda f: edit(f / "gallery.json", requested_kind="magic"),
    "no segments": lambda f: edit(f / "gallery.json", segments=[]),
    "segments a number": lambda f: edit(f / "gallery.json", segments=3),
    "segment a number": lambda f: edit(f / "gallery.json", segments=[3]),
    "segment that leads elsewhere": lambda f: edit_segment(f, name="../../elsewhere"),
    "segment that is not there": lambda f: edit_segment(f, name="0123456789abcdef"),
    "segment of another length": lambda f: edit_segment(f, rows=41),
    "segment of text length": lambda f: edit_segment(f, rows="40"),
    "segment all removed": lambda f: edit_segment(f, removed=40),
    "segment without its removed rows": lambda f: edit_segment(f, removed=1),
    "segment of unknown kind": lambda f: edit_segment(f, kind="magic"),
    "segment without its index": lambda f: edit_segment(
        f, kind="hnsw", search={"effort": 8, "recall": 1.0, "queries": 3, "asked": "given queries"}
    ),
    "segment without effort": lambda f: edit_segment(f, kind="hnsw"),
    "effort of nothing": lambda f: edit_segment(f, kind="hnsw", search={}),
    "exact with effort": lambda f: edit_segment(f, search={"effort": 8, "recall": 1.0, "queries": 3, "asked": ""}),
    "removed rows out of range": removing(3, 40),
    "removed rows negative": removing(-1, 3),
    "removed rows out of order": removing(5, 3),
    "removed rows twice": removing(5, 5),
    "removed rows of another type": removing(5, dtype=np.int32),
    "no table": lambda f: table_of(f).unlink(),
    "table garbled": lambda f: table_of(f).write_bytes(b"PAR1nonsense"),
    "table truncated": lambda f: cut(table_of(f), 9),
    "table of another gallery": lambda f: table_of(f).write_bytes(other_table(f)),
    "table lacks a row": lambda f: edit_table(f, lambda t: t.slice(1)),
    "table empty": lambda f: edit_table(f, lambda t: t.slice(0, 0)),
    "table out of order": lambda f: edit_table(f, lambda t: t.take(pa.array([1, 0, *range(2, 40)]))),
    "species out of order": lambda f: edit_table(f, lambda t: t.take(pa.array(range(39, -1, -1)))),
    "table repeats a row": lambda f: edit_table(f, lambda t: t.take(pa.array([0, 0, *range(2, 40)]))),
    "table lacks a column": lambda f: edit_table(f, lambda t: t.drop_columns(["species_id"])),
    "table has nulls": lambda f: edit_table(
        f, lambda t: t.set_column(0, "sheet_id", pa.array([None] * 40, pa.large_string()))
    ),
    "table of numbers": lambda f: edit_table(
        f, lambda t: t.set_column(0, "sheet_id", pa.array([[1]] * 40, pa.list_(pa.int64())))
    ),
    "no vectors": lambda f: vectors_of(f).unlink(),
    "vectors empty": lambda f: vectors_of(f).write_bytes(b""),
    "vectors cut by a byte": lambda f: cut(vectors_of(f), 1),
    "vectors longer by a byte": lambda f: vectors_of(f).write_bytes(vectors_of(f).read_bytes() + b"\0"),
    "vectors of another magic": lambda f: vectors_of(f).write_bytes(b"PK" + vectors_of(f).read_bytes()[2:]),
    "vectors in float64": lambda f: edit_array(vectors_of(f), np.float64),
    "vectors too few": lambda f: edit_array(vectors_of(f), lambda a: a[:39]),
    "vectors in columns": lambda f: edit_array(vectors_of(f), np.asfortranarray),
    "vectors of objects": lambda f: np.save(vectors_of(f), np.array([{}] * 40), allow_pickle=True),
    "no norms": lambda f: norms_of(f).unlink(),
    "norms too few": lambda f: edit_array(norms_of(f), lambda a: a[:39]),
    "norm of nothing": lambda f: edit_array(norms_of(f), spoiled(0.0)),
    "norm not a number": lambda f: edit_array(norms_of(f), spoiled(np.nan)),
    "no prototypes": lambda f: (f / "prototypes.npy").unlink(),
    "prototypes too many": lambda f: edit_array(f / "prototypes.npy", lambda a: np.vstack([a, a[:1]])),
    "prototypes not a number": lambda f: edit_array(f / "prototypes.npy", spoiled(np.nan)),
    "prototypes infinite": lambda f: edit_array(f / "prototypes.npy", spoiled(np.inf)),
    "prototypes not unit": lambda f: edit_array(f / "prototypes.npy", spoiled(3.0)),
    "no metric": lambda f: (f / "metric.safetensors").unlink(),
    "metric empty": lambda f: (f / "metric.safetensors").write_bytes(b""),
    "metric garbled": lambda f: (f / "metric.safetensors").write_bytes(b"\xff" * 400),
    "metric truncated": lambda f: cut(f / "metric.safetensors", 9),
    "metric of other dimensions": lambda f: edit_metric(f, **Metric.cosine(15).arrays()),
    "metric without dimensions": lambda f: edit_metric(f, centres=np.zeros((), np.float32)),
    "metric with too small a matrix": lambda f: edit_metric(f, matrix=np.eye(15, dtype=np.float32)),
    "metric of one role": lambda f: edit_metric(f, centres=np.zeros((1, 16), np.float32)),
    "metric lacks its scales": lambda f: edit_metric(f, scales=None),
    "metric has a part too many": lambda f: edit_metric(f, colour=np.zeros(3, np.float32)),
    "metric in float64": lambda f: edit_metric(f, matrix=np.eye(16)),
    "metric not a number": lambda f: edit_metric(f, matrix=np.full((16, 16), np.nan, np.float32)),
    "metric divides by zero": lambda f: edit_metric(f, scales=np.zeros((2, 16), np.float32)),
}


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("inconsistency", INCONSISTENCIES)
def test_files_that_are_damaged_or_do_not_fit_are_refused(saved, inconsistency, memory_map):
    INCONSISTENCIES[inconsistency](saved)
    with pytest.raises(BundleCorrupt, match="voucher build"):
        load(saved, memory_map=memory_map)


def test_the_removed_rows_of_the_inconsistencies_are_fine_when_they_are_right(saved):
    removing(3, 5)(saved)
    assert load(saved).sheet_count == 38


def test_a_sheet_in_two_segments_is_refused(tmp_path):
    of_two_segments(tmp_path)
    small = min(tmp_path.glob("segments/*"), key=lambda p: pq.read_metadata(p / "sheets.parquet").num_rows)
    table = pq.read_table(small / "sheets.parquet")
    for taken, sheet in (("living", "sheet0057"), ("dead", "sheet0000")):
        ids = pa.array([*table["sheet_id"].to_pylist()[:-1], sheet], pa.large_string())
        pq.write_table(table.set_column(0, "sheet_id", ids), small / "sheets.parquet")
        if taken == "living":
            with pytest.raises(BundleCorrupt, match="two segments"):
                load(tmp_path)
        else:
            assert load(tmp_path).sheet_count == 5_003


def write_flat(path):
    index = faiss.IndexFlatIP(24)
    index.add(unit_rows(np.random.default_rng(0), 600, 24))
    faiss.write_index(index, str(path))


@pytest.mark.parametrize("kind", ["hnsw", "ivf-sq8", "binary"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.unlink(),
        lambda p: p.write_bytes(b""),
        lambda p: cut(p, 400),
        lambda p: p.write_bytes(b"IxFI" + p.read_bytes()[4:]),
        write_flat,
    ],
)
def test_a_damaged_index_file_is_refused(tmp_path, kind, damage):
    vectors = clustered_rows(np.random.default_rng(1), 600, 24, 30)
    Gallery.build(batch(vectors), [SpeciesId("s")] * 600, kind=kind).save(tmp_path)
    damage(part(tmp_path, "segments/*/index.faiss"))
    with pytest.raises(BundleCorrupt, match="voucher build"):
        load(tmp_path)
