"""Multinomial logistic regression in memory that does not grow with the number of images."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from models.classifiers import StandardisedLinear
from models.retrieval import FloatArray

IntArray = NDArray[np.int64]
DoubleArray = NDArray[np.float64]

_log = logging.getLogger(__name__)

_MOST_ELEMENTS = 2**24
"""Float32 numbers of the largest intermediate array (64 MiB): an image a class, or a feature."""

_MOST_STEPS = 500


def fit_softmax_regression(
    model: StandardisedLinear,
    features: FloatArray,
    classes: IntArray,
    rows: IntArray,
    strength: float,
    *,
    device: str = "cpu",
) -> None:
    """Fit weight and bias of `model`, starting from what they are, to `rows` of features ``(N, F)``.

    Minimises, over the K classes that the model knows,

        Σ w_i · −log softmax(W·(x_i − mean) / scale + b)[class_i]  +  ‖W‖² / (2 · strength),

    where w_i makes classes weigh equally and sums to the number of rows: scikit-learn's ``LogisticRegression`` with
    ``class_weight="balanced"``. Full-batch L-BFGS (Liu & Nocedal 1989); the images pass in chunks, so that a million of
    them and ten thousand classes take no more memory than the weights do. Unknown classes keep zeros.
    Every row's class must be known to the model.
    """
    columns = np.flatnonzero(model.known.cpu().numpy())
    targets = np.searchsorted(columns, classes[rows])
    sizes = np.bincount(targets, minlength=len(columns))
    weights = len(rows) / (np.count_nonzero(sizes) * sizes[targets])
    width = features.shape[1]
    mean, scale = model.mean.to(device), model.scale.to(device)
    chunk = max(1, _MOST_ELEMENTS // max(len(columns), width))

    def objective(flat: DoubleArray) -> tuple[float, DoubleArray]:
        """Mean loss and its gradient; sums in float64, products in float32."""
        weight = torch.from_numpy(flat[: -len(columns)].reshape(len(columns), width)).float().to(device)
        bias = torch.from_numpy(flat[-len(columns) :]).float().to(device)
        loss = 0.0
        slope = np.zeros_like(flat)
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            x = (torch.from_numpy(np.asarray(features[rows[part]], dtype=np.float32)).to(device) - mean) / scale
            share, by_weight, by_bias = _loss_and_gradient(x, targets[part], weights[part], weight, bias)
            loss += share
            slope[: -len(columns)] += by_weight.flatten().double().cpu().numpy()
            slope[-len(columns) :] += by_bias.double().cpu().numpy()
        penalised = flat[: -len(columns)]
        slope[: -len(columns)] += penalised / strength
        return (loss + float(penalised @ penalised) / (2.0 * strength)) / len(rows), slope / len(rows)

    begin = torch.cat([model.weight.detach()[columns].flatten(), model.bias.detach()[columns]]).double().cpu().numpy()
    # Tighter than float32 sums can tell apart, the line search would only wander.
    options = {"maxiter": _MOST_STEPS, "gtol": 1e-5, "ftol": 1e-9}
    result = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
    if result.nit >= _MOST_STEPS:
        _log.info("logistic regression with strength %g stopped after %d steps", strength, _MOST_STEPS)
    with torch.no_grad():
        model.weight[columns] = torch.from_numpy(result.x[: -len(columns)].reshape(len(columns), width)).to(
            model.weight
        )
        model.bias[columns] = torch.from_numpy(result.x[-len(columns) :]).to(model.bias)


@torch.no_grad()
def _loss_and_gradient(
    x: Tensor, targets: IntArray, weights: DoubleArray, weight: Tensor, bias: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Weighted sum of the cross-entropies of a chunk, and its gradients by weight and bias."""
    index = torch.from_numpy(targets).to(x.device)
    weigh = torch.from_numpy(weights).float().to(x.device)
    log_probabilities = torch.addmm(bias, x, weight.T).log_softmax(dim=1)
    loss = -(weigh * log_probabilities[torch.arange(len(x), device=x.device), index]).cpu().double().sum()
    residual = log_probabilities.exp_()
    residual[torch.arange(len(x), device=x.device), index] -= 1.0
    residual *= weigh[:, None]
    return float(loss), residual.T @ x, residual.sum(dim=0)
