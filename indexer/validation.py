"""Figures of a bundle on a fixed set of photos: what a new build is held against before it is put into service.

They compare bundles and are no accuracy: the network's epoch was chosen on these photos, and the metric is fitted on
them too. Accuracy is for `evaluate` to tell.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from indexer.embed import run_batches
from indexer.metrics import figures_of, score_photos
from indexer.progress import Report
from indexer.splits import Splits
from models.bundle import Bundle, TrainedModel
from models.catalogue import Catalogue
from models.durable import make_folder, replace_file
from models.errors import InvalidImage
from models.home import Home
from models.identifier import Identifier
from models.retrieval import FloatArray
from models.specimens import FieldPhoto, Split
from models.taxonomy import SpeciesId

logger = logging.getLogger(__name__)

MAX_PHOTOS = 1_000
"""Drawn evenly over the species; with so many, half a point of accuracy is one standard error or so."""

_BLOCK = 64


@dataclass(frozen=True)
class ValidationSet:
    """What a model's network says of M of the photos that were kept from its training for validation.

    `logits` ``(M, C)``, `embeddings` ``(M, D)``; `digest` tells sets apart: figures on different ones are not compared.
    """

    photo_ids: tuple[str, ...]
    species: tuple[SpeciesId, ...]
    logits: FloatArray
    embeddings: FloatArray

    def __len__(self) -> int:
        return len(self.photo_ids)

    @property
    def digest(self) -> str:
        """SHA-256 over the photos and their species."""
        pairs = zip(self.photo_ids, self.species, strict=True)
        return hashlib.sha256("\x1e".join(f"{p}\x1f{s}" for p, s in pairs).encode()).hexdigest()


def validation_set(
    home: Home, catalogue: Catalogue, model: TrainedModel, splits: Splits, report: Report
) -> ValidationSet:
    """The model's validation photos, through its network; kept below the cache, so that it is done once for a model."""
    path = home.cache / "validation" / f"{model.model_id}-{model.encoder.stored_as}.safetensors"
    kept = _read(path)
    if kept is None:
        kept = _encode(catalogue, model, splits, report)
        make_folder(path.parent)
        names = json.dumps({"photo_ids": kept.photo_ids, "species": kept.species})
        arrays = {"logits": kept.logits, "embeddings": kept.embeddings}
        replace_file(path, save_arrays(arrays, metadata={"names": names}))
    return kept


def validation_figures(bundle: Bundle, photos: ValidationSet) -> dict[str, Any] | None:
    """Top-1, top-5 and mean reciprocal rank of the bundle's calibrated answers, with counts; None without photos.

    Photos of species that the bundle no longer knows count as wrong.
    """
    if not len(photos):
        return None
    identifier = Identifier(bundle)
    position = {s: i for i, s in enumerate(identifier.species_ids)}
    truth = np.array([position.get(s, -1) for s in photos.species], dtype=np.int64)
    blocks = []
    for start in range(0, len(photos), _BLOCK):
        rows = slice(start, start + _BLOCK)
        evidence = identifier.evidence(photos.logits[rows], photos.embeddings[rows])
        # An extra column that is never likely: the place of species that are not there any more.
        probabilities = identifier.probabilities(evidence)
        blocks.append(np.pad(probabilities, ((0, 0), (0, 1))))
    truth[truth < 0] = len(position)
    figures = figures_of(score_photos(np.concatenate(blocks), truth), resamples=500)
    return {
        "digest": photos.digest,
        "photos": figures.n,
        "species": len(set(photos.species)),
        "top1": figures.top1,
        "top1_interval": None if figures.top1_interval is None else list(figures.top1_interval),
        "top5": figures.top5,
        "mrr": figures.mrr,
    }


def fall_in_words(before: dict[str, Any] | None, after: dict[str, Any] | None, most: float) -> str | None:
    """Why a build with figures `after` should wait for somebody's word, or None where nothing speaks against it.

    `most` is the share of top-1 that may be lost without asking, 0 … 1; one photo may always be lost. Figures on
    different photos are not compared.
    """
    if before is None or after is None or before.get("digest") != after["digest"]:
        return None
    fall = float(before["top1"]) - float(after["top1"])
    # A single photo never decides, however few there are.
    if fall <= max(most, 1.5 / after["photos"]) + 1e-9:
        return None
    return (
        f"top-1 on {after['photos']} validation photos fell from {100 * before['top1']:.1f} to "
        f"{100 * after['top1']:.1f} %, by more than {100 * most:.1f} points; look at what was changed with "
        "`voucher bundles show`, then put it into service with `voucher bundles activate` or correct the sheets"
    )


def _encode(catalogue: Catalogue, model: TrainedModel, splits: Splits, report: Report) -> ValidationSet:
    photos = _chosen(p for p in catalogue.field_photos() if splits.split_of.get(p.photo_id) is Split.VALIDATION)
    logits, embeddings = [], []
    rows: list[int] = []

    def tell(row: int, error: InvalidImage) -> None:
        logger.warning("validation photo %s is left out: %s", photos[row].photo_id, error)

    files = ((i, catalogue.image_store.path(photo.image)) for i, photo in enumerate(photos))
    report("validation photos", 0, len(photos))
    for keys, encoded in run_batches(files, model.encoder.preprocessing, model.encoder.encode, on_failure=tell):
        rows += keys
        logits.append(encoded.logits)
        embeddings.append(encoded.embeddings)
        report("validation photos", len(rows), len(photos))
    classes, dimensions = len(model.taxonomy), model.encoder.dimensions
    return ValidationSet(
        tuple(photos[i].photo_id for i in rows),
        tuple(photos[i].species_id for i in rows),
        np.concatenate([np.zeros((0, classes), dtype=np.float32), *logits]),
        np.concatenate([np.zeros((0, dimensions), dtype=np.float32), *embeddings]),
    )


def _chosen(photos: Iterable[FieldPhoto]) -> list[FieldPhoto]:
    """At most `MAX_PHOTOS`: the first of each species, then the second of each, and so on."""
    of_species: dict[SpeciesId, list[FieldPhoto]] = defaultdict(list)
    for photo in photos:
        # Ids are digests, so that their order is as good as a drawing, and always the same one.
        of_species[photo.species_id].append(photo)
    turns = [(n, p.species_id, p) for group in of_species.values() for n, p in enumerate(group)]
    turns.sort(key=lambda turn: turn[:2])
    return [photo for _, _, photo in turns[:MAX_PHOTOS]]


def _read(path: Path) -> ValidationSet | None:
    try:
        with safe_open(path, "numpy") as file:
            names = json.loads(file.metadata()["names"])
            logits, embeddings = file.get_tensor("logits"), file.get_tensor("embeddings")
        found = ValidationSet(tuple(names["photo_ids"]), tuple(names["species"]), logits, embeddings)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError):
        return None
    return found if len(logits) == len(embeddings) == len(found) == len(found.species) else None
