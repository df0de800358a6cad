from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.catalogue import Catalogue
from models.compute import Compute
from models.encoder import Encoded
from models.gate import Evidence, FusionGate
from models.home import Home
from models.identifier import Identifier, mean_embedding
from models.reliability import ByGroup, Reliability
from models.specimens import Role


@pytest.fixture(scope="module")
def identifier(trained_home: Home) -> Identifier:
    return Identifier.load(trained_home, Compute("cpu", None))


@pytest.fixture(scope="module")
def photos(trained_home: Home) -> list[Path]:
    with Catalogue.open(trained_home) as catalogue:
        of_all = list(catalogue.field_photos())
        alike = [p for p in of_all if p.species_id == of_all[0].species_id]
        return [catalogue.image_store.path(p.image) for p in alike]


def encoded_photos(identifier: Identifier, photos: list[Path]) -> Encoded:
    images = [identifier.decode(path, max_pixels=10**7) for path in photos]
    return identifier.encode(np.stack([identifier.preprocess(image) for image in images]))


def test_opposite_embeddings_fall_back_to_the_first_photo() -> None:
    vectors = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(mean_embedding(vectors), vectors[0])


def test_a_single_photo_is_answered_as_it_is_evaluated(identifier: Identifier, photos: list[Path]) -> None:
    encoded = encoded_photos(identifier, photos[:1])
    evidence, probabilities = identifier.combine(encoded)
    alone = identifier.evidence(encoded.logits, encoded.embeddings)
    np.testing.assert_array_equal(evidence.logits, alone.logits)
    np.testing.assert_array_equal(evidence.similarities, alone.similarities)
    np.testing.assert_array_equal(probabilities, identifier.probabilities(alone))
    served = {c.species.species_id: c.probability for c in identifier.answer(encoded, top_k=6).candidates}
    np.testing.assert_array_equal([served[s] for s in identifier.species_ids], probabilities[0])


def test_photos_multiply_as_far_as_they_are_independent(identifier: Identifier, photos: list[Path]) -> None:
    gate = FusionGate(0.7, 1.2, 0.4, 1.3, 0.2)
    bundle = replace(identifier.bundle, gate=gate, reliability=Reliability(ByGroup(1.5, 0.8), fitted=True))
    asked = Identifier(bundle)
    encoded = encoded_photos(asked, photos[:3])
    vectors = bundle.gallery.metric.apply(encoded.embeddings, Role.FIELD).astype(np.float64)
    cosine = np.mean([vectors[a] @ vectors[b] for a, b in ((0, 1), (0, 2), (1, 2))])
    looks = 3 / (1 + 2 * cosine)
    assert 1.05 < looks < 2.95
    single = gate.probabilities(asked.evidence(encoded.logits, encoded.embeddings)).astype(np.float64)
    product = np.prod(single ** (looks / 3), axis=0)
    temperature = 1.5 if asked.has_field_photos[product.argmax()] else 0.8
    expected = product ** (1 / temperature)
    answer = asked.answer(encoded, top_k=6)
    served = {c.species.species_id: c.probability for c in answer.candidates}
    got = [served[s] for s in asked.species_ids]
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-3, atol=1e-6)
    assert answer.photo_count == 3


def test_what_an_answer_of_several_photos_rests_on_is_their_mean(identifier: Identifier, photos: list[Path]) -> None:
    encoded = encoded_photos(identifier, photos[:3])
    each = identifier.evidence(encoded.logits, encoded.embeddings)
    answer = identifier.answer(encoded, top_k=6)
    similarities = dict(zip(identifier.species_ids, each.similarities.mean(axis=0), strict=True))
    for candidate in answer.candidates:
        assert candidate.similarity == pytest.approx(similarities[candidate.species.species_id], abs=1e-6)
    mean = encoded.embeddings.mean(axis=0)
    first = answer.candidates[0]
    expected = identifier.bundle.gallery.supporting_sheets(
        (mean / np.linalg.norm(mean)).astype(np.float32), first.species.species_id, 3
    )
    assert [m.sheet_id for m in first.sheets] == [m.sheet_id for m in expected]
    together = Evidence(
        each.logits.mean(axis=0, keepdims=True), each.similarities.mean(axis=0, keepdims=True), each.has_field_photos
    )
    assert answer.decision.source == identifier.bundle.gate.decide(together, 0).source
