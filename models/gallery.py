"""The searchable herbarium: every sheet's vector and every species' prototype.

Similarities are cosines: inner products of unit vectors. Sheets are kept as they were embedded, so that adding some
changes no other; prototypes, and a photo's similarity to a species or to the sheets that vouch for it, are taken in the
gallery's `Metric`.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.compute import Compute
from models.errors import UnknownSheet, UnknownSpecies
from models.exact_search import Rows, best_first, dot_rows, nearest_rows
from models.faiss_packages import require_one_faiss
from models.gallery_files import read_gallery, read_sheet_columns, write_gallery
from models.gallery_parts import GalleryParts, species_vectors
from models.gpu_search import MOST_RESULTS, GpuCopy
from models.index_kind import RequestedKind
from models.metric import Metric
from models.retrieval import EmbeddingBatch, FloatArray, Prototype, SheetMatch
from models.sheet_segment import NO_ROWS, living_columns
from models.specimens import Role
from models.taxonomy import SpeciesId
from models.unit_vectors import are_unit_rows

__all__ = ["Gallery", "read_sheet_columns"]

_GPU_SPARE = 16
"""Sheets that a GPU proposes beyond those asked for, so that ties with the last are among them."""


class Gallery:
    """Sheets and prototypes of one embedding space; safe to search from several threads, and never changed.

    `species_ids` is sorted, one per prototype. Similarities that differ by less than 1e-6 are ties.
    """

    def __init__(self, parts: GalleryParts, compute: Compute | None = None) -> None:
        require_one_faiss()
        self.parts = parts
        self.space_id = parts.space_id
        self.metric = parts.metric
        self.dimensions = parts.dimensions
        self.sheet_count = parts.sheet_count
        self.species_ids = tuple(parts.counts)
        self._gpu = GpuCopy.of(compute, parts.segments)

    @classmethod
    def build(
        cls,
        sheets: EmbeddingBatch,
        species_of_sheet: Sequence[SpeciesId],
        *,
        metric: Metric | None = None,
        compute: Compute | None = None,
        kind: RequestedKind = "auto",
        recall_queries: FloatArray | None = None,
    ) -> "Gallery":
        """The gallery of these sheets; a prototype is the unit mean of its species' sheet vectors in the metric.

        Where the mean has no direction, the species' medoid stands in for it. `kind` is of the index, by size if
        ``auto``; its recall is measured with `recall_queries`, ``(Q, D)`` unit embeddings, or else with moved sheets.

        Raises `InsufficientData` without sheets, `ValueError` when a sheet appears twice or the lengths
        differ.
        """
        require_one_faiss()
        metric = metric or Metric.cosine(sheets.dimensions)
        return cls(GalleryParts.build(sheets, species_of_sheet, metric, kind, recall_queries), compute)

    def updated(
        self,
        added: EmbeddingBatch | None = None,
        species_of_added: Sequence[SpeciesId] = (),
        removed: Collection[str] = (),
        *,
        metric: Metric | None = None,
        compute: Compute | None = None,
        kind: RequestedKind | None = None,
        recall_queries: FloatArray | None = None,
    ) -> "Gallery":
        """Another gallery, equal to one built of the sheets after the change; this one stays as it is.

        `removed` are sheet ids; those that are not here are passed over. A sheet that changed its species is both
        removed and added, with its vector from `vectors_for`. Only the prototypes of species that gain or lose sheets
        are computed anew, unless `metric` is another than this gallery's. `kind` is this gallery's unless given.

        Raises `InsufficientData` when no sheet is left, `ValueError` when a sheet would appear twice or the lengths
        differ, `EmbeddingSpaceMismatch` when the vectors are of another space.
        """
        parts = self.parts.updated(
            added,
            species_of_added,
            removed,
            metric or self.metric,
            kind or self.parts.requested_kind,
            recall_queries,
        )
        return Gallery(parts, compute)

    def prototypes(self) -> Iterator[Prototype]:
        """The prototypes, in the order of `species_ids`."""
        for (species_id, count), vector in zip(self.parts.counts.items(), self.parts.prototypes, strict=True):
            yield Prototype(species_id, vector, count)

    def prototype_matrix(self) -> FloatArray:
        """``(S, D)`` unit rows in the order of `species_ids`; read-only."""
        return self.parts.prototypes

    def prototype_similarities(self, queries: FloatArray) -> FloatArray:
        """``(N, S)`` cosines in the metric of ``(N, D)`` unit embeddings of photos with every prototype, exact."""
        self._check_queries(queries)
        similarities: FloatArray = self.metric.apply(queries, Role.FIELD) @ self.parts.prototypes.T
        return np.clip(similarities, -1.0, 1.0, out=similarities)

    def nearest_prototypes(self, queries: FloatArray, k: int) -> list[list[tuple[SpeciesId, float]]]:
        """For each of ``(N, D)`` unit embeddings of photos the `k` most similar species in the metric, or all.

        Equal similarities are ordered by species id.
        """
        self._check_queries(queries)
        _check_k(k)
        found = nearest_rows(self.parts.prototypes, self.metric.apply(queries, Role.FIELD), k, NO_ROWS)
        # Rows ascend with the species, so that their order is that of ties.
        return [
            [(self.species_ids[rows[i]], similarity) for i, similarity in best_first(similarities, k, int)]
            for rows, similarities in found
        ]

    def nearest_sheets(self, queries: FloatArray, k: int) -> list[list[SheetMatch]]:
        """For each of ``(N, D)`` unit queries the `k` sheets of highest cosine, or all; the metric has no part in it.

        Exact but for the recall of an approximate index. Equal similarities are ordered by species id, then sheet id.
        """
        self._check_queries(queries)
        _check_k(k)
        if self._gpu is not None and k + _GPU_SPARE <= MOST_RESULTS:
            return [
                self._best_sheets([(rows, self._cosines(s, rows, query)) for s, rows in enumerate(by_segment)], k)
                for query, by_segment in zip(queries, self._gpu.candidates(queries, k + _GPU_SPARE), strict=True)
            ]
        found = [segment.nearest(queries, k) for segment in self.parts.segments]
        return [self._best_sheets(by_segment, k) for by_segment in zip(*found, strict=True)]

    def supporting_sheets(self, query: FloatArray, species_id: SpeciesId, k: int) -> tuple[SheetMatch, ...]:
        """The `k` sheets of one species most similar in the metric to a photo's ``(D,)`` unit embedding, best first.

        Equal similarities are ordered by sheet id. Raises `UnknownSpecies` when the species has no sheets here.
        """
        _check_k(k)
        if not isinstance(query, np.ndarray) or query.ndim != 1:
            raise ValueError(f"expected one query of shape ({self.dimensions},)")
        self._check_queries(query[None])
        self._check_species(species_id)
        mapped = self.metric.apply(query[None], Role.FIELD)[0]
        found = []
        for living in self.parts.segments:
            rows = living.rows_of(species_id)
            similarities = self.metric.similarities(living.vectors_at(rows), living.norms[rows], Role.SHEET, mapped)
            found.append((rows, np.clip(similarities, -1.0, 1.0)))
        return tuple(self._best_sheets(found, k))

    def vectors_of(self, species_id: SpeciesId) -> tuple[tuple[str, ...], FloatArray]:
        """The sheets of a species, sorted, and their ``(n, D)`` vectors. Raises `UnknownSpecies`."""
        self._check_species(species_id)
        return species_vectors(self.parts.segments, species_id)

    def vectors_for(self, sheet_ids: Sequence[str]) -> FloatArray:
        """``(n, D)`` vectors of some sheets, in their order. Raises `UnknownSheet`."""
        wanted = pa.array(list(sheet_ids), pa.large_string())
        found: dict[str, FloatArray] = {}
        for living in self.parts.segments:
            rows = living.rows_among(wanted)
            found |= zip(living.segment.table.sheet_ids(rows), living.segment.vectors[rows], strict=True)
        if missing := [s for s in sheet_ids if s not in found]:
            raise UnknownSheet(f"sheet {missing[0]!r} is not in this index; run `voucher build` to take it in")
        return np.array([found[s] for s in sheet_ids], dtype=np.float32).reshape(len(sheet_ids), self.dimensions)

    def sheet_columns(self) -> pa.Table:
        """Columns `sheet_id` and `species_id` of all sheets, ordered by species, then sheet."""
        return living_columns(self.parts.segments)

    def save(self, folder: Path) -> None:
        """Write the files of a gallery into `folder`, an artifact's staging folder; links to those that it shares.

        Raises `BundleError`.
        """
        write_gallery(folder, self.parts)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        expected_space_id: str,
        compute: Compute | None = None,
        memory_map: bool = True,
    ) -> "Gallery":
        """The gallery that `save` wrote, from a folder whose hashes `artifacts.read` has verified.

        With `memory_map` the sheets' vectors stay in the file and are read as searches touch them, so
        that several processes share them; the file must not be changed while it is open.

        Raises `EmbeddingSpaceMismatch` when the vectors are of another space than the network that
        makes the queries, and `BundleCorrupt` when the files are damaged or do not fit each other.
        """
        require_one_faiss()
        return cls(read_gallery(folder, expected_space_id=expected_space_id, memory_map=memory_map), compute)

    def _cosines(self, segment: int, rows: Rows, query: FloatArray) -> FloatArray:
        return dot_rows(self.parts.segments[segment].segment.vectors, rows, query)

    def _best_sheets(self, found: Sequence[tuple[Rows, FloatArray]], k: int) -> list[SheetMatch]:
        """The `k` best of rows and their similarities, by segment."""
        origin = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        rows = np.concatenate([rows for rows, _ in found])

        def sheet(position: int) -> tuple[SpeciesId, str]:
            table, row = self.parts.segments[origin[position]].segment.table, int(rows[position])
            return table.species_of(row), table.sheet_id(row)

        matches = []
        for position, similarity in best_first(np.concatenate([s for _, s in found]), k, sheet):
            species_id, sheet_id = sheet(position)
            matches.append(SheetMatch(sheet_id, species_id, similarity))
        return matches

    def _check_species(self, species_id: SpeciesId) -> None:
        if species_id not in self.parts.counts:
            raise UnknownSpecies(
                f"species {species_id!r} is not among the {len(self.species_ids)} of this index; "
                "import sheets of it and run `voucher build`"
            )

    def _check_queries(self, queries: FloatArray) -> None:
        """Raises `ValueError` unless these are ``(N, D)`` float32 unit rows."""
        if not isinstance(queries, np.ndarray) or queries.dtype != np.float32:
            raise ValueError(f"expected float32 queries, got {getattr(queries, 'dtype', type(queries))}")
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise ValueError(f"expected queries of shape (N, {self.dimensions}), got {queries.shape}")
        if not are_unit_rows(queries):
            raise ValueError("queries must be finite and of unit length")


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
