"""What the training loop works on: the streams that learn, their losses and validation figures; and the warm-up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.fit_metric import metric_of, rows_for_metric, some_of_each
from indexer.run_config import RunConfig
from indexer.stream_outputs import StreamOutputs
from indexer.train import Stream, Task
from indexer.training_set import BoolArray, IntArray, TrainingSet
from indexer.views import Views
from models.adversarial import AdversarialLoss, taxon_indices
from models.backbone import Tail, layer_decay_factors
from models.compute import Compute
from models.errors import InvalidConfig
from models.heads import SpecialistHead, unit
from models.losses import CrossDomainTripletLoss, SpecialistLoss
from models.metric import Metric
from models.retrieval import FloatArray
from models.specimens import Role
from models.two_stream import TwoStreamNetwork

_CHUNK = 64
_SHARD = 4096
_SHEETS_OF_PROTOTYPE = 100
_MOST_FEATURES = 4_000_000_000
"""Numbers of all images' features together, 16 GB."""
_IMAGES_OF_MEAN = 10
"""Sheets a species that validation prototypes are made of; the built index uses all."""


def stream_task(
    network: TwoStreamNetwork,
    training_set: TrainingSet,
    views: Views,
    rows: IntArray,
    validation_rows: IntArray,
    config: RunConfig,
    compute: Compute,
) -> Task:
    """The streams that are fine-tuned, on `rows`; none where the recipe tunes nothing.

    A tuned generalist is left as it is when no two species of `rows` are in both domains.
    """
    streams, losses_of = [], []
    if config.specialist.kind == "tuned":
        stream, loss_of = _specialist(network, training_set, config, compute)
        streams.append(stream)
        losses_of.append(loss_of)
    if config.generalist.kind == "tuned" and len(shared_classes(training_set, rows)) >= 2:
        stream, loss_of = _generalist(network, config)
        streams.append(stream)
        losses_of.append(loss_of)

    def loss(tokens: Tensor, classes: Tensor, is_field: Tensor, progress: float) -> dict[str, Tensor]:
        return {
            stream.name: loss_of(tokens, classes, is_field, progress)
            for stream, loss_of in zip(streams, losses_of, strict=True)
        }

    def validate() -> dict[str, float]:
        figures = validation_figures(network, training_set, views, rows, validation_rows, config, compute)
        return {stream.name: figures[stream.name] for stream in streams if stream.name in figures}

    return Task(
        streams=tuple(streams),
        views=views,
        rows=rows,
        classes=training_set.classes,
        is_field=training_set.is_field,
        loss=loss,
        validate=validate if len(validation_rows) else None,
    )


_Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _specialist(
    network: TwoStreamNetwork, training_set: TrainingSet, config: RunConfig, compute: Compute
) -> tuple[Stream, _Loss]:
    """The fine-tuned classifier, and, while it learns, the heads that shape its features."""
    settings = config.specialist
    module = nn.ModuleDict({"tail": network.specialist_tail, "head": network.specialist_head})
    classify = SpecialistLoss(
        margin=settings.margin, triplet_weight=settings.triplet_weight, label_smoothing=settings.label_smoothing
    )
    beside: AdversarialLoss | None = None
    if settings.has_adversary:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            beside = AdversarialLoss(
                network.specialist_features,
                taxon_indices(training_set.taxonomy),
                domain_weight=settings.domain_adversary_weight,
                genus_weight=settings.genus_weight,
                family_weight=settings.family_weight,
            ).to(compute.device)
        module["adversary"] = beside

    def loss(tokens: Tensor, classes: Tensor, is_field: Tensor, progress: float) -> Tensor:
        logits, features = network.classify_tokens(tokens)
        value = classify(logits, features, classes)
        return value if beside is None else value + beside(features, classes, is_field, progress)

    return _stream("specialist", module, config, rate=1.0), loss


def _generalist(network: TwoStreamNetwork, config: RunConfig) -> tuple[Stream, _Loss]:
    """The fine-tuned embedding."""
    assert network.projection is not None, "a tuned generalist has a projection"
    module = nn.ModuleDict({"tail": network.generalist_tail, "projection": network.projection})
    compare = CrossDomainTripletLoss(margin=config.generalist.margin, mining=config.generalist.mining)

    def loss(tokens: Tensor, classes: Tensor, is_field: Tensor, progress: float) -> Tensor:
        return compare(network.embed_tokens(tokens), classes, is_field)

    return _stream("generalist", module, config, rate=config.generalist.rate), loss


def shared_classes(training_set: TrainingSet, rows: IntArray) -> IntArray:
    """Classes that have both sheets and real photos among `rows`."""
    classes = training_set.classes[rows]
    return np.intersect1d(classes[training_set.is_photo[rows]], classes[~training_set.is_field[rows]])


def warmup_task(
    backbone: nn.Module, training_set: TrainingSet, views: Views, rows: IntArray, config: RunConfig, compute: Compute
) -> Task:
    """The whole, uncut backbone with a passing classifier, under both losses at once."""
    features: Any = backbone.num_features
    head = SpecialistHead(int(features), len(training_set.taxonomy)).to(compute.device)
    module = nn.ModuleDict({"backbone": backbone, "head": head})
    classify = SpecialistLoss(margin=config.specialist.margin, triplet_weight=0.0, label_smoothing=0.1)
    compare = CrossDomainTripletLoss(margin=config.generalist.margin, mining="all")

    def loss(pixels: Tensor, classes: Tensor, is_field: Tensor, progress: float) -> dict[str, Tensor]:
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
def embeddings_of(network: StreamOutputs, views: Views, rows: IntArray, compute: Compute) -> FloatArray:
    """Unit embeddings ``(N, D)`` of the plain views of `rows`."""
    network.eval()
    embeddings = np.empty((len(rows), network.dimensions), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        with compute.autocast():
            embedded = network.embed_tokens(views.plain_batch(rows[part]))
        embeddings[part] = embedded.cpu().numpy()
    return embeddings


@torch.inference_mode()
def features_of(network: StreamOutputs, views: Views, rows: IntArray, compute: Compute) -> FloatArray:
    """Features ``(N, F)`` that the specialist's head sees, of the plain views of `rows`.

    Raises `InvalidConfig` where they would not fit into memory.
    """
    if len(rows) * network.specialist_features > _MOST_FEATURES:
        raise InvalidConfig(
            f"{len(rows)} images with {network.specialist_features} features each do not fit into memory; set "
            'backbone.features = "pooled", or fine-tune without a probe (specialist.probe = false)'
        )
    network.eval()
    features = np.empty((len(rows), network.specialist_features), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        with compute.autocast():
            found = network.features(views.plain_batch(rows[part]))
        features[part] = found.float().cpu().numpy()
    return features


@torch.inference_mode()
def outputs(network: StreamOutputs, views: Views, rows: IntArray, compute: Compute) -> tuple[FloatArray, FloatArray]:
    """Logits ``(N, C)`` and unit embeddings ``(N, D)`` of the plain views of `rows`."""
    network.eval()
    logits = np.empty((len(rows), network.classes), dtype=np.float32)
    embeddings = np.empty((len(rows), network.dimensions), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        tokens = views.plain_batch(rows[part])
        with compute.autocast():
            logits[part] = network.classify_tokens(tokens)[0].cpu().numpy()
            embedded = network.embed_tokens(tokens)
        embeddings[part] = embedded.cpu().numpy()
    return logits, embeddings


def fit_stream_metric(
    network: StreamOutputs, training_set: TrainingSet, views: Views, rows: IntArray, config: RunConfig, compute: Compute
) -> Metric:
    """The configured metric, from real images among `rows`."""
    if config.generalist.metric == "cosine":
        return Metric.cosine(network.dimensions)
    classes, is_field = training_set.classes, training_set.is_field
    chosen = rows_for_metric(rows[~training_set.is_synthetic[rows]], classes, is_field)
    embeddings = embeddings_of(network, views, chosen, compute)
    return metric_of(config.generalist, embeddings, classes[chosen], is_field[chosen])


def prototypes(
    network: StreamOutputs, views: Views, rows: IntArray, classes: IntArray, metric: Metric, compute: Compute
) -> tuple[FloatArray, BoolArray]:
    """Unit prototype ``(C, D)``, in the metric, of sheets of each class, and which ``(C,)`` have one.

    Of a class's sheets among `rows` the first hundred are taken; a mean of more hardly moves.
    """
    rows = some_of_each(rows, classes, _SHEETS_OF_PROTOTYPE)
    sums = np.zeros((network.classes, network.dimensions), dtype=np.float32)
    for start in range(0, len(rows), _SHARD):
        part = rows[start : start + _SHARD]
        np.add.at(sums, classes[part], metric.apply(embeddings_of(network, views, part, compute), Role.SHEET))
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    unit_means: FloatArray = sums / np.maximum(norms, np.float32(1e-6))
    return unit_means, norms[:, 0] > 1e-6


def prototype_similarities(
    embeddings: FloatArray, means: FloatArray, present: BoolArray, metric: Metric, role: Role = Role.FIELD
) -> FloatArray:
    """Cosines ``(N, C)``, in the metric, of embeddings of `role`; ``-inf`` for classes without a prototype."""
    similarities = metric.apply(embeddings, role) @ means.T
    similarities[:, ~present] = -np.inf
    return similarities


def validation_figures(
    network: StreamOutputs,
    training_set: TrainingSet,
    views: Views,
    rows: IntArray,
    validation_rows: IntArray,
    config: RunConfig,
    compute: Compute,
) -> dict[str, float]:
    """Macro-averaged top-1 of each stream on the validation photos; on its sheets when there are no photos."""
    classes, is_field = training_set.classes, training_set.is_field
    photos = validation_rows[is_field[validation_rows]]
    asked = photos if len(photos) else validation_rows
    role = Role.FIELD if len(photos) else Role.SHEET
    logits, embeddings = outputs(network, views, asked, compute)
    figures = {"specialist": _macro_top1(logits.argmax(axis=1), classes[asked])}
    sheets = some_of_each(rows[~is_field[rows]], classes, _IMAGES_OF_MEAN)
    if config.generalist.kind == "tuned" and len(sheets):
        metric = fit_stream_metric(network, training_set, views, rows, config, compute)
        means, present = prototypes(network, views, sheets, classes, metric, compute)
        nearest = prototype_similarities(embeddings, means, present, metric, role).argmax(axis=1)
        figures["generalist"] = _macro_top1(nearest, classes[asked])
    return figures


def _macro_top1(answers: IntArray, truth: IntArray) -> float:
    asked = np.bincount(truth)
    right = np.bincount(truth[answers == truth], minlength=len(asked))
    return float(np.mean(right[asked > 0] / asked[asked > 0]))
