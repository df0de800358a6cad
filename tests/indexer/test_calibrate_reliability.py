import json
import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier

from indexer.calibrate_gate import fit_gate
from indexer.calibrate_reliability import (
    FittedReliability,
    _Lookup,
    _unseen_answers,
    _without_their_species,
    conformal_limit,
    fit_reliability,
)
from models.bundle import CalibrationSet
from models.gate import Evidence, FusionGate, Gate
from models.reliability import ByGroup, Reliability, novelty_features

CLASSES, FOLDS = 12, 3
SHARPENED = FusionGate(1.0, 1.0, 0.0, specialist_temperature=0.3, generalist_temperature=0.05)
"""A gate that is surer than it should be."""


def simulated(photos: int = 900, seed: int = 0) -> CalibrationSet:
    """Answers of `FOLDS` folds: in each, a third of the species is hidden and told from its sheets alone."""
    rng = np.random.default_rng(seed)
    parts = []
    for fold in range(FOLDS):
        seen = np.arange(CLASSES) % FOLDS != fold
        truth = rng.integers(0, CLASSES, size=photos // FOLDS)
        rows = np.arange(len(truth))
        logits = rng.normal(size=(len(truth), CLASSES)).astype(np.float32)
        logits[rows, truth] += np.where(seen[truth], 3.0, 0.5)
        similarities = (0.15 * rng.normal(size=(len(truth), CLASSES))).astype(np.float32)
        similarities[rows, truth] += 0.35
        flags = np.tile(seen, (len(truth), 1))
        parts.append(CalibrationSet(logits, np.clip(similarities, -1, 1), truth, ~seen[truth], flags))
    return CalibrationSet.join(parts)


def fit(data: CalibrationSet, gate: Gate | None = None) -> FittedReliability:
    chosen = gate or fit_gate(data, 1 / 3, "fusion").gate
    refit = (lambda part: fit_gate(part, 1 / 3, "fusion").gate) if gate is None else (lambda _: gate)
    return fit_reliability(data, 1 / 3, chosen, refit)


def answers(data: CalibrationSet, gate: Gate, reliability: Reliability) -> np.ndarray:
    """Calibrated probabilities ``(M, C)``."""
    table = np.empty(data.logits.shape, dtype=np.float32)
    for row in range(len(data)):
        flags = data.has_field_photos[row]
        seen = Evidence(data.logits[row : row + 1], data.similarities[row : row + 1], flags)
        table[row] = reliability.calibrate(gate.probabilities(seen), flags)[0]
    return table


def loss(table: np.ndarray, data: CalibrationSet) -> float:
    return -float(np.log(np.maximum(table[np.arange(len(data)), data.truth], 1e-30)).mean())


@pytest.fixture(scope="module")
def fitted() -> FittedReliability:
    return fit(simulated(), SHARPENED)


def test_probabilities_that_were_too_sure_are_made_honest_on_fresh_photos(fitted: FittedReliability) -> None:
    temperatures = fitted.reliability.temperatures
    assert temperatures.with_photos is not None
    assert temperatures.with_photos > 1.5
    fresh = simulated(seed=1)
    before, after = (answers(fresh, SHARPENED, r) for r in (Reliability(), fitted.reliability))
    assert loss(after, fresh) < loss(before, fresh) - 0.1
    assert abs(after.max(axis=1).mean() - (after.argmax(axis=1) == fresh.truth).mean()) < 0.04
    assert before.max(axis=1).mean() - (before.argmax(axis=1) == fresh.truth).mean() > 0.06


def test_a_fitted_gate_is_not_made_worse() -> None:
    data, fresh = simulated(), simulated(seed=1)
    gate = fit_gate(data, 1 / 3, "fusion").gate
    found = fit(data).reliability
    assert loss(answers(fresh, gate, found), fresh) < loss(answers(fresh, gate, Reliability()), fresh) + 0.01
    figures = fit(data).figures
    assert figures["negative_log_likelihood"] <= figures["negative_log_likelihood_before"]


def test_sets_cover_nine_of_ten_fresh_photos_in_each_group(fitted: FittedReliability) -> None:
    fresh = simulated(3000, seed=2)
    table = answers(fresh, SHARPENED, fitted.reliability)
    inside = np.array(
        [
            fitted.reliability.in_set(row[None], flags)[0, true]
            for row, flags, true in zip(table, fresh.has_field_photos, fresh.truth, strict=True)
        ]
    )
    assert inside[~fresh.hidden].mean() == pytest.approx(0.9, abs=0.03)
    assert inside[fresh.hidden].mean() == pytest.approx(0.9, abs=0.045)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("photos", [20, 57, 300])
def test_the_serving_rule_gives_the_sets_that_mapie_gives_for_each_group(seed: int, photos: int) -> None:
    rng = np.random.default_rng(seed)
    with_photos = np.arange(8) < 5
    logits = rng.normal(size=(2 * photos, 8)).astype(np.float32)
    truth = np.concatenate([rng.integers(0, 5, photos), rng.integers(5, 8, photos)])
    logits[np.arange(2 * photos), truth] += np.where(with_photos[truth], 3.0, 1.0)
    table = np.exp(logits)
    table = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    of_truth = table[np.arange(2 * photos), truth]
    limits = ByGroup(conformal_limit(of_truth[:photos]), conformal_limit(of_truth[photos:]))
    served = Reliability(set_limits=limits).in_set(table, with_photos)
    lookup = _Lookup()
    lookup.classes_ = np.arange(8)
    for members, rows in ((with_photos, slice(0, photos)), (~with_photos, slice(photos, None))):
        mapie = SplitConformalClassifier(lookup, confidence_level=0.9, conformity_score="lac", prefit=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="WARNING: your conformalization dataset has less labels")
            mapie.conformalize(table[rows].astype(np.float64), truth[rows])
        sets = mapie.predict_set(table.astype(np.float64))[1][:, :, 0]
        np.testing.assert_array_equal(served[:, members], sets[:, members])


def test_too_few_photos_give_no_limit() -> None:
    assert conformal_limit(np.full(19, 0.9, dtype=np.float32)) is None
    assert conformal_limit(np.full(20, 0.9, dtype=np.float32)) == pytest.approx(0.9)


def test_shuffled_truth_gives_no_false_confidence() -> None:
    data = simulated()
    truth = np.random.default_rng(5).permutation(data.truth)
    shuffled = replace(data, truth=truth, hidden=~data.has_field_photos[np.arange(len(data)), truth])
    found = fit(shuffled, SHARPENED)
    fresh = simulated(300, seed=1)
    table = answers(fresh, SHARPENED, found.reliability)
    assert table.max(axis=1).mean() < 0.25
    sizes = [found.reliability.in_set(r[None], f).sum() for r, f in zip(table, fresh.has_field_photos, strict=True)]
    assert np.mean(sizes) > 0.8 * CLASSES
    novelty = found.figures["novelty"]
    assert abs(novelty["auroc"] - 0.5) < 0.06
    assert novelty["unknown_accepted"] > 0.85


def test_unknown_plants_are_told_from_known_ones_on_fresh_photos(fitted: FittedReliability) -> None:
    figures = fitted.figures["novelty"]
    assert figures["auroc"] > 0.7
    assert figures["known_accepted"] >= 0.95
    model = fitted.reliability.novelty
    assert model is not None
    fresh = simulated(seed=3)
    unseen = _unseen_answers(fresh, SHARPENED, lambda _: SHARPENED)
    strange, _ = _without_their_species(unseen, fresh, fitted.reliability.temperatures)
    table = answers(fresh, SHARPENED, fitted.reliability)
    familiar = np.concatenate([novelty_features(evidence, table[rows]) for rows, evidence in unseen.evidence])
    accepted = float(np.mean(model.unknown_scores(familiar) <= model.threshold))
    assert accepted == pytest.approx(0.95, abs=0.03)
    assert float(np.mean(model.unknown_scores(strange) <= model.threshold)) < accepted - 0.1


def test_pseudo_unknown_photos_are_seen_without_column_and_prototype_of_their_species() -> None:
    data = simulated(90)
    seen_shapes = []

    class Spy:
        def probabilities(self, evidence: Evidence) -> np.ndarray:
            seen_shapes.append(evidence.logits.shape)
            return SHARPENED.probabilities(evidence)

    unseen = _unseen_answers(data, Spy(), lambda _: Spy())  # type: ignore[arg-type, return-value]
    seen_shapes.clear()
    features, folds = _without_their_species(unseen, data, ByGroup(1.0, 1.0))
    assert len(features) == len(folds) == int(data.hidden.sum())
    assert {columns for _, columns in seen_shapes} == {CLASSES - 1}


def test_every_fold_is_answered_by_a_gate_that_had_not_seen_it() -> None:
    data = simulated(300)
    parts = []

    def refit(part: CalibrationSet) -> Gate:
        parts.append(part)
        return SHARPENED

    fit_reliability(data, 1 / 3, SHARPENED, refit)
    assert [len(part) for part in parts] == [200] * FOLDS
    patterns = {tuple(p) for p in np.unique(data.has_field_photos, axis=0).tolist()}
    for part in parts:
        assert len(patterns - {tuple(p) for p in np.unique(part.has_field_photos, axis=0).tolist()}) == 1


@pytest.mark.parametrize("photos", [0, 19])
def test_with_too_few_photos_nothing_is_promised(photos: int, caplog: pytest.LogCaptureFixture) -> None:
    data = simulated(300)
    few = CalibrationSet(**{name: values[:photos] for name, values in data.arrays().items()})
    with caplog.at_level(logging.WARNING):
        found = fit_reliability(few, 1 / 3, SHARPENED, lambda _: SHARPENED)
    assert found.reliability == Reliability()
    assert not found.reliability.fitted
    assert found.figures == {"photos": photos, "fitted": False}
    assert f"only {photos}" in caplog.text


@pytest.mark.parametrize("hidden", [True, False])
def test_photos_of_one_group_alone_promise_nothing_for_the_other(hidden: bool) -> None:
    data = simulated()
    rows = data.hidden == hidden
    one = CalibrationSet(**{name: values[rows] for name, values in data.arrays().items()})
    found = fit(one, SHARPENED).reliability
    assert (found.set_limits.herbarium_only is None) != hidden
    assert (found.set_limits.with_photos is None) == hidden
    assert (found.novelty is None) != hidden


def test_one_fold_and_an_absent_stream_do_not_break_the_fit() -> None:
    data = simulated()
    rows = (data.has_field_photos == data.has_field_photos[0]).all(axis=1)
    one = CalibrationSet(**{name: values[rows] for name, values in data.arrays().items()})
    bare = replace(one, logits=np.full_like(one.logits, -np.inf))
    for part in (one, bare):
        found = fit(part, SHARPENED)
        assert found.figures["folds"] == 2  # two halves without a species in common
        json.dumps(found.reliability.to_json(), allow_nan=False)
        json.dumps(found.figures, allow_nan=False)
        assert np.isfinite(answers(part, SHARPENED, found.reliability)).all()


def test_a_single_species_has_no_unknowns_to_learn_from() -> None:
    data = CalibrationSet(
        np.zeros((30, 1), np.float32),
        np.full((30, 1), 0.5, np.float32),
        np.zeros(30, np.int64),
        np.ones(30, dtype=bool),
        np.zeros((30, 1), dtype=bool),
    )
    found = fit_reliability(data, 1.0, SHARPENED, lambda _: SHARPENED).reliability
    assert found.novelty is None
    assert found.in_set(np.ones((1, 1), np.float32), np.zeros(1, dtype=bool)).all()
