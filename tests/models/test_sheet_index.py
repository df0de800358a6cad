from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from gallery_support import batch, clustered_rows, unit_rows

from models import index_recall, sheet_index
from models.errors import BundleCorrupt
from models.exact_search import dot_rows, nearest_rows
from models.gallery import Gallery
from models.index_recall import measured_recall, perturbed, tuned_effort
from models.sheet_index import SheetIndex
from models.taxonomy import SpeciesId

KINDS = ["hnsw", "ivf-sq8", "binary"]
NONE = np.zeros(0, dtype=np.int64)


def rows_and_queries(count=3_000, dimensions=32, seed=0):
    everything = clustered_rows(np.random.default_rng(seed), count + 40, dimensions, 60)
    return everything[:count], everything[count:]


def recall_of(index, vectors, queries, effort, dead=NONE):
    """Slowly: the share of the ten nearest living rows that are among the candidates."""
    shares = []
    for query, rows in zip(queries, index.candidates(queries, 10, effort, index.living(dead)), strict=True):
        cosines = vectors.astype(np.float64) @ query
        cosines[dead] = -2.0
        shares.append(len(set(np.argsort(-cosines)[:10].tolist()) & set(rows.tolist())) / 10)
    return np.mean(shares)


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_tuned_effort_the_nearest_rows_are_among_the_candidates(kind):
    vectors, queries = rows_and_queries()
    index = SheetIndex.build(kind, vectors, seed=1)
    effort = tuned_effort(index, vectors, queries=queries)
    assert effort.recall >= 0.95
    assert (effort.queries, effort.asked) == (40, "given queries")
    assert recall_of(index, vectors, queries, effort.effort) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_dead_rows_are_no_candidates_and_do_not_stand_in_the_way(kind):
    vectors, queries = rows_and_queries()
    index = SheetIndex.build(kind, vectors, seed=1)
    effort = tuned_effort(index, vectors, queries=queries).effort
    dead = np.flatnonzero(np.random.default_rng(2).random(len(vectors)) < 0.2).astype(np.int64)
    for rows in index.candidates(queries, 10, effort, index.living(dead)):
        assert not np.isin(rows, dead).any()
        assert len(rows) >= 10
    assert recall_of(index, vectors, queries, effort, dead) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 30, 100])
def test_few_rows_have_an_index_too(kind, count):
    vectors = unit_rows(np.random.default_rng(0), count, 12)
    gallery = Gallery.build(batch(vectors), [SpeciesId("s")] * count, kind=kind)
    found = gallery.nearest_sheets(vectors[:3], 10)
    assert [len(matches) for matches in found] == [min(10, count)] * min(3, count)
    assert [matches[0].sheet_id for matches in found] == [f"sheet{i:04d}" for i in range(min(3, count))]


@pytest.mark.parametrize("kind", ["ivf-sq8", "binary"])
def test_the_same_seed_gives_the_same_file(tmp_path, kind):
    vectors, _ = rows_and_queries()
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        SheetIndex.build(kind, vectors, seed=5).write(tmp_path / name)
        files.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert files[0] == files[1]


def test_many_binary_codes_are_put_in_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet_index, "_BINARY_FLAT_ROWS", 1_000)
    vectors, queries = rows_and_queries()
    index = SheetIndex.build("binary", vectors, seed=1)
    assert type(index._index) is faiss.IndexBinaryIVF
    index.write(tmp_path)
    read = SheetIndex.read("binary", tmp_path, vectors.shape)
    assert read._index.nprobe == index._index.nprobe > 1
    assert recall_of(read, vectors, queries, 100) == recall_of(index, vectors, queries, 100) > 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2_999, 32), (3_000, 24)])
def test_an_index_of_another_shape_is_refused(tmp_path, kind, shape):
    SheetIndex.build(kind, rows_and_queries()[0], seed=1).write(tmp_path)
    with pytest.raises(BundleCorrupt):
        SheetIndex.read(kind, tmp_path, shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", KINDS)
def test_an_index_of_another_kind_is_refused(tmp_path, kind, asked):
    vectors = rows_and_queries(count=600)[0]
    SheetIndex.build(kind, vectors, seed=1).write(tmp_path)
    if kind == asked:
        assert SheetIndex.read(asked, tmp_path, vectors.shape).rows == 600
    else:
        with pytest.raises(BundleCorrupt):
            SheetIndex.read(asked, tmp_path, vectors.shape)


def write_lists(path, quantizer, metric, code):
    vectors = rows_and_queries(count=600)[0]
    index = faiss.IndexIVFScalarQuantizer(quantizer, 32, 4, code, metric)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize(
    "parts",
    [
        lambda: (faiss.IndexFlatL2(32), faiss.METRIC_L2, faiss.ScalarQuantizer.QT_8bit),
        lambda: (faiss.IndexHNSWFlat(32, 4), faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit),
        lambda: (faiss.IndexFlatIP(32), faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_fp16),
    ],
)
def test_lists_with_other_parts_are_refused(tmp_path, parts):
    write_lists(tmp_path / "index.faiss", *parts())
    with pytest.raises(BundleCorrupt, match="voucher build"):
        SheetIndex.read("ivf-sq8", tmp_path, (600, 32))


def test_older_faiss_without_mapping_or_limits_reads_all_the_same(tmp_path, monkeypatch):
    vectors = rows_and_queries(count=600)[0]
    SheetIndex.build("ivf-sq8", vectors, seed=1).write(tmp_path)
    monkeypatch.delattr(faiss, "IO_FLAG_MMAP_IFC")
    monkeypatch.delattr(faiss, "set_deserialization_vector_byte_limit")
    assert SheetIndex.read("ivf-sq8", tmp_path, vectors.shape).rows == 600


def test_reading_limits_hold_while_reading_and_are_put_back(tmp_path, monkeypatch):
    vectors = rows_and_queries(count=600)[0]
    SheetIndex.build("ivf-sq8", vectors, seed=1).write(tmp_path)
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    seen = []
    wanted = faiss.read_index

    def watching(path, flags):
        seen.append(faiss.get_deserialization_vector_byte_limit())
        return wanted(path, flags)

    monkeypatch.setattr(faiss, "read_index", watching)
    SheetIndex.read("ivf-sq8", tmp_path, vectors.shape)
    assert seen == [(tmp_path / "index.faiss").stat().st_size + 1]
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before


@pytest.mark.parametrize("kind", KINDS)
def test_searches_from_several_threads_agree_with_one(kind):
    vectors, queries = rows_and_queries()
    index = SheetIndex.build(kind, vectors, seed=1)
    living = index.living(np.arange(0, 3_000, 7))

    def all_queries(_):
        return [index.candidates(queries[i : i + 1], 10, 64, living)[0].tolist() for i in range(40)]

    alone = all_queries(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == alone for found in pool.map(all_queries, range(4)))


# -- recall


def test_measured_recall_is_that_of_the_ten_best_candidates():
    vectors, queries = rows_and_queries()
    index = SheetIndex.build("ivf-sq8", vectors, seed=1)
    exact = [rows for rows, _ in nearest_rows(vectors, queries, 10, NONE)]
    least = measured_recall(index, vectors, queries, exact, 1)
    shares = []
    for query, rows in zip(queries, index.candidates(queries, 10, 1, index.living(NONE)), strict=True):
        best = rows[np.argsort(-dot_rows(vectors, rows, query))[:10]]
        truth = np.argsort(-(vectors.astype(np.float64) @ query))[:10]
        shares.append(len(set(best.tolist()) & set(truth.tolist())) / 10)
    assert least == pytest.approx(np.mean(shares))
    assert least < measured_recall(index, vectors, queries, exact, 1 << 10)


def test_effort_rises_until_the_floor_is_reached():
    vectors, queries = rows_and_queries()
    index = SheetIndex.build("binary", vectors, seed=1)
    efforts = [tuned_effort(index, vectors, queries=queries, floor=floor) for floor in (0.1, 0.999)]
    assert efforts[0].effort == 200 < efforts[1].effort
    assert efforts[0].recall < 0.999 <= efforts[1].recall


def test_an_index_that_cannot_reach_the_floor_is_left_out_for_exact_search(caplog, monkeypatch):
    monkeypatch.setattr(index_recall, "measured_recall", lambda *_: 0.5)
    vectors, queries = rows_and_queries()
    gallery = Gallery.build(batch(vectors), [SpeciesId("s")] * 3_000, kind="ivf-sq8")
    assert gallery.parts.segments[0].segment.kind == "flat"
    assert "recall of 0.500" in caplog.text
    exact = Gallery.build(batch(vectors), [SpeciesId("s")] * 3_000, kind="flat")
    assert gallery.nearest_sheets(queries, 10) == exact.nearest_sheets(queries, 10)


def test_perturbed_queries_lie_about_their_rows_and_are_the_same_for_a_seed():
    vectors, _ = rows_and_queries(dimensions=256)
    queries = perturbed(vectors, 50, seed=4)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-5)
    nearest = (queries @ vectors.T).max(axis=1)
    assert np.abs(nearest - 0.707).max() < 0.15
    np.testing.assert_array_equal(queries, perturbed(vectors, 50, seed=4))
    assert len(perturbed(vectors[:3], 50, seed=4)) == 3
