"""Photos of species that the index does not hold: how well answers tell them from photos of known species."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from indexer.calibrate_novelty import KNOWN_ACCEPTED, accepting_threshold
from indexer.intervals import percentile_interval, resample_weights
from indexer.progress import Report
from indexer.reliability_figures import share_with_interval
from indexer.sources import detect_layout, read_dataset
from models.errors import InsufficientData, InvalidDataset, InvalidImage
from models.identifier import Identifier
from models.reliability import Float64Array, NoveltyModel, novelty_features
from models.retrieval import FloatArray
from models.specimens import Role
from models.taxonomy import SpeciesId

logger = logging.getLogger(__name__)

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
_MAX_PIXELS = 250_000_000
_BATCH = 16
_RESAMPLES = 500


@dataclass(frozen=True)
class UnknownPhotos:
    """Image files of unknown species, and how many of a list were left out because the index knows their species."""

    files: tuple[Path, ...]
    of_known_species: int


@dataclass(frozen=True)
class UnknownScores:
    """Scores of N photos, higher for less known: by name ``(N,)``."""

    by_name: dict[str, Float64Array]

    @classmethod
    def of(cls, first_probability: FloatArray, nearest: Float64Array, novelty: Float64Array | None) -> "UnknownScores":
        """From the first species' probability, the largest similarity and the novelty model's score, each ``(N,)``.

        One minus the first probability is the usual baseline (Hendrycks & Gimpel 2017, "A Baseline for Detecting
        Misclassified and Out-of-Distribution Examples").
        """
        scores = {"max_probability": 1.0 - first_probability.astype(np.float64), "similarity": -nearest}
        return cls(scores if novelty is None else {"novelty": novelty, **scores})


def list_unknown(path: Path, known_species: Sequence[SpeciesId]) -> UnknownPhotos:
    """The field photos of a dataset in one of voucher's layouts, or all images below a folder.

    Raises `InsufficientData` where there are none.
    """
    try:
        layout = detect_layout(path)
    except InvalidDataset:
        # Any other folder may be a heap of photos; their species are not known, so none can be left out.
        below = sorted(path.rglob("*")) if path.is_dir() else []
        found = UnknownPhotos(tuple(p for p in below if p.suffix.lower() in _SUFFIXES and p.is_file()), 0)
    else:
        known = set(known_species)
        # A manifest of nothing but field photos need not say so.
        dataset = read_dataset(path, layout, role_required=False)
        photos = [r for r in dataset.records() if r.role is Role.FIELD]
        unknown = tuple(r.path for r in photos if r.species_id not in known)
        found = UnknownPhotos(unknown, len(photos) - len(unknown))
    if not found.files:
        raise InsufficientData(
            f"expected photos of unknown species in {path}, a folder of images or a manifest; found none "
            f"({found.of_known_species} of species that the index knows)"
        )
    return found


def score_unknown(identifier: Identifier, files: Sequence[Path], report: Report) -> tuple[UnknownScores, int]:
    """Scores of the photos that can be read, each as a plant of its own, and how many cannot.

    Raises `InsufficientData` when none can.
    """
    first, nearest, novel = [], [], []
    model = identifier.bundle.reliability.novelty
    read = 0
    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        for start in range(0, len(files), _BATCH):
            decoded = pool.map(lambda path: _pixels(identifier, path), files[start : start + _BATCH])
            usable = [pixels for pixels in decoded if pixels is not None]
            read += len(usable)
            report("scoring unknown photos", min(start + _BATCH, len(files)), len(files))
            if not usable:
                continue
            encoded = identifier.encode(np.stack(usable))
            evidence = identifier.evidence(encoded.logits, encoded.embeddings)
            probabilities = identifier.probabilities(evidence)
            features = novelty_features(evidence, probabilities)
            first.append(probabilities.max(axis=1))
            nearest.append(features[:, 1])
            novel.append(model.unknown_scores(features) if model else nearest[-1])
    if not read:
        raise InsufficientData(f"none of the {len(files)} photos of unknown species can be read")
    scores = UnknownScores.of(np.concatenate(first), np.concatenate(nearest), np.concatenate(novel) if model else None)
    return scores, len(files) - read


def _pixels(identifier: Identifier, path: Path) -> FloatArray | None:
    try:
        return identifier.preprocess(identifier.decode(path, max_pixels=_MAX_PIXELS))
    except InvalidImage as error:
        logger.warning("%s is left out: %s", path, error)
        return None


def unknown_figures(
    known: UnknownScores, unknown: UnknownScores, observation: np.ndarray[Any, Any], novelty: NoveltyModel | None
) -> dict[str, Any]:
    """AUROC and false-positive rate at 95 % true positives of each score, with 95 % bootstrap intervals, and counts.

    Positives are the known photos, accepted below a threshold; a false positive is an unknown photo accepted. Plants of
    known photos, named by `observation`, and single unknown photos are drawn.
    """
    clusters = np.unique(observation, return_inverse=True)[1].reshape(-1)
    counts = [len(next(iter(scores.by_name.values()))) for scores in (known, unknown)]
    plants = int(clusters.max()) + 1
    drawn_known = np.concatenate(list(resample_weights(plants, _RESAMPLES, 0)))[:, clusters]
    drawn_unknown = np.concatenate(list(resample_weights(counts[1], _RESAMPLES, 1)))
    scores = {}
    for name, of_known in known.by_name.items():
        of_unknown = unknown.by_name[name]
        resampled = np.array(
            [_rates(of_known, of_unknown, w, v) for w, v in zip(drawn_known, drawn_unknown, strict=True)]
        )
        auroc, false_positives = _rates(of_known, of_unknown, np.ones(counts[0]), np.ones(counts[1]))
        scores[name] = {
            "auroc": auroc,
            "auroc_interval": list(percentile_interval(resampled[:, 0])),
            "fpr_at_95_tpr": false_positives,
            "fpr_at_95_tpr_interval": list(percentile_interval(resampled[:, 1])),
        }
    served = None
    if novelty is not None:
        served = {
            "threshold": novelty.threshold,
            "unknown": share_with_interval(unknown.by_name["novelty"] > novelty.threshold, np.arange(counts[1])),
            "known": share_with_interval(known.by_name["novelty"] > novelty.threshold, observation),
        }
    return {
        "known_photos": counts[0],
        "unknown_photos": counts[1],
        "scores": scores,
        "answered_none_of_these": served,
    }


def _rates(
    known: Float64Array, unknown: Float64Array, known_weights: Float64Array, unknown_weights: Float64Array
) -> tuple[float, float]:
    """AUROC, and the share of unknown photos accepted by the threshold that accepts 95 % of the known ones."""
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    weights = np.concatenate([known_weights, unknown_weights])
    auroc = float(roc_auc_score(truth, np.concatenate([known, unknown]), sample_weight=weights))
    threshold = accepting_threshold(known, known_weights, KNOWN_ACCEPTED)
    return auroc, float(unknown_weights @ (unknown <= threshold) / unknown_weights.sum())
