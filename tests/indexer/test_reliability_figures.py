import json

import numpy as np
import pytest

from indexer.metrics import expected_calibration_error
from indexer.reliability_figures import ServedAnswers, reliability_figures, several_photos_figures
from indexer.report_reliability import reliability_markdown, reliability_summary
from models.reliability import ByGroup, HigherTaxa, NoveltyModel, Reliability
from models.taxonomy import Species, SpeciesId

SPECIES = tuple(
    Species(SpeciesId(str(i)), f"Planta p{i}", f"Genus{i // 2}", "Familia" if i < 4 else None) for i in range(6)
)
FLAGS = np.array([True, True, True, True, False, False])
NOVELTY = NoveltyModel((0.0,) * 4, (1.0,) * 4, (1.0,) * 4, 0.0, 0.5)
RELIABILITY = Reliability(ByGroup(1.5, 2.0), ByGroup(0.3, 0.1), NOVELTY, fitted=True)


def drawn_answers(count: int = 60, seed: int = 0, truth: np.ndarray | None = None) -> ServedAnswers:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, count) if truth is None else truth
    raw = rng.gamma(0.5, size=(len(truth), 6))
    raw[np.arange(len(truth)), truth] += 1.0
    p = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    scores = rng.random(len(truth))
    plants = np.array([f"plant{i // 2}" for i in range(len(truth))])
    return ServedAnswers(p, np.sqrt(p.max(axis=1)), truth, FLAGS, plants, scores)


def test_calibration_is_told_by_true_and_by_answered_group() -> None:
    photos = drawn_answers()
    figures = reliability_figures(photos, RELIABILITY, HigherTaxa(SPECIES))
    correct = photos.first == photos.truth
    confidence = photos.probabilities.max(axis=1)
    for name, rows in (("with_photos", FLAGS[photos.truth]), ("herbarium_only", ~FLAGS[photos.truth])):
        got = figures["calibration"][name]
        assert got["n"] == rows.sum()
        assert got["ece"] == pytest.approx(expected_calibration_error(confidence[rows], correct[rows]))
        assert got["ece_before"] == pytest.approx(
            expected_calibration_error(photos.gate_confidence[rows], correct[rows])
        )
    answered = figures["calibration_by_answer"]["herbarium_only"]
    assert answered["n"] == int((photos.first >= 4).sum())


def test_the_error_of_a_perfect_answer_shrinks_with_more_photos() -> None:
    few, many = (
        reliability_figures(drawn_answers(n), RELIABILITY, HigherTaxa(SPECIES))["calibration"]["overall"]
        for n in (60, 3000)
    )
    assert few["ece_if_perfect"] > 3 * many["ece_if_perfect"]
    assert few["ece_if_perfect"] < few["ece_if_perfect_95"]


def test_coverage_and_size_of_sets_are_those_of_a_count_by_hand() -> None:
    photos = drawn_answers()
    sets = reliability_figures(photos, RELIABILITY, HigherTaxa(SPECIES))["prediction_sets"]
    by_hand = [{s for s in range(6) if row[s] >= (0.3 if FLAGS[s] else 0.1)} for row in photos.probabilities]
    covered = np.array([t in chosen for t, chosen in zip(photos.truth, by_hand, strict=True)])
    sizes = np.array([len(chosen) for chosen in by_hand])
    for name, rows in photos.groups().items():
        assert sets[name]["share"] == pytest.approx(covered[rows].mean())
        assert sets[name]["mean_size"] == pytest.approx(sizes[rows].mean())
        assert sets[name]["empty"] == pytest.approx((sizes[rows] == 0).mean())
        low, high = sets[name]["interval"]
        assert low <= sets[name]["share"] <= high


def test_answers_are_counted_at_their_rank_and_judged_there() -> None:
    p = np.array(
        [
            [0.9, 0.1, 0, 0, 0, 0],  # species, right
            [0.9, 0.1, 0, 0, 0, 0],  # species, wrong: the truth is 1
            [0.5, 0.4, 0.1, 0, 0, 0],  # genus, right
            [0.5, 0.4, 0.1, 0, 0, 0],  # genus, wrong
            [0.4, 0.1, 0.4, 0.1, 0, 0],  # family, right
            [0.3, 0, 0.2, 0, 0.3, 0.2],  # undecided
            [0.9, 0.1, 0, 0, 0, 0],  # none of these
        ],
        dtype=np.float32,
    )
    truth = np.array([0, 1, 1, 2, 3, 0, 0])
    scores = np.array([0.0] * 6 + [0.9])
    photos = ServedAnswers(p, p.max(axis=1), truth, FLAGS, np.arange(7), scores)
    answers = reliability_figures(photos, RELIABILITY, HigherTaxa(SPECIES))["answers"]
    assert (answers["species"]["n"], answers["species"]["share"]) == (2, 0.5)
    assert (answers["genus"]["n"], answers["genus"]["share"]) == (2, 0.5)
    assert (answers["family"]["n"], answers["family"]["share"]) == (1, 1.0)
    assert (answers["named"]["n"], answers["named"]["share"]) == (5, pytest.approx(3 / 5))
    assert (answers["undecided"]["n"], answers["none of these"]["n"]) == (1, 1)


def test_known_photos_are_accepted_up_to_the_threshold() -> None:
    photos = drawn_answers()
    accepted = reliability_figures(photos, RELIABILITY, HigherTaxa(SPECIES))["novelty"]["known_accepted"]
    assert photos.unknown_scores is not None
    assert accepted["overall"]["share"] == pytest.approx((photos.unknown_scores <= 0.5).mean())


def test_what_is_not_fitted_is_not_reported() -> None:
    photos = drawn_answers()
    bare = ServedAnswers(photos.probabilities, photos.gate_confidence, photos.truth, FLAGS, photos.observation, None)
    figures = reliability_figures(bare, Reliability(), HigherTaxa(SPECIES))
    assert (figures["fitted"], figures["prediction_sets"], figures["novelty"]) == (False, None, None)
    assert "No prediction sets" in "\n".join(reliability_summary(figures))


def test_a_group_without_photos_is_empty_everywhere() -> None:
    photos = drawn_answers(truth=np.array([0, 1, 2, 3] * 5))
    figures = {**reliability_figures(photos, RELIABILITY, HigherTaxa(SPECIES)), "several_photos": None}
    assert figures["prediction_sets"]["herbarium_only"]["n"] == 0
    json.dumps(figures, allow_nan=False)
    assert "with field photos" in "\n".join(reliability_markdown(figures))


def test_all_photos_of_a_plant_are_compared_with_one_and_with_the_most_confident_one() -> None:
    truth = np.array([0, 0, 1, 1, 1, 2, 2])
    p = np.full((7, 3), 0.0, dtype=np.float32)
    p[:, :] = [
        [0.6, 0.4, 0],  # plant 0: right, less confident
        [0.2, 0.8, 0],  # plant 0: wrong, most confident
        [0.1, 0.9, 0],  # plant 1: right, most confident
        [0.5, 0.3, 0.2],  # plant 1: wrong
        [0.5, 0.3, 0.2],  # plant 1: wrong
        [0.6, 0.1, 0.3],  # plant 2: wrong
        [0.7, 0.1, 0.2],  # plant 2: wrong
    ]
    combined = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.9, 0, 0.1]], dtype=np.float32)
    plants = [np.array([0, 1]), np.array([2, 3, 4]), np.array([5, 6])]
    got = several_photos_figures(p, truth, combined, plants)
    assert got is not None
    assert (got["plants"], got["photos"]) == (3, 7)
    assert got["combined"]["share"] == pytest.approx(2 / 3)
    assert got["best_single"]["share"] == pytest.approx(1 / 3)
    assert got["mean_single"]["share"] == pytest.approx(2 / 7)
    assert got["combined_minus_best_single"]["difference"] == pytest.approx(1 / 3)
    assert (got["combined_minus_best_single"]["only_a"], got["combined_minus_best_single"]["only_b"]) == (1, 0)
    assert got["combined_minus_mean_single"]["difference"] == pytest.approx(5 / 7 - 2 / 7)
    assert "p_value" not in got["combined_minus_mean_single"]
    assert several_photos_figures(p, truth, combined[:0], []) is None


def test_every_section_has_its_table_and_its_line() -> None:
    share = {"n": 5, "share": 0.8, "interval": [0.6, 0.9]}
    score = {"auroc": 0.8, "auroc_interval": [0.7, 0.9], "fpr_at_95_tpr": 0.4, "fpr_at_95_tpr_interval": [0.3, 0.5]}
    several = several_photos_figures(
        np.eye(2, dtype=np.float32), np.array([0, 0]), np.eye(2, dtype=np.float32)[:1], [np.array([0, 1])]
    )
    figures = {
        **reliability_figures(drawn_answers(), RELIABILITY, HigherTaxa(SPECIES)),
        "several_photos": several,
        "unknown_species": {
            "known_photos": 9,
            "unknown_photos": 7,
            "scores": {"novelty": score, "max_probability": score, "similarity": score},
            "answered_none_of_these": {"threshold": 0.5, "unknown": share, "known": share},
        },
    }
    text = "\n".join(reliability_markdown(figures))
    for title in (
        "Calibration",
        "Prediction sets",
        "What is answered",
        "Several photos of one plant",
        "Unknown species",
    ):
        assert f"## {title}" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") >= 4
    summary = "\n".join(reliability_summary(figures))
    for words in ("Calibration error", "90% coverage", "1 plants with several", "AUROC 0.800"):
        assert words in summary
    assert reliability_markdown({}) == []
