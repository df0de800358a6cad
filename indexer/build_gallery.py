"""From the catalogue's sheets and a trained model to an index artifact that is served."""

import json
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from indexer.calibrate_gate import FittedGate, GateKind, fit_gate, thinned
from indexer.calibrate_reliability import FittedReliability, fit_reliability
from indexer.embed import embed_images
from indexer.embedding_store import EmbeddingStore
from indexer.fit_metric import metric_of, rows_for_metric
from indexer.progress import Report, silent
from indexer.run_config import GeneralistConfig
from indexer.run_folder import COMPARISON_PREFIX
from indexer.splits import Splits
from models.artifacts import (
    INDEX_KIND,
    MODEL_KIND,
    activate,
    folder_of,
    list_artifacts,
    read,
    remove_stale_staging,
    writing,
)
from models.bundle import TrainedModel, load_bundle, load_model, write_index_files
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import BundleMissing, InsufficientData
from models.gallery import Gallery
from models.home import Home
from models.metric import Metric
from models.retrieval import EmbeddingBatch
from models.specimens import Sheet, Split
from models.taxonomy import SpeciesId, Taxonomy

logger = logging.getLogger(__name__)

_SHARD = 2048
"""Embeddings written at a time: what a killed build loses at most."""


@dataclass(frozen=True)
class BuiltIndex:
    """What a build gave."""

    bundle_id: str
    model_id: str
    species: int
    sheets: int
    embedded: int
    reused: int
    gate: dict[str, Any]
    gate_figures: dict[str, Any]
    reliability_figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def build(
    home: Home,
    catalogue: Catalogue,
    compute: Compute,
    *,
    model_id: str | None = None,
    gate_kind: GateKind | None = None,
    activate_it: bool = True,
    report: Report = silent,
) -> BuiltIndex:
    """Embed what is new, build, verify and, unless told otherwise, activate an index for the latest or a named model.

    Test sheets stay out. Raises `BundleMissing` without a model and `InsufficientData` without sheets. A failed
    build leaves the active bundle as it was, and its embeddings for the next.
    """
    remove_stale_staging(home.indexes)
    model = load_model(home, model_id or latest_model(home), compute)
    splits = Splits.load(folder_of(home.models, model.model_id) / "splits.parquet")
    store = EmbeddingStore(home, model.encoder.stored_as, model.encoder.dimensions)
    sheets = _list_sheets(catalogue, splits, store)
    generalist = GeneralistConfig.model_validate(model.metadata["config"]["generalist"])
    photos = _photos_of_metric(catalogue, splits, store) if generalist.metric != "cosine" else _Images.none()
    if not sheets.ids:
        raise InsufficientData("the catalogue has no sheets to build an index from; import some with `voucher import`")
    embedded = len(sheets.missing)
    _embed_missing(sheets.missing | photos.missing, model, store, report)
    batch = EmbeddingBatch(store.vectors(sheets.digests), tuple(sheets.ids), model.encoder.space_id)
    metric = _fit_metric(generalist, sheets, photos, store)
    gallery = Gallery.build(batch, sheets.species, metric=metric, compute=compute)
    fitted, reliability = _fit(model, gallery, gate_kind)
    present = set(gallery.species_ids)
    names = Taxonomy.of(s for s in catalogue.species() if s.species_id in present)
    bundle_id = f"index-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    metadata = {
        "model_id": model.model_id,
        "space_id": batch.space_id,
        "catalogue_digest": catalogue.content_digest(),
        "species": len(present),
        "sheets": len(sheets.ids),
        "gate_figures": fitted.figures,
        "reliability_figures": reliability.figures,
    }
    report("writing the index", 0, 1)
    with writing(home.indexes, kind=INDEX_KIND, artifact_id=bundle_id, metadata=metadata) as folder:
        write_index_files(folder, gallery, fitted.gate, names, reliability.reliability)
    load_bundle(home, compute, bundle_id)  # what cannot be served is not activated
    if activate_it:
        activate(home, bundle_id)
    report("writing the index", 1, 1)
    return BuiltIndex(
        bundle_id=bundle_id,
        model_id=model.model_id,
        species=len(present),
        sheets=len(sheets.ids),
        embedded=embedded,
        reused=len(sheets.ids) - embedded,
        gate=fitted.gate.to_json(),
        gate_figures=fitted.figures,
        reliability_figures=reliability.figures,
    )


def latest_model(home: Home) -> str:
    """The id of the model that was finished last, those of comparisons apart. Raises `BundleMissing`."""
    models = [m for m in list_artifacts(home.models) if not m.startswith(f"model-{COMPARISON_PREFIX}")]
    if not models:
        raise BundleMissing(f"there is no trained model in {home.models}; run `voucher train` first")
    return max(models, key=lambda m: read(home.models / m, kind=MODEL_KIND, verify=False).created_at)


def _is_test(sheet: Sheet, splits: Splits) -> bool:
    """Whether a sheet is for testing alone; one that came after training is not."""
    return splits.split_of.get(sheet.sheet_id, sheet.split) is Split.TEST


@dataclass(frozen=True)
class _Images:
    """Sheets or photos as columns, and the files, by digest, that have no stored embedding."""

    ids: list[str]
    species: list[SpeciesId]
    digests: list[str]
    missing: dict[str, Path]

    @classmethod
    def none(cls) -> "_Images":
        return cls([], [], [], {})

    def add(self, image_id: str, species_id: SpeciesId, digest: str, path: Path, store: EmbeddingStore) -> None:
        self.ids.append(image_id)
        self.species.append(species_id)
        self.digests.append(digest)
        if digest not in store:
            self.missing[digest] = path


def _list_sheets(catalogue: Catalogue, splits: Splits, store: EmbeddingStore) -> _Images:
    sheets = _Images.none()
    for sheet in catalogue.sheets():
        if not _is_test(sheet, splits):
            path = catalogue.image_store.path(sheet.image)
            sheets.add(sheet.sheet_id, sheet.species_id, sheet.image.stored_sha256, path, store)
    return sheets


def _photos_of_metric(catalogue: Catalogue, splits: Splits, store: EmbeddingStore) -> _Images:
    """Some photos of each species that training was allowed to see: the metric learns from them how photos differ."""
    allowed = [
        photo
        for photo in catalogue.field_photos()
        if splits.split_of.get(photo.photo_id) in (Split.TRAIN, Split.VALIDATION)
    ]
    classes = np.unique([p.species_id for p in allowed], return_inverse=True)[1].reshape(-1).astype(np.int64)
    photos = _Images.none()
    for row in rows_for_metric(np.arange(len(allowed)), classes, np.ones(len(allowed), dtype=bool)):
        photo = allowed[row]
        path = catalogue.image_store.path(photo.image)
        photos.add(photo.photo_id, photo.species_id, photo.image.stored_sha256, path, store)
    return photos


def _fit_metric(config: GeneralistConfig, sheets: _Images, photos: _Images, store: EmbeddingStore) -> Metric:
    """The metric of the index, fitted anew at every build: in closed form, on some images of each species."""
    classes = np.unique([*sheets.species, *photos.species], return_inverse=True)[1].reshape(-1).astype(np.int64)
    is_field = np.arange(len(classes)) >= len(sheets.ids)
    rows = rows_for_metric(np.arange(len(classes)), classes, is_field)
    digests = [*sheets.digests, *photos.digests]
    return metric_of(config, store.vectors([digests[row] for row in rows]), classes[rows], is_field[rows])


def _embed_missing(missing: dict[str, Path], model: TrainedModel, store: EmbeddingStore, report: Report) -> None:
    done = 0
    report("embedding images", 0, len(missing))
    for digests, vectors in _shards(embed_images(missing.items(), model.encoder)):
        store.add(digests, vectors)
        done += len(digests)
        report("embedding images", done, len(missing))


def _shards(batches: Iterator[tuple[list[str], Any]]) -> Iterator[tuple[list[str], Any]]:
    """Batches gathered to shards."""
    keys: list[str] = []
    parts: list[Any] = []
    for digests, vectors in batches:
        keys += digests
        parts.append(vectors)
        if len(keys) >= _SHARD:
            yield keys, np.concatenate(parts)
            keys, parts = [], []
    if keys:
        yield keys, np.concatenate(parts)


def _fit(model: TrainedModel, gallery: Gallery, gate_kind: GateKind | None) -> tuple[FittedGate, FittedReliability]:
    """The gate for the flora as it is now, and what its answers are worth.

    Species without field photos in training count as herbarium-only.
    """
    with_photos = {s.species_id for s, flag in zip(model.taxonomy, model.has_field_photos, strict=True) if flag}
    everything = {s.species_id for s in model.taxonomy} | set(gallery.species_ids)
    share = 1.0 - len(with_photos) / len(everything)
    configured = model.metadata.get("config", {}).get("calibration", {}).get("gate", "auto")
    calibration = thinned(model.calibration())
    fitted = fit_gate(calibration, share, gate_kind or configured)
    kind = fitted.figures.get("kind", configured)
    reliability = fit_reliability(calibration, share, fitted.gate, lambda part: fit_gate(part, share, kind).gate)
    return fitted, reliability


def describe(built: BuiltIndex) -> str:
    """Lines for people."""
    gate = json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in built.gate.items()})
    return (
        f"{built.bundle_id}: {built.sheets} sheets of {built.species} species "
        f"({built.embedded} embedded, {built.reused} reused), gate {gate}"
    )
