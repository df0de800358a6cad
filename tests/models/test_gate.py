import json

import numpy as np
import pytest

from models.errors import InvalidConfig
from models.gate import (
    DistanceGate,
    Evidence,
    FusionGate,
    Gate,
    StreamGate,
    gate_from_json,
    masked_log_softmax,
    stream_probabilities,
)
from models.retrieval import DecisionSource

NONE = -np.inf
FLAGS = np.array([True, True, False])


def evidence(logits: list[float], similarities: list[float], flags: np.ndarray = FLAGS) -> Evidence:
    return Evidence(np.array([logits], dtype=np.float32), np.array([similarities], dtype=np.float32), flags)


def similarity_at(distance: float) -> float:
    """Cosine of two unit vectors at a Euclidean distance."""
    return 1.0 - distance**2 / 2.0


@pytest.mark.parametrize(
    ("distance", "threshold", "source"),
    [
        (0.50, 0.93, DecisionSource.SPECIALIST),
        (0.929, 0.93, DecisionSource.SPECIALIST),
        (0.931, 0.93, DecisionSource.GENERALIST),
        (1.40, 0.93, DecisionSource.GENERALIST),
        (0.01, 0.0, DecisionSource.GENERALIST),
        (2.0, 2.0, DecisionSource.SPECIALIST),
    ],
)
def test_distance_gate_on_both_sides_of_its_threshold(
    distance: float, threshold: float, source: DecisionSource
) -> None:
    seen = evidence([5.0, 0.0, 0.0], [similarity_at(distance), 0.2, 0.3])
    gate = DistanceGate(threshold)
    decision = gate.decide(seen, 0)
    assert decision.source is source
    assert decision.evidence == {"distance": pytest.approx(distance, abs=1e-3), "threshold": threshold}
    assert f"{threshold:.2f}" in decision.reason
    alone = stream_probabilities(seen, source, gate.specialist_temperature if source == "specialist" else 0.05)
    np.testing.assert_allclose(gate.probabilities(seen), alone)


def test_distance_gate_without_prototypes_trusts_the_classifier() -> None:
    seen = evidence([1.0, 2.0, 0.0], [NONE, NONE, NONE])
    assert DistanceGate(0.1).decide(seen, 0).source is DecisionSource.SPECIALIST
    assert DistanceGate(0.1).probabilities(seen).argmax() == 1


def test_distance_gate_without_classifier_trusts_the_sheets() -> None:
    seen = evidence([NONE, NONE, NONE], [0.1, 0.2, 0.9])
    assert DistanceGate(2.0).decide(seen, 0).source is DecisionSource.GENERALIST
    assert DistanceGate(2.0).probabilities(seen).argmax() == 2


def test_a_first_species_without_sheets_is_as_far_as_can_be() -> None:
    assert DistanceGate(1.0).distances(evidence([9.0, 0.0, 0.0], [NONE, 0.5, 0.5]))[0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("logits", "similarities", "weights", "source", "answer"),
    [
        ([5, 0, 0], [0.9, 0.1, 0.1], (0.5, 0.5), DecisionSource.FUSION, 0),
        ([5, 0, 0], [0.1, 0.2, 0.1], (1.0, 0.1), DecisionSource.SPECIALIST, 0),
        ([1, 0, 0], [0.1, 0.1, 0.9], (0.1, 1.0), DecisionSource.GENERALIST, 2),
        ([3, 2.9, -9], [-0.9, 0.85, 0.9], (0.5, 0.5), DecisionSource.FUSION, 1),
    ],
)
def test_fusion_says_which_stream_its_answer_is_from(
    logits: list[float], similarities: list[float], weights: tuple[float, float], source: DecisionSource, answer: int
) -> None:
    gate = FusionGate(*weights, field_photo_penalty=0.0)
    seen = evidence(logits, similarities)
    assert gate.probabilities(seen).argmax() == answer
    assert gate.decide(seen, 0).source is source
    assert gate.decide(seen, 0).evidence["similarity"] == pytest.approx(similarities[answer])


@pytest.mark.parametrize(("penalty", "answer"), [(0.0, 0), (0.9, 0), (1.1, 2), (5.0, 2)])
def test_penalty_moves_the_answer_to_species_without_photos(penalty: float, answer: int) -> None:
    seen = evidence([1.0, -9.0, 0.0], [0.0, 0.0, 0.0])
    assert FusionGate(1.0, 0.0, penalty).probabilities(seen).argmax() == answer


def test_a_species_without_column_competes_on_its_sheets() -> None:
    flags = np.array([True, False, False])
    near = Evidence(np.array([[1.0, 0.5, NONE]], np.float32), np.array([[0.1, 0.1, 0.9]], np.float32), flags)
    far = Evidence(np.array([[1.0, 0.5, NONE]], np.float32), np.array([[0.9, 0.1, 0.1]], np.float32), flags)
    gate = FusionGate(0.5, 0.5, 0.0)
    assert gate.probabilities(near).argmax() == 2
    assert gate.probabilities(far).argmax() == 0
    everywhere = Evidence(near.logits, near.similarities, np.array([True, True, False]))
    assert np.isfinite(gate.log_weights(everywhere)).all()


@pytest.mark.parametrize(
    "gate",
    [
        DistanceGate(0.93),
        DistanceGate(0.2),
        FusionGate(0.6, 0.3, 1.2),
        StreamGate(DecisionSource.SPECIALIST),
        StreamGate(DecisionSource.GENERALIST),
    ],
)
def test_probabilities_sum_to_one_and_follow_each_plant_alone(gate: Gate) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 6)).astype(np.float32) * 8
    similarities = rng.uniform(-1, 1, size=(20, 6)).astype(np.float32)
    logits[:, 5] = NONE
    similarities[:, 4] = NONE
    flags = np.array([True, False, True, False, True, False])
    together = gate.probabilities(Evidence(logits, similarities, flags))
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-5)
    for row in range(20):
        alone = Evidence(logits[row : row + 1], similarities[row : row + 1], flags)
        np.testing.assert_allclose(gate.probabilities(alone)[0], together[row], atol=1e-6)
        assert gate.decide(alone, 0) == gate.decide(Evidence(logits, similarities, flags), row)


@pytest.mark.parametrize("gate", [DistanceGate(0.7, 2.0, 0.1), FusionGate(0.6, 0.3, 1.2, 1.5, 0.07)])
def test_json_round_trip(gate: Gate) -> None:
    assert gate_from_json(gate.to_json()) == gate


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "magic"},
        {"kind": "distance"},
        {"kind": "distance", "threshold": 1.0, "colour": 2},
        {"kind": "specialist", "threshold": 1.0},
        {"kind": "generalist", "stream": "fusion"},
        {"kind": "fusion", "specialist_weight": -1.0, "generalist_weight": 0.5, "field_photo_penalty": 0.0},
    ],
)
def test_unknown_gates_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        gate_from_json(values)


def test_masked_softmax_leaves_out_what_is_not_finite() -> None:
    out = masked_log_softmax(np.array([[0.0, NONE, np.log(3.0)]], dtype=np.float32), 1.0)
    np.testing.assert_allclose(np.exp(out[0, [0, 2]]), [0.25, 0.75], rtol=1e-5)
    assert out[0, 1] < -50
    assert (masked_log_softmax(np.full((1, 2), NONE, dtype=np.float32), 1.0) < -50).all()


def test_temperature_flattens_and_keeps_the_order() -> None:
    values = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    sharp, flat = np.exp(masked_log_softmax(values, 0.5)), np.exp(masked_log_softmax(values, 5.0))
    assert sharp.max() > flat.max()
    assert sharp.argmax() == flat.argmax() == 2


# -- one stream alone


@pytest.mark.parametrize("stream", [DecisionSource.SPECIALIST, DecisionSource.GENERALIST])
def test_a_gate_of_one_stream_answers_with_it_whatever_the_other_says(stream: DecisionSource) -> None:
    is_specialist = stream is DecisionSource.SPECIALIST
    gate = StreamGate(stream, specialist_temperature=2.0, generalist_temperature=0.1)
    own = np.array([0.4, 0.9, NONE])
    expected = np.exp(own / (2.0 if is_specialist else 0.1))
    expected /= expected.sum()
    for other in ([0.9, 0.1, 0.2], [NONE, 0.1, 0.95], [0.1, 0.1, 0.1]):
        logits, similarities = (own, other) if is_specialist else (other, own)
        seen = evidence(list(logits), list(similarities))
        np.testing.assert_allclose(gate.probabilities(seen)[0], expected, rtol=1e-5, atol=1e-6)
        decision = gate.decide(seen, 0)
        assert decision.source is stream
        assert decision.reason.startswith("The classifier" if is_specialist else "The nearest herbarium sheets")
        assert decision.evidence == {}


@pytest.mark.parametrize("stream", [DecisionSource.SPECIALIST, DecisionSource.GENERALIST])
def test_where_its_stream_has_no_evidence_at_all_the_other_one_answers(stream: DecisionSource) -> None:
    is_specialist = stream is DecisionSource.SPECIALIST
    gate = StreamGate(stream, specialist_temperature=2.0, generalist_temperature=0.1)
    nothing, values = [NONE] * 3, np.array([0.1, 0.7, 0.3])
    seen = evidence(nothing, list(values)) if is_specialist else evidence(list(values), nothing)
    expected = np.exp(values / (0.1 if is_specialist else 2.0))
    np.testing.assert_allclose(gate.probabilities(seen)[0], expected / expected.sum(), rtol=1e-5)
    other = DecisionSource.GENERALIST if is_specialist else DecisionSource.SPECIALIST
    assert gate.decide(seen, 0).source is other
    assert gate.decide(seen, 0).reason.startswith("The nearest herbarium sheets" if is_specialist else "The classifier")


def test_gates_of_one_stream_are_named_by_it_in_json() -> None:
    for stream in (DecisionSource.SPECIALIST, DecisionSource.GENERALIST):
        gate = StreamGate(stream, 1.7, 0.08)
        assert gate.to_json() == {
            "kind": stream.value,
            "specialist_temperature": 1.7,
            "generalist_temperature": 0.08,
        }
        assert gate_from_json(json.loads(json.dumps(gate.to_json()))) == gate
        assert gate_from_json({"kind": stream.value}) == StreamGate(stream)


@pytest.mark.parametrize("stream", [DecisionSource.FUSION, "magic"])
def test_a_gate_of_one_stream_refuses_what_is_none(stream: DecisionSource) -> None:
    with pytest.raises(InvalidConfig, match="specialist or generalist, not"):
        StreamGate(stream)


def test_misshapen_evidence_is_a_bug_of_the_caller() -> None:
    good = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="differ"):
        Evidence(good, np.zeros((1, 2), dtype=np.float32), FLAGS)
    with pytest.raises(ValueError, match="flag"):
        Evidence(good, good, np.array([True]))
    with pytest.raises(ValueError, match="evidence"):
        evidence([NONE] * 3, [NONE] * 3)


def test_a_species_without_sheets_competes_on_its_column() -> None:
    flags = np.array([True, True, True])
    sure = Evidence(np.array([[9.0, 0.0, 0.0]], np.float32), np.array([[NONE, 0.3, 0.2]], np.float32), flags)
    gate = FusionGate(0.5, 0.5, 0.0)
    assert gate.probabilities(sure).argmax() == 0
    assert gate.probabilities(sure)[0, 0] > 0.8
    assert gate.decide(sure, 0).evidence == {}


def test_the_evidence_of_one_plant_is_its_row() -> None:
    seen = Evidence(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[::-1].copy(), FLAGS)
    assert seen.at(1).logits.tolist() == [[0.0, 1.0, 0.0]]
    assert seen.at(2).similarities.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "gate",
    [
        FusionGate(0.7, 1.3, 0.6, 1.4, 0.2),
        StreamGate(DecisionSource.SPECIALIST, 1.4),
        StreamGate(DecisionSource.GENERALIST, generalist_temperature=0.2),
    ],
)
def test_photos_of_one_plant_together_are_the_product_of_the_gates_answers(gate: Gate) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0.0, 2.0, (3, 5)).astype(np.float32)
    logits += np.array([[0.0], [40.0], [-7.0]], dtype=np.float32)  # what all logits of a photo share says nothing
    logits[:, 4] = NONE
    similarities = generator.uniform(-1.0, 1.0, (3, 5)).astype(np.float32)
    similarities[:, 0] = NONE
    photos = Evidence(logits, similarities, np.array([True, True, False, False, False]))
    product = np.prod(gate.probabilities(photos).astype(np.float64), axis=0) ** (1 / 3)
    together = gate.probabilities(photos.of_one_plant())
    assert together.shape == (1, 5)
    np.testing.assert_allclose(together[0], product / product.sum(), rtol=1e-4, atol=1e-9)


def test_the_distance_gate_chooses_once_for_a_plant() -> None:
    photos = Evidence(
        np.array([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0]], dtype=np.float32),
        np.array([[0.9, 0.0, 0.1], [0.2, 0.0, 0.9]], dtype=np.float32),
        FLAGS,
    )
    gate = DistanceGate(1.0)
    assert list(gate.trusts_specialist(photos)) == [True, False]
    together = photos.of_one_plant()
    assert gate.decide(together, 0).source is DecisionSource.SPECIALIST
    assert gate.decide(together, 0).evidence["distance"] == pytest.approx((2.0 - 2.0 * 0.55) ** 0.5, abs=1e-6)
    np.testing.assert_allclose(
        gate.probabilities(together), stream_probabilities(together, DecisionSource.SPECIALIST, 1.0)
    )


def test_a_single_photo_is_all_the_evidence_about_its_plant() -> None:
    one = evidence([1.0, 2.0, NONE], [0.1, NONE, 0.3])
    assert one.of_one_plant() is one
