import numpy as np
import pytest

from indexer.compare_figures import group_rows, seed_mean_interval
from indexer.compare_record import AnsweredPhotos, PairRecord, Scored
from indexer.intervals import mean_intervals, paired_difference

GENERATOR = np.random.default_rng(4)


def record(
    recipe: str, seed: int, positions: list[int], observations: list[str] | None = None, hidden: int = 0
) -> PairRecord:
    """Photos ``0, 1, …``, the last `hidden` of them herbarium-only."""
    n = len(positions)
    photos = AnsweredPhotos(
        tuple(str(i) for i in range(n)),
        tuple(observations or [f"plant-{i}" for i in range(n)]),
        np.arange(n) >= n - hidden,
        np.array(positions),
    )
    ece = {"overall": 0.1 * (seed + 1), "with_photos": 0.1, "herbarium_only": 0.3 if hidden else None}
    return PairRecord(recipe, seed, "run", test=Scored(photos, ece))


def test_shares_are_means_over_the_seeds_and_not_over_the_photos() -> None:
    records = [record("a", 0, [1, 1, 1, 9]), record("a", 1, [1, 3])]
    row = group_rows(records, "test")["overall"]
    assert row.top1 is not None
    assert row.top5 is not None
    assert row.top1.by_seed == {0: 0.75, 1: 0.5}
    assert row.top1.value == pytest.approx(0.625)
    assert row.top5.value == pytest.approx(0.875)
    assert (row.n, row.plants) == (6, 4)
    assert row.ece is not None
    assert row.ece.value == pytest.approx(0.15)


def test_groups_are_kept_apart_and_an_empty_one_has_no_figures() -> None:
    rows = group_rows([record("a", 0, [1, 1, 2, 7], hidden=1)], "test")
    assert [rows[g].n for g in ("overall", "with_photos", "herbarium_only")] == [4, 3, 1]
    assert rows["herbarium_only"].top1.value == 0.0  # type: ignore[union-attr]
    assert rows["with_photos"].top1.value == pytest.approx(2 / 3)  # type: ignore[union-attr]
    empty = group_rows([record("a", 0, [1, 2])], "test")["herbarium_only"]
    assert (empty.n, empty.top1) == (0, None)
    assert group_rows([record("a", 0, [1, 2])], "folds")["overall"].n == 0


def test_one_seed_has_the_interval_of_a_single_evaluation() -> None:
    values = (GENERATOR.random(60) < 0.6).astype(float)
    clusters = np.repeat(np.arange(20), 3)
    ours = seed_mean_interval(values, np.zeros(60, np.int64), clusters, resamples=500)
    (theirs,) = mean_intervals(values[:, None], clusters, resamples=500, seed=0)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_interval_equals_a_readable_bootstrap() -> None:
    seeds = np.array([3] * 30 + [8] * 20)
    clusters = np.concatenate([np.repeat(np.arange(15), 2), np.repeat(np.arange(10, 20), 2)])
    values = (GENERATOR.random(50) < 0.5).astype(float)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 20, size=(300, 20))
    means = []
    for sample in drawn:
        shares = []
        for seed in (3, 8):
            parts = [values[(seeds == seed) & (clusters == plant)] for plant in sample]
            joined = np.concatenate(parts)
            if len(joined):
                shares.append(joined.mean())
        means.append(np.mean(shares))
    expected = np.percentile(means, [2.5, 97.5])
    assert seed_mean_interval(values, seeds, clusters, resamples=300) == pytest.approx(tuple(expected), abs=1e-9)


def test_a_plant_that_every_seed_tests_is_one_plant() -> None:
    """Repeating the same test photos under more seeds must not make the interval narrower."""
    positions = [1, 2] * 20
    once = group_rows([record("a", 0, positions)], "test")["overall"].top1
    thrice = group_rows([record("a", seed, positions) for seed in range(3)], "test")["overall"].top1
    assert once is not None
    assert thrice is not None
    assert thrice.interval == pytest.approx(once.interval)


def test_unanimous_answers_do_not_claim_certainty() -> None:
    row = group_rows([record("a", 0, [1] * 10)], "test")["overall"]
    assert row.top1 is not None
    assert row.top1.interval == pytest.approx((0.025 ** (1 / 10), 1.0))


def test_differences_are_paired_photo_by_photo_within_a_seed() -> None:
    mine = [record("a", 0, [1, 1, 1, 2]), record("a", 1, [1, 2, 2, 2])]
    theirs = [record("b", 1, [2, 2, 2, 1]), record("b", 0, [1, 2, 2, 2])]
    row = group_rows(mine, "test", theirs)["overall"].difference
    assert row is not None
    a = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    b = np.array([1, 0, 0, 0, 0, 0, 0, 1], bool)
    plants = np.array([f"plant-{i}" for i in [0, 1, 2, 3, 0, 1, 2, 3]])
    assert row == paired_difference(a, b, plants)
    assert (row.n, row.only_a, row.only_b) == (8, 3, 1)


def test_photos_and_seeds_that_only_one_answered_are_left_out_of_the_difference() -> None:
    mine = [record("a", 0, [1, 1, 1]), record("a", 2, [1])]
    theirs = [record("b", 0, [1, 2])]
    row = group_rows(mine, "test", theirs)["overall"].difference
    assert row is not None
    assert (row.n, row.only_a, row.only_b) == (2, 1, 0)
    assert group_rows(mine, "test", [record("b", 5, [1])])["overall"].difference is None


def test_answers_come_back_from_json_and_odd_columns_are_refused() -> None:
    photos = record("a", 0, [1, 4], hidden=1).test.photos  # type: ignore[union-attr]
    back = AnsweredPhotos.from_json(photos.to_json())
    assert back.to_json() == photos.to_json()
    assert back.herbarium_only.dtype == np.bool_
    for changed in ({"photo_id": ["0", "0"]}, {"truth_position": [1]}):
        with pytest.raises(ValueError, match=r"once|lengths"):
            AnsweredPhotos.from_json({**photos.to_json(), **changed})
