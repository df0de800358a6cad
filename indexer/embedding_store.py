"""Embeddings kept between builds, by the content of the image and the space they lie in."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.durable import make_folder, replace_file
from models.errors import BundleCorrupt
from models.home import Home
from models.retrieval import UNIT_TOLERANCE, FloatArray

logger = logging.getLogger(__name__)


class EmbeddingStore:
    """Parquet shards of ``(stored_sha256, vector)`` below ``embeddings/<name>/``; see `Encoder.stored_as`.

    A shard is written in one step and named by its own SHA-256; one that does not fit its name is set aside and its
    images are embedded again. So a killed build keeps all but its last shard.
    """

    def __init__(self, home: Home, name: str, dimensions: int) -> None:
        self.folder = home.embeddings / name
        self.dimensions = dimensions
        self._row_of: dict[str, int] = {}
        self._parts: list[tuple[int, FloatArray]] = []
        self._rows = 0
        for path in sorted(self.folder.glob("*.parquet")):
            self._read(path)

    def __contains__(self, stored_sha256: object) -> bool:
        return stored_sha256 in self._row_of

    def __len__(self) -> int:
        return len(self._row_of)

    def add(self, digests: Sequence[str], vectors: FloatArray) -> None:
        """Keep the unit ``(N, D)`` vectors of images, durably."""
        if vectors.shape != (len(digests), self.dimensions):
            raise ValueError(f"expected ({len(digests)}, {self.dimensions}), got {vectors.shape}")
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        table = pa.table(
            {"stored_sha256": list(digests), "vector": pa.FixedSizeListArray.from_arrays(flat, self.dimensions)}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="none")
        content = sink.getvalue().to_pybytes()
        make_folder(self.folder)
        replace_file(self.folder / f"{hashlib.sha256(content).hexdigest()}.parquet", content)
        self._remember(list(digests), vectors)

    def vectors(self, digests: Sequence[str]) -> FloatArray:
        """``(N, D)`` float32 in the order of `digests`. Raises `KeyError` for one that is not kept."""
        rows = np.array([self._row_of[d] for d in digests], dtype=np.int64)
        found = np.empty((len(rows), self.dimensions), dtype=np.float32)
        for start, part in self._parts:
            here = (rows >= start) & (rows < start + len(part))
            found[here] = part[rows[here] - start]
        return found

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        try:
            if hashlib.sha256(content).hexdigest() != path.stem:
                raise BundleCorrupt("its content is not what its name says")
            table = pq.read_table(pa.BufferReader(content))
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.dimensions)
            if np.any(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) > UNIT_TOLERANCE):
                raise BundleCorrupt("its vectors are not of unit length")
        except (BundleCorrupt, pa.ArrowException, KeyError, ValueError) as error:
            logger.warning("%s is set aside and its images are embedded again: %s", path.name, error)
            path.rename(path.with_suffix(".corrupt"))
            return
        self._remember(table["stored_sha256"].to_pylist(), vectors)

    def _remember(self, digests: list[str], vectors: FloatArray) -> None:
        for offset, digest in enumerate(digests):
            self._row_of[digest] = self._rows + offset
        self._parts.append((self._rows, np.asarray(vectors, dtype=np.float32)))
        self._rows += len(digests)
