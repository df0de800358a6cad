"""The sheets of a new index: all of the catalogue, or an earlier index with what changed since."""

import logging
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from indexer.build_changes import Images, all_sheets, changed_since, photos_of_metric, training_sheets
from indexer.embed import embed_images
from indexer.embedding_store import EmbeddingStore
from indexer.fit_metric import metric_of, rows_for_metric
from indexer.progress import Report
from indexer.run_config import GeneralistConfig
from indexer.splits import Splits
from models.bundle import Bundle, TrainedModel
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import InsufficientData, InvalidImage
from models.gallery import Gallery
from models.metric import Metric
from models.retrieval import EmbeddingBatch, FloatArray
from models.taxonomy import SpeciesId

logger = logging.getLogger(__name__)

_SHARD = 2048
"""Embeddings written at a time: what a killed build loses at most."""


@dataclass(frozen=True)
class Content:
    """The sheets of a new index, and how it came to them: `base` is the index that was continued.

    `unreadable` names sheets whose stored images could not be read.
    """

    gallery: Gallery
    base: str | None
    embedded: int
    added: int
    removed: int
    moved: int
    unreadable: tuple[str, ...]
    species_added: tuple[str, ...]
    species_removed: tuple[str, ...]


class ContentBuilder:
    """Makes the content of one index of one model."""

    def __init__(
        self,
        catalogue: Catalogue,
        model: TrainedModel,
        splits: Splits,
        store: EmbeddingStore,
        compute: Compute,
        report: Report,
    ) -> None:
        self._catalogue, self._model, self._splits, self._store = catalogue, model, splits, store
        self._compute, self._report = compute, report

    def from_nothing(self) -> Content:
        """All living sheets. Raises `InsufficientData` when there are none."""
        listed = all_sheets(self._catalogue, self._splits)
        embedded, sheets = self._embed(listed)
        if not sheets:
            raise InsufficientData(
                "the catalogue has no sheets to build an index from; import some with `voucher import`"
            )
        metric = self._metric(sheets)
        self._report("index", 0, 1)
        batch = EmbeddingBatch(self._store.vectors(sheets.digests), tuple(sheets.ids), self._model.encoder.space_id)
        gallery = Gallery.build(batch, sheets.species, metric=metric, compute=self._compute)
        unreadable = _left_out(listed, sheets)
        return Content(gallery, None, embedded, len(sheets), 0, 0, unreadable, gallery.species_ids, ())

    def continued(self, base: Bundle) -> Content:
        """The sheets of `base` with what changed since. Raises `InsufficientData` when no sheet is left."""
        then = int(base.metadata["catalogue_revision"])
        changes = changed_since(self._catalogue, then, self._splits, base.metadata.get("unreadable", ()))
        embedded, added = self._embed(changes.added)
        metric = base.gallery.metric
        if changes.touches_training:
            metric = self._metric(all_sheets(self._catalogue, self._splits))
        before = _species_among(base.gallery, changes.dropped)
        self._report("index", 0, 1)
        vectors = EmbeddingBatch(self._store.vectors(added.digests), tuple(added.ids), self._model.encoder.space_id)
        gallery = base.gallery.updated(
            vectors if len(added) else None, added.species, before.keys(), metric=metric, compute=self._compute
        )
        now = dict(zip(added.ids, added.species, strict=True))
        old, new = set(base.gallery.species_ids), set(gallery.species_ids)
        return Content(
            gallery,
            base.bundle_id,
            embedded,
            added=len(now.keys() - before.keys()),
            removed=len(before.keys() - now.keys()),
            moved=sum(before[sheet] != now[sheet] for sheet in before.keys() & now.keys()),
            unreadable=_left_out(changes.added, added),
            species_added=tuple(sorted(new - old)),
            species_removed=tuple(sorted(old - new)),
        )

    def _embed(self, images: Images) -> tuple[int, Images]:
        """How many were embedded, and the images that have an embedding now."""
        missing = list(dict.fromkeys(self._store.missing(images.digests)))
        failed: list[str] = []

        def tell(digest: str, error: InvalidImage) -> None:
            logger.warning("a stored image is left out: %s", error)
            failed.append(digest)

        files = ((digest, images.files[digest]) for digest in missing)
        done = 0
        self._report("embedding images", 0, len(missing))
        with _ShardWriter(self._store) as writer:
            for digests, vectors in embed_images(files, self._model.encoder, on_failure=tell):
                writer.add(digests, vectors)
                done += len(digests)
                self._report("embedding images", done, len(missing))
        return done, images.without(failed) if failed else images

    def _metric(self, sheets: Images) -> Metric:
        """Fitted in closed form on some of the images that the model was trained on.

        What is added later does not move it, so that an index can be continued without touching what it holds.
        """
        config = GeneralistConfig.model_validate(self._model.metadata["config"]["generalist"])
        cosine = Metric.cosine(self._model.encoder.dimensions)
        if config.metric == "cosine":
            return cosine
        parts = [training_sheets(sheets, self._splits), photos_of_metric(self._catalogue, self._splits)]
        sheets, photos = (self._embed(part)[1] for part in parts)
        species = [*sheets.species, *photos.species]
        if not species:
            return cosine
        classes = np.unique(species, return_inverse=True)[1].reshape(-1).astype(np.int64)
        is_field = np.arange(len(classes)) >= len(sheets)
        rows = rows_for_metric(np.arange(len(classes)), classes, is_field)
        digests = [*sheets.digests, *photos.digests]
        vectors = self._store.vectors([digests[row] for row in rows])
        return metric_of(config, vectors, classes[rows], is_field[rows])


class _ShardWriter:
    """Gathers embeddings and keeps them in shards; what is gathered when the work breaks off is kept too."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store
        self._digests: list[str] = []
        self._parts: list[FloatArray] = []

    def add(self, digests: list[str], vectors: FloatArray) -> None:
        """Some more."""
        self._digests += digests
        self._parts.append(vectors)
        if len(self._digests) >= _SHARD:
            self._flush()

    def _flush(self) -> None:
        if self._digests:
            self._store.add(self._digests, np.concatenate(self._parts))
            self._digests, self._parts = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()


def _left_out(listed: Images, kept: Images) -> tuple[str, ...]:
    return tuple(sorted(set(listed.ids) - set(kept.ids))) if len(kept) < len(listed) else ()


def _species_among(gallery: Gallery, sheet_ids: frozenset[str]) -> dict[str, SpeciesId]:
    """The species of those of the sheets that a gallery holds."""
    wanted = pa.array(sorted(sheet_ids), pa.large_string())
    found: dict[str, SpeciesId] = {}
    for living in gallery.parts.segments:
        table, rows = living.segment.table, living.rows_among(wanted)
        found |= {sheet: table.species_of(int(row)) for sheet, row in zip(table.sheet_ids(rows), rows, strict=True)}
    return found
