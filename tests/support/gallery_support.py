"""What tests of galleries need: random sheets, metrics, and galleries of them."""

from collections.abc import Sequence

import numpy as np

from models.gallery import Gallery
from models.metric import Metric
from models.retrieval import EmbeddingBatch, FloatArray
from models.taxonomy import SpeciesId

SPACE = "space-1"


def unit_rows(rng: np.random.Generator, count: int, dimensions: int) -> FloatArray:
    """Random directions."""
    vectors = rng.standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered_rows(rng: np.random.Generator, count: int, dimensions: int, clusters: int) -> FloatArray:
    """Directions about as many centres, as sheets lie about their species."""
    centres = unit_rows(rng, clusters, dimensions)
    vectors = centres[rng.integers(0, clusters, count)] + 0.8 * unit_rows(rng, count, dimensions)
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def batch(vectors: object, keys: Sequence[str] | None = None) -> EmbeddingBatch:
    """The vectors as sheets, named in order unless they have names."""
    rows = np.asarray(vectors, dtype=np.float32)
    return EmbeddingBatch(rows, tuple(keys or (f"sheet{i:04d}" for i in range(len(rows)))), SPACE)


def random_gallery(
    seed: int = 0, count: int = 40, dimensions: int = 16, species: int = 7, metric: Metric | None = None
) -> tuple[Gallery, dict[str, FloatArray], dict[str, SpeciesId]]:
    """A gallery whose sheets come in no order, with the vectors and species by sheet id."""
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, count, dimensions)
    keys = [f"sheet{i:04d}" for i in rng.permutation(count)]
    names = [SpeciesId(f"species{i}") for i in rng.integers(0, species, count)]
    built = Gallery.build(batch(vectors, keys), names, metric=metric)
    return built, dict(zip(keys, vectors, strict=True)), dict(zip(keys, names, strict=True))


def random_metric(dimensions: int = 16, seed: int = 4) -> Metric:
    """An arbitrary metric, other for photos than for sheets."""
    rng = np.random.default_rng(seed)
    centres = 0.2 * rng.standard_normal((2, dimensions))
    scales = rng.uniform(0.3, 2.0, (2, dimensions))
    matrix = np.eye(dimensions) + 0.3 * rng.standard_normal((dimensions, dimensions))
    return Metric(*(part.astype(np.float32) for part in (centres, scales, matrix)))
