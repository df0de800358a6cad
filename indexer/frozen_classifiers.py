"""Classifiers fitted on features of a frozen backbone, their strength chosen by cross-validation within specimens."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from indexer.progress import Report, silent
from indexer.softmax_regression import fit_softmax_regression
from models.classifiers import RbfSvm, StandardisedLinear
from models.errors import InsufficientData, InvalidConfig
from models.retrieval import FloatArray

IntArray = NDArray[np.int64]

_log = logging.getLogger(__name__)

_MOST_SVM_IMAGES = 30_000
"""The SVM's time grows with the square of the images, for each class pair, each fold and each point of the grid."""

_MOST_SVM_COEFFICIENTS = 50_000_000
"""Classes times images: 200 MB of coefficients at worst, loaded by every service."""

_CHUNK = 8192
_STAGE = "fitting classifiers"


def fit_linear(
    features: FloatArray,
    classes: IntArray,
    count: int,
    *,
    groups: IntArray,
    strengths: Sequence[float],
    folds: int = 5,
    seed: int = 0,
    device: str = "cpu",
    report: Report = silent,
) -> StandardisedLinear:
    """Multinomial logistic regression on standardised features, over `count` classes; on the CPU, in evaluation mode.

    `features` ``(N, F)`` float32 may be memory-mapped: no copy of them is made. `classes` ``(N,)``; `groups` ``(N,)``
    specimens and observations. Classes weigh equally. `strengths` are scikit-learn's C, the inverse of the L2 penalty;
    the one with the highest class-averaged accuracy on held-out groups is taken, the smallest among equals, and the one
    nearest 1 if no class has two groups.

    Raises `InvalidConfig` for a grid that is empty or not positive, `InsufficientData` for fewer than two classes.
    """
    _check(features, classes, count, groups, strengths)
    grid = sorted(set(strengths))
    parts = _parts(draw_group_folds(classes, groups, folds, seed), classes) if len(grid) > 1 else []
    told = _counter(report, len(parts) * len(grid) + 1)

    def answers(fitted: IntArray, asked: IntArray) -> Iterator[IntArray]:
        # From the strongest penalty to the weakest, each fit starting from the one before.
        start: StandardisedLinear | None = None
        for strength in grid:
            start = _linear(features, classes, count, fitted, strength, device=device, start=start)
            told()
            yield _answers(start, features, asked, device)

    chosen = _chosen([(c,) for c in grid], answers, classes, parts)[0]
    final = _linear(features, classes, count, np.arange(len(classes)), chosen, device=device, start=None)
    told()
    return final


def fit_svm(
    features: FloatArray,
    classes: IntArray,
    count: int,
    *,
    groups: IntArray,
    strengths: Sequence[float],
    gamma_factors: Sequence[float],
    folds: int = 5,
    seed: int = 0,
    device: str = "cpu",
    workers: int | None = None,
    report: Report = silent,
) -> RbfSvm:
    """Support vector machine with radial basis kernel on standardised features; on the CPU, in evaluation mode.

    Arguments and choice as in `fit_linear`, over all pairs of C in `strengths` and γ in `gamma_factors`, the latter
    times 1 / (F · variance), scikit-learn's "scale". `device` answers for held-out images; the fits run on the
    CPU, `workers` at a time (none: as many as there are cores, at most 8), with the same result for any number.

    Raises as `fit_linear`, and `InvalidConfig` for more images or classes than an SVM can be fitted on.
    """
    _check(features, classes, count, groups, strengths, gamma_factors)
    if len(classes) > _MOST_SVM_IMAGES or len(classes) * count > _MOST_SVM_COEFFICIENTS:
        raise InvalidConfig(
            f"an SVM is fitted on at most {_MOST_SVM_IMAGES} images, and on at most {_MOST_SVM_COEFFICIENTS} images "
            f"times species; here are {len(classes)} images of {count} species. Use the linear classifier instead"
        )
    grid = list(product(sorted(set(strengths)), sorted(set(gamma_factors))))
    parts = _parts(draw_group_folds(classes, groups, folds, seed), classes) if len(grid) > 1 else []
    told = _counter(report, len(parts) * len(grid) + 1)

    def answers(fitted: IntArray, asked: IntArray) -> Iterator[IntArray]:
        def at(point: tuple[float, float]) -> IntArray:
            return _answers(_svm(features, classes, count, fitted, *point), features, asked, device)

        # libsvm gives up the interpreter lock, so threads are enough; not more, as each copies the features.
        pool = ThreadPoolExecutor(workers or max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="svm")
        try:
            for answered in pool.map(at, grid):
                told()
                yield answered
        finally:
            pool.shutdown(cancel_futures=True)

    strength, gamma_factor = _chosen(grid, answers, classes, parts)
    final = _svm(features, classes, count, np.arange(len(classes)), strength, gamma_factor)
    told()
    return final


def draw_group_folds(classes: IntArray, groups: IntArray, folds: int, seed: int) -> IntArray:
    """``(N,)``: the fold, 0 … folds - 1, in which an image is held out; -1 if never.

    Images of a group share a fold. The groups of a class are dealt out evenly, so a class with at least two is in the
    fitted part of every fold, and in as many held-out parts as it has groups; a class with a single group is always
    fitted on, since it cannot be asked about without being unknown. A group of images of several classes, which a
    sheet with two plants can be, counts with the class of its first image.

    Raises `InvalidConfig` for fewer than two folds.
    """
    if folds < 2:
        raise InvalidConfig(f"cross-validation needs at least two folds, not {folds}")
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    class_of = classes[first]
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(first))
    dealt = shuffled[np.argsort(class_of[shuffled], kind="stable")]
    _, begin, number, sizes = np.unique(class_of[dealt], return_index=True, return_inverse=True, return_counts=True)
    # Without a start of its own for each class, those with few groups would all be asked about in the first folds.
    starts = generator.integers(folds, size=len(begin))
    position = np.arange(len(dealt)) - begin[number] + starts[number]
    fold_of = np.empty(len(dealt), dtype=np.int64)
    fold_of[dealt] = np.where(sizes[number] > 1, position % folds, -1)
    return fold_of[group_of]


def _parts(fold_of: IntArray, classes: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Fitted and held-out rows of each fold that holds anything out and leaves at least two classes to fit."""
    parts = [(np.flatnonzero(fold_of != f), np.flatnonzero(fold_of == f)) for f in np.unique(fold_of[fold_of >= 0])]
    return [(fitted, asked) for fitted, asked in parts if len(np.unique(classes[fitted])) > 1]


def _check(features: FloatArray, classes: IntArray, count: int, groups: IntArray, *grids: Sequence[float]) -> None:
    if features.ndim != 2 or len(features) != len(classes) or len(groups) != len(classes):
        raise ValueError(f"features {features.shape}, classes {classes.shape} and groups {groups.shape} do not fit")
    for grid in grids:
        if not grid or not all(math.isfinite(v) and v > 0 for v in grid):
            raise InvalidConfig(f"a grid needs at least one value, and positive ones: {list(grid)}")
    present = np.unique(classes)
    if len(present) < 2:
        raise InsufficientData(f"a classifier needs images of at least two species; there are {len(present)}")
    if present[0] < 0 or present[-1] >= count:
        raise ValueError(f"class indices lie in 0 … {count - 1}, not in {present[0]} … {present[-1]}")
    for start in range(0, len(features), _CHUNK):
        if not np.isfinite(features[start : start + _CHUNK]).all():
            raise ValueError("features that are not finite numbers")


def _chosen(
    grid: Sequence[tuple[float, ...]],
    answers: Callable[[IntArray, IntArray], Iterable[IntArray]],
    classes: IntArray,
    parts: Sequence[tuple[IntArray, IntArray]],
) -> tuple[float, ...]:
    """The first of the grid points with the highest class-averaged accuracy over all held-out rows."""
    if not parts:
        chosen = min(grid, key=lambda point: sum(abs(math.log(v)) for v in point))
        if len(grid) > 1:
            _log.info("no species has two specimens or observations to choose a classifier by; taking %s", chosen)
        return chosen
    right = np.zeros((len(grid), int(classes.max()) + 1))
    for fitted, asked in parts:
        for point, answered in enumerate(answers(fitted, asked)):
            np.add.at(right[point], classes[asked], answered == classes[asked])
    held_out = np.bincount(np.concatenate([classes[asked] for _, asked in parts]), minlength=right.shape[1])
    averaged = (right[:, held_out > 0] / held_out[held_out > 0]).mean(axis=1)
    best = int(averaged.argmax())
    _log.info("took %s of %d settings: held-out accuracy %.3f, averaged", grid[best], len(grid), averaged[best])
    return grid[best]


def _linear(
    features: FloatArray,
    classes: IntArray,
    count: int,
    rows: IntArray,
    strength: float,
    *,
    device: str,
    start: StandardisedLinear | None,
) -> StandardisedLinear:
    scaler = _scaler(features, rows)
    present = np.unique(classes[rows])
    model = StandardisedLinear(features.shape[1], count)
    _set(model, mean=scaler.mean_, scale=scaler.scale_, known=np.isin(np.arange(count), present))
    if start is not None:
        model.load_state_dict(start.state_dict())
    fit_softmax_regression(model, features, classes, rows, strength, device=device)
    return model.eval()


def _svm(
    features: FloatArray, classes: IntArray, count: int, rows: IntArray, strength: float, gamma_factor: float
) -> RbfSvm:
    scaler = _scaler(features, rows)
    x = scaler.transform(features[rows].astype(np.float32))
    gamma = gamma_factor / (x.shape[1] * (float(x.var(dtype=np.float64)) or 1.0))
    svc = SVC(C=strength, kernel="rbf", gamma=gamma, class_weight="balanced").fit(x, classes[rows])
    present = svc.classes_.astype(np.int64)
    # Binary SVC alone shows its coefficients with the sign turned, positive for the second class.
    sign = -1.0 if len(present) == 2 else 1.0
    owner = np.repeat(np.arange(len(present)), svc.n_support_)
    coefficients = np.zeros((count, len(owner)))
    for other in range(len(present)):
        # Row r of dual_coef_ is of the r-th class other than the support vector's own.
        elsewhere = np.flatnonzero(owner != other)
        coefficients[present[other], elsewhere] = sign * svc.dual_coef_[other - (owner[elsewhere] < other), elsewhere]
    intercepts = np.zeros((count, count))
    above = np.triu_indices(len(present), 1)
    intercepts[present[above[0]], present[above[1]]] = sign * svc.intercept_
    svm = RbfSvm(x.shape[1], count, len(owner))
    _set(svm, mean=scaler.mean_, scale=scaler.scale_, known=np.isin(np.arange(count), present), gamma=np.array(gamma))
    _set(svm, support_vectors=svc.support_vectors_, support_classes=present[owner])
    _set(svm, coefficients=coefficients, intercepts=intercepts)
    return svm.eval()


def _scaler(features: FloatArray, rows: IntArray) -> StandardScaler:
    scaler = StandardScaler()
    for start in range(0, len(rows), _CHUNK):
        scaler.partial_fit(features[rows[start : start + _CHUNK]].astype(np.float64))
    return scaler


@torch.no_grad()
def _set(module: nn.Module, **arrays: NDArray[np.generic]) -> None:
    for name, array in arrays.items():
        getattr(module, name).copy_(torch.as_tensor(array))


@torch.inference_mode()
def _answers(model: nn.Module, features: FloatArray, rows: IntArray, device: str) -> IntArray:
    """``(M,)``: the class with the highest value for each of `rows`."""
    model.to(device)
    answers = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        answers[part] = model(torch.from_numpy(features[rows[part]]).to(device)).argmax(dim=1).cpu().numpy()
    model.to("cpu")
    return answers


def _counter(report: Report, total: int) -> Callable[[], None]:
    """Something to call after each fit."""
    done = iter(range(1, total + 1))
    return lambda: report(_STAGE, next(done), total)
