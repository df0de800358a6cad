"""What in a photo and in a sheet makes them alike to the network: a figure for each patch of both.

A photo is compared with a sheet by one vector each, and for networks that pool by a class token that vector is no mean
of patch tokens. What patches do for it is therefore asked of the network itself: how much of the similarity would be
lost, to first order, if a patch in the middle of the network became like the average patch of its picture. This is
the idea of Stylianou, Souvenir & Pless 2019, "Visualizing Deep Similarity Networks", and Zhu, Yang & Chen 2021,
"Visual Explanation for Deep Metric Learning", which split the similarity of two pooled maps into their cells' shares;
gradients stand for the pooling here, so that class tokens, attention, a projection head and a metric may follow.

Cosines between the patch tokens of the last block, as Amir et al. 2021, "Deep ViT Features as Dense Visual
Descriptors", match parts of two pictures with, were tried first: they show what looks alike, not what the answer rests
on (docs/explanations.md has the measurement).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.encoder import Encoder
from models.metric import Metric
from models.retrieval import FloatArray
from models.specimens import Role

_SMALLEST_NORM = 1e-6
_ROLES = (Role.FIELD, Role.SHEET)
"""Of the two pictures of a pair."""


@dataclass(frozen=True)
class Explanation:
    """Of a photo and a sheet: what each place of theirs adds to their similarity, ``(h, w)`` float32, row by row.

    A positive figure makes the two more alike, a negative one less; what all places of a picture share adds nothing.
    Places are those of the network's square, see `Preprocessing.square_on`.
    """

    photo: FloatArray
    sheet: FloatArray
    similarity: float
    """The cosine in the metric, -1 … 1."""


def explain(encoder: Encoder, metric: Metric, photo: FloatArray, sheets: Sequence[FloatArray]) -> list[Explanation]:
    """Explanations of a photo's similarity to each of some sheets, in their order.

    `photo` and each of `sheets` are ``(3, H, W)`` float32, preprocessed. The network runs in the caller's thread.
    """
    if not sheets:
        return []
    similarities: list[float] = []

    def pull(embeddings: FloatArray) -> FloatArray:
        mapped = [metric.apply(row[None], role)[0] for row, role in zip(embeddings, _ROLES, strict=True)]
        similarities.append(float(np.clip(mapped[0] @ mapped[1], -1.0, 1.0)))
        return np.stack(
            [
                cosine_gradient(metric, embedding, role, other)
                for embedding, role, other in zip(embeddings, _ROLES, reversed(mapped), strict=True)
            ]
        )

    pairs = [(0, position) for position in range(1, len(sheets) + 1)]
    found = encoder.contributions(np.stack([photo, *sheets]), pairs, pull)
    return [
        Explanation(photo=of_photo, sheet=of_sheet, similarity=similarity)
        for (of_photo, of_sheet), similarity in zip(found, similarities, strict=True)
    ]


def cosine_gradient(metric: Metric, embedding: FloatArray, role: Role, other: FloatArray) -> FloatArray:
    """``(D,)`` float32: how the cosine in the metric changes with an embedding ``(D,)`` of `role`.

    `other` is the unit vector ``(D,)`` in the metric that the embedding is compared with. At the metric's centre, where
    a cosine has no direction, the gradient is zero.
    """
    position = (Role.SHEET, Role.FIELD).index(role)
    moved = ((embedding - metric.centres[position]) / metric.scales[position]) @ metric.matrix
    norm = float(np.linalg.norm(moved))
    if norm <= _SMALLEST_NORM:
        return np.zeros_like(embedding)
    direction = moved / norm
    across = (other - (other @ direction) * direction) / norm
    gradient: FloatArray = ((metric.matrix @ across) / metric.scales[position]).astype(np.float32)
    return gradient


def most_similar_photo(metric: Metric, photos: FloatArray, sheet: FloatArray) -> int:
    """Position of the photo most similar in the metric to a sheet; ``(P, D)`` and ``(D,)`` unit embeddings."""
    toward = metric.apply(sheet[None], Role.SHEET)[0]
    return int(np.argmax(metric.apply(photos, Role.FIELD) @ toward))
