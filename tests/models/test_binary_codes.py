import numpy as np
import pytest
from gallery_support import clustered_rows, unit_rows

from models.binary_codes import BinaryProjection


@pytest.mark.parametrize(("dimensions", "bits"), [(16, 16), (13, 16), (1, 8)])
def test_bits_are_the_signs_of_turned_centred_vectors(dimensions, bits):
    vectors = unit_rows(np.random.default_rng(0), 500, dimensions) + np.float32(0.2)
    projection = BinaryProjection.fit(vectors, seed=3)
    assert (projection.dimensions, projection.bits) == (dimensions, bits)
    turn = projection.matrix[:-1].astype(np.float64)
    np.testing.assert_allclose(turn @ turn.T, np.eye(dimensions), atol=1e-5)
    turned = (vectors - vectors.mean(axis=0, dtype=np.float64)) @ turn
    found = np.unpackbits(projection.encode(vectors), axis=1).astype(bool)
    clear = np.abs(turned) > 1e-5
    assert np.array_equal(found[clear], turned[clear] > 0.0)


def test_the_random_turn_spreads_the_variance_over_the_bits():
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((2_000, 32)) * np.geomspace(1.0, 1e-3, 32)).astype(np.float32)
    spread = (vectors @ BinaryProjection.fit(vectors, seed=1).matrix[:-1]).std(axis=0)
    assert spread.max() / spread.min() < 6
    assert vectors.std(axis=0).max() / vectors.std(axis=0).min() > 500


def test_hamming_distance_follows_the_angle():
    vectors = clustered_rows(np.random.default_rng(0), 400, 64, 8)
    bits = np.unpackbits(BinaryProjection.fit(vectors, seed=1).encode(vectors), axis=1).astype(int)
    first, second = np.triu_indices(400, 1)
    distances = np.abs(bits[first] - bits[second]).sum(axis=1)
    assert np.corrcoef(distances, (vectors @ vectors.T)[first, second])[0, 1] < -0.8


def test_the_same_seed_gives_the_same_codes():
    vectors = unit_rows(np.random.default_rng(0), 100, 16)
    one, two, other = (BinaryProjection.fit(vectors, seed).matrix for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
