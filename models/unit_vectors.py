"""Arithmetic on unit vectors. NumPy only."""

import numpy as np

from models.retrieval import UNIT_TOLERANCE, FloatArray

_ZERO_NORM = 1e-4
"""A mean of unit vectors shorter than this has no direction; float32 noise alone is about 1e-7."""
_MEDOID_ROWS = 2_048


def are_unit_rows(vectors: FloatArray) -> bool:
    """Whether every row of ``(N, D)`` is finite and of unit length."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    return bool(np.all(np.abs(norms - 1.0) <= UNIT_TOLERANCE))


def unit_mean(vectors: FloatArray) -> FloatArray:
    """``(D,)`` unit mean of ``(N, D)`` unit rows; their medoid where they cancel out.

    The medoid is the row with the smallest sum of Euclidean distances to the others, the first of
    equals. (Sums of cosines would not tell: they are all zero where the mean is.)
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    norm = np.linalg.norm(mean)
    if norm > _ZERO_NORM:
        return (mean / norm).astype(np.float32)
    # Thousands of sheets that cancel out have no typical one; the first of them bound the N × N table.
    rows = vectors[:_MEDOID_ROWS].astype(np.float64)
    distances = np.sqrt(np.maximum(2.0 - 2.0 * (rows @ rows.T), 0.0)).sum(axis=1)
    medoid = rows[int(np.argmin(np.round(distances, 9)))]
    return (medoid / np.linalg.norm(medoid)).astype(np.float32)
