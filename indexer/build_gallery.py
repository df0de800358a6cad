"""From the catalogue's sheets and a trained model to an index artifact that is served."""

import json
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from indexer.calibrate_gate import FittedGate, GateKind, fit_gate
from indexer.embed import embed_sheets
from indexer.embedding_store import EmbeddingStore
from indexer.progress import Report, silent
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
from models.retrieval import EmbeddingBatch
from models.specimens import Sheet, Split
from models.taxonomy import Taxonomy

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
    report: Report = silent,
) -> BuiltIndex:
    """Embed what is new, build, verify and activate an index for the latest model or a named one.

    Test sheets stay out. Raises `BundleMissing` without a model and `InsufficientData` without sheets. A failed
    build leaves the active bundle as it was, and its embeddings for the next.
    """
    remove_stale_staging(home.indexes)
    model = load_model(home, model_id or latest_model(home), compute)
    splits = Splits.load(folder_of(home.models, model.model_id) / "splits.parquet")
    sheets = [s for s in catalogue.sheets() if not _is_test(s, splits)]
    if not sheets:
        raise InsufficientData("the catalogue has no sheets to build an index from; import some with `voucher import`")
    batch, embedded = _embeddings(home, catalogue, model, sheets, report)
    gallery = Gallery.build(batch, [s.species_id for s in sheets], compute=compute)
    fitted = _fit(model, gallery, gate_kind)
    present = set(gallery.species_ids)
    names = Taxonomy.of(s for s in catalogue.species() if s.species_id in present)
    bundle_id = f"index-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    metadata = {
        "model_id": model.model_id,
        "space_id": batch.space_id,
        "catalogue_digest": catalogue.content_digest(),
        "species": len(present),
        "sheets": len(sheets),
        "gate_figures": fitted.figures,
    }
    report("writing the index", 0, 1)
    with writing(home.indexes, kind=INDEX_KIND, artifact_id=bundle_id, metadata=metadata) as folder:
        write_index_files(folder, gallery, fitted.gate, names)
    load_bundle(home, compute, bundle_id)  # what cannot be served is not activated
    activate(home, bundle_id)
    report("writing the index", 1, 1)
    return BuiltIndex(
        bundle_id=bundle_id,
        model_id=model.model_id,
        species=len(present),
        sheets=len(sheets),
        embedded=embedded,
        reused=len(sheets) - embedded,
        gate=fitted.gate.to_json(),
        gate_figures=fitted.figures,
    )


def latest_model(home: Home) -> str:
    """The id of the model that was finished last. Raises `BundleMissing`."""
    models = list_artifacts(home.models)
    if not models:
        raise BundleMissing(f"there is no trained model in {home.models}; run `voucher train` first")
    return max(models, key=lambda m: read(home.models / m, kind=MODEL_KIND, verify=False).created_at)


def _is_test(sheet: Sheet, splits: Splits) -> bool:
    """Whether a sheet is for testing alone; one that came after training is not."""
    return splits.split_of.get(sheet.sheet_id, sheet.split) is Split.TEST


def _embeddings(
    home: Home, catalogue: Catalogue, model: TrainedModel, sheets: list[Sheet], report: Report
) -> tuple[EmbeddingBatch, int]:
    """Vectors of all sheets, and how many had to be computed."""
    encoder = model.encoder
    store = EmbeddingStore(home, encoder.space_id, encoder.dimensions)
    missing = list({s.image.stored_sha256: s for s in sheets if s.image.stored_sha256 not in store}.values())
    paths = ((s.image.stored_sha256, catalogue.image_store.path(s.image)) for s in missing)
    done = 0
    report("embedding sheets", 0, len(missing))
    for digests, vectors in _shards(embed_sheets(paths, encoder)):
        store.add(digests, vectors)
        done += len(digests)
        report("embedding sheets", done, len(missing))
    vectors = store.vectors([s.image.stored_sha256 for s in sheets])
    return EmbeddingBatch(vectors, tuple(s.sheet_id for s in sheets), encoder.space_id), len(missing)


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


def _fit(model: TrainedModel, gallery: Gallery, gate_kind: GateKind | None) -> FittedGate:
    """The gate for the flora as it is now: species without field photos in training count as herbarium-only."""
    with_photos = {s.species_id for s, flag in zip(model.taxonomy, model.has_field_photos, strict=True) if flag}
    everything = {s.species_id for s in model.taxonomy} | set(gallery.species_ids)
    share = 1.0 - len(with_photos) / len(everything)
    configured = model.metadata.get("config", {}).get("calibration", {}).get("gate", "auto")
    return fit_gate(model.calibration(), share, gate_kind or configured)


def describe(built: BuiltIndex) -> str:
    """Lines for people."""
    gate = json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in built.gate.items()})
    return (
        f"{built.bundle_id}: {built.sheets} sheets of {built.species} species "
        f"({built.embedded} embedded, {built.reused} reused), gate {gate}"
    )
