import numpy as np
import pytest
from scipy.stats import binomtest

from indexer.intervals import (
    balanced_interval,
    cluster_positions,
    mcnemar_exact,
    mean_intervals,
    paired_difference,
    resample_weights,
)


def interval_of(values, groups=None, *, resamples=400, seed=0):
    values = np.asarray(values, dtype=np.float64)
    clusters = cluster_positions(groups, len(values))
    return mean_intervals(values[:, None], clusters, resamples=resamples, seed=seed)[0]


def test_resample_draws_as_many_clusters_as_there_are():
    weights = np.concatenate(list(resample_weights(7, 50, seed=1)))
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert len({tuple(row) for row in weights}) > 40


def test_resample_chunks_add_up_when_clusters_are_many():
    chunks = [w.shape for w in resample_weights(1_500_000, 5, seed=0)]
    assert chunks == [(2, 1_500_000), (2, 1_500_000), (1, 1_500_000)]


def test_interval_holds_the_true_share_in_about_95_of_100_simulations():
    generator = np.random.default_rng(5)
    held = 0
    for simulation in range(200):
        low, high = interval_of(generator.random(80) < 0.4, resamples=500, seed=simulation)
        held += low <= 0.4 <= high
    assert 180 <= held <= 198


def test_cluster_interval_holds_where_one_that_ignores_plants_does_not():
    """Ten photos of each of 40 plants that agree with each other: 40 pieces of evidence, not 400."""
    generator = np.random.default_rng(6)
    plants = np.repeat(np.arange(40), 10)
    by_plant, by_photo = 0, 0
    for simulation in range(200):
        values = np.repeat(generator.random(40) < 0.4, 10)
        low, high = interval_of(values, plants, resamples=300, seed=simulation)
        by_plant += low <= 0.4 <= high
        low, high = interval_of(values, resamples=300, seed=simulation)
        by_photo += low <= 0.4 <= high
    assert 180 <= by_plant <= 198
    assert by_photo < 130


def test_interval_is_the_same_for_the_same_seed_and_differs_for_another():
    values = np.random.default_rng(0).random(60)
    assert interval_of(values, seed=3) == interval_of(values, seed=3)
    assert interval_of(values, seed=3) != interval_of(values, seed=4)


@pytest.mark.parametrize("n", [5, 20, 60])
def test_unanimous_answers_get_the_exact_binomial_bound(n):
    exact = binomtest(n, n).proportion_ci(0.95, method="exact")
    assert interval_of(np.ones(n)) == pytest.approx((exact.low, 1.0))
    assert interval_of(np.zeros(n)) == pytest.approx((0.0, 1.0 - exact.low))


def test_one_plant_alone_proves_nothing():
    assert interval_of([1, 0, 1], np.array(["p", "p", "p"])) == (0.0, 1.0)


def test_balanced_interval_brackets_the_balanced_accuracy():
    generator = np.random.default_rng(2)
    truth = np.repeat([0, 1], [90, 10])
    correct = generator.random(100) < np.where(truth == 0, 0.9, 0.3)
    observed = (correct[:90].mean() + correct[90:].mean()) / 2
    low, high = balanced_interval(correct, truth, np.arange(100), resamples=500, seed=0)
    assert low < observed < high
    # The ten photos of the rare species dominate the width: far wider than that of the plain share.
    plain_low, plain_high = interval_of(correct)
    assert high - low > 1.5 * (plain_high - plain_low)


def test_balanced_interval_of_one_species_equals_the_plain_one():
    correct = np.random.default_rng(3).random(50) < 0.5
    balanced = balanced_interval(correct, np.zeros(50, np.intp), np.arange(50), resamples=300, seed=9)
    assert balanced == pytest.approx(interval_of(correct, resamples=300, seed=9))


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match="one group for each of the 3 rows"):
        cluster_positions(np.array(["a", "b"]), 3)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 5), (0, 6), (12, 3), (3, 12), (900, 1100)])
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_paired_difference_counts_and_signs():
    a = np.array([1, 1, 1, 1, 0, 0, 1, 1], bool)
    b = np.array([1, 0, 0, 0, 1, 0, 1, 1], bool)
    result = paired_difference(a, b, resamples=500)
    assert (result.n, result.only_a, result.only_b) == (8, 3, 1)
    assert result.difference == pytest.approx(0.25)
    assert result.interval[0] <= 0.25 <= result.interval[1]
    assert paired_difference(b, a, resamples=500).difference == pytest.approx(-0.25)
    assert result.to_json()["p_value"] == pytest.approx(binomtest(3, 4).pvalue)


def test_pairing_narrows_the_interval_of_recipes_that_err_together():
    generator = np.random.default_rng(8)
    a = generator.random(200) < 0.5
    b = a.copy()
    b[:4] = ~b[:4]
    low, high = paired_difference(a, b, resamples=500).interval
    plain_low, plain_high = interval_of(a)
    assert high - low < 0.5 * (plain_high - plain_low)


def test_paired_difference_moves_photos_of_a_plant_together():
    a, b = np.repeat([True, False, True, False], 25), np.zeros(100, bool)
    plants = np.repeat(["p", "q", "r", "s"], 25)
    together = paired_difference(a, b, plants, resamples=400).interval
    alone = paired_difference(a, b, resamples=400).interval
    assert together == (0.0, 1.0)
    assert alone[0] > 0.3


def test_paired_difference_refuses_rows_of_unequal_length():
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(np.ones(2, bool), np.ones(3, bool))
