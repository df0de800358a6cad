"""Which images a gallery's metric is fitted on: some of each species and role, of the training data alone."""

import numpy as np

from indexer.run_config import GeneralistConfig
from indexer.training_set import BoolArray, IntArray
from models.metric import Metric, fit_metric
from models.retrieval import FloatArray

_MOST_OF_A_SPECIES = 50
_MOST_IMAGES = 60_000
"""In float64 and with 1,024 dimensions about half a gigabyte; covariances need no more."""


def some_of_each(rows: IntArray, classes: IntArray, most: int) -> IntArray:
    """The first `most` of the rows of each class."""
    if not len(rows):
        return rows
    ordered = rows[np.argsort(classes[rows], kind="stable")]
    begins = np.append(True, np.diff(classes[ordered]) != 0)
    position = np.arange(len(ordered))
    begin_of = np.maximum.accumulate(np.where(begins, position, 0))
    return ordered[position - begin_of < most]


def rows_for_metric(rows: IntArray, classes: IntArray, is_field: BoolArray) -> IntArray:
    """Of `rows` up to fifty sheets and fifty photos of each class, fewer where there are thousands of classes."""
    most = max(2, min(_MOST_OF_A_SPECIES, _MOST_IMAGES // (2 * max(1, len(np.unique(classes[rows]))))))
    parts = [some_of_each(rows[is_field[rows] == role], classes, most) for role in (False, True)]
    return np.concatenate(parts)


def metric_of(config: GeneralistConfig, embeddings: FloatArray, classes: IntArray, is_field: BoolArray) -> Metric:
    """The configured metric, from unit embeddings ``(N, D)`` with their classes and field flags."""
    return fit_metric(config.metric, embeddings, classes, is_field, shrinkage=config.shrinkage)
