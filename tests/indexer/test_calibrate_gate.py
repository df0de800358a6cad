import logging

import numpy as np
import pytest

from indexer.calibrate_gate import GateKind, fit_gate, gate_kind, group_weights
from models.bundle import CalibrationSet
from models.errors import InvalidConfig
from models.gate import DistanceGate, Evidence, FusionGate, StreamGate, masked_log_softmax
from models.retrieval import DecisionSource

CLASSES = 8


def simulated(photos: int = 400, seed: int = 0, field_bias: float = 4.0) -> CalibrationSet:
    """A classifier that is right about species with photos and biased to them, and sheets that are fair but noisy."""
    rng = np.random.default_rng(seed)
    seen = np.arange(CLASSES) < 5
    truth = rng.integers(0, CLASSES, size=photos)
    logits = rng.normal(size=(photos, CLASSES)).astype(np.float32)
    logits[np.arange(photos), truth] += np.where(seen[truth], 6.0, 2.0)
    logits += field_bias * seen
    similarities = (0.2 * rng.normal(size=(photos, CLASSES))).astype(np.float32)
    similarities[np.arange(photos), truth] += 0.35
    return CalibrationSet(logits, np.clip(similarities, -1, 1), truth, ~seen[truth], np.tile(seen, (photos, 1)))


def top1(gate: DistanceGate | FusionGate, data: CalibrationSet) -> float:
    evidence = Evidence(data.logits, data.similarities, data.has_field_photos[0])
    return float(np.mean(gate.probabilities(evidence).argmax(axis=1) == data.truth))


def test_fusion_offsets_the_bias_to_species_with_photos() -> None:
    fitted = fit_gate(simulated(), herbarium_only_share=3 / 8, kind="fusion").gate
    assert isinstance(fitted, FusionGate)
    assert fitted.field_photo_penalty > 0.5
    fresh = simulated(seed=1)
    without = FusionGate(
        fitted.specialist_weight,
        fitted.generalist_weight,
        0.0,
        fitted.specialist_temperature,
        fitted.generalist_temperature,
    )
    assert top1(fitted, fresh) > top1(without, fresh) + 0.02
    evidence = Evidence(fresh.logits, fresh.similarities, fresh.has_field_photos[0])
    confidence = fitted.probabilities(evidence).max(axis=1)
    assert abs(float(confidence.mean()) - top1(fitted, fresh)) < 0.08


def test_both_gates_beat_either_stream_alone() -> None:
    fresh = simulated(seed=1)
    specialist = float(np.mean(fresh.logits.argmax(axis=1) == fresh.truth))
    generalist = float(np.mean(fresh.similarities.argmax(axis=1) == fresh.truth))
    fitted = fit_gate(simulated(), 3 / 8, "fusion").gate
    assert isinstance(fitted, FusionGate)
    assert top1(fitted, fresh) > max(specialist, generalist)


def test_the_distance_gate_takes_the_threshold_that_answers_best() -> None:
    data = simulated()
    fitted = fit_gate(data, 3 / 8, "distance").gate
    assert isinstance(fitted, DistanceGate)
    weights = group_weights(data.hidden, 3 / 8)

    def weighted(threshold: float) -> float:
        gate = DistanceGate(threshold)
        evidence = Evidence(data.logits, data.similarities, data.has_field_photos[0])
        return float(weights @ (gate.probabilities(evidence).argmax(axis=1) == data.truth))

    best = max(weighted(t) for t in np.linspace(0, 2, 400))
    assert weighted(fitted.threshold) == pytest.approx(best, abs=1e-9)


def test_auto_takes_the_kind_with_the_better_likelihood() -> None:
    fitted = fit_gate(simulated(), 3 / 8)
    losses = fitted.figures["weighted_negative_log_likelihood"]
    assert fitted.figures["kind"] == min(losses, key=losses.__getitem__)
    data = simulated()
    weights = group_weights(data.hidden, 3 / 8)
    evidence = Evidence(data.logits, data.similarities, data.has_field_photos[0])
    probabilities = fitted.gate.probabilities(evidence)[np.arange(len(data)), data.truth]
    assert losses[fitted.figures["kind"]] == pytest.approx(-float(weights @ np.log(probabilities)), rel=1e-5)
    assert fitted.gate.to_json()["kind"] == fitted.figures["kind"]
    assert fitted.figures["hidden_photos"] == int(simulated().hidden.sum())


@pytest.mark.parametrize("photos", [0, 7])
def test_too_few_photos_leave_the_reference_gate(photos: int, caplog: pytest.LogCaptureFixture) -> None:
    data = CalibrationSet.empty(CLASSES) if photos == 0 else simulated(photos)
    with caplog.at_level(logging.WARNING):
        fitted = fit_gate(data, 0.4)
    assert fitted.gate == DistanceGate(0.93)
    assert fitted.figures["fitted"] is False
    assert f"only {photos}" in caplog.text


@pytest.mark.parametrize("kind", ["specialist", "generalist"])
def test_a_gate_of_one_stream_gets_the_temperature_with_the_best_likelihood(kind: GateKind) -> None:
    data = simulated()
    fitted = fit_gate(data, 3 / 8, kind)
    assert isinstance(fitted.gate, StreamGate)
    assert fitted.gate.stream == kind
    values = data.logits if kind == "specialist" else data.similarities
    chosen = fitted.gate.specialist_temperature if kind == "specialist" else fitted.gate.generalist_temperature
    weights = group_weights(data.hidden, 3 / 8)

    def loss(temperature: float) -> float:
        return -float(weights @ masked_log_softmax(values, temperature)[np.arange(len(data)), data.truth])

    best = min(loss(t) for t in np.geomspace(0.005, 20, 2000))
    assert loss(chosen) == pytest.approx(best, abs=1e-4)
    assert loss(chosen) < loss(2 * chosen) - 1e-3
    assert loss(chosen) < loss(chosen / 2) - 1e-3
    right = float(weights @ (values.argmax(axis=1) == data.truth))
    assert fitted.figures["kind"] == kind
    assert fitted.figures["fitted"] is True
    assert fitted.figures["weighted_top1"] == {kind: pytest.approx(right)}
    assert fitted.figures["weighted_negative_log_likelihood"] == {kind: pytest.approx(best, abs=1e-4)}


@pytest.mark.parametrize("kind", ["specialist", "generalist"])
@pytest.mark.parametrize("photos", [0, 7, 8])
def test_a_gate_of_one_stream_keeps_its_defaults_with_fewer_than_eight_photos(kind: GateKind, photos: int) -> None:
    data = simulated(photos) if photos else CalibrationSet.empty(CLASSES)
    fitted = fit_gate(data, 0.4, kind)
    assert isinstance(fitted.gate, StreamGate)
    assert fitted.gate.stream == kind
    assert fitted.figures["fitted"] is (photos == 8)
    assert (fitted.gate == StreamGate(DecisionSource(kind))) is (photos < 8)


def test_auto_never_takes_a_single_stream() -> None:
    assert set(fit_gate(simulated(), 3 / 8).figures["weighted_top1"]) == {"distance", "fusion"}


def test_weights_give_hidden_photos_their_share() -> None:
    weights = group_weights(np.array([True, False, False, False]), 0.6)
    np.testing.assert_allclose(weights, [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3])
    np.testing.assert_allclose(group_weights(np.array([False, False]), 0.6), [0.5, 0.5])
    np.testing.assert_allclose(group_weights(np.array([True, True]), 0.1), [0.5, 0.5])


def test_species_without_prototype_or_sheets_do_not_break_the_fit() -> None:
    data = simulated()
    similarities = data.similarities.copy()
    similarities[:, 2] = -np.inf
    gate = fit_gate(
        CalibrationSet(data.logits, similarities, data.truth, data.hidden, data.has_field_photos), 3 / 8
    ).gate
    evidence = Evidence(data.logits, similarities, data.has_field_photos[0])
    assert np.isfinite(gate.probabilities(evidence)).all()


def test_gates_are_chosen_by_name() -> None:
    assert gate_kind(None) is None
    assert gate_kind("distance") == "distance"
    assert gate_kind("generalist") == "generalist"
    with pytest.raises(InvalidConfig, match="auto, distance, fusion"):
        gate_kind("magic")
