"""One run from catalogue to model artifact: warm-up, the run proper, the calibration refits. Resumable."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.folds import Fold, ask, draw_folds
from indexer.frozen_classifiers import fit_linear, fit_svm
from indexer.progress import Report, of_stage, silent
from indexer.run_folder import TrainingRun
from indexer.stream_outputs import FrozenStreams, PrecomputedStreams, StreamOutputs
from indexer.streams import features_of, stream_task, warmup_task
from indexer.train import EpochRecord, Task, fit
from indexer.training_set import IntArray, TrainingSet, read_training_set, usable_rows
from indexer.training_state import with_prefix
from indexer.translation.translate import translate_for_run
from indexer.views import CachedViews, LiveViews, PictureReader, Views, affordable_views, fill_cache
from models.artifacts import MODEL_KIND, list_artifacts, read, remove_stale_staging, writing
from models.backbone import block_count, create_network, default_preprocessing, trunk_output_shape
from models.bundle import CalibrationSet, model_metadata, write_model_files
from models.catalogue import Catalogue
from models.checkpoints import load_pretrained
from models.compute import Compute
from models.durable import replace_file
from models.errors import InvalidConfig
from models.home import Home
from models.preprocess import Preprocessing
from models.two_stream import NetworkShape, TwoStreamNetwork, weights_digest

logger = logging.getLogger(__name__)

_GIB = 2**30
# Stage numbers seed what happens in a stage; folds follow the run proper.
_WARMUP, _PROPER, _FIRST_FOLD = 0, 1, 2


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run gave."""

    run_id: str
    model_id: str
    summary: str
    history: tuple[EpochRecord, ...]


def train(
    home: Home, catalogue: Catalogue, run: TrainingRun, compute: Compute, *, report: Report = silent
) -> TrainedRun:
    """Run or continue `run` to a model artifact. Raises `InsufficientData`, `InvalidConfig`, `InvalidCheckpoint`."""
    if compute.autocast_dtype is torch.float16:
        logger.warning("this GPU has no bfloat16, and small gradients vanish in float16: training in float32")
        compute = Compute(compute.device, None)
    with run.alone():
        remove_stale_staging(home.models)
        return _train(home, catalogue, run, compute, report)


def _train(home: Home, catalogue: Catalogue, run: TrainingRun, compute: Compute, report: Report) -> TrainedRun:
    synthetic_of = translate_for_run(catalogue, run, compute, report=report)
    training_set = read_training_set(catalogue, run.splits, synthetic_of)
    _check_unchanged(run, training_set)
    logger.info("learning from %s", training_set.describe())
    if run.model_id in list_artifacts(home.models):  # killed between publishing the model and saying so
        published = read(home.models / run.model_id, kind=MODEL_KIND).metadata["history"]
        history = [EpochRecord(**values) for values in published]
        run.finish(run.model_id, history)
        return TrainedRun(run.run_id, run.model_id, training_set.describe(), tuple(history))
    session = _Session(home, run, training_set, compute, report)
    folds = session.folds()
    backbone = session.backbone(folds)
    views, network = session.views(backbone)
    history = session.fit(network, views, np.flatnonzero(~training_set.is_validation), "proper", _PROPER)
    calibration = session.calibrate(backbone, network, views, folds)
    metadata = {
        **model_metadata(network, session.preprocessing, training_set.taxonomy),
        "run_id": run.run_id,
        "config": run.config.to_json(),
        "hidden_species": list(run.splits.hidden_species),
        "history": [asdict(record) for record in history],
        "validation": best_figures(history),
        "calibration_photos": len(calibration),
    }
    with writing(home.models, kind=MODEL_KIND, artifact_id=run.model_id, metadata=metadata) as folder:
        write_model_files(folder, network, training_set.taxonomy, training_set.has_field_photos, calibration)
        run.splits.save(folder / "splits.parquet")
    run.finish(run.model_id, history)
    return TrainedRun(run.run_id, run.model_id, training_set.describe(), tuple(history))


class _Session:
    """What the stages of one run share."""

    def __init__(
        self, home: Home, run: TrainingRun, training_set: TrainingSet, compute: Compute, report: Report
    ) -> None:
        self.home, self.run, self.config = home, run, run.config
        self.training_set, self.compute, self.report = training_set, compute, report
        self.workers = max(1, min(8, os.cpu_count() or 1))
        self._network = self._create_backbone()
        self._warm_head: dict[str, Tensor] | None = None
        self.preprocessing = self._preprocessing(self._network)

    def folds(self) -> list[Fold]:
        """The calibration folds; a warmed-up trunk allows one, since it must not have seen the hidden photos."""
        count = self.config.calibration.folds
        if self.config.warmup.epochs:
            count = min(count, 1)
        return draw_folds(self.training_set, count, np.random.default_rng([self.config.seed, 7]))

    def backbone(self, folds: list[Fold]) -> nn.Module:
        """The network to be cut: pre-trained, or warmed up from random weights."""
        network = self._network.to(self.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.warmup.epochs:
            rows = folds[0].rows if folds else np.flatnonzero(~self.training_set.is_validation)
            rows = usable_rows(self.training_set, rows)
            reader = self._reader(self.preprocessing)
            shape = (3, self.preprocessing.image_size, self.preprocessing.image_size)
            views = self._filled(reader, nn.Identity().eval(), shape, self.config.warmup.views, "pixels")
            with _seeded([self.config.seed, _WARMUP]):
                task = warmup_task(network, self.training_set, views, rows, self.config, self.compute)
            self._fit(task, "warmup", _WARMUP, self.config.warmup.epochs)
            self._warm_head = with_prefix(dict(task.streams[0].module.state_dict()), "head")
        return network.eval()

    def views(self, backbone: nn.Module) -> tuple[Views, TwoStreamNetwork]:
        """The cached outputs of what is frozen, and the network with untrained heads on it."""
        network = self._two_streams(backbone, _PROPER)
        reader = self._reader(self.preprocessing)
        if network.shape.is_frozen:
            frozen = FrozenStreams(network)
            return self._filled(reader, frozen, (frozen.width,), 0, "features"), network
        shape = trunk_output_shape(network.trunk, self.preprocessing.image_size)
        return self._filled(reader, network.trunk, shape, self.config.augmentation.views, "trunk"), network

    def fit(self, network: TwoStreamNetwork, views: Views, rows: IntArray, name: str, stage: int) -> list[EpochRecord]:
        """Fit what the recipe fits on `rows`; the run proper chooses its epoch on the validation split."""
        rows = usable_rows(self.training_set, rows)
        if self.config.specialist.kind != "tuned" or self.config.specialist.probe:
            self._fit_classifier(network, views, rows)
        validation = np.flatnonzero(self.training_set.is_validation) if stage == _PROPER else rows[:0]
        task = stream_task(network, self.training_set, views, rows, validation, self.config, self.compute)
        if stage == _PROPER and self.config.generalist.kind == "tuned" and "generalist" not in _names(task):
            logger.warning(
                "no two species have both sheets and field photos, so nothing can be learnt across them: "
                "the generalist keeps the backbone's own embedding"
            )
        if not task.streams:
            return []
        refit_epochs = self.config.calibration.epochs or self.config.optimizer.epochs
        return self._fit(task, name, stage, self.config.optimizer.epochs if stage == _PROPER else refit_epochs)

    def calibrate(
        self, backbone: nn.Module, network: TwoStreamNetwork, views: Views, folds: list[Fold]
    ) -> CalibrationSet:
        """Answers to photos that the answering network had not seen; refits where there are folds."""
        training_set = self.training_set
        parts = []
        for number, fold in enumerate(folds):
            refit = self._two_streams(backbone, _FIRST_FOLD + number)
            self.fit(refit, views, fold.rows, f"fold-{number + 1}", _FIRST_FOLD + number)
            parts.append(ask(_answering(refit), training_set, views, fold, self.config, self.compute))
        if not folds:
            photos = np.flatnonzero(training_set.is_validation & training_set.is_photo)
            if len(photos):
                rows = np.flatnonzero(~training_set.is_validation)
                fold = Fold(rows, photos)
                parts.append(ask(_answering(network), training_set, views, fold, self.config, self.compute))
        return CalibrationSet.join(parts) if parts else CalibrationSet.empty(len(training_set.taxonomy))

    def _fit_classifier(self, network: TwoStreamNetwork, views: Views, rows: IntArray) -> None:
        """Fit the classifier of frozen features, or, as a probe, put it where fine-tuning starts from."""
        settings, training_set = self.config.specialist, self.training_set
        features = features_of(_answering(network), views, rows, self.compute)
        classes, count = training_set.classes[rows], len(training_set.taxonomy)
        shared: dict[str, Any] = {
            "groups": training_set.groups[rows],
            "strengths": settings.strengths,
            "seed": self.config.seed,
            "device": str(self.compute.device),
            "report": self.report,
        }
        if settings.kind == "svm":
            network.set_classifier(fit_svm(features, classes, count, gamma_factors=settings.gamma_factors, **shared))
            return
        linear = fit_linear(features, classes, count, **shared)
        if settings.kind == "linear":
            network.set_classifier(linear)
        else:
            network.start_from(linear)

    def _create_backbone(self) -> nn.Module:
        settings = self.config.backbone
        from_hub = settings.pretrained and settings.weights is None
        with _seeded([self.config.seed, _WARMUP]):
            network = create_network(
                settings.name, image_size=settings.image_size, pretrained=from_hub, arguments=settings.arguments
            )
        if settings.weights is not None:
            loaded = load_pretrained(network, settings.weights)
            if loaded.dropped_head:
                self.report(f"left out the classifier in {settings.weights.name}", 1, 1)
        if settings.last_blocks > block_count(network):
            raise InvalidConfig(f"backbone.last_blocks is {settings.last_blocks}; there are {block_count(network)}")
        return network

    def _preprocessing(self, network: Any) -> Preprocessing:
        own = network.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
        size = self.config.backbone.image_size or int(own)
        settings = self.config.backbone
        return default_preprocessing(network, size, crop=settings.crop, statistics=settings.statistics)

    def _two_streams(self, backbone: nn.Module, stage: int) -> TwoStreamNetwork:
        settings, heads = self.config.backbone, self.config.heads
        shape = NetworkShape(
            backbone=settings.name,
            image_size=self.preprocessing.image_size,
            last_blocks=settings.last_blocks,
            classes=len(self.training_set.taxonomy),
            projection_hidden=heads.projection_hidden,
            projection_dimensions=heads.projection_dimensions,
            backbone_arguments=settings.arguments,
            specialist=self.config.specialist.kind,
            generalist=self.config.generalist.kind,
            dct_frequencies=settings.dct_frequencies if settings.features == "class+dct" else 0,
        )
        with _seeded([self.config.seed, stage]):
            network = TwoStreamNetwork(shape, backbone)
        if self._warm_head is not None and self.config.specialist.kind == "tuned":
            network.specialist_head.load_state_dict(self._warm_head)
        return network.to(self.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _reader(self, preprocessing: Preprocessing) -> PictureReader:
        return PictureReader(self.training_set.paths, preprocessing, self.config.augmentation, self.config.seed)

    def _filled(
        self, reader: PictureReader, frozen: nn.Module, shape: tuple[int, ...], wanted: int, name: str
    ) -> Views:
        images = len(self.training_set)
        views = affordable_views(images, shape, wanted, int(self.config.cache_gib * _GIB))
        if views < min(1, wanted):
            logger.warning(
                "the cache of %.1f GiB is too small for %d images; computing live", self.config.cache_gib, images
            )
            return LiveViews(reader, frozen, self.compute, workers=self.workers)
        if views < wanted:
            logger.warning(
                "cache_gib = %.1f holds %d of %d random views of each image; %.1f would hold all",
                self.config.cache_gib,
                views,
                wanted,
                images * (wanted + 1) * int(np.prod(shape)) * 2 / _GIB,
            )
        key = hashlib.sha256(f"{weights_digest(frozen)}{_images_digest(self.training_set)}".encode()).hexdigest()
        folder = self.home.cache / self.run.run_id / name
        progress = of_stage(self.report, f"reading images ({name})")
        cached: CachedViews = fill_cache(
            folder, reader, frozen, shape, views, self.compute, key=key, workers=self.workers, on_progress=progress
        )
        return cached

    def _fit(self, task: Any, name: str, stage: int, epochs: int) -> list[EpochRecord]:
        progress = of_stage(self.report, f"training ({name})")
        return fit(
            task,
            self.config,
            self.compute,
            epochs=epochs,
            stage=stage,
            checkpoint=self.run.checkpoint(name),
            on_progress=progress,
            on_epoch=lambda record: logger.info("%s", _epoch_line(name, record)),
        )


def _answering(network: TwoStreamNetwork) -> StreamOutputs:
    """The network as it answers from the session's views."""
    return PrecomputedStreams(network) if network.shape.is_frozen else network


def _names(task: Task) -> set[str]:
    return {stream.name for stream in task.streams}


@contextmanager
def _seeded(numbers: list[int]) -> Iterator[None]:
    """Random initial weights that depend on the given numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng(numbers).integers(2**62)))
        yield


def _epoch_line(stage: str, record: EpochRecord) -> str:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
    line = f"{stage}, epoch {record.epoch + 1}: loss {losses}"
    if record.validation:
        line += "; validation " + ", ".join(f"{name} {value:.1%}" for name, value in record.validation.items())
    return line


def _images_digest(training_set: TrainingSet) -> str:
    digest = hashlib.sha256("\x1f".join(training_set.image_ids).encode())
    for column in (training_set.classes, training_set.is_field, training_set.groups, training_set.is_validation):
        digest.update(column.tobytes())
    for species in training_set.taxonomy:
        digest.update(f"{species.species_id}\x1f{species.genus}\x1f{species.family}\x1e".encode())
    return digest.hexdigest()


def best_figures(history: list[EpochRecord]) -> dict[str, dict[str, float]]:
    """Of each stream that was validated, the epoch that was kept (from 1) and its figure."""
    best: dict[str, dict[str, float]] = {}
    for record in history:
        for name, figure in record.validation.items():
            if name not in best or figure >= best[name]["top1"]:
                best[name] = {"epoch": record.epoch + 1, "top1": figure}
    return best


def _check_unchanged(run: TrainingRun, training_set: TrainingSet) -> None:
    """A resumed run must see the images it began with."""
    note = run.folder / "images.sha256"
    digest = _images_digest(training_set)
    if not note.is_file():
        replace_file(note, digest.encode())
    elif note.read_text() != digest:
        raise InvalidConfig(
            f"the catalogue has changed since run {run.run_id} began, so it cannot be resumed; "
            "train again without --resume"
        )
