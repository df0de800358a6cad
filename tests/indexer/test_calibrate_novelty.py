import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from indexer.calibrate_novelty import _fit, accepting_threshold, fit_novelty


def drawn(count: int, shift: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)) * [1.0, 2.0, 0.5, 1.0] + shift


def test_the_threshold_is_the_smallest_that_accepts_the_share() -> None:
    scores = np.array([0.4, 0.1, 0.3, 0.2])
    even = np.ones(4)
    assert accepting_threshold(scores, even, 0.75) == 0.3
    assert accepting_threshold(scores, even, 0.76) == 0.4
    assert accepting_threshold(scores, np.array([0.0, 1.0, 0.0, 0.0]), 0.95) == 0.1


def test_the_fit_is_scikit_learns_where_no_weight_would_be_negative() -> None:
    known, unknown = drawn(300, 0.6, 0), drawn(300, 0.0, 1)
    got = _fit(known, np.ones(300), unknown)
    rows = (np.concatenate([known, unknown]) - np.array(got.means)) / np.array(got.scales)
    truth = np.repeat([1, 0], 300)
    # scikit-learn minimises |w|²/2 + C Σ loss; here Σ loss / 300 + 0.01 |w|².
    reference = LogisticRegression(C=1.0 / (300 * 2 * 0.01), tol=1e-10).fit(rows, truth)
    assert (reference.coef_ > 0).all()
    np.testing.assert_allclose(got.weights, reference.coef_[0], atol=1e-3)
    assert got.bias == pytest.approx(float(reference.intercept_[0]), abs=1e-3)


def test_a_feature_that_points_the_wrong_way_is_left_out() -> None:
    known, unknown = drawn(300, 0.6, 0), drawn(300, 0.0, 1)
    known[:, 2] -= 2.0
    weights = _fit(known, np.ones(300), unknown).weights
    assert weights[2] == 0.0
    assert weights[0] > 0.1


def test_known_and_unknown_count_alike_however_many_there_are() -> None:
    known, unknown = drawn(400, 0.6, 0), drawn(100, 0.0, 1)
    model = _fit(known, np.ones(400), unknown)
    means = [float(model.unknown_scores(rows).mean()) for rows in (known, unknown)]
    assert sum(means) == pytest.approx(1.0, abs=1e-3)
    assert means[0] < means[1]


def test_weights_of_known_photos_are_heard() -> None:
    known = np.concatenate([drawn(200, 0.0, 0), drawn(200, 2.0, 1)])
    near = np.repeat([1.0, 0.0], 200)
    fold = np.arange(400) % 2
    unknown, other = drawn(200, -1.0, 2), np.arange(200) % 2
    found = fit_novelty(known, near, fold, unknown, other)
    assert found.model is not None
    accepted = found.model.unknown_scores(known[:200]) <= found.model.threshold
    assert float(np.mean(accepted)) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("known", "unknown"), [(19, 50), (50, 19), (50, 0)])
def test_too_few_photos_give_no_model(known: int, unknown: int) -> None:
    found = fit_novelty(
        drawn(known, 1.0, 0), np.ones(known), np.zeros(known, int), drawn(unknown, 0.0, 1), np.zeros(unknown, int)
    )
    assert found.model is None
    assert found.figures == {"known_photos": known, "unknown_photos": unknown}


def test_constant_and_absent_features_have_no_say() -> None:
    known, unknown = drawn(100, 1.0, 0), drawn(100, 0.0, 1)
    for rows in (known, unknown):
        rows[:, 1], rows[:, 3] = np.nan, 0.5
    weights = _fit(known, np.ones(100), unknown).weights
    assert weights[1] == weights[3] == 0.0
    assert weights[0] > 0.1
