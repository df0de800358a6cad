import json
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from models import gallery as gallery_module
from models.compute import Compute
from models.errors import (
    BundleCorrupt,
    BundleError,
    EmbeddingSpaceMismatch,
    InsufficientData,
    InvalidConfig,
    UnknownSpecies,
)
from models.gallery import Gallery
from models.metric import Metric
from models.retrieval import EmbeddingBatch

SPACE = "space-1"


def unit_rows(rng: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def batch(vectors, keys=None) -> EmbeddingBatch:
    vectors = np.asarray(vectors, dtype=np.float32)
    return EmbeddingBatch(vectors, tuple(keys or (f"sheet{i:04d}" for i in range(len(vectors)))), SPACE)


def random_gallery(seed=0, count=40, dimensions=16, species=7):
    """A gallery whose sheets come in no order, with the vectors and species by sheet id."""
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, count, dimensions)
    keys = [f"sheet{i:04d}" for i in rng.permutation(count)]
    names = [f"species{i}" for i in rng.integers(0, species, count)]
    built = Gallery.build(batch(vectors, keys), names)
    return built, dict(zip(keys, vectors, strict=True)), dict(zip(keys, names, strict=True))


@pytest.fixture
def saved(tmp_path):
    built, _, _ = random_gallery()
    built.save(tmp_path)
    return tmp_path


def load(folder, **options):
    return Gallery.load(folder, expected_space_id=SPACE, **options)


# -- building


def test_rows_are_ordered_by_species_then_sheet():
    built = Gallery.build(batch(np.eye(5), ["e", "d", "c", "b", "a"]), ["2", "10", "2", "1", "10"])
    assert [built.sheet_at(i) for i in range(5)] == [("b", "1"), ("a", "10"), ("d", "10"), ("c", "2"), ("e", "2")]
    assert built.species_ids == ("1", "10", "2")
    assert built.rows_of("10") == range(1, 3)
    np.testing.assert_array_equal(built.sheet_vectors(0, 5), np.eye(5)[[3, 4, 1, 2, 0]])
    assert (built.sheet_count, built.dimensions, built.space_id) == (5, 5, SPACE)


def test_prototype_is_the_unit_mean_of_its_sheets():
    built, vectors, species = random_gallery()
    assert built.species_ids == tuple(sorted(set(species.values())))
    for prototype in built.prototypes():
        own = np.array([v for k, v in vectors.items() if species[k] == prototype.species_id], dtype=np.float64)
        mean = own.mean(axis=0)
        np.testing.assert_allclose(prototype.vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert prototype.sheet_count == len(own)


def test_sheets_that_cancel_out_are_represented_by_their_medoid():
    east, north = np.eye(3, dtype=np.float32)[:2]
    near_north = np.array([0.1, 0.995, 0], dtype=np.float32)
    near_north /= np.linalg.norm(near_north)
    vectors = np.array([east, -east, north, -north, near_north, -near_north])
    built = Gallery.build(batch(vectors), ["s"] * 6)
    (prototype,) = built.prototypes()
    assert any(np.allclose(prototype.vector, v) for v in vectors[2:]), "not one of the sheets in the middle"
    assert np.isclose(np.linalg.norm(prototype.vector), 1.0)


def test_two_opposite_sheets_are_represented_by_the_first():
    built = Gallery.build(batch([[0, 1], [0, -1]], ["b", "a"]), ["s", "s"])
    np.testing.assert_array_equal(built.prototype_matrix(), [[0, -1]])


def test_single_sheet_of_a_single_species():
    built = Gallery.build(batch([[0.6, 0.8]], ["only"]), ["s"])
    query = np.array([[1, 0]], dtype=np.float32)
    assert built.nearest_prototypes(query, 5) == [[("s", pytest.approx(0.6))]]
    ((match,),) = built.nearest_sheets(query, 5)
    assert (match.sheet_id, match.species_id, match.similarity) == ("only", "s", pytest.approx(0.6))


def test_no_sheets_is_insufficient_data():
    with pytest.raises(InsufficientData, match="import sheets"):
        Gallery.build(batch(np.empty((0, 4))), [])


def test_sheet_that_appears_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Gallery.build(batch(np.eye(2), ["a", "a"]), ["1", "2"])


@pytest.mark.parametrize(("keys", "species"), [(["a", "b"], ["1"]), (["a", ""], ["1", "1"]), (["a", "b"], ["1", ""])])
def test_keys_and_species_that_do_not_fit_are_refused(keys, species):
    with pytest.raises(ValueError, match=r"species for|empty"):
        Gallery.build(batch(np.eye(2), keys), species)


def test_more_rows_than_a_block_arrive_whole(monkeypatch):
    monkeypatch.setattr(gallery_module, "_BLOCK_ROWS", 3)
    built, vectors, _ = random_gallery(count=10)
    for row in range(10):
        np.testing.assert_array_equal(built.sheet_vectors(row, 1)[0], vectors[built.sheet_at(row)[0]])


# -- searching


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    dimensions=st.integers(2, 40),
    species=st.integers(1, 12),
    queries=st.integers(0, 25),
    k=st.integers(1, 80),
)
def test_search_equals_brute_force(seed, count, dimensions, species, queries, k):
    built, vectors, species_of = random_gallery(seed, count, dimensions, species)
    asked = unit_rows(np.random.default_rng(seed + 1), queries, dimensions)
    keys = sorted(vectors, key=lambda key: (species_of[key], key))
    cosines = asked.astype(np.float64) @ np.array([vectors[key] for key in keys], dtype=np.float64).T
    for found, expected in zip(built.nearest_sheets(asked, k), cosines, strict=True):
        assert len(found) == min(k, count)
        best = np.sort(expected)[::-1][:k]
        np.testing.assert_allclose([m.similarity for m in found], best, atol=1e-5)
        for match in found:
            assert expected[keys.index(match.sheet_id)] == pytest.approx(match.similarity, abs=1e-5)
            assert match.species_id == species_of[match.sheet_id]
    all_prototypes = asked.astype(np.float64) @ built.prototype_matrix().T.astype(np.float64)
    similarities = built.prototype_similarities(asked)
    assert similarities.shape == (queries, len(built.species_ids))
    assert similarities.dtype == np.float32
    np.testing.assert_allclose(similarities, all_prototypes, atol=1e-5)
    for found, expected in zip(built.nearest_prototypes(asked, k), all_prototypes, strict=True):
        by_species = dict(zip(built.species_ids, expected, strict=True))
        assert len(found) == len({s for s, _ in found}) == min(k, len(by_species))
        np.testing.assert_allclose([c for _, c in found], np.sort(expected)[::-1][:k], atol=1e-5)
        assert all(by_species[s] == pytest.approx(c, abs=1e-5) for s, c in found)


def test_supporting_sheets_are_the_best_of_that_species_alone():
    built, vectors, species_of = random_gallery()
    query = unit_rows(np.random.default_rng(9), 1, 16)[0]
    for species_id in built.species_ids:
        cosines = {k: float(v @ query) for k, v in vectors.items() if species_of[k] == species_id}
        best = sorted(cosines, key=lambda key: -cosines[key])[:3]
        found = built.supporting_sheets(query, species_id, 3)
        assert [m.sheet_id for m in found] == best
        assert [m.similarity for m in found] == pytest.approx([cosines[key] for key in best], abs=1e-6)
        assert {m.species_id for m in found} == {species_id}
        assert len(built.supporting_sheets(query, species_id, 1000)) == len(cosines)


def test_equal_sheets_come_in_the_order_of_their_ids():
    vectors = np.repeat(np.array([[0.6, 0.8, 0]], dtype=np.float32), 300, axis=0)
    keys = [f"{i:03d}" for i in range(300)][::-1]
    built = Gallery.build(batch(vectors, keys), ["s"] * 150 + ["r"] * 150)
    query = vectors[:1]
    in_order = [f"{i:03d}" for i in range(300)]
    for k in (4, 150, 300):
        found = built.nearest_sheets(query, k)[0]
        assert [m.sheet_id for m in found] == in_order[:k]
        assert built.nearest_sheets(np.repeat(query, 25, axis=0), k) == [found] * 25
    assert [m.sheet_id for m in built.supporting_sheets(query[0], "s", 3)] == in_order[150:153]
    assert [s for s, _ in built.nearest_prototypes(query, 2)[0]] == ["r", "s"]


def test_similarity_of_equal_vectors_does_not_exceed_one():
    vectors = unit_rows(np.random.default_rng(3), 200, 24)
    built = Gallery.build(batch(vectors * np.float32(1.0004)), [f"{i:03d}" for i in range(200)])
    asked = vectors * np.float32(1.0004)
    assert built.prototype_similarities(asked).max() <= 1.0
    assert max(m.similarity for found in built.nearest_sheets(asked, 2) for m in found) <= 1.0
    assert built.supporting_sheets(asked[0], "000", 1)[0].similarity <= 1.0


def test_searches_from_several_threads_agree_with_one():
    built, _, _ = random_gallery(count=500, dimensions=32)
    asked = unit_rows(np.random.default_rng(1), 32, 32)
    alone = [built.nearest_sheets(asked[i : i + 1], 5) for i in range(32)]
    start = threading.Barrier(4)

    def all_queries():
        start.wait(timeout=10)
        return [built.nearest_sheets(asked[i : i + 1], 5) for i in range(32)]

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(all_queries) for _ in range(4)]
        assert all(result.result() == alone for result in results)


NO_UNIT_ROWS = np.full((1, 16), 0.5, dtype=np.float32)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (unit_rows(np.random.default_rng(0), 2, 15), r"shape \(N, 16\), got \(2, 15\)"),
        (unit_rows(np.random.default_rng(0), 1, 16)[0], r"got \(16,\)"),
        (unit_rows(np.random.default_rng(0), 1, 16)[None], "got"),
        (unit_rows(np.random.default_rng(0), 1, 16).astype(np.float64), "float64"),
        ([[1.0] + [0.0] * 15], "list"),
        (NO_UNIT_ROWS, "unit length"),
        (np.zeros((1, 16), dtype=np.float32), "unit length"),
        (NO_UNIT_ROWS * np.float32("nan"), "finite"),
        (NO_UNIT_ROWS * np.float32("inf"), "finite"),
        (NO_UNIT_ROWS * np.float32(1e30), "finite"),
    ],
)
def test_queries_of_another_shape_type_or_length_are_refused(queries, message):
    built, _, _ = random_gallery()
    for search in (built.prototype_similarities, lambda q: built.nearest_prototypes(q, 1)):
        with pytest.raises(ValueError, match=message):
            search(queries)
    with pytest.raises(ValueError, match=message):
        built.nearest_sheets(queries, 1)


@pytest.mark.parametrize("shape", [(1, 16), (15,), ()])
def test_supporting_sheets_takes_one_query(shape):
    built, _, _ = random_gallery()
    with pytest.raises(ValueError, match="shape"):
        built.supporting_sheets(np.ones(shape, dtype=np.float32), built.species_ids[0], 1)


def test_k_below_one_is_refused():
    built, _, _ = random_gallery()
    query = unit_rows(np.random.default_rng(0), 1, 16)
    for search in (built.nearest_sheets, built.nearest_prototypes):
        with pytest.raises(ValueError, match="at least 1"):
            search(query, 0)
    with pytest.raises(ValueError, match="at least 1"):
        built.supporting_sheets(query[0], built.species_ids[0], 0)


def test_species_without_sheets_is_unknown():
    built, _, _ = random_gallery()
    with pytest.raises(UnknownSpecies, match=r"'absent' .*voucher build"):
        built.supporting_sheets(unit_rows(np.random.default_rng(0), 1, 16)[0], "absent", 1)


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 41), (40, 1), (0, -1)])
def test_rows_outside_the_gallery_are_refused(start, count):
    built, _, _ = random_gallery()
    with pytest.raises(IndexError):
        built.sheet_vectors(start, count)


@pytest.mark.parametrize("row", [-1, 40])
def test_sheet_outside_the_gallery_is_refused(row):
    with pytest.raises(IndexError):
        random_gallery()[0].sheet_at(row)


def test_prototype_matrix_cannot_be_changed_by_its_readers():
    built, _, _ = random_gallery()
    with pytest.raises(ValueError, match="read-only"):
        built.prototype_matrix()[0, 0] = 1.0


# -- comparing in a metric


def random_metric(dimensions=16, seed=4) -> Metric:
    """An arbitrary metric, other for photos than for sheets."""
    rng = np.random.default_rng(seed)
    centres = 0.2 * rng.standard_normal((2, dimensions))
    scales = rng.uniform(0.3, 2.0, (2, dimensions))
    matrix = np.eye(dimensions) + 0.3 * rng.standard_normal((dimensions, dimensions))
    return Metric(*(part.astype(np.float32) for part in (centres, scales, matrix)))


def slowly_mapped(metric, vectors, position):
    """Unit float64 rows in the metric; position 0 is of sheets, 1 of photos."""
    moved = [((v - metric.centres[position]) / metric.scales[position]) @ metric.matrix for v in np.float64(vectors)]
    return np.array([v / np.linalg.norm(v) for v in moved])


def gallery_in_a_metric(metric, count=40, species=7):
    """As `random_gallery`, with the sheets' vectors in the metric and their species by sheet id."""
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, count, metric.dimensions)
    keys = [f"sheet{i:04d}" for i in rng.permutation(count)]
    names = [f"species{i}" for i in rng.integers(0, species, count)]
    built = Gallery.build(batch(vectors, keys), names, metric=metric)
    mapped = slowly_mapped(metric, vectors, 0)
    return built, dict(zip(keys, mapped, strict=True)), dict(zip(keys, names, strict=True))


def test_prototypes_are_unit_means_in_the_metric():
    built, mapped, species = gallery_in_a_metric(random_metric())
    for prototype in built.prototypes():
        mean = np.mean([v for k, v in mapped.items() if species[k] == prototype.species_id], axis=0)
        np.testing.assert_allclose(prototype.vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_photos_are_compared_with_prototypes_in_the_metric():
    metric = random_metric()
    built, _, _ = gallery_in_a_metric(metric)
    asked = unit_rows(np.random.default_rng(1), 30, 16)
    expected = slowly_mapped(metric, asked, 1) @ built.prototype_matrix().T.astype(np.float64)
    np.testing.assert_allclose(built.prototype_similarities(asked), expected, atol=1e-5)
    for found, cosines in zip(built.nearest_prototypes(asked, 3), expected, strict=True):
        assert [s for s, _ in found] == [built.species_ids[i] for i in np.argsort(-cosines)[:3]]
        assert [c for _, c in found] == pytest.approx(sorted(cosines, reverse=True)[:3], abs=1e-5)


def test_supporting_sheets_are_the_best_in_the_metric():
    metric = random_metric()
    built, mapped, species_of = gallery_in_a_metric(metric)
    query = unit_rows(np.random.default_rng(9), 1, 16)
    asked = slowly_mapped(metric, query, 1)[0]
    for species_id in built.species_ids:
        cosines = {k: float(v @ asked) for k, v in mapped.items() if species_of[k] == species_id}
        best = sorted(cosines, key=lambda key: -cosines[key])[:3]
        found = built.supporting_sheets(query[0], species_id, 3)
        assert [m.sheet_id for m in found] == best
        assert [m.similarity for m in found] == pytest.approx([cosines[key] for key in best], abs=1e-5)


def test_sheets_are_kept_and_searched_as_they_were_embedded():
    plain, _, _ = random_gallery()
    built, _, _ = gallery_in_a_metric(random_metric())
    np.testing.assert_array_equal(built.sheet_vectors(0, 40), plain.sheet_vectors(0, 40))
    asked = unit_rows(np.random.default_rng(1), 3, 16)
    assert built.nearest_sheets(asked, 5) == plain.nearest_sheets(asked, 5)


def test_without_a_metric_cosines_are_taken_of_the_embeddings():
    built, _, _ = random_gallery()
    np.testing.assert_array_equal(built.metric.matrix, np.eye(16))
    np.testing.assert_array_equal(built.metric.centres, np.zeros((2, 16)))


# -- saving and loading


def test_the_metric_is_stored_with_the_gallery(tmp_path):
    metric = random_metric()
    built, _, _ = gallery_in_a_metric(metric)
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
    built, _, _ = random_gallery(count=300, dimensions=33, species=20)
    built.save(tmp_path)
    loaded = load(tmp_path, memory_map=memory_map)
    assert (loaded.space_id, loaded.dimensions, loaded.sheet_count) == (SPACE, 33, 300)
    assert loaded.species_ids == built.species_ids
    assert [loaded.sheet_at(i) for i in range(300)] == [built.sheet_at(i) for i in range(300)]
    np.testing.assert_array_equal(loaded.sheet_vectors(0, 300), built.sheet_vectors(0, 300))
    np.testing.assert_array_equal(loaded.prototype_matrix(), built.prototype_matrix())
    assert [p.sheet_count for p in loaded.prototypes()] == [p.sheet_count for p in built.prototypes()]
    # More than 20 queries at once take FAISS's matrix-product path, fewer its plain one.
    for asked in (unit_rows(np.random.default_rng(1), 3, 33), unit_rows(np.random.default_rng(2), 40, 33)):
        np.testing.assert_allclose(loaded.prototype_similarities(asked), built.prototype_similarities(asked), atol=1e-6)
        for found, expected in zip(loaded.nearest_sheets(asked, 7), built.nearest_sheets(asked, 7), strict=True):
            assert [m.sheet_id for m in found] == [m.sheet_id for m in expected]
            assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=1e-6)


def test_memory_mapped_sheets_are_not_copied(saved):
    assert not load(saved, memory_map=True)._sheets.codes.is_owned
    assert load(saved, memory_map=False)._sheets.codes.is_owned


def test_faiss_without_mapping_of_flat_indexes_loads_all_the_same(saved, monkeypatch):
    monkeypatch.delattr(faiss, "IO_FLAG_MMAP_IFC")
    monkeypatch.delattr(faiss, "set_deserialization_vector_byte_limit")
    assert load(saved, memory_map=True).sheet_count == 40


def test_reading_limits_hold_while_reading_and_are_put_back(saved, monkeypatch):
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    seen = []
    wanted = faiss.read_index

    def watching(path, flags):
        seen.append(faiss.get_deserialization_vector_byte_limit())
        return wanted(path, flags)

    monkeypatch.setattr(faiss, "read_index", watching)
    load(saved)
    assert seen == [
        (saved / "sheets.faiss").stat().st_size + 1,
        (saved / "prototypes.faiss").stat().st_size + 1,
    ]
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before


def test_another_space_is_refused(saved):
    with pytest.raises(EmbeddingSpaceMismatch, match=r"space-1.*space-2.*voucher build"):
        Gallery.load(saved, expected_space_id="space-2")


def test_write_failure_is_a_bundle_error(tmp_path):
    built, _, _ = random_gallery()
    with pytest.raises(BundleError, match="cannot write the index"):
        built.save(tmp_path / "absent")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip(path, at, bits=0x55):
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


def edit_table(folder, change):
    table = pq.read_table(folder / "sheets.parquet")
    pq.write_table(change(table), folder / "sheets.parquet")


def write_flat(path, index, count, dimensions=16):
    index.add(unit_rows(np.random.default_rng(0), count, dimensions))
    faiss.write_index(index, str(path))


def edit_metric(folder, **changes):
    arrays = {**load_file(folder / "metric.safetensors"), **changes}
    save_file({name: array for name, array in arrays.items() if array is not None}, folder / "metric.safetensors")


def spoil_prototypes(folder, value):
    index = faiss.IndexFlatIP(16)
    vectors = unit_rows(np.random.default_rng(0), 7, 16)
    vectors[3, 5] = value
    index.add(vectors)
    faiss.write_index(index, str(folder / "prototypes.faiss"))


INCONSISTENCIES = {
    "no description": lambda f: (f / "gallery.json").unlink(),
    "description garbled": lambda f: (f / "gallery.json").write_bytes(b"{"),
    "description a list": lambda f: (f / "gallery.json").write_text("[]"),
    "no space": lambda f: edit(f / "gallery.json", space_id=""),
    "negative count": lambda f: edit(f / "gallery.json", sheet_count=-1),
    "count a string": lambda f: edit(f / "gallery.json", species_count="7"),
    "wrong count": lambda f: edit(f / "gallery.json", sheet_count=39),
    "wrong dimensions": lambda f: edit(f / "gallery.json", dimensions=15),
    "huge dimensions": lambda f: edit(f / "gallery.json", dimensions=10**30),
    "no table": lambda f: (f / "sheets.parquet").unlink(),
    "table garbled": lambda f: (f / "sheets.parquet").write_bytes(b"PAR1nonsense"),
    "table truncated": lambda f: (f / "sheets.parquet").write_bytes((f / "sheets.parquet").read_bytes()[:-9]),
    "table of another gallery": lambda f: (f / "sheets.parquet").write_bytes(other_table(f)),
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
    "no sheets": lambda f: (f / "sheets.faiss").unlink(),
    "sheets empty": lambda f: (f / "sheets.faiss").write_bytes(b""),
    "sheets truncated": lambda f: (f / "sheets.faiss").write_bytes((f / "sheets.faiss").read_bytes()[:-400]),
    "sheets cut by a byte": lambda f: (f / "sheets.faiss").write_bytes((f / "sheets.faiss").read_bytes()[:-1]),
    "sheets of another magic": lambda f: flip(f / "sheets.faiss", 0),
    "sheets of other dimensions": lambda f: flip(f / "sheets.faiss", 4),
    "sheets of another count": lambda f: flip(f / "sheets.faiss", 8),
    "sheets of another metric": lambda f: flip(f / "sheets.faiss", 33),
    "sheets compared by distance": lambda f: flip(f / "sheets.faiss", 33, 1),
    "sheets of another size": lambda f: flip(f / "sheets.faiss", 37),
    "sheets by distance": lambda f: write_flat(f / "sheets.faiss", faiss.IndexFlatL2(16), 40),
    "sheets too few": lambda f: write_flat(f / "sheets.faiss", faiss.IndexFlatIP(16), 39),
    "sheets of another kind": lambda f: write_flat(f / "sheets.faiss", faiss.IndexHNSWFlat(16, 4), 40),
    "prototypes too many": lambda f: write_flat(f / "prototypes.faiss", faiss.IndexFlatIP(16), 8),
    "prototypes swapped": lambda f: (f / "prototypes.faiss").write_bytes((f / "sheets.faiss").read_bytes()),
    "prototypes not a number": lambda f: spoil_prototypes(f, np.nan),
    "prototypes infinite": lambda f: spoil_prototypes(f, np.inf),
    "prototypes not unit": lambda f: spoil_prototypes(f, 3.0),
    "no metric": lambda f: (f / "metric.safetensors").unlink(),
    "metric empty": lambda f: (f / "metric.safetensors").write_bytes(b""),
    "metric garbled": lambda f: (f / "metric.safetensors").write_bytes(b"\xff" * 400),
    "metric truncated": lambda f: (f / "metric.safetensors").write_bytes((f / "metric.safetensors").read_bytes()[:-9]),
    "metric of other dimensions": lambda f: edit_metric(f, **Metric.cosine(15).arrays()),
    "metric with too small a matrix": lambda f: edit_metric(f, matrix=np.eye(15, dtype=np.float32)),
    "metric of one role": lambda f: edit_metric(f, centres=np.zeros((1, 16), np.float32)),
    "metric lacks its scales": lambda f: edit_metric(f, scales=None),
    "metric has a part too many": lambda f: edit_metric(f, colour=np.zeros(3, np.float32)),
    "metric in float64": lambda f: edit_metric(f, matrix=np.eye(16)),
    "metric not a number": lambda f: edit_metric(f, matrix=np.full((16, 16), np.nan, np.float32)),
    "metric divides by zero": lambda f: edit_metric(f, scales=np.zeros((2, 16), np.float32)),
}


def other_table(folder):
    other, _, _ = random_gallery(seed=5, count=30)
    (folder / "other").mkdir()
    other.save(folder / "other")
    return (folder / "other" / "sheets.parquet").read_bytes()


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("inconsistency", INCONSISTENCIES)
def test_files_that_are_damaged_or_do_not_fit_are_refused(saved, inconsistency, memory_map):
    INCONSISTENCIES[inconsistency](saved)
    with pytest.raises(BundleCorrupt, match="voucher build"):
        load(saved, memory_map=memory_map)


@pytest.mark.parametrize("memory_map", [True, False])
def test_every_byte_of_the_faiss_header_is_checked_or_without_effect(saved, memory_map):
    path = saved / "sheets.faiss"
    whole = path.read_bytes()
    expected = load(saved).sheet_vectors(0, 40)
    refused = 0
    for at in range(len(whole) - 40 * 16 * 4):
        flip(path, at)
        try:
            np.testing.assert_array_equal(load(saved, memory_map=memory_map).sheet_vectors(0, 40), expected)
        except BundleCorrupt:
            refused += 1
        path.write_bytes(whole)
    assert refused >= 25


# -- FAISS packages and GPUs


def distributions(*names):
    class Distribution:
        def __init__(self, name):
            self.metadata = {"Name": name}

    return lambda: [Distribution(name) for name in (*names, "numpy", None)]


def test_two_faiss_packages_are_refused_before_anything_is_built_or_loaded(saved, monkeypatch):
    built, _, _ = random_gallery()
    monkeypatch.setattr(gallery_module.importlib.metadata, "distributions", distributions("faiss-cpu", "faiss_gpu"))
    gallery_module.require_one_faiss.cache_clear()
    with pytest.raises(InvalidConfig, match=r"faiss-cpu and faiss-gpu, .* uninstall"):
        Gallery.build(batch(np.eye(2)), ["a", "b"])
    with pytest.raises(InvalidConfig, match="faiss-cpu and faiss-gpu"):
        load(saved)
    with pytest.raises(InvalidConfig, match="faiss-cpu and faiss-gpu"):
        Gallery(SPACE, built._table, built._sheets, built._prototypes, built.metric, built._sheet_norms, None)


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss_gpu", "faiss-gpu-cuvs"])
def test_one_faiss_package_is_accepted(monkeypatch, name):
    monkeypatch.setattr(gallery_module.importlib.metadata, "distributions", distributions(name))
    gallery_module.require_one_faiss.cache_clear()
    assert random_gallery()[0].sheet_count == 40
    assert gallery_module.installed_faiss_packages() == [name.replace("_", "-")]


def test_faiss_without_gpus_searches_on_the_cpu(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    built = Gallery.build(batch(np.eye(3)), ["a", "b", "c"], compute=Compute("cuda:0", None))
    assert built.nearest_prototypes(np.eye(3, dtype=np.float32)[1:2], 1) == [[("b", 1.0)]]
    assert "searching on the CPU" in caplog.text


def test_on_a_gpu_machine_a_copy_is_searched_and_large_k_goes_to_the_master(monkeypatch):
    """The choice between the two, with stand-ins for FAISS's GPU calls."""
    calls = []

    class Resources:
        def setTempMemory(self, size):  # noqa: N802 - FAISS's name
            calls.append(("scratch", size))

    class Copy:
        def __init__(self, index):
            self.index = index

        def search(self, queries, k):
            calls.append(("gpu", k))
            similarities, rows = self.index.search(queries, k)
            # What FAISS returns where it finds less than k.
            return np.c_[similarities, [[-3e38]]], np.c_[rows, [[-1]]]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda r, device, index: Copy(index), raising=False)
    monkeypatch.setattr(gallery_module, "_GPU_MAX_K", 4)
    built = Gallery.build(batch(np.eye(8)), list("abcdefgh"), compute=Compute("cuda:1", None))
    query = np.eye(8, dtype=np.float32)[:1]
    (found,) = built.nearest_sheets(query, 4)
    assert (found[0].sheet_id, len(found)) == ("sheet0000", 4)
    assert len(built.nearest_prototypes(query, 5)[0]) == 5
    assert calls == [("scratch", gallery_module._GPU_SCRATCH_BYTES), ("gpu", 4)]


@pytest.mark.gpu
def test_gpu_search_equals_cpu_search(tmp_path):
    if not getattr(faiss, "get_num_gpus", int)():
        pytest.skip("no CUDA device, or faiss-cpu")
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 5000, 64)
    names = [f"species{i % 300}" for i in range(5000)]
    on_cpu = Gallery.build(batch(vectors), names)
    on_gpu = Gallery.build(batch(vectors), names, compute=Compute.resolve("cuda:0"))
    asked = unit_rows(rng, 50, 64)
    for k in (1, 10, 3000, 6000):
        for found, expected in zip(on_gpu.nearest_sheets(asked, k), on_cpu.nearest_sheets(asked, k), strict=True):
            assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=1e-4)
    for found, expected in zip(on_gpu.nearest_prototypes(asked, 5), on_cpu.nearest_prototypes(asked, 5), strict=True):
        assert [c for _, c in found] == pytest.approx([c for _, c in expected], abs=1e-4)
    on_gpu.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).sheet_vectors(0, 5000), on_cpu.sheet_vectors(0, 5000))


@pytest.fixture(autouse=True)
def _forget_which_faiss_was_found():
    yield
    gallery_module.require_one_faiss.cache_clear()


def test_a_metric_without_dimensions_is_corrupt(tmp_path):
    built = Gallery.build(batch(np.eye(3)), ["1", "2", "3"])
    built.save(tmp_path)
    arrays = {**built.metric.arrays(), "centres": np.zeros((), np.float32), "sheet_norms": np.ones(3, np.float32)}
    save_file(arrays, tmp_path / "metric.safetensors")
    with pytest.raises(BundleCorrupt):
        Gallery.load(tmp_path, expected_space_id=SPACE)
