from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from indexer import compare_folds
from indexer.calibrate_gate import fit_gate
from indexer.calibrate_reliability import fit_reliability
from indexer.compare_folds import cross_fit_parts, score_folds
from indexer.metrics import expected_calibration_error
from models.bundle import CalibrationSet, TrainedModel
from models.errors import InsufficientData
from models.gate import Evidence


def calibration(folds: int, photos_per_fold: int = 40, classes: int = 8, seed: int = 0) -> CalibrationSet:
    """Answers that are better than chance; fold f has hidden the species f, f + folds, …"""
    generator = np.random.default_rng(seed)
    parts = []
    for fold in range(folds):
        seen = np.arange(classes) % max(2, folds) != fold
        truth = generator.integers(0, classes, photos_per_fold)
        logits = generator.normal(size=(photos_per_fold, classes)).astype(np.float32)
        similarities = (0.1 * generator.normal(size=(photos_per_fold, classes))).astype(np.float32)
        logits[np.arange(photos_per_fold), truth] += np.where(seen[truth], 2.0, -1.0)
        similarities[np.arange(photos_per_fold), truth] += 0.15
        flags = np.tile(seen, (photos_per_fold, 1))
        parts.append(CalibrationSet(logits, similarities, truth, ~seen[truth], flags))
    return CalibrationSet.join(parts)


def model(answers: CalibrationSet, gate: str = "fusion") -> TrainedModel:
    flags = np.ones(answers.logits.shape[1], bool)
    flags[:2] = False
    metadata = {"config": {"seed": 3, "calibration": {"gate": gate}}}
    fake = SimpleNamespace(model_id="m", calibration=lambda: answers, has_field_photos=flags, metadata=metadata)
    return cast(TrainedModel, fake)


def test_each_fold_is_answered_by_the_gate_of_the_other_folds() -> None:
    answers = calibration(3)
    scored = score_folds(model(answers))
    fold = np.repeat(np.arange(3), 40)
    positions, confidence = [], []
    for row in range(len(answers)):
        others = np.flatnonzero(fold != fold[row])
        if row % 40 == 0:
            subset = CalibrationSet(*(getattr(answers, n)[others] for n in CalibrationSet.__dataclass_fields__))
            gate = fit_gate(subset, 0.25, "fusion").gate
            reliability = fit_reliability(subset, 0.25, gate, lambda c: fit_gate(c, 0.25, "fusion").gate).reliability
        evidence = Evidence(
            answers.logits[row : row + 1], answers.similarities[row : row + 1], answers.has_field_photos[row]
        )
        probabilities = gate.probabilities(evidence)[0]
        positions.append(1 + int((probabilities > probabilities[answers.truth[row]]).sum()))
        confidence.append(float(reliability.calibrate(probabilities[None], answers.has_field_photos[row]).max()))
    assert scored.photos.truth_position.tolist() == positions
    np.testing.assert_array_equal(scored.photos.herbarium_only, answers.hidden)
    hidden = answers.hidden
    correct = np.array(positions) == 1
    assert scored.ece["herbarium_only"] == pytest.approx(
        expected_calibration_error(np.array(confidence)[hidden], correct[hidden]), abs=1e-6
    )


def test_a_gate_never_sees_the_photos_that_it_is_scored_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = calibration(4)
    seen: list[np.ndarray] = []

    def spy(subset: CalibrationSet, share: float, kind: Any) -> Any:
        seen.append(subset.logits[:, 0])
        return fit_gate(subset, share, kind)

    monkeypatch.setattr(compare_folds, "fit_gate", spy)
    score_folds(model(answers, "auto"))
    outer = [values for values in seen if len(values) == 120]
    assert len(outer) >= 4
    for part, values in zip(np.split(answers.logits[:, 0], 4), outer, strict=True):
        assert not set(part.tolist()) & set(values.tolist())


def test_a_single_fold_is_halved_without_a_species_in_common() -> None:
    answers = calibration(1)
    parts = cross_fit_parts(answers)
    assert set(parts) == {0, 1}
    assert not set(answers.truth[parts == 0]) & set(answers.truth[parts == 1])
    for half in (0, 1):
        assert set(answers.hidden[parts == half]) == {False, True}


def test_photos_of_other_folds_are_not_taken_for_each_other() -> None:
    first, same, other = (score_folds(model(c)) for c in (calibration(3), calibration(3), calibration(2)))
    assert first.photos.photo_id == same.photos.photo_id
    assert not set(first.photos.photo_id) & set(other.photos.photo_id)


def test_a_group_without_photos_has_no_calibration_error() -> None:
    answers = calibration(3)
    rows = np.flatnonzero(~answers.hidden)
    kept = CalibrationSet(*(getattr(answers, n)[rows] for n in CalibrationSet.__dataclass_fields__))
    assert score_folds(model(kept)).ece["herbarium_only"] is None


def test_a_model_without_answers_is_named() -> None:
    with pytest.raises(InsufficientData, match="model m has no answers"):
        score_folds(model(CalibrationSet.empty(5)))
