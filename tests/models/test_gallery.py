import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gallery_support import SPACE, batch, random_gallery, random_metric, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InsufficientData, UnknownSheet, UnknownSpecies
from models.gallery import Gallery

# -- building


def test_sheets_are_ordered_by_species_then_sheet():
    built = Gallery.build(batch(np.eye(5), ["e", "d", "c", "b", "a"]), ["2", "10", "2", "1", "10"])
    assert built.sheet_columns().to_pydict() == {
        "sheet_id": ["b", "a", "d", "c", "e"],
        "species_id": ["1", "10", "10", "2", "2"],
    }
    assert built.species_ids == ("1", "10", "2")
    np.testing.assert_array_equal(built.vectors_for(["b", "a", "d", "c", "e"]), np.eye(5)[[3, 4, 1, 2, 0]])
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


def test_vectors_of_a_species_come_with_their_sheets_in_order():
    built, vectors, species_of = random_gallery()
    for species_id in built.species_ids:
        sheets, found = built.vectors_of(species_id)
        assert list(sheets) == sorted(key for key, species in species_of.items() if species == species_id)
        np.testing.assert_array_equal(found, [vectors[key] for key in sheets])
    with pytest.raises(UnknownSpecies):
        built.vectors_of("absent")


def test_vectors_for_sheets_come_in_the_order_asked_for():
    built, vectors, _ = random_gallery()
    asked = [*sorted(vectors, reverse=True)[:7], "sheet0001", "sheet0001"]
    np.testing.assert_array_equal(built.vectors_for(asked), [vectors[key] for key in asked])
    assert built.vectors_for([]).shape == (0, 16)
    with pytest.raises(UnknownSheet, match=r"'absent'.*voucher build"):
        built.vectors_for(["sheet0001", "absent"])


def test_prototype_matrix_cannot_be_changed_by_its_readers():
    built, _, _ = random_gallery()
    with pytest.raises(ValueError, match="read-only"):
        built.prototype_matrix()[0, 0] = 1.0


# -- comparing in a metric


def slowly_mapped(metric, vectors, position):
    """Unit float64 rows in the metric; position 0 is of sheets, 1 of photos."""
    moved = [((v - metric.centres[position]) / metric.scales[position]) @ metric.matrix for v in np.float64(vectors)]
    return np.array([v / np.linalg.norm(v) for v in moved])


def gallery_in_a_metric(metric):
    """As `random_gallery`, with the sheets' vectors in the metric and their species by sheet id."""
    built, vectors, species = random_gallery(dimensions=metric.dimensions, metric=metric)
    mapped = slowly_mapped(metric, list(vectors.values()), 0)
    return built, dict(zip(vectors, mapped, strict=True)), species


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
    sheets = plain.sheet_columns()["sheet_id"].to_pylist()
    np.testing.assert_array_equal(built.vectors_for(sheets), plain.vectors_for(sheets))
    asked = unit_rows(np.random.default_rng(1), 3, 16)
    assert built.nearest_sheets(asked, 5) == plain.nearest_sheets(asked, 5)


def test_without_a_metric_cosines_are_taken_of_the_embeddings():
    built, _, _ = random_gallery()
    np.testing.assert_array_equal(built.metric.matrix, np.eye(16))
    np.testing.assert_array_equal(built.metric.centres, np.zeros((2, 16)))
