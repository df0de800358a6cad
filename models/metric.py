"""In what coordinates photos are compared with sheets: fitted in closed form, per role, on embeddings. NumPy only.

Sheets and photos of one species lie apart for reasons that have nothing to do with the species: paper, drying, light,
background. A metric takes such nuisance out of the embeddings before cosines are taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidConfig
from models.retrieval import FloatArray
from models.specimens import Role

MetricKind = Literal["cosine", "centred", "whitened"]

_ROLES = (Role.SHEET, Role.FIELD)
_SMALLEST_SCALE = 1e-6
_SMALLEST_NORM = np.float32(1e-6)
_FEWEST_IMAGES = 20
"""Of each role, below which their spread is not worth whitening by. Measured on 30 constructed species, 384 dimensions:
with a photo of each of two species, nearest prototypes fell from 0.99 to 0.15."""


@dataclass(frozen=True)
class Metric:
    """An affine map a role, after which unit vectors are compared by their cosine.

    ``unit(((x − centre[role]) / scale[role]) @ matrix)``: `centres` and `scales` are ``(2, D)`` (sheets, photos),
    `matrix` is ``(D, D)``. All float32.
    """

    centres: FloatArray
    scales: FloatArray
    matrix: FloatArray

    def __post_init__(self) -> None:
        dimensions = self.centres.shape[-1] if self.centres.ndim else 0
        for name, shape in (("centres", (2, dimensions)), ("scales", (2, dimensions)), ("matrix", (dimensions,) * 2)):
            value = getattr(self, name)
            if value.shape != shape or value.dtype != np.float32 or not np.isfinite(value).all():
                raise ValueError(f"{name} of a metric must be finite float32 {shape}, not {value.dtype} {value.shape}")
        if (self.scales <= 0.0).any():
            raise ValueError("scales of a metric must be positive")

    @classmethod
    def cosine(cls, dimensions: int) -> "Metric":
        """The embeddings' own cosine."""
        zeros = np.zeros((2, dimensions), dtype=np.float32)
        return cls(zeros, np.ones_like(zeros), np.eye(dimensions, dtype=np.float32))

    @property
    def dimensions(self) -> int:
        """D, the length of a vector before and after."""
        return int(self.centres.shape[1])

    def apply(self, vectors: FloatArray, role: Role) -> FloatArray:
        """Unit ``(N, D)`` float32 of embeddings ``(N, D)`` of images of `role`; a row at the centre stays as it is."""
        moved: FloatArray = self._standardised(vectors, role) @ self.matrix
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        return np.where(norms > _SMALLEST_NORM, moved / np.maximum(norms, _SMALLEST_NORM), vectors).astype(np.float32)

    def norms(self, vectors: FloatArray, role: Role) -> FloatArray:
        """``(N,)`` lengths before they are made one; what `similarities` needs of vectors that are asked often."""
        lengths = np.linalg.norm(self._standardised(vectors, role) @ self.matrix, axis=1)
        return np.maximum(lengths, _SMALLEST_NORM).astype(np.float32)

    def similarities(self, vectors: FloatArray, norms: FloatArray, role: Role, query: FloatArray) -> FloatArray:
        """``(N,)`` cosines of ``apply(vectors, role)`` with a ``(D,)`` unit vector in the metric, in O(ND)."""
        return np.asarray((self._standardised(vectors, role) @ (self.matrix @ query)) / norms)

    def _standardised(self, vectors: FloatArray, role: Role) -> FloatArray:
        position = _ROLES.index(role)
        return ((vectors - self.centres[position]) / self.scales[position]).astype(np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for a file."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Metric":
        """Inverse of `arrays`. Raises `ValueError` or `TypeError` for anything else."""
        return cls(**arrays)


def fit_metric(
    kind: MetricKind,
    embeddings: FloatArray,
    classes: NDArray[np.integer],
    is_field: NDArray[np.bool_],
    *,
    shrinkage: float = 0.3,
) -> Metric:
    """The metric of a kind, from embeddings ``(N, D)`` of training images, their class indices and field flags.

    ``cosine`` learns nothing. ``centred`` takes the mean of each role off: first-order alignment (Sun et al. 2016,
    CORAL, §3, aligns the second order besides). ``whitened`` standardises each role, then whitens with

        C = ½ (C_sheets + C_photos) + C_nuisance,    shrunk by ``(1 − λ) C + λ tr(C)/D · I``

    of the covariances within species of both roles (within-class covariance normalisation: Hatch et al. 2006, eq. 7)
    and that of the difference between a species' photo mean and its sheet mean, which is what a change of role does
    to a plant whatever it is (as nuisance attribute projection: Solomonoff et al. 2005, §3; but shrunk, not projected
    out). λ is `shrinkage`, 0 … 1.

    What photos add is learnt on species with both roles. With fewer than two of them nothing is learnt: the result is
    ``cosine``. With fewer than twenty sheets or photos ``whitened`` becomes ``centred``. Raises `InvalidConfig` for an
    unknown kind.
    """
    if kind not in get_args(MetricKind):
        raise InvalidConfig(f"a metric is one of {', '.join(get_args(MetricKind))}, not {kind!r}")
    identity = Metric.cosine(embeddings.shape[1])
    if kind == "cosine" or is_field.all():
        return identity
    sheets = _Role.of(embeddings[~is_field], classes[~is_field])
    photos = _Role.of(embeddings[is_field], classes[is_field])
    shared = np.intersect1d(sheets.present, photos.present)
    if len(shared) < 2:
        return identity
    centres = _centres(sheets, photos, shared)
    if kind == "centred" or min(len(sheets.vectors), len(photos.vectors)) < _FEWEST_IMAGES:
        return Metric(centres, identity.scales, identity.matrix)
    scales = np.stack([sheets.scale(), photos.scale()])
    step = (photos.mean_of(shared) - centres[1]) / scales[1] - (sheets.mean_of(shared) - centres[0]) / scales[0]
    within = 0.5 * (sheets.covariance(scales[0]) + photos.covariance(scales[1]))
    matrix = _inverse_root(within + step.T @ step / len(shared), shrinkage)
    return Metric(centres, scales, matrix.astype(np.float32))


@dataclass(frozen=True)
class _Role:
    """Embeddings of one role with the mean of each species that has any. Float64."""

    vectors: NDArray[np.float64]
    present: NDArray[np.intp]
    means: NDArray[np.float64]
    species_row: NDArray[np.intp]

    @classmethod
    def of(cls, vectors: FloatArray, classes: NDArray[np.integer]) -> "_Role":
        present, species_row = np.unique(classes, return_inverse=True)
        exact = vectors.astype(np.float64)
        sums = np.zeros((len(present), vectors.shape[1]))
        np.add.at(sums, species_row, exact)
        counts = np.bincount(species_row, minlength=len(present))
        return cls(exact, present.astype(np.intp), sums / counts[:, None], species_row.astype(np.intp))

    def mean_of(self, species: NDArray[np.integer]) -> NDArray[np.float64]:
        """``(M, D)`` means of species that are present."""
        return self.means[np.searchsorted(self.present, species)]

    def scale(self) -> FloatArray:
        """``(D,)`` standard deviation of all vectors; one where nothing varies."""
        spread = self.vectors.std(axis=0)
        return np.where(spread > _SMALLEST_SCALE, spread, 1.0).astype(np.float32)

    def covariance(self, scale: FloatArray) -> NDArray[np.float64]:
        """``(D, D)`` covariance within species, of vectors divided by `scale`; zero if no species has two vectors."""
        within = (self.vectors - self.means[self.species_row]) / scale
        return within.T @ within / max(1, len(within) - len(self.present))


def _centres(sheets: _Role, photos: _Role, shared: NDArray[np.integer]) -> FloatArray:
    """``(2, D)``: the mean of all species' sheets, and where it would lie if all had been photographed.

    How far photos lie from sheets is learnt on the species that have both, so that a lack of photos of the others
    shifts nothing.
    """
    centre = sheets.means.mean(axis=0)
    offset = (photos.mean_of(shared) - sheets.mean_of(shared)).mean(axis=0)
    return np.stack([centre, centre + offset]).astype(np.float32)


def _inverse_root(covariance: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """``C^(-1/2)``, symmetric, of the shrunk covariance; the identity where nothing varies."""
    dimensions = len(covariance)
    level = float(np.trace(covariance)) / dimensions
    if level <= 0.0:
        return np.eye(dimensions)
    shrunk = (1.0 - shrinkage) * covariance + shrinkage * level * np.eye(dimensions)
    values, vectors = np.linalg.eigh(shrunk)
    return (vectors / np.sqrt(np.maximum(values, 1e-9 * level))) @ vectors.T
