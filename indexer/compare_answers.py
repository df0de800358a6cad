"""The answers to single test photos, from the report that `evaluate` wrote."""

import csv
from pathlib import Path

import numpy as np

from indexer.compare_record import AnsweredPhotos
from models.errors import BundleCorrupt

_PREDICTIONS = "predictions.csv"


def read_answers(report: Path) -> AnsweredPhotos:
    """Places of the true species in the ensemble's answers. Raises `BundleCorrupt` if the report is not whole."""
    path = report / _PREDICTIONS
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                (row["photo_id"], row["observation"], row["group"] == "herbarium_only", int(row["truth_position"]))
                for row in csv.DictReader(file)
            ]
        photo_ids, observations, herbarium_only, positions = zip(*rows, strict=True)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise BundleCorrupt(f"{path} does not list the answers: {error}; run the same command again") from error
    return AnsweredPhotos(photo_ids, observations, np.array(herbarium_only, bool), np.array(positions, np.int64))
