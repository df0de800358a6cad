"""The most similar rows of a matrix of unit vectors, exact. NumPy only.

A similarity is summed in another order where a row lies elsewhere in a block, so that equal vectors may differ in the
last bits of float32. Similarities closer than `TIE` are therefore ties, whose order is the caller's.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.retrieval import FloatArray

Rows = NDArray[np.int64]

TIE = np.float32(1e-6)
"""Ten times what rounding does to an inner product of 768 numbers, far below what two pictures differ by."""

_BLOCK_BYTES = 48 << 20
"""Rows are read in blocks of so much: large enough for all threads, small beside what is searched."""
_QUERIES = 64
"""At a time, so that a block's similarities stay small beside the block."""


def nearest_rows(vectors: FloatArray, queries: FloatArray, k: int, dead: Rows) -> list[tuple[Rows, FloatArray]]:
    """For each of ``(Q, D)`` unit queries the rows of the `k` highest cosines, and all that tie with the last of them.

    `vectors` is ``(N, D)``, `dead` sorted rows to leave out. Rows ascend; cosines are within −1 … 1.
    """
    found = []
    for start in range(0, len(queries), _QUERIES):
        found += _nearest(vectors, queries[start : start + _QUERIES], k, dead)
    return found


def _nearest(vectors: FloatArray, queries: FloatArray, k: int, dead: Rows) -> list[tuple[Rows, FloatArray]]:
    best = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))] * len(queries)
    for start, block in row_blocks(vectors):
        similarities = queries @ block.T
        first, last = np.searchsorted(dead, (start, start + len(block)))
        similarities[:, dead[first:last] - start] = -np.inf
        for i, of_query in enumerate(similarities):
            best[i] = _kept(best[i], of_query, start, k)
    return [(rows, np.clip(found, -1.0, 1.0)) for rows, found in best]


def row_blocks(vectors: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """First row and ``(B, D)`` rows of consecutive blocks that together are `vectors`."""
    rows = max(1, _BLOCK_BYTES // max(1, vectors.shape[1] * vectors.itemsize))
    for start in range(0, len(vectors), rows):
        # A plain array: slices of a memory map carry its bookkeeping with them.
        yield start, np.asarray(vectors[start : start + rows])


def _kept(before: tuple[Rows, FloatArray], similarities: FloatArray, start: int, k: int) -> tuple[Rows, FloatArray]:
    """The best so far, with those of one more block that belong among them."""
    rows, best = before
    floor = _bar(best, k)
    here = np.flatnonzero(similarities >= floor) if floor > -np.inf else np.flatnonzero(similarities > -np.inf)
    # A first cut to the block's own best: the first block would bring all its rows.
    here = here[similarities[here] >= _bar(similarities[here], k)]
    rows, best = np.concatenate([rows, here + start]), np.concatenate([best, similarities[here]])
    stay = best >= _bar(best, k)
    return rows[stay], best[stay]


def _bar(similarities: FloatArray, k: int) -> np.float32:
    """What a similarity must reach to be among the `k` highest or tie with the last of them."""
    if len(similarities) <= k:
        return np.float32(-np.inf)
    return np.float32(np.partition(similarities, -k)[-k] - TIE)


def dot_rows(vectors: FloatArray, rows: Rows, query: FloatArray) -> FloatArray:
    """``(M,)`` cosines of a ``(D,)`` query with the `rows` of ``(N, D)`` vectors, which need not ascend."""
    return np.clip(np.asarray(vectors[rows]) @ query, -1.0, 1.0)


def best_first(similarities: FloatArray, k: int, key: Callable[[int], Any]) -> list[tuple[int, float]]:
    """The `k` highest of ``(M,)`` similarities as pairs of position and value, best first.

    Ties come in the order of `key` of their positions, and get the highest value among them, so that values never rise.
    """
    ordered: list[tuple[int, float]] = []
    positions = np.argsort(-similarities, kind="stable")
    sorted_values = similarities[positions]
    start = 0
    while start < len(positions) and len(ordered) < k:
        head = sorted_values[start]
        # Descending, so that the values down to head − TIE are found by bisection of the negated ones.
        stop = int(np.searchsorted(-sorted_values, TIE - head, side="right"))
        stop = max(stop, start + 1)
        tied = [int(p) for p in positions[start:stop]]
        ordered += [(p, float(head)) for p in (sorted(tied, key=key) if len(tied) > 1 else tied)]
        start = stop
    return ordered[:k]
