"""Unit vectors as bits: principal axes, turned at random, and the signs. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.exact_search import row_blocks
from models.retrieval import FloatArray

Codes = NDArray[np.uint8]

_SAMPLE_ROWS = 100_000
_BITS_PER_BYTE = 8


@dataclass(frozen=True)
class BinaryProjection:
    """``(D + 1, B)`` float32: signs of ``[x, 1] @ matrix`` are the bits of a vector; B is a multiple of eight.

    PCA and a random rotation, Gong and Lazebnik 2011 (Iterative quantization, §2.2, PCA-RR): the rotation spreads the
    variance evenly over the bits, of which the first axes would otherwise hold most and the last only noise.
    """

    matrix: FloatArray

    @classmethod
    def fit(cls, vectors: FloatArray, seed: int) -> "BinaryProjection":
        """The projection of ``(N, D)`` vectors to D bits, rounded up to bytes, from at most 100,000 of them."""
        generator = np.random.default_rng(seed)
        rows = np.sort(generator.choice(len(vectors), min(len(vectors), _SAMPLE_ROWS), replace=False))
        sample = np.asarray(vectors[rows], dtype=np.float64)
        dimensions = sample.shape[1]
        centre = sample.mean(axis=0)
        bits = -(-dimensions // _BITS_PER_BYTE) * _BITS_PER_BYTE
        axes = np.linalg.eigh((sample - centre).T @ (sample - centre))[1]
        # Where D is no multiple of eight the rotation is a frame of more directions than axes.
        rotation = np.linalg.qr(generator.standard_normal((bits, bits)))[0][:dimensions]
        turned = axes @ rotation
        return cls(np.vstack([turned, -(centre @ turned)]).astype(np.float32))

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return len(self.matrix) - 1

    @property
    def bits(self) -> int:
        """B, the length of a code."""
        return int(self.matrix.shape[1])

    def encode(self, vectors: FloatArray) -> Codes:
        """``(N, B / 8)`` codes of ``(N, D)`` vectors."""
        codes = np.empty((len(vectors), self.bits // _BITS_PER_BYTE), dtype=np.uint8)
        for start, block in row_blocks(vectors):
            codes[start : start + len(block)] = np.packbits(block @ self.matrix[:-1] + self.matrix[-1] > 0.0, axis=1)
        return codes
