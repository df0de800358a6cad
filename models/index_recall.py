"""How much of what exact search finds an approximate index finds, and how thoroughly it must search for that."""

import logging

import numpy as np

from models.exact_search import Rows, dot_rows, nearest_rows
from models.index_kind import RECALL_AT, RECALL_FLOOR, SearchEffort
from models.retrieval import FloatArray
from models.sheet_index import SheetIndex

logger = logging.getLogger(__name__)

_QUERIES = 200
_NO_ROWS: Rows = np.zeros(0, dtype=np.int64)


def perturbed(vectors: FloatArray, count: int, seed: int) -> FloatArray:
    """``(count, D)`` unit queries: random rows, each moved in a random direction by its own length.

    That leaves a cosine of about 0.7 with the row itself, far enough for the search not to be a look-up.
    """
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(len(vectors), min(count, len(vectors)), replace=False))
    directions = generator.standard_normal((len(rows), vectors.shape[1]), dtype=np.float32)
    moved = np.asarray(vectors[rows]) + directions / np.linalg.norm(directions, axis=1, keepdims=True)
    unit: FloatArray = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return unit


def tuned_effort(
    index: SheetIndex,
    vectors: FloatArray,
    *,
    queries: FloatArray | None = None,
    floor: float = RECALL_FLOOR,
    seed: int = 0,
) -> SearchEffort | None:
    """The least effort whose recall@10 reaches the floor, on given ``(Q, D)`` unit queries or on perturbed rows.

    None where no effort reaches it: then the segment is better searched exactly.
    """
    given = queries is not None and len(queries) > 0
    asked = queries[:_QUERIES] if queries is not None and given else perturbed(vectors, _QUERIES, seed)
    exact = nearest_rows(vectors, asked, RECALL_AT, _NO_ROWS)
    recall = 0.0
    for effort in index.efforts():
        recall = measured_recall(index, vectors, asked, [rows for rows, _ in exact], effort)
        if recall >= floor:
            return SearchEffort(effort, recall, len(asked), "given queries" if given else "perturbed sheets")
    logger.warning("the %s index reaches a recall of %.3f only and is left out: exact search", index.kind, recall)
    return None


def measured_recall(
    index: SheetIndex, vectors: FloatArray, queries: FloatArray, exact: list[Rows], effort: int
) -> float:
    """Mean share of the ten nearest rows of exact search that the ten best candidates are among."""
    everything = index.living(_NO_ROWS)
    shares = []
    for query, nearest, rows in zip(
        queries, exact, index.candidates(queries, RECALL_AT, effort, everything), strict=True
    ):
        best = rows[np.argsort(-dot_rows(vectors, rows, query), kind="stable")[:RECALL_AT]]
        # More than ten are exact where several tie with the tenth.
        shares.append(len(np.intersect1d(best, nearest)) / min(RECALL_AT, len(nearest)))
    return float(np.mean(shares))
