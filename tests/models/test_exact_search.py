import numpy as np
import pytest
from gallery_support import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from models import exact_search
from models.exact_search import TIE, best_first, dot_rows, nearest_rows

NONE = np.zeros(0, dtype=np.int64)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 90),
    queries=st.integers(0, 70),
    k=st.integers(1, 100),
    dead_share=st.sampled_from([0.0, 0.3, 1.0]),
    block_rows=st.sampled_from([1, 7, 1_000]),
)
def test_rows_are_those_of_a_sort_of_all_cosines(seed, count, queries, k, dead_share, block_rows):
    rng = np.random.default_rng(seed)
    vectors, asked = unit_rows(rng, count, 6), unit_rows(rng, queries, 6)
    dead = np.flatnonzero(rng.random(count) < dead_share).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_search, "_BLOCK_BYTES", block_rows * 24)
        found = nearest_rows(vectors, asked, k, dead)
    assert len(found) == queries
    for query, (rows, similarities) in zip(asked, found, strict=True):
        cosines = vectors.astype(np.float64) @ query.astype(np.float64)
        living = np.setdiff1d(np.arange(count), dead)
        best = living[np.argsort(-cosines[living], kind="stable")[:k]]
        assert set(best.tolist()) <= set(rows.tolist()) <= set(living.tolist())
        assert len(rows) == len(best), "more come back only where there are ties"
        assert np.all(np.diff(rows) > 0)
        np.testing.assert_allclose(similarities, cosines[rows], atol=1e-6)


def test_all_that_tie_with_the_last_come_back():
    vectors = np.repeat(np.eye(4, dtype=np.float32), 50, axis=0)
    ((rows, similarities),) = nearest_rows(vectors, np.eye(4, dtype=np.float32)[1:2], 3, np.array([50, 99]))
    assert rows.tolist() == list(range(51, 99))
    assert set(similarities.tolist()) == {1.0}


def test_similarities_stay_within_one():
    vectors = unit_rows(np.random.default_rng(0), 50, 9) * np.float32(1.0005)
    found = nearest_rows(vectors, vectors, 1, NONE)
    assert max(s.max() for _, s in found) == 1.0
    assert dot_rows(vectors, np.arange(50), vectors[3]).max() == 1.0


def test_cosines_of_rows_come_in_their_order():
    vectors = unit_rows(np.random.default_rng(0), 9, 5)
    rows = np.array([7, 0, 3])
    np.testing.assert_allclose(dot_rows(vectors, rows, vectors[2]), [vectors[r] @ vectors[2] for r in rows], atol=1e-6)


def test_best_come_first_and_ties_by_their_key():
    similarities = np.array([0.5, 0.9, 0.5 + 2e-7, 0.1, 0.5 - 2e-7], dtype=np.float32)
    keys = ["d", "e", "c", "b", "a"]
    found = best_first(similarities, 4, lambda i: keys[i])
    assert [i for i, _ in found] == [1, 4, 2, 0]
    values = [v for _, v in found]
    assert values == sorted(values, reverse=True)
    assert values[1] == values[2] == values[3]
    assert best_first(similarities, 2, lambda i: keys[i]) == found[:2]
    assert best_first(similarities[:0], 2, str) == []


def test_neighbours_beyond_the_tolerance_are_no_ties():
    similarities = np.array([0.5, 0.5 + 3 * TIE, 0.5 + 6 * TIE], dtype=np.float32)
    assert [i for i, _ in best_first(similarities, 3, int)] == [2, 1, 0]
    assert [v for _, v in best_first(similarities, 3, int)] == similarities[::-1].tolist()
