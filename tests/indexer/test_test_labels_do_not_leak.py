"""Nothing of a test photo, neither its species nor its pixels, reaches what is trained, calibrated or indexed."""

import csv
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import TINY_CONFIG

from indexer import calibrate_gate, folds, streams, train, views
from indexer.build_gallery import build
from indexer.import_dataset import import_dataset
from indexer.run_config import RunConfig, SplitConfig
from indexer.run_folder import TrainingRun
from indexer.training_run import train as run_training
from indexer.training_set import catalogue_splits, read_training_set
from models.artifacts import INDEX_KIND, MODEL_KIND, Artifact, read
from models.catalogue import Catalogue
from models.compute import Compute
from models.gallery_files import GALLERY_FILE
from models.home import Home
from models.specimens import Split

CPU = Compute("cpu", None)

NAMES = ("species_id", "scientific_name", "genus", "family")
"""What a manifest says about the species of a picture."""

SEGMENT = re.compile(r"\b[0-9a-f]{16}\b")
"""The name of a segment, drawn by chance."""

Rows = list[dict[str, str]]
Artifacts = tuple[Artifact, Artifact]


def is_tested(row: dict[str, str]) -> bool:
    return row["role"] == "field" and row["split"] == "test"


def is_learnt(row: dict[str, str]) -> bool:
    return row["role"] == "field" and row["split"] != "test"


def permuted(rows: Rows, chosen: Callable[[dict[str, str]], bool]) -> Rows:
    """`rows` with the species of the chosen ones exchanged in a ring, so that none keeps its own."""
    names = {row["species_id"]: {name: row[name] for name in NAMES} for row in rows}
    ring = sorted({row["species_id"] for row in rows if chosen(row)})
    following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    return [{**row, **names[following[row["species_id"]]]} if chosen(row) else row for row in rows]


def relabelled(flora: Path, folder: Path, chosen: Callable[[dict[str, str]], bool]) -> Path:
    """A copy of a flora with the species of the chosen pictures permuted."""
    shutil.copytree(flora, folder)
    with (flora / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(permuted(rows, chosen))
    return folder


def artifacts(flora: Path, home: Home, *, spoil_test_pictures: bool = False) -> Artifacts:
    """The model and index artifacts that come of a flora."""
    import_dataset(flora, home)
    with Catalogue.open(home) as catalogue:
        if spoil_test_pictures:
            for photo in catalogue.field_photos():
                if photo.split is Split.TEST:
                    catalogue.image_store.path(photo.image).write_bytes(b"no picture")
        run = TrainingRun.start(home, catalogue, RunConfig.model_validate(TINY_CONFIG))
        trained = run_training(home, catalogue, run, CPU)
        built = build(home, catalogue, CPU)
    return (
        read(home.models / trained.model_id, kind=MODEL_KIND),
        read(home.indexes / built.bundle_id, kind=INDEX_KIND),
    )


def contents(found: Artifacts) -> dict[str, Any]:
    """Digest of every file, and the metadata, less the names that are drawn by time and chance."""
    model = found[0]
    values: dict[str, Any] = {}
    for artifact in found:
        for name, record in artifact.files.items():
            names_segments = name == GALLERY_FILE
            text = SEGMENT.sub("*", (artifact.root / name).read_text(encoding="utf-8")) if names_segments else ""
            values[f"{artifact.kind}/{SEGMENT.sub('*', name)}"] = text or record.sha256
        values |= {f"{artifact.kind}:{key}": value for key, value in artifact.metadata.items()}
    assert values.pop("model:run_id") in model.artifact_id
    assert values.pop("index:catalogue_token")
    for revision in values["index:changes"]["revisions"]:
        assert revision.pop("at")
    assert values.pop("index:model_id") == model.artifact_id
    return values


@pytest.fixture(scope="module")
def untouched(tiny_flora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return contents(artifacts(tiny_flora, Home(tmp_path_factory.mktemp("untouched"))))


def test_permuting_test_labels_and_spoiling_test_pictures_changes_no_artifact(
    tiny_flora: Path, tmp_path: Path, untouched: dict[str, Any]
) -> None:
    flora = relabelled(tiny_flora, tmp_path / "flora", is_tested)
    assert (flora / "manifest.csv").read_bytes() != (tiny_flora / "manifest.csv").read_bytes()
    assert contents(artifacts(flora, Home(tmp_path / "home"), spoil_test_pictures=True)) == untouched


def test_permuting_training_labels_changes_weights_calibration_and_gate(
    tiny_flora: Path, tmp_path: Path, untouched: dict[str, Any]
) -> None:
    """So the comparison above can tell."""
    flora = relabelled(tiny_flora, tmp_path / "flora", is_learnt)
    changed = contents(artifacts(flora, Home(tmp_path / "home")))
    assert changed.keys() == untouched.keys()
    for name in ("model/weights.safetensors", "model/calibration.safetensors", "index/gate.json"):
        assert changed[name] != untouched[name], name


def test_the_artifacts_hold_what_is_compared(untouched: dict[str, Any]) -> None:
    assert {"model/weights.safetensors", "model/calibration.safetensors", "model/species.json"} <= untouched.keys()
    assert {"index/gate.json", "index/species.json"} <= untouched.keys()
    assert any(name.startswith("index/") and "json" not in name for name in untouched)


def test_training_gets_no_test_image(trained_home: Home) -> None:
    drawn = SplitConfig(hide_photos_of_species=2, photos_per_species=2)
    with Catalogue.open(trained_home) as catalogue:
        tested = {p.photo_id for p in catalogue.field_photos() if p.split is Split.TEST}
        for config in (SplitConfig(), drawn):
            splits = catalogue_splits(catalogue, config, np.random.default_rng(1))
            learnt = set(read_training_set(catalogue, splits).image_ids)
            left_out = {image for image, split in splits.split_of.items() if split is Split.TEST}
            assert tested <= left_out
            assert not learnt & left_out
            assert learnt == splits.split_of.keys() - left_out


@pytest.mark.parametrize(
    "function",
    [train.fit, streams.stream_task, folds.draw_folds, folds.ask, views.fill_cache, calibrate_gate.fit_gate],
    ids=lambda function: function.__name__,
)
def test_what_learns_or_calibrates_takes_no_catalogue_and_no_splits(function: Callable[..., Any]) -> None:
    """It sees a `TrainingSet` or a `CalibrationSet`, neither of which can hold a test photo."""
    named = {str(p.annotation) for p in inspect.signature(function).parameters.values()}
    assert not [text for text in named if "Catalogue" in text or "Splits" in text or "FieldPhoto" in text]
