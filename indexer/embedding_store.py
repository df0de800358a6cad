"""Embeddings kept between builds, by the content of the image and the space they lie in."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.durable import make_folder, replace_file
from models.errors import BundleCorrupt
from models.home import Home
from models.retrieval import UNIT_TOLERANCE, FloatArray

logger = logging.getLogger(__name__)

_KEY = "stored_sha256"
_SMALL_SHARD = 2048
"""Shards of fewer embeddings are joined when the store is cleaned up."""


@dataclass
class _Shard:
    """One file: which images it holds, and whether its content was found to be what its name says."""

    path: Path
    keys: pa.LargeStringArray
    is_verified: bool = False


class EmbeddingStore:
    """Parquet shards of ``(stored_sha256, vector)`` below ``embeddings/<name>/``; see `Encoder.stored_as`.

    A shard is written in one step and named by its own SHA-256; one that does not fit its name is set aside and its
    images are embedded again. So a killed build keeps all but its last shard. Opening reads the keys alone, about a
    tenth of a second for a million; a shard is checked before the first vector is taken from it.
    """

    def __init__(self, home: Home, name: str, dimensions: int) -> None:
        self.folder = home.embeddings / name
        self.dimensions = dimensions
        self._shards: dict[str, _Shard] = {}
        self._all_keys: pa.ChunkedArray | None = None
        self.refresh()

    def refresh(self) -> None:
        """Take in what other processes have added, and forget what was removed."""
        present = {path.name: path for path in self.folder.glob("*.parquet")}
        for name in self._shards.keys() - present.keys():
            self._forget(name)
        for name in sorted(present.keys() - self._shards.keys()):
            try:
                keys = pq.read_table(present[name], columns=[_KEY], partitioning=None)[_KEY]
                self._remember(_Shard(present[name], keys.cast(pa.large_string()).combine_chunks()))
            except (pa.ArrowException, KeyError, OSError, ValueError) as error:
                _set_aside(present[name], error)

    def __contains__(self, stored_sha256: str) -> bool:
        return not self.missing([stored_sha256])

    def __len__(self) -> int:
        """Images that are kept, including those of shards that turn out damaged when they are read."""
        return int(pc.count_distinct(self._keys()).as_py())

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those that are not kept, in their order; every shard that holds one of the others is sound."""
        while True:
            shard_of, _ = self._locate(digests)
            names = list(self._shards)
            damaged = [
                name for number, name in enumerate(names) if (shard_of == number).any() and not self._sound(name)
            ]
            if not damaged:
                return [digest for digest, shard in zip(digests, shard_of, strict=True) if shard < 0]

    def add(self, digests: Sequence[str], vectors: FloatArray) -> None:
        """Keep the unit ``(N, D)`` vectors of images, durably."""
        if vectors.shape != (len(digests), self.dimensions):
            raise ValueError(f"expected ({len(digests)}, {self.dimensions}), got {vectors.shape}")
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        keys = pa.array(digests, pa.large_string())
        table = pa.table({_KEY: keys, "vector": pa.FixedSizeListArray.from_arrays(flat, self.dimensions)})
        content = _packed(table)
        make_folder(self.folder)
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
        replace_file(path, content)
        self._remember(_Shard(path, keys))

    def vectors(self, digests: Sequence[str]) -> FloatArray:
        """``(N, D)`` float32 in the order of `digests`. Raises `KeyError` for one that is not kept.

        Raises `BundleCorrupt` when a shard was damaged since `missing` looked at it; the next build embeds its images
        again.
        """
        shard_of, row_of = self._locate(digests)
        if (shard_of < 0).any():
            raise KeyError(digests[int(np.argmax(shard_of < 0))])
        found = np.empty((len(digests), self.dimensions), dtype=np.float32)
        for number, (name, shard) in enumerate(list(self._shards.items())):
            here = np.flatnonzero(shard_of == number)
            if not len(here):
                continue
            if not self._sound(name):
                raise BundleCorrupt(f"{shard.path.name} in {self.folder} is damaged and was set aside; build again")
            found[here] = self._read(shard.path)[row_of[here]]
        return found

    @classmethod
    def compact(cls, folder: Path, needed: set[str], *, dry_run: bool = False) -> int:
        """How many embeddings of images outside `needed` were dropped; shards of few are joined on the way.

        New shards are written before old ones go, so that a kill leaves some embeddings twice and none lost.
        """
        dropped = 0
        small: list[pa.Table] = []
        old: list[Path] = []
        for path in sorted(folder.glob("*.parquet")):
            try:
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != path.stem:
                    raise BundleCorrupt("its content is not what its name says")
                table = pq.read_table(pa.BufferReader(content))
                keep = pc.is_in(table[_KEY].cast(pa.large_string()), value_set=pa.array(needed, pa.large_string()))
            except (BundleCorrupt, pa.ArrowException, KeyError, OSError, ValueError) as error:
                if not dry_run:
                    _set_aside(path, error)
                continue
            kept = table.filter(keep)
            dropped += table.num_rows - kept.num_rows
            if kept.num_rows < table.num_rows or table.num_rows < _SMALL_SHARD:
                small.append(kept)
                old.append(path)
        if dry_run or (not dropped and len(old) < 2):
            return dropped
        written = set()
        whole = pa.concat_tables(small)
        for start in range(0, whole.num_rows, _SMALL_SHARD):
            content = _packed(whole.slice(start, _SMALL_SHARD))
            path = folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
            replace_file(path, content)
            written.add(path)
        for path in old:
            if path not in written:
                path.unlink(missing_ok=True)
        return dropped

    def _keys(self) -> pa.ChunkedArray:
        if self._all_keys is None:
            self._all_keys = pa.chunked_array([s.keys for s in self._shards.values()], pa.large_string())
        return self._all_keys

    def _locate(self, digests: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shard, by position, and the row in it of every digest; -1 where there is none."""
        shard_of = np.full(len(digests), -1, dtype=np.int64)
        row_of = np.full(len(digests), -1, dtype=np.int64)
        wanted = pa.array(digests, pa.large_string()).dictionary_encode()
        # The keys are looked up among what is wanted, not the other way: no table of a million keys is made for a few.
        hits = pc.index_in(self._keys(), value_set=wanted.dictionary)
        at = np.asarray(pc.fill_null(hits, -1).to_numpy(), dtype=np.int64)
        key_rows = np.flatnonzero(at >= 0)
        first = np.full(len(wanted.dictionary), -1, dtype=np.int64)
        first[at[key_rows]] = key_rows
        row = first[np.asarray(wanted.indices.to_numpy(), dtype=np.int64)] if len(digests) else shard_of
        starts = np.cumsum([0, *(len(s.keys) for s in self._shards.values())])
        known = row >= 0
        shard_of[known] = np.searchsorted(starts, row[known], side="right") - 1
        row_of[known] = row[known] - starts[shard_of[known]]
        return shard_of, row_of

    def _sound(self, name: str) -> bool:
        """Whether a shard is what its name says; one that is not is set aside."""
        shard = self._shards[name]
        if shard.is_verified:
            return True
        try:
            if hashlib.sha256(shard.path.read_bytes()).hexdigest() != shard.path.stem:
                raise BundleCorrupt("its content is not what its name says")
            if np.any(np.abs(np.linalg.norm(self._read(shard.path), axis=1) - 1.0) > UNIT_TOLERANCE):
                raise BundleCorrupt("its vectors are not of unit length")
        except (BundleCorrupt, pa.ArrowException, KeyError, OSError, ValueError) as error:
            self._forget(name)
            _set_aside(shard.path, error)
            return False
        shard.is_verified = True
        return True

    def _read(self, path: Path) -> FloatArray:
        vectors = pq.read_table(path, columns=["vector"], partitioning=None)["vector"]
        rows: FloatArray = vectors.combine_chunks().flatten().to_numpy().reshape(-1, self.dimensions)
        return rows

    def _remember(self, shard: _Shard) -> None:
        self._shards[shard.path.name] = shard
        self._all_keys = None

    def _forget(self, name: str) -> None:
        del self._shards[name]
        self._all_keys = None


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none")
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _set_aside(path: Path, error: Exception) -> None:
    logger.warning("%s is set aside and its images are embedded again: %s", path.name, error)
    if path.exists():
        path.rename(path.with_suffix(".corrupt"))
