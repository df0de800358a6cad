"""Each kind of classifier, embedding, metric and gate from catalogue to answer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import TINY_CONFIG, write_manifest

from indexer import training_run
from indexer.build_gallery import build
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.training_run import TrainedRun, train
from models.bundle import load_model
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import InvalidConfig
from models.gate import DistanceGate, FusionGate, Gate, StreamGate
from models.home import Home
from models.identifier import Identifier
from models.retrieval import DecisionSource, FloatArray, Identification
from models.specimens import Split

CPU = Compute("cpu", None)

LINEAR = {"kind": "linear", "strengths": [0.1]}
SVM = {"kind": "svm", "strengths": [1.0], "gamma_factors": [1.0]}
TUNED = {"kind": "tuned", "probe": False}
FROZEN = {"kind": "frozen", "metric": "whitened"}
ONE_EPOCH = {"epochs": 1, "steps_per_epoch": 2, "learning_rate": 1e-3}
TWO_FOLDS = {"folds": 2, "epochs": 1}
NO_FOLDS = {"folds": 0}

RECIPES: dict[str, dict[str, Any]] = {
    "linear on frozen features, nearest sheets answer": {
        "specialist": LINEAR,
        "generalist": FROZEN,
        "calibration": {**TWO_FOLDS, "gate": "generalist"},
    },
    "svm on frozen features": {
        "specialist": SVM,
        "generalist": {"kind": "frozen", "metric": "cosine"},
        "calibration": {**TWO_FOLDS, "gate": "specialist"},
    },
    "linear on class token and low frequencies": {
        "backbone": {**TINY_CONFIG["backbone"], "features": "class+dct", "dct_frequencies": 2},
        "specialist": LINEAR,
        "generalist": {"kind": "frozen", "metric": "centred"},
        "calibration": {**TWO_FOLDS, "gate": "fusion"},
    },
    "svm beside a tuned embedding": {
        "specialist": SVM,
        "generalist": {"kind": "tuned", "metric": "whitened"},
        "calibration": {**NO_FOLDS, "gate": "distance"},
    },
    "probe, then fine-tuning with a rate that falls": {
        "specialist": {"kind": "tuned", "probe": True, "strengths": [0.1]},
        "generalist": FROZEN,
        "optimizer": {**ONE_EPOCH, "epochs": 2, "schedule": "plateau", "plateau_patience": 0},
        "calibration": {**TWO_FOLDS, "gate": "auto"},
    },
    "adversarial heads": {
        "specialist": {**TUNED, "domain_adversary_weight": 1.0, "genus_weight": 0.5, "family_weight": 0.25},
        "generalist": FROZEN,
        "calibration": {**NO_FOLDS, "gate": "specialist"},
    },
    "synthetic photos": {
        "specialist": TUNED,
        "generalist": FROZEN,
        "translation": {
            "epochs": 1,
            "steps_per_epoch": 2,
            "image_size": 32,
            "base_channels": 4,
            "residual_blocks": 1,
            "images_per_species": 1,
        },
        "calibration": {**TWO_FOLDS, "gate": "specialist"},
    },
}

GATES: dict[str, type[Gate]] = {
    "specialist": StreamGate,
    "generalist": StreamGate,
    "distance": DistanceGate,
    "fusion": FusionGate,
}


def config_of(recipe: str) -> RunConfig:
    return RunConfig.model_validate({**TINY_CONFIG, "optimizer": ONE_EPOCH, **RECIPES[recipe]})


def started(home: Home, catalogue: Catalogue, recipe: str) -> TrainingRun:
    return TrainingRun.start(home, catalogue, config_of(recipe), run_id="run-1")


def trained(home: Home, recipe: str) -> TrainedRun:
    with Catalogue.open(home) as catalogue:
        return train(home, catalogue, started(home, catalogue, recipe), CPU)


def answered(home: Home) -> tuple[Identifier, list[Identification]]:
    """The service's identifier on a new index, and its answers to test photos."""
    with Catalogue.open(home) as catalogue:
        built = build(home, catalogue, CPU)
        photos = [p for p in catalogue.field_photos() if p.split is Split.TEST][:4]
        paths = [catalogue.image_store.path(p.image) for p in photos]
    identifier = Identifier.load(home, CPU)
    assert identifier.bundle_id == built.bundle_id
    pictures = [identifier.decode(path, max_pixels=10**7) for path in paths]
    return identifier, [identifier.identify([picture], top_k=6) for picture in pictures]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_builds_and_answers(home: Home, recipe: str) -> None:
    result = trained(home, recipe)
    identifier, answers = answered(home)
    config = config_of(recipe)
    for answer in answers:
        assert len(answer.candidates) == 6
        assert sum(c.probability for c in answer.candidates) == pytest.approx(1.0, abs=1e-4)
        assert all(c.similarity is not None and c.sheets for c in answer.candidates)
        assert {c.species.species_id for c in answer.candidates if not c.has_field_photos} == herbarium_only(home)
    shape = identifier.bundle.model.metadata["network"]
    assert (shape["specialist"], shape["generalist"]) == (config.specialist.kind, config.generalist.kind)
    assert (shape["support_vectors"] > 0) is (config.specialist.kind == "svm")
    assert shape["dct_frequencies"] == (2 if "low frequencies" in recipe else 0)
    gate, wanted = identifier.bundle.gate, config.calibration.gate
    assert isinstance(gate, GATES.get(wanted, DistanceGate | FusionGate))
    if isinstance(gate, StreamGate):
        assert {a.decision.source for a in answers} == {DecisionSource(wanted)} == {gate.stream}
    metric = identifier.bundle.gallery.metric
    assert np.array_equal(metric.matrix, np.eye(metric.dimensions)) is (config.generalist.metric != "whitened")
    assert np.any(metric.centres) is np.bool_(config.generalist.metric != "cosine")
    epochs = config.optimizer.epochs if "tuned" in (config.specialist.kind, config.generalist.kind) else 0
    assert len(result.history) == epochs
    calibration = identifier.bundle.model.calibration()
    assert len(calibration) > 0
    assert calibration.hidden.any() is np.bool_(config.calibration.folds > 0)
    assert np.isfinite(calibration.logits).all()
    assert TrainingRun.unfinished(home) is None
    assert {p.name for p in home.cache.glob("*")} <= {"validation"}


def herbarium_only(home: Home) -> set[str]:
    with Catalogue.open(home) as catalogue:
        photographed = {p.species_id for p in catalogue.field_photos() if p.split is not Split.TEST}
        return {s.species_id for s in catalogue.species()} - photographed


def test_synthetic_photos_are_trained_on_and_neither_indexed_nor_counted_as_photos(home: Home) -> None:
    result = trained(home, "synthetic photos")
    with Catalogue.open(home) as catalogue:
        drawn = list(catalogue.synthetic_photos(result.run_id))
        built = build(home, catalogue, CPU)
        sheets = len(list(catalogue.sheets()))
    assert len(drawn) == 6
    assert "synthetic photos" in result.summary
    assert built.sheets == sheets
    model = load_model(home, result.model_id, CPU)
    without = {s.species_id for s, flag in zip(model.taxonomy, model.has_field_photos, strict=True) if not flag}
    assert without == herbarium_only(home)


class _Killed(BaseException):
    """What a signal would be."""


@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        ("linear on frozen features, nearest sheets answer", "ask"),
        ("svm on frozen features", "write_model_files"),
        ("synthetic photos", "_fit"),
    ],
)
def test_a_killed_run_gives_the_model_of_an_undisturbed_one(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, where: str
) -> None:
    """Where nothing is tuned there is no checkpoint: the features are found in the cache, and all is fitted again."""
    shutil.copytree(home.root, tmp_path / "other")
    other = Home(tmp_path / "other")
    undisturbed = load_model(other, trained(other, recipe).model_id, CPU)
    owner: Any = training_run._Session if where == "_fit" else training_run
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, _dying())
        with pytest.raises(_Killed):
            trained(home, recipe)
    unfinished = TrainingRun.unfinished(home)
    assert unfinished is not None
    read: list[int] = []
    with Catalogue.open(home) as catalogue:
        report = _reading(read)
        resumed = load_model(home, train(home, catalogue, unfinished, CPU, report=report).model_id, CPU)
    if where != "_fit":
        assert read == [], "features are read again"
    assert resumed.encoder.space_id == undisturbed.encoder.space_id
    files = [model.artifact.files for model in (resumed, undisturbed)]
    for name in ("weights.safetensors", "calibration.safetensors", "species.json", "splits.parquet"):
        assert files[0][name].sha256 == files[1][name].sha256, name
    assert TrainingRun.unfinished(home) is None


def _dying() -> Callable[..., Any]:
    def die(*args: Any, **options: Any) -> Any:
        raise _Killed

    return die


def _reading(read: list[int]) -> Callable[[str, int, int], None]:
    def report(stage: str, done: int, total: int) -> None:
        if stage.startswith("reading images"):
            read.append(done)

    return report


def test_a_frozen_recipe_without_cache_space_gives_the_answers_of_one_with(home: Home) -> None:
    recipe = "linear on frozen features, nearest sheets answer"
    kept = trained(home, recipe)
    live = config_of(recipe).model_copy(update={"cache_gib": 0.0})
    with Catalogue.open(home) as catalogue:
        other = train(home, catalogue, TrainingRun.start(home, catalogue, live, run_id="run-2"), CPU)
    one, two = (load_model(home, result.model_id, CPU) for result in (kept, other))
    assert one.encoder.space_id == two.encoder.space_id
    calibrations = one.calibration(), two.calibration()
    np.testing.assert_array_equal(calibrations[0].truth, calibrations[1].truth)
    np.testing.assert_allclose(calibrations[0].similarities, calibrations[1].similarities, atol=0.02)
    pixels: FloatArray = np.random.default_rng(0).normal(size=(3, 3, 48, 48)).astype(np.float32)
    logits = one.encoder.encode(pixels).logits
    np.testing.assert_allclose(logits, two.encoder.encode(pixels).logits, atol=0.05 * np.abs(logits).max())


def test_features_survive_an_error_of_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = write_manifest(tmp_path, [("a", "sheet"), ("a", "field"), ("b", "sheet"), ("b", "field")])
    frozen = {"specialist": {"kind": "linear"}, "generalist": {"kind": "frozen"}}

    def refuse(*_: object, **__: object) -> None:
        raise InvalidConfig("an SVM is fitted on at most so many images")

    monkeypatch.setattr(training_run, "fit_linear", refuse)
    with Catalogue.open(home) as catalogue:
        run = TrainingRun.start(home, catalogue, RunConfig.model_validate({**TINY_CONFIG, **frozen}))
        with pytest.raises(InvalidConfig):
            training_run.train(home, catalogue, run, Compute("cpu", None))
    assert list(home.cache.glob("*/features/values.f16"))
