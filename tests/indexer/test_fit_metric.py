import numpy as np
import pytest

from indexer import fit_metric as module
from indexer.fit_metric import metric_of, rows_for_metric, some_of_each
from indexer.run_config import GeneralistConfig
from models.metric import fit_metric


def images(counts: dict[tuple[int, bool], int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All rows, their classes and field flags, in no order."""
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    order = np.random.default_rng(seed).permutation(len(pairs))
    classes = np.array([pairs[i][0] for i in order], dtype=np.int64)
    return np.arange(len(pairs)), classes, np.array([pairs[i][1] for i in order], dtype=bool)


def slow_some_of_each(rows: np.ndarray, classes: np.ndarray, most: int) -> set[int]:
    taken: dict[int, list[int]] = {}
    for row in rows.tolist():
        own = taken.setdefault(int(classes[row]), [])
        if len(own) < most:
            own.append(row)
    return {row for own in taken.values() for row in own}


@pytest.mark.parametrize("most", [1, 2, 5, 100])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_of_each_class_are_taken(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 9, 200)
    rows = rng.permutation(200)[:120]
    found = some_of_each(rows, classes, most)
    assert len(found) == len(set(found.tolist()))
    assert set(found.tolist()) == slow_some_of_each(rows, classes, most)


def test_classes_need_not_be_numbered_without_gaps() -> None:
    classes = np.array([7, 3, 7, 900, 3, 7])
    assert some_of_each(np.arange(6), classes, 2).tolist() == [1, 4, 0, 2, 3]


def test_of_no_rows_none_are_taken() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert len(some_of_each(nothing, np.arange(3), 4)) == 0
    assert len(rows_for_metric(nothing, np.arange(3), np.zeros(3, dtype=bool))) == 0


def test_up_to_fifty_sheets_and_fifty_photos_of_a_species_are_taken() -> None:
    counts = {(0, False): 80, (0, True): 70, (1, False): 50, (1, True): 3, (2, False): 51}
    rows, classes, is_field = images(counts)
    found = rows_for_metric(rows, classes, is_field)
    taken = {(c, f): int(((classes[found] == c) & (is_field[found] == f)).sum()) for c, f in counts}
    assert taken == {(0, False): 50, (0, True): 50, (1, False): 50, (1, True): 3, (2, False): 50}
    assert len(found) == len(set(found.tolist())) == sum(taken.values())


def test_only_the_given_rows_are_taken() -> None:
    _, classes, is_field = images({(0, False): 30, (0, True): 30, (1, False): 30})
    rows = np.arange(0, 90, 3)
    assert set(rows_for_metric(rows, classes, is_field).tolist()) == set(rows.tolist())


@pytest.mark.parametrize(("species", "each"), [(2, 50), (10, 10), (25, 4), (50, 2), (80, 2)])
def test_many_species_give_fewer_images_each_but_never_fewer_than_two(
    monkeypatch: pytest.MonkeyPatch, species: int, each: int
) -> None:
    monkeypatch.setattr(module, "_MOST_IMAGES", 200)
    counts = {(s, f): 60 for s in range(species) for f in (False, True)}
    rows, classes, is_field = images(counts)
    found = rows_for_metric(rows, classes, is_field)
    assert len(found) == 2 * species * each
    for s, f in counts:
        assert ((classes[found] == s) & (is_field[found] == f)).sum() == each


def test_ten_thousand_species_stay_within_the_limit() -> None:
    classes = np.repeat(np.arange(10_000), 20)
    is_field = np.tile(np.arange(20) % 2 == 0, 10_000)
    found = rows_for_metric(np.arange(200_000), classes, is_field)
    assert len(found) == 60_000
    assert np.bincount(classes[found]).tolist() == [6] * 10_000


@pytest.mark.parametrize("kind", ["cosine", "centred", "whitened"])
def test_the_metric_is_the_configured_one(kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    classes, is_field = np.arange(40) % 4, np.arange(40) >= 20
    config = GeneralistConfig.model_validate({"metric": kind, "shrinkage": 0.7})
    found = metric_of(config, vectors, classes, is_field)
    expected = fit_metric(config.metric, vectors, classes, is_field, shrinkage=0.7)
    for name, part in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], part)
    other = fit_metric(config.metric, vectors, classes, is_field, shrinkage=0.3)
    assert np.array_equal(found.matrix, other.matrix) is (kind != "whitened")
