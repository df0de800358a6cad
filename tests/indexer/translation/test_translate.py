"""What a run draws: marked, complete, the same after a kill, and never where a figure comes from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_support import TINY_CONFIG, write_manifest

from indexer.import_dataset import import_dataset
from indexer.run_config import RunConfig, SplitConfig
from indexer.run_folder import TrainingRun
from indexer.training_set import catalogue_splits, read_training_set, usable_rows
from indexer.translation import translate
from indexer.translation.translate import choose_sheets, translate_for_run
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import InsufficientData
from models.home import Home
from models.image_store import ImageStore
from models.specimens import Split

CPU = Compute("cpu", None)
TRANSLATION: dict[str, Any] = {
    "epochs": 1,
    "steps_per_epoch": 2,
    "image_size": 32,
    "base_channels": 4,
    "residual_blocks": 1,
    "patches": 16,
    "images_per_species": 2,
}


def start(home: Home, catalogue: Catalogue, **changes: Any) -> TrainingRun:
    config = {**TINY_CONFIG, "translation": {**TRANSLATION, **changes}}
    return TrainingRun.start(home, catalogue, RunConfig.model_validate(config))


def drawn_by(catalogue: Catalogue, run_id: str) -> dict[str, str]:
    return {photo.sheet_id: photo.image.stored_sha256 for photo in catalogue.synthetic_photos(run_id)}


def test_every_species_gets_its_photos_from_training_sheets(home: Home) -> None:
    stages: set[str] = set()
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue)
        assert translate_for_run(catalogue, run, CPU, report=lambda stage, *_: stages.add(stage)) == run.run_id
        species_of = {s.sheet_id: s.species_id for s in catalogue.sheets()}
        photos = list(catalogue.synthetic_photos(run.run_id))
        by_species: dict[str, int] = {}
        for photo in photos:
            assert run.splits.split_of[photo.sheet_id] is Split.TRAIN
            assert photo.species_id == species_of[photo.sheet_id]
            by_species[photo.species_id] = by_species.get(photo.species_id, 0) + 1
            with catalogue.image_store.open(photo.image) as picture:
                assert min(picture.size) == 32
        assert by_species == dict.fromkeys((s.species_id for s in catalogue.species()), 2)
    assert stages == {"training the translator", "drawing synthetic photos"}
    assert json.loads((run.folder / "translation.json").read_bytes()) == {"photos": 12}


def test_the_pairs_can_be_looked_at(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue)
        translate_for_run(catalogue, run, CPU)
    with Image.open(run.folder / "translation.png") as page:
        assert page.format == "PNG"
        pixels = np.asarray(page.convert("RGB"))
    paper = (pixels == pixels[0, 0]).all(axis=2)
    assert 0.1 < 1.0 - paper.mean() < 0.95
    assert not paper[:, pixels.shape[1] * 3 // 4 :].all()  # six species: two rows of up to four pairs


def test_a_run_without_translation_draws_nothing(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue, epochs=0)
        assert translate_for_run(catalogue, run, CPU) is None
        assert not (run.folder / "checkpoints").exists()


def test_a_finished_translation_does_nothing_more(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue)
        translate_for_run(catalogue, run, CPU)
        before = drawn_by(catalogue, run.run_id)
        monkeypatch.setattr(translate, "train_translator", lambda *_, **__: pytest.fail("trained again"))
        assert translate_for_run(catalogue, run, CPU) == run.run_id
        assert drawn_by(catalogue, run.run_id) == before


def test_a_killed_translation_is_continued_to_the_same_photos(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "_CHUNK", 4)

    def die(stage: str, done: int, _: int) -> None:
        if stage == "drawing synthetic photos" and done == 8:
            raise KeyboardInterrupt

    with Catalogue.open(home) as catalogue:
        whole, killed = start(home, catalogue), start(home, catalogue)
        translate_for_run(catalogue, whole, CPU)
        with pytest.raises(KeyboardInterrupt):
            translate_for_run(catalogue, killed, CPU, report=die)
        half = drawn_by(catalogue, killed.run_id)
        assert len(half) == 8
        assert not (killed.folder / "translation.json").exists()
        added: list[int] = []
        add = ImageStore.add
        monkeypatch.setattr(ImageStore, "add", lambda store, content: added.append(1) or add(store, content))
        translate_for_run(catalogue, killed, CPU)
        assert len(added) == 4
        assert drawn_by(catalogue, killed.run_id) == drawn_by(catalogue, whole.run_id)
        assert half.items() <= drawn_by(catalogue, killed.run_id).items()


def test_a_file_that_was_removed_while_it_was_drawn_again_is_put_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalogue.open(home) as catalogue:
        first, second = start(home, catalogue), start(home, catalogue)
        translate_for_run(catalogue, first, CPU)
        add, waiting = ImageStore.add, [first.run_id]

        def add_while_removing(store: ImageStore, content: bytes) -> Any:
            image = add(store, content)
            if waiting:
                catalogue.remove_synthetic_photos(waiting.pop())
            return image

        monkeypatch.setattr(ImageStore, "add", add_while_removing)
        translate_for_run(catalogue, second, CPU)
        photos = list(catalogue.synthetic_photos(second.run_id))
        assert len(photos) == 12
        assert all(photo.image in catalogue.image_store for photo in photos)


def test_two_runs_may_draw_the_same_and_differ_by_seed(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        runs = [start(home, catalogue) for _ in range(2)]
        for run in runs:
            translate_for_run(catalogue, run, CPU)
        one, other = (drawn_by(catalogue, run.run_id) for run in runs)
        assert one == other
        config = RunConfig.model_validate({**TINY_CONFIG, "seed": 6, "translation": TRANSLATION})
        third = TrainingRun.start(home, catalogue, config)
        translate_for_run(catalogue, third, CPU)
        assert not set(drawn_by(catalogue, third.run_id).values()) & set(one.values())


def test_neither_splits_nor_counts_nor_test_photos_change(home: Home) -> None:
    with Catalogue.open(home) as catalogue:

        def seen() -> object:
            splits = catalogue_splits(catalogue, SplitConfig(), np.random.default_rng(0))
            photos = list(catalogue.field_photos())
            return catalogue.counts(), catalogue.species_counts(), catalogue.content_digest(), splits, photos

        before = seen()
        run = start(home, catalogue)
        translate_for_run(catalogue, run, CPU)
        assert seen() == before
        assert not {p.photo_id for p in catalogue.synthetic_photos(run.run_id)} & set(run.splits.split_of)


def test_the_translator_never_reads_validation_or_test_images(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[Path] = set()
    original = translate.UnpairedPictures

    def remember(sheets: list[Path], photos: list[Path], *rest: Any) -> Any:
        read.update([*sheets, *photos])
        return original(sheets, photos, *rest)

    monkeypatch.setattr(translate, "UnpairedPictures", remember)
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue)
        translate_for_run(catalogue, run, CPU)
        expected = {
            catalogue.image_store.path(record.image)
            for records in (catalogue.sheets(), catalogue.field_photos())
            for record in records
            if run.splits.split_of[record.image.image_id] is Split.TRAIN
        }
    assert read == expected
    assert set(run.splits.split_of.values()) == set(Split)


def test_importing_the_dataset_again_changes_nothing(home: Home, tiny_flora: Path) -> None:
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue)
        translate_for_run(catalogue, run, CPU)
        before = drawn_by(catalogue, run.run_id)
    report = import_dataset(tiny_flora, home)
    assert (report.added.sheets, report.added.field_photos) == (0, 0)
    with Catalogue.open(home) as catalogue:
        assert drawn_by(catalogue, run.run_id) == before


def test_the_training_set_has_them_flagged_and_leaves_the_choice_to_each_fit(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        run = start(home, catalogue)
        plain = read_training_set(catalogue, run.splits)
        data = read_training_set(catalogue, run.splits, translate_for_run(catalogue, run, CPU))
    assert len(data) == len(plain) + 12
    assert data.has_field_photos.tolist() == plain.has_field_photos.tolist()
    assert sorted(data.has_field_photos.tolist()) == [False, False, True, True, True, True]
    assert data.describe().startswith(plain.describe())
    training = np.flatnonzero(~data.is_validation)
    kept = usable_rows(data, training)
    herbarium_only = ~data.has_field_photos
    synthetic = kept[data.is_synthetic[kept]]
    assert set(data.classes[synthetic].tolist()) == set(np.flatnonzero(herbarium_only).tolist())
    assert set(training.tolist()) - set(kept.tolist()) == set(
        np.flatnonzero(data.is_synthetic & ~herbarium_only[data.classes]).tolist()
    )


def test_without_photos_or_sheets_there_is_nothing_to_learn_a_translation_from(tmp_path: Path) -> None:
    home = write_manifest(tmp_path, [("a", "sheet"), ("b", "sheet")])
    with Catalogue.open(home) as catalogue, pytest.raises(InsufficientData, match=r"translation\.epochs = 0"):
        translate_for_run(catalogue, start(home, catalogue), CPU)


def test_sheets_are_chosen_up_to_a_number_of_each_species_at_random() -> None:
    classes = np.array([0, 1, 0, 2, 0, 1, 0, 0, 9, 9])
    sheets = np.arange(8)
    chosen = choose_sheets(sheets, classes, 2, np.random.default_rng(0))
    assert chosen.tolist() == sorted(chosen.tolist())
    assert np.bincount(classes[chosen]).tolist() == [2, 2, 1]
    everything = {tuple(choose_sheets(sheets, classes, 1, np.random.default_rng(i)).tolist()) for i in range(200)}
    assert len(everything) == 5 * 2 * 1
    assert choose_sheets(sheets, classes, 99, np.random.default_rng(0)).tolist() == sheets.tolist()
