"""What the training loop works on: the two streams with their losses and validation figures, and the warm-up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.run_config import RunConfig
from indexer.train import Stream, Task
from indexer.training_set import BoolArray, IntArray, TrainingSet
from indexer.views import Views
from models.backbone import Tail, layer_decay_factors
from models.compute import Compute
from models.heads import SpecialistHead, unit
from models.losses import CrossDomainTripletLoss, SpecialistLoss
from models.retrieval import FloatArray
from models.specimens import Role
from models.two_stream import TwoStreamNetwork

_CHUNK = 64
_IMAGES_OF_MEAN = 10
"""Images a species that validation prototypes and domain means are made of; the built index uses all sheets."""


def stream_task(
    network: TwoStreamNetwork,
    training_set: TrainingSet,
    views: Views,
    rows: IntArray,
    validation_rows: IntArray,
    config: RunConfig,
    compute: Compute,
) -> Task:
    """Both streams on `rows`; the generalist is left as it is when no species of `rows` is in both domains."""
    specialist = nn.ModuleDict({"tail": network.specialist_tail, "head": network.specialist_head})
    generalist = nn.ModuleDict({"tail": network.generalist_tail, "projection": network.projection})
    streams = [_stream("specialist", specialist, config, rate=1.0)]
    if len(shared_classes(training_set, rows)) >= 2:
        streams.append(_stream("generalist", generalist, config, rate=config.generalist.rate))
    learning = {stream.name for stream in streams}
    classify = SpecialistLoss(
        margin=config.specialist.margin,
        triplet_weight=config.specialist.triplet_weight,
        label_smoothing=config.specialist.label_smoothing,
    )
    compare = CrossDomainTripletLoss(margin=config.generalist.margin, mining=config.generalist.mining)

    def loss(tokens: Tensor, classes: Tensor, is_field: Tensor) -> dict[str, Tensor]:
        logits, features = network.classify_tokens(tokens)
        losses = {"specialist": classify(logits, features, classes)}
        if "generalist" in learning:
            losses["generalist"] = compare(network.embed_tokens(tokens), classes, is_field)
        return losses

    def validate() -> dict[str, float]:
        fit_domain_means(network, training_set, views, rows, compute)
        return validation_figures(network, training_set, views, rows, validation_rows, compute)

    return Task(
        streams=tuple(streams),
        views=views,
        rows=rows,
        classes=training_set.classes,
        is_field=training_set.is_field,
        loss=loss,
        validate=validate if len(validation_rows) else None,
    )


def shared_classes(training_set: TrainingSet, rows: IntArray) -> IntArray:
    """Classes that have both sheets and photos among `rows`."""
    classes, is_field = training_set.classes[rows], training_set.is_field[rows]
    return np.intersect1d(classes[is_field], classes[~is_field])


def warmup_task(
    backbone: nn.Module, training_set: TrainingSet, views: Views, rows: IntArray, config: RunConfig, compute: Compute
) -> Task:
    """The whole, uncut backbone with a passing classifier, under both losses at once."""
    features: Any = backbone.num_features
    head = SpecialistHead(int(features), len(training_set.taxonomy)).to(compute.device)
    module = nn.ModuleDict({"backbone": backbone, "head": head})
    classify = SpecialistLoss(margin=config.specialist.margin, triplet_weight=0.0, label_smoothing=0.1)
    compare = CrossDomainTripletLoss(margin=config.generalist.margin, mining="all")

    def loss(pixels: Tensor, classes: Tensor, is_field: Tensor) -> dict[str, Tensor]:
        pooled = backbone(pixels)
        joint = classify(head(pooled), pooled, classes) + compare(unit(pooled), classes, is_field)
        return {"backbone": joint}

    groups = _groups(module.named_parameters(), lambda _: config.warmup.learning_rate, config.optimizer.weight_decay)
    return Task(
        streams=(Stream("backbone", module, groups),),
        views=views,
        rows=rows,
        classes=training_set.classes,
        is_field=training_set.is_field,
        loss=loss,
    )


def _stream(name: str, module: nn.ModuleDict, config: RunConfig, *, rate: float) -> Stream:
    """A tail at layer-wise decayed rates under a head at the head's rate, all times `rate`."""
    optimizer = config.optimizer
    tail = module["tail"]
    assert isinstance(tail, Tail)
    factors = layer_decay_factors(tail, optimizer.layer_decay)

    def rate_of(parameter: str) -> float:
        part, _, rest = parameter.partition(".")
        return rate * (optimizer.learning_rate * factors[rest] if part == "tail" else optimizer.head_learning_rate)

    return Stream(name, module, _groups(module.named_parameters(), rate_of, optimizer.weight_decay))


def _groups(parameters: Any, rate: Callable[[str], float], weight_decay: float) -> list[dict[str, Any]]:
    """One group for each pair of rate and decay; norms, biases and scales are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate(name), decay), []).append(parameter)
    return [
        {"params": members, "lr": lr, "base_rate": lr, "weight_decay": decay} for (lr, decay), members in groups.items()
    ]


@torch.inference_mode()
def outputs(
    network: TwoStreamNetwork, views: Views, rows: IntArray, role: Role, compute: Compute
) -> tuple[FloatArray, FloatArray]:
    """Logits ``(N, C)`` and unit embeddings ``(N, D)``, centred as of `role`, of the plain views of `rows`."""
    network.eval()
    logits = np.empty((len(rows), network.shape.classes), dtype=np.float32)
    embeddings = np.empty((len(rows), network.shape.projection_dimensions), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        tokens = views.plain_batch(rows[part])
        with compute.autocast():
            logits[part] = network.classify_tokens(tokens)[0].cpu().numpy()
            embedded = network.centred(network.embed_tokens(tokens), role)
        embeddings[part] = embedded.cpu().numpy()
    return logits, embeddings


@torch.inference_mode()
def class_means(
    network: TwoStreamNetwork, views: Views, rows: IntArray, classes: IntArray, role: Role | None, compute: Compute
) -> tuple[FloatArray, BoolArray]:
    """Mean embedding ``(C, D)`` of the images `rows` of each class, and which classes ``(C,)`` have any.

    Centred as images of `role`; as they come if it is None.
    """
    network.eval()
    sums = np.zeros((network.shape.classes, network.shape.projection_dimensions), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        with compute.autocast():
            embedded = network.embed_tokens(views.plain_batch(part))
        if role is not None:
            embedded = network.centred(embedded, role)
        np.add.at(sums, classes[part], embedded.cpu().numpy())
    counts = np.bincount(classes[rows], minlength=len(sums))
    means: FloatArray = sums / np.maximum(counts, 1).astype(np.float32)[:, None]
    return means, counts > 0


def prototypes(
    network: TwoStreamNetwork, views: Views, rows: IntArray, classes: IntArray, compute: Compute
) -> tuple[FloatArray, BoolArray]:
    """Unit prototype ``(C, D)`` of the sheets `rows` of each class, and which classes ``(C,)`` have one."""
    means, present = class_means(network, views, rows, classes, Role.SHEET, compute)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    unit_means: FloatArray = means / np.maximum(norms, np.float32(1e-6))
    return unit_means, present & (norms[:, 0] > 1e-6)


def fit_domain_means(
    network: TwoStreamNetwork, training_set: TrainingSet, views: Views, rows: IntArray, compute: Compute
) -> None:
    """Centre both domains on the mean of all species' sheets.

    Where photos lie apart from sheets is learnt on the species that have both, so that a lack of photos of the others
    shifts nothing. With fewer than two such species the embeddings stay as they are.
    """
    shared = shared_classes(training_set, rows)
    if len(shared) < 2:
        return
    classes, is_field = training_set.classes, training_set.is_field
    sheets = _some_of_each(rows[~is_field[rows]], classes)
    photos = _some_of_each(rows[is_field[rows]], classes)
    of_sheets, present = class_means(network, views, sheets, classes, None, compute)
    of_photos, _ = class_means(network, views, photos, classes, None, compute)
    centre = of_sheets[present].mean(axis=0)
    offset = of_photos[shared].mean(axis=0) - of_sheets[shared].mean(axis=0)
    network.set_domain_means(torch.from_numpy(centre), torch.from_numpy(centre + offset))


def prototype_similarities(queries: FloatArray, means: FloatArray, present: BoolArray) -> FloatArray:
    """Cosines ``(N, C)``; ``-inf`` for classes without a prototype."""
    similarities = queries @ means.T
    similarities[:, ~present] = -np.inf
    return similarities


def validation_figures(
    network: TwoStreamNetwork,
    training_set: TrainingSet,
    views: Views,
    rows: IntArray,
    validation_rows: IntArray,
    compute: Compute,
) -> dict[str, float]:
    """Macro-averaged top-1 of each stream on the validation photos; on its sheets when there are no photos."""
    classes, is_field = training_set.classes, training_set.is_field
    photos = validation_rows[is_field[validation_rows]]
    asked = photos if len(photos) else validation_rows
    sheets = _some_of_each(rows[~is_field[rows]], classes)
    role = Role.FIELD if len(photos) else Role.SHEET
    logits, embeddings = outputs(network, views, asked, role, compute)
    means, present = prototypes(network, views, sheets, classes, compute)
    nearest = prototype_similarities(embeddings, means, present).argmax(axis=1) if len(sheets) else None
    figures = {"specialist": _macro_top1(logits.argmax(axis=1), classes[asked])}
    if nearest is not None:
        figures["generalist"] = _macro_top1(nearest, classes[asked])
    return figures


def _some_of_each(rows: IntArray, classes: IntArray) -> IntArray:
    """The first `_IMAGES_OF_MEAN` of the rows of each class."""
    if not len(rows):
        return rows
    ordered = rows[np.argsort(classes[rows], kind="stable")]
    begins = np.append(True, np.diff(classes[ordered]) != 0)
    position = np.arange(len(ordered))
    begin_of = np.maximum.accumulate(np.where(begins, position, 0))
    return ordered[position - begin_of < _IMAGES_OF_MEAN]


def _macro_top1(answers: IntArray, truth: IntArray) -> float:
    asked = np.bincount(truth)
    right = np.bincount(truth[answers == truth], minlength=len(asked))
    return float(np.mean(right[asked > 0] / asked[asked > 0]))
