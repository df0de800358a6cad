"""Figures from the rotating folds, each fold answered as if only the others had been there to calibrate on."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from indexer.calibrate_gate import cross_fit_parts, evidence_by_fold, fit_gate
from indexer.calibrate_reliability import fit_reliability
from indexer.compare_record import AnsweredPhotos, Scored
from indexer.metrics import expected_calibration_error, score_photos
from models.bundle import CalibrationSet, TrainedModel
from models.errors import InsufficientData


def score_folds(model: TrainedModel) -> Scored:
    """Places of the true species for the photos of the model's calibration answers; no test photo is among them.

    "Herbarium only" are the photos of species whose photos the answering network had not seen. Gate and temperatures
    for a part of the answers are fitted on the other parts (cross-fitting), and never saw what they are scored on.
    Photos count as plants of their own, since the answers do not tell which plant they are of.
    Raises `InsufficientData` for a model that was trained without folds and validation photos.
    """
    calibration = model.calibration()
    if len(calibration) == 0 or model.metadata["config"]["calibration"].get("folds") == 0:
        raise InsufficientData(
            f"model {model.model_id} has no answers from rotating folds; train with calibration.folds above 0, and "
            "at least two species with both sheets and field photos"
        )
    kind = model.metadata["config"]["calibration"]["gate"]
    share = 1.0 - float(model.has_field_photos.mean())
    parts = cross_fit_parts(calibration)
    positions, confidence = np.zeros(len(calibration), dtype=np.int64), np.zeros(len(calibration))
    for part in np.unique(parts):
        others, rows = calibration.at(parts != part), np.flatnonzero(parts == part)
        gate = fit_gate(others, share, kind).gate
        reliability = fit_reliability(others, share, gate, lambda some: fit_gate(some, share, kind).gate).reliability
        for within, evidence in evidence_by_fold(calibration.at(rows)):
            here = rows[within]
            served = reliability.calibrate(gate.probabilities(evidence), evidence.has_field_photos)
            answers = score_photos(served, calibration.truth[here])
            positions[here], confidence[here] = answers.truth_position, answers.confidence
    photos = _photos(calibration, positions, model.metadata["config"]["seed"])
    return Scored(photos, _errors(confidence, positions == 1, calibration.hidden))


def _photos(calibration: CalibrationSet, positions: NDArray[np.int64], seed: int) -> AnsweredPhotos:
    # Two recipes with the same splits and folds ask about the same photos in the same order. With other folds the
    # digest differs, and their photos are not taken for each other.
    order = hashlib.sha256(calibration.truth.tobytes() + calibration.hidden.tobytes()).hexdigest()[:12]
    names = tuple(f"{order}:{seed}:{row}" for row in range(len(calibration)))
    return AnsweredPhotos(names, names, calibration.hidden, positions)


def _errors(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], hidden: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Calibration error by group."""
    groups = {"overall": np.ones(len(hidden), dtype=bool), "with_photos": ~hidden, "herbarium_only": hidden}
    return {
        name: expected_calibration_error(confidence[rows], correct[rows]) if rows.any() else None
        for name, rows in groups.items()
    }
