"""Refits that tell how species fare whose field photos were never seen (rotating folds)."""

import math
from dataclasses import dataclass

import numpy as np

from indexer.run_config import RunConfig
from indexer.stream_outputs import StreamOutputs
from indexer.streams import fit_stream_metric, outputs, prototype_similarities, prototypes, shared_classes
from indexer.training_set import IntArray, TrainingSet
from indexer.views import Views
from models.bundle import CalibrationSet
from models.compute import Compute

_MOST_PHOTOS = 4000
"""Photos asked about in a fold: a gate has a handful of parameters, and each photo costs a number a species."""


@dataclass(frozen=True)
class Fold:
    """Rows that a network is fitted on, and the photos, unseen by it, that it is then asked about."""

    rows: IntArray
    asked: IntArray


def draw_folds(training_set: TrainingSet, count: int, generator: np.random.Generator) -> list[Fold]:
    """`count` folds over the training data; none when fewer than two species have both domains.

    Fold f hides all photos of one group of species, and, of the other species, one part of the observations. So over
    all folds every photo is asked about twice: once as of a herbarium-only species, once as of one with photos.
    A single fold hides a quarter of the species and asks about the validation split besides.
    """
    everything = np.arange(len(training_set))
    both = shared_classes(training_set, everything)
    count = min(count, len(both))
    if count == 0 or len(both) < 2:
        return []
    photos = everything[training_set.is_photo]
    classes, groups = training_set.classes, training_set.groups
    shuffled = generator.permutation(both)
    if count == 1:
        hidden = np.isin(classes, shuffled[: max(1, len(both) // 4)]) & training_set.is_photo
        asked = everything[hidden | (training_set.is_validation & training_set.is_photo)]
        return [Fold(np.setdiff1d(everything[~training_set.is_validation], asked), asked)]
    species_groups = np.array_split(shuffled, count)
    observations = generator.permutation(np.unique(groups[photos]))
    folds = []
    for part in range(count):
        hidden = np.isin(classes[photos], species_groups[part])
        held_out = np.isin(groups[photos], observations[part::count])
        asked = photos[hidden | held_out]
        folds.append(Fold(np.setdiff1d(everything, asked), asked))
    return folds


def ask(
    network: StreamOutputs, training_set: TrainingSet, views: Views, fold: Fold, config: RunConfig, compute: Compute
) -> CalibrationSet:
    """What a network fitted on the fold says of the photos that it has not seen, in a metric fitted on the fold."""
    classes = training_set.classes
    seen = np.zeros(len(training_set.taxonomy), dtype=bool)
    seen[classes[fold.rows[training_set.is_photo[fold.rows]]]] = True
    sheets = np.flatnonzero(~training_set.is_field)
    metric = fit_stream_metric(network, training_set, views, fold.rows, config, compute)
    means, present = prototypes(network, views, sheets, classes, metric, compute)
    asked = fold.asked[:: max(1, math.ceil(len(fold.asked) / _MOST_PHOTOS))]
    logits, embeddings = outputs(network, views, asked, compute)
    truth = classes[asked]
    return CalibrationSet(
        logits=logits,
        similarities=prototype_similarities(embeddings, means, present, metric),
        truth=truth,
        hidden=~seen[truth],
        has_field_photos=np.tile(seen, (len(truth), 1)),
    )
