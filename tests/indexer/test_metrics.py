import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from indexer.metrics import (
    GroupFigures,
    confusion_counts,
    expected_calibration_error,
    group_figures,
    protocol_figures,
    reliability_bins,
    risk_coverage,
    score_photos,
)

STABLE_KEYS = {
    "n", "species", "top1", "top1_interval", "top5", "top5_interval", "mrr", "macro_precision",
    "macro_recall", "macro_f1", "balanced_accuracy", "ece", "aurc",
}  # fmt: skip


@pytest.fixture
def random_photos():
    generator = np.random.default_rng(11)
    probabilities = generator.dirichlet(np.full(12, 0.3), size=150)
    # Nine of the twelve species occur; the others can only be wrong answers.
    return probabilities, generator.integers(0, 9, size=150)


def slow_position(row, truth):
    """Place of the truth, from 1, by sorting: falling probability, then place in the class list."""
    return 1 + sorted(range(len(row)), key=lambda s: (-row[s], s)).index(truth)


def test_positions_equal_those_of_a_full_sort(random_photos):
    probabilities, truth = random_photos
    rounded = np.round(probabilities, 1)
    positions = score_photos(rounded, truth).truth_position
    assert positions.tolist() == [slow_position(r, t) for r, t in zip(rounded, truth, strict=True)]


def test_positions_are_the_same_across_chunks(random_photos, monkeypatch):
    probabilities, truth = random_photos
    whole = score_photos(probabilities, truth)
    monkeypatch.setattr("indexer.metrics._CELLS_PER_CHUNK", 12 * 7)
    chunked = score_photos(probabilities, truth)
    assert np.array_equal(whole.truth_position, chunked.truth_position)
    assert np.array_equal(whole.predicted, chunked.predicted)
    assert np.array_equal(whole.truth_probability, chunked.truth_probability)


def test_macro_figures_equal_those_of_scikit_learn(random_photos):
    probabilities, truth = random_photos
    predicted = probabilities.argmax(axis=1)
    figures = group_figures(probabilities, truth, resamples=50)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), average="macro", zero_division=0
    )
    assert figures.macro_precision == pytest.approx(precision)
    assert figures.macro_recall == pytest.approx(recall)
    assert figures.macro_f1 == pytest.approx(f1)
    assert figures.balanced_accuracy == pytest.approx(recall)
    assert figures.top1 == pytest.approx((predicted == truth).mean())
    top5 = np.argsort(-probabilities, axis=1)[:, :5]
    assert figures.top5 == pytest.approx((top5 == truth[:, None]).any(axis=1).mean())


def test_balanced_accuracy_equals_scikit_learn_when_every_species_occurs():
    generator = np.random.default_rng(4)
    probabilities, truth = generator.dirichlet(np.ones(5), size=80), np.arange(80) % 5
    expected = balanced_accuracy_score(truth, probabilities.argmax(axis=1))
    assert group_figures(probabilities, truth, resamples=20).balanced_accuracy == pytest.approx(expected)


def test_figures_of_a_table_worked_out_by_hand():
    probabilities = np.array(
        [
            [0.70, 0.10, 0.06, 0.05, 0.05, 0.04],  # truth first
            [0.40, 0.30, 0.10, 0.10, 0.05, 0.05],  # truth second
            [0.30, 0.25, 0.20, 0.15, 0.07, 0.03],  # truth sixth
            [0.10, 0.10, 0.60, 0.10, 0.05, 0.05],  # truth first
        ]
    )
    figures = group_figures(probabilities, np.array([0, 1, 5, 2]), resamples=50)
    assert (figures.n, figures.species) == (4, 4)
    assert figures.top1 == 0.5
    assert figures.top5 == 0.75
    assert figures.mrr == pytest.approx((1 + 1 / 2 + 1 / 6 + 1) / 4)
    # Species 0 was answered three times, once rightly; 1 and 5 never; 2 once, rightly.
    assert figures.macro_precision == pytest.approx((1 / 3 + 0 + 1 + 0) / 4)
    assert figures.macro_recall == pytest.approx(0.5)
    assert figures.macro_f1 == pytest.approx((2 * 1 / (1 + 3) + 0 + 1 + 0) / 4)
    assert figures.balanced_accuracy == pytest.approx(0.5)
    # By falling confidence: .7 right, .6 right, .4 wrong, .3 wrong.
    assert figures.aurc == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert figures.ece == pytest.approx((0.3 + 0.4 + 0.4 + 0.3) / 4)


def test_equal_probabilities_go_to_the_species_first_in_the_list():
    probabilities = np.full((3, 3), 1 / 3)
    scored = score_photos(probabilities, np.array([0, 1, 2]))
    assert scored.truth_position.tolist() == [1, 2, 3]
    assert scored.predicted.tolist() == [0, 0, 0]
    assert scored.correct.tolist() == [True, False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.5])
def test_values_that_are_no_probability_are_refused(bad):
    probabilities = np.array([[0.5, 0.5], [0.5, bad]])
    with pytest.raises(ValueError, match="finite and within"):
        score_photos(probabilities, np.array([0, 1]))


@pytest.mark.parametrize("truth", [[0, 2], [-1, 0]])
def test_true_species_outside_the_columns_are_refused(truth):
    with pytest.raises(ValueError, match="outside the 2 columns"):
        score_photos(np.full((2, 2), 0.5), np.array(truth))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected \(N, S\) and \(N,\)"):
        score_photos(np.full((2, 2), 0.5), np.array([0, 1, 1]))


def test_protocol_splits_photos_by_the_group_of_their_true_species(random_photos):
    probabilities, truth = random_photos
    herbarium_only = truth >= 6
    plants = np.array([f"plant-{i // 2}-{t}" for i, t in enumerate(truth)])
    figures = protocol_figures(probabilities, truth, herbarium_only, plants, resamples=50)
    assert list(figures) == ["overall", "with_photos", "herbarium_only"]
    assert figures["overall"].n == figures["with_photos"].n + figures["herbarium_only"].n
    assert figures["herbarium_only"].species == 3
    alone = group_figures(
        probabilities[herbarium_only], truth[herbarium_only], groups=plants[herbarium_only], resamples=50
    )
    assert figures["herbarium_only"] == alone


def test_an_empty_group_has_counts_of_zero_and_no_figures_in_json(random_photos):
    probabilities, truth = random_photos
    none = np.zeros(len(truth), bool)
    figures = protocol_figures(probabilities, truth, none, np.arange(len(truth)), resamples=20)
    group = json.loads(json.dumps(figures["herbarium_only"].to_json(), allow_nan=False))
    assert group["n"] == 0
    assert set(group) >= STABLE_KEYS
    assert {name for name, value in group.items() if value is not None} == {"n", "species"}


def test_json_of_a_group_has_the_stable_keys_and_no_nan(random_photos):
    group = json.loads(json.dumps(group_figures(*random_photos, resamples=50).to_json(), allow_nan=False))
    assert set(group) >= STABLE_KEYS
    assert None not in group.values()
    low, high = group["top1_interval"]
    assert 0 <= low <= group["top1"] <= high <= 1
    low, high = group["balanced_accuracy_interval"]
    assert low <= group["balanced_accuracy"] <= high


def test_protocol_refuses_a_mask_that_is_not_one_bool_a_photo(random_photos):
    probabilities, truth = random_photos
    with pytest.raises(ValueError, match="bool"):
        protocol_figures(probabilities, truth, np.zeros(3, bool), np.arange(3))


def test_figures_of_no_photos_are_none():
    assert group_figures(np.zeros((0, 4)), np.zeros(0, np.intp)) == GroupFigures(n=0, species=0)


def test_risk_and_calibration_do_not_depend_on_the_order_of_photos():
    generator = np.random.default_rng(1)
    confidence = np.round(generator.random(200), 1)
    correct = generator.random(200) < confidence
    mixed = generator.permutation(200)
    assert np.allclose(risk_coverage(confidence, correct)[1], risk_coverage(confidence[mixed], correct[mixed])[1])
    assert expected_calibration_error(confidence, correct) == pytest.approx(
        expected_calibration_error(confidence[mixed], correct[mixed])
    )


def test_risk_at_full_coverage_is_the_error_rate():
    correct = np.array([True, False, True, True])
    coverage, risk = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), correct)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])


def test_calibration_error_is_small_for_calibrated_and_large_for_boastful_confidence():
    generator = np.random.default_rng(0)
    confidence = generator.random(20_000)
    correct = generator.random(20_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.02
    assert expected_calibration_error(np.full(20_000, 0.99), correct) == pytest.approx(0.49, abs=0.02)


def test_reliability_bins_hold_equally_many_photos():
    confidence = np.linspace(0, 1, 30) ** 3
    table = reliability_bins(confidence, confidence > 0.5, bins=15)
    assert table[:, 0].tolist() == [2.0] * 15
    assert len(reliability_bins(confidence[:4], confidence[:4] > 0.5, bins=15)) == 4
    assert reliability_bins(np.zeros(0), np.zeros(0, bool)).shape == (0, 3)


def test_calibration_error_of_no_photos_is_refused():
    with pytest.raises(ValueError, match="at least one photo"):
        expected_calibration_error(np.zeros(0), np.zeros(0, bool))


def test_confusion_equals_that_of_scikit_learn(random_photos):
    probabilities, truth = random_photos
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_counts(truth, predicted, 12)
    table = np.zeros((12, 12), int)
    table[confusion.truth, confusion.predicted] = confusion.count
    assert np.array_equal(table, confusion_matrix(truth, predicted, labels=range(12)))
    assert confusion.count.min() >= 1
