"""A copy of a gallery's vectors on a GPU, searched exactly by FAISS; the CPU's are the master and are what is saved."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import torch

from models.compute import Compute
from models.exact_search import Rows
from models.retrieval import FloatArray
from models.sheet_segment import LivingSegment

logger = logging.getLogger(__name__)

MOST_RESULTS = 2_048
"""FAISS's GPU kernels select no more."""
_SCRATCH_BYTES = 256 << 20
"""FAISS would take 1.5 GiB, which the network beside it may need."""
_MEMORY_SHARE = 0.25
"""Of the free memory of the GPU: the network needs some, and so does the copy of the next index, beside this one."""
_BLOCK_ROWS = 65_536


class GpuCopy:
    """The living sheets of all segments, one after the other; another gallery has another copy."""

    def __init__(self, device_index: int, segments: Sequence[LivingSegment]) -> None:
        # FAISS keeps a bare pointer to the resources: this object keeps them alive.
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_SCRATCH_BYTES)
        flat = faiss.IndexFlatIP(segments[0].segment.dimensions)
        self._index: Any = faiss.index_cpu_to_gpu(self._resources, device_index, flat)
        self._rows = [s.living_rows() for s in segments]
        self._starts = np.concatenate([[0], np.cumsum([len(rows) for rows in self._rows])])
        for living, rows in zip(segments, self._rows, strict=True):
            for start in range(0, len(rows), _BLOCK_ROWS):
                block = living.segment.vectors[rows[start : start + _BLOCK_ROWS]]
                self._index.add(np.ascontiguousarray(block))
        # FAISS's CPU indexes may be searched from several threads at once, its GPU indexes may not.
        self._lock = threading.Lock()

    @classmethod
    def of(cls, compute: Compute | None, segments: Sequence[LivingSegment]) -> "GpuCopy | None":
        """A copy on the GPU of `compute`; None where it has none, this FAISS cannot use it or it is too small."""
        wanted = None if compute is None else compute.cuda_index
        if wanted is None:
            return None
        if wanted >= faiss.get_num_gpus():
            logger.info("searching on the CPU: this FAISS build sees %d GPUs", faiss.get_num_gpus())
            return None
        needed = sum(len(s) for s in segments) * segments[0].segment.dimensions * 4
        free = torch.cuda.mem_get_info(wanted)[0]
        if needed > _MEMORY_SHARE * free:
            logger.info("searching on the CPU: %d MB of vectors, %d MB free on the GPU", needed >> 20, free >> 20)
            return None
        try:
            return cls(wanted, segments)
        except RuntimeError as error:
            logger.warning("searching on the CPU: the GPU refused a copy of the vectors (%s)", error)
            return None

    def candidates(self, queries: FloatArray, k: int) -> list[list[Rows]]:
        """For each of ``(Q, D)`` unit queries the rows of its `k` nearest sheets, or all, by segment."""
        with self._lock:
            found = self._index.search(np.ascontiguousarray(queries), min(k, int(self._starts[-1])))[1]
        # FAISS's -1, "nothing found", is less than any start and drops out.
        return [
            [
                rows[of_query[(of_query >= start) & (of_query < start + len(rows))] - start]
                for start, rows in zip(self._starts[:-1], self._rows, strict=True)
            ]
            for of_query in found
        ]


def searchable_gpus() -> int:
    """GPUs that this build of FAISS can search on; none for the CPU's build."""
    count = getattr(faiss, "get_num_gpus", None)
    return 0 if count is None else int(count())
