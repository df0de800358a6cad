"""Refits that tell how species fare whose field photos were never seen (rotating folds)."""

import math
from dataclasses import dataclass

import numpy as np

from indexer.streams import outputs, prototype_similarities, prototypes, shared_classes
from indexer.training_set import IntArray, TrainingSet
from indexer.views import Views
from models.bundle import CalibrationSet
from models.compute import Compute
from models.specimens import Role
from models.two_stream import TwoStreamNetwork

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
    photos = everything[training_set.is_field]
    classes, groups = training_set.classes, training_set.groups
    shuffled = generator.permutation(both)
    if count == 1:
        hidden = np.isin(classes, shuffled[: max(1, len(both) // 4)]) & training_set.is_field
        asked = everything[hidden | (training_set.is_validation & training_set.is_field)]
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
    network: TwoStreamNetwork, training_set: TrainingSet, views: Views, fold: Fold, compute: Compute
) -> CalibrationSet:
    """What a network fitted on the fold says of the photos that it has not seen."""
    classes, is_field = training_set.classes, training_set.is_field
    count = len(training_set.taxonomy)
    seen = np.zeros(count, dtype=bool)
    seen[classes[fold.rows[is_field[fold.rows]]]] = True
    sheets = np.flatnonzero(~is_field)
    means, present = prototypes(network, views, sheets, classes, compute)
    asked = fold.asked[:: max(1, math.ceil(len(fold.asked) / _MOST_PHOTOS))]
    logits, embeddings = outputs(network, views, asked, Role.FIELD, compute)
    truth = classes[asked]
    return CalibrationSet(
        logits=logits,
        similarities=prototype_similarities(embeddings, means, present),
        truth=truth,
        hidden=~seen[truth],
        has_field_photos=np.tile(seen, (len(truth), 1)),
    )
