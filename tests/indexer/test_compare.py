import copy
import fcntl
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import TINY_CONFIG, noise_picture

from indexer import compare as compare_module
from indexer.build_gallery import build, latest_model
from indexer.compare import CatalogueFacts, Comparison, catalogue_facts, compare
from indexer.compare_cost import stored_parameters
from indexer.compare_record import PairRecord
from indexer.compare_report import tabulate, write_comparison
from indexer.evaluate import evaluate
from indexer.import_dataset import import_dataset
from indexer.recipes import Recipe
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.training_run import train
from models.artifacts import list_artifacts
from models.bundle import load_model
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import BundleMissing, InsufficientData, InvalidConfig
from models.home import Home
from models.identifier import Identifier
from models.specimens import Split

CPU = Compute("cpu", None)
FACTS = CatalogueFacts("digest", 6, 24, 36, True)


def recipe(name: str, **sections: dict[str, Any]) -> Recipe:
    values = copy.deepcopy(TINY_CONFIG)
    values["optimizer"] |= {"epochs": 1, "steps_per_epoch": 2}
    for section, settings in sections.items():
        values.setdefault(section, {}).update(settings)
    return Recipe(name, RunConfig.model_validate(values))


PLAIN = recipe("plain")
OTHER = recipe("other", optimizer={"learning_rate": 1e-2}, calibration={"folds": 1})


def run(home: Home, recipes: list[Recipe], seeds: list[int], **options: Any) -> list[PairRecord]:
    with Catalogue.open(home) as catalogue:
        return compare(Comparison(home, recipes, seeds, catalogue_facts(catalogue)), catalogue, CPU, **options)


@pytest.fixture(scope="module")
def compared(imported: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[PairRecord]]:
    """Two recipes with two seeds, test photos and folds. Do not change the home."""
    home = Home(tmp_path_factory.mktemp("compared") / "home")
    shutil.copytree(imported.root, home.root)
    return home, run(home, [PLAIN, OTHER], [0, 1], folds=True)


def test_every_recipe_and_seed_is_trained_built_and_scored(compared: tuple[Home, list[PairRecord]]) -> None:
    home, records = compared
    assert [(r.recipe, r.seed) for r in records] == [("plain", 0), ("plain", 1), ("other", 0), ("other", 1)]
    assert len(list_artifacts(home.models)) == len(list_artifacts(home.indexes)) == 4
    for record in records:
        assert record.error is None
        assert record.test is not None
        assert len(record.test.photos) == 12
        assert record.knows_all_seconds
        assert record.training_seconds > 0
        assert record.cost is not None
        assert record.cost.milliseconds > 0
        assert record.cost.gigaflops > 0


def test_the_figures_are_those_of_training_building_and_evaluating_by_hand(
    compared: tuple[Home, list[PairRecord]], home: Home
) -> None:
    config = OTHER.config.model_copy(update={"seed": 1})
    with Catalogue.open(home) as catalogue:
        train(home, catalogue, TrainingRun.start(home, catalogue, config), CPU)
        build(home, catalogue, CPU)
        by_hand = evaluate(home, catalogue, Identifier.load(home, CPU)).to_json()
    record = compared[1][3]
    assert record.test is not None
    for group in ("overall", "with_photos", "herbarium_only"):
        assert record.test.details["ensemble"][group] == by_hand["ensemble"][group]
        assert record.test.ece[group] == by_hand["ensemble"][group]["ece"]
    positions = record.test.photos.truth_position
    assert float((positions == 1).mean()) == pytest.approx(by_hand["ensemble"]["overall"]["top1"])
    assert float((positions <= 5).mean()) == pytest.approx(by_hand["ensemble"]["overall"]["top5"])


def test_recipes_of_a_seed_share_their_splits_and_photos_pair(compared: tuple[Home, list[PairRecord]]) -> None:
    home, records = compared
    by_pair = {(r.recipe, r.seed): r for r in records}
    for seed in (0, 1):
        plain, other = (by_pair[name, seed] for name in ("plain", "other"))
        splits = [TrainingRun.open(home, r.run_id).splits.split_of for r in (plain, other)]
        assert splits[0] == splits[1]
        assert plain.test is not None
        assert other.test is not None
        assert plain.test.photos.photo_id == other.test.photos.photo_id
    assert TrainingRun.open(home, by_pair["plain", 0].run_id).splits.split_of != splits[0]


def test_nothing_of_a_comparison_is_served_or_resumed_unasked(compared: tuple[Home, list[PairRecord]]) -> None:
    home, _ = compared
    assert not home.active_pointer.exists()
    assert TrainingRun.unfinished(home) is None
    with pytest.raises(BundleMissing, match="voucher train"):
        latest_model(home)


def test_the_active_bundle_stays(home: Home, tiny_flora: Path) -> None:
    with Catalogue.open(home) as catalogue:
        trained = train(home, catalogue, TrainingRun.start(home, catalogue, PLAIN.config), CPU)
        build(home, catalogue, CPU)
    before = home.active_pointer.read_bytes()
    assert run(home, [OTHER], [0])[0].error is None
    assert home.active_pointer.read_bytes() == before
    assert latest_model(home) == trained.model_id


def test_a_second_call_does_nothing_again(
    compared: tuple[Home, list[PairRecord]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, records = compared
    for name in ("train", "build", "evaluate", "score_folds", "inference_cost"):
        monkeypatch.setattr(compare_module, name, lambda *_, **__: pytest.fail("done again"))
    again = run(home, [PLAIN, OTHER], [0, 1], folds=True)
    assert [(r.model_id, r.training_seconds) for r in again] == [(r.model_id, r.training_seconds) for r in records]
    narrowed = run(home, [OTHER], [1])
    assert narrowed[0].model_id == records[3].model_id


@pytest.mark.parametrize("stage", ["training", "reading", "embedding", "writing", "scoring"])
def test_what_was_interrupted_goes_on_and_ends_the_same(
    compared: tuple[Home, list[PairRecord]], home: Home, stage: str
) -> None:
    def die(name: str, done: int, total: int) -> None:
        if name.startswith(stage) and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(home, [PLAIN], [1], progress=lambda: nullcontext(die))
    (path,) = (home.root / "comparisons" / "results").glob("*.json")
    begun = PairRecord.load(path)
    assert begun.test is None
    (record,) = run(home, [PLAIN], [1])
    assert record.run_id == begun.run_id
    assert len(list_artifacts(home.models)) == 1
    undisturbed = compared[1][1]
    assert record.test is not None
    assert undisturbed.test is not None
    assert record.test.photos.to_json() == undisturbed.test.photos.to_json()
    assert record.training_seconds >= begun.training_seconds
    assert record.knows_all_seconds


def test_a_training_killed_outright_is_told_by_its_seconds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = PairRecord.save
    with monkeypatch.context() as patch:
        patch.setattr(compare_module, "train", _killed)
        # A killed process runs no finally block, so nothing is saved after the kill.
        patch.setattr(PairRecord, "save", lambda r, p: saved(r, p) if r.timed_attempts == 0 else None)
        with pytest.raises(SystemExit):
            run(home, [PLAIN], [0], test=False, folds=True)
    (record,) = run(home, [PLAIN], [0], test=False, folds=True)
    assert (record.attempts, record.timed_attempts) == (2, 1)
    assert not record.knows_all_seconds


def _killed(*_: Any, **__: Any) -> None:
    raise SystemExit


def test_a_failing_recipe_is_reported_and_the_others_go_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = recipe("broken", backbone={"last_blocks": 9})
    real = compare_module.evaluate
    records = run(home, [broken, PLAIN], [0])
    assert "last_blocks is 9" in str(records[0].error)
    assert records[1].error is None
    monkeypatch.setattr(compare_module, "evaluate", _out_of_memory)
    failed = run(home, [broken, OTHER], [0])
    assert failed[1].error == "RuntimeError: out of memory"
    monkeypatch.setattr(compare_module, "evaluate", real)
    mended = run(home, [OTHER], [0])[0]
    assert mended.error is None
    assert mended.model_id == failed[1].model_id


def _out_of_memory(*_: Any, **__: Any) -> None:
    raise RuntimeError("out of memory")


def test_without_the_test_split_no_test_photo_is_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "evaluate", lambda *_, **__: pytest.fail("the test photos were read"))
    (record,) = run(home, [PLAIN], [0], test=False, folds=True)
    assert record.test is None
    assert record.folds is not None
    # Each of the 24 training photos is asked about once with its species hidden, and at most once without.
    hidden = int(record.folds.photos.herbarium_only.sum())
    assert hidden == 24
    assert 0 < len(record.folds.photos) - hidden <= 24
    with pytest.raises(InvalidConfig, match="nothing to compare"):
        run(home, [PLAIN], [0], test=False)


def test_what_was_deleted_is_made_again_but_only_when_something_is_missing(home: Home) -> None:
    (first,) = run(home, [PLAIN], [0])
    shutil.rmtree(home.models)
    shutil.rmtree(home.indexes)
    (second,) = run(home, [PLAIN], [0])
    assert second.model_id == first.model_id
    assert not home.models.exists()
    (third,) = run(home, [PLAIN], [0], folds=True)
    assert third.error is None
    assert third.model_id != first.model_id
    assert third.folds is not None
    assert third.test is not None


def test_a_second_process_is_refused(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        comparison = Comparison(home, [PLAIN], [0], catalogue_facts(catalogue))
        path = comparison.record_path("plain", 0)
        path.parent.mkdir(parents=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(InvalidConfig, match="another process"):
                compare(comparison, catalogue, CPU)


def test_results_are_found_by_what_they_depend_on_alone(home: Home, tmp_path: Path) -> None:
    weights = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, content in zip(weights, (b"1", b"1", b"2"), strict=True):
        path.write_bytes(content)

    def where(chosen: Recipe, facts: CatalogueFacts = FACTS, seeds: tuple[int, ...] = (0, 1)) -> Path:
        return Comparison(home, [chosen], seeds, facts).record_path(chosen.name, 0)

    same = [recipe("x", backbone={"weights": path}) for path in weights]
    assert where(same[0]) == where(same[1]) != where(same[2])
    assert where(PLAIN) == where(PLAIN, seeds=(0, 5))
    assert where(PLAIN) == where(Recipe("plain", PLAIN.config.model_copy(update={"seed": 9})))
    assert where(PLAIN) != where(PLAIN, CatalogueFacts("another", 6, 24, 36, True))
    assert (
        Comparison(home, [PLAIN, OTHER], [1, 0], FACTS).folder == Comparison(home, [OTHER, PLAIN], [0, 1], FACTS).folder
    )
    weights[0].unlink()
    with pytest.raises(InvalidConfig, match="no weights at"):
        where(same[0])


def test_the_catalogue_is_known_again_until_a_photo_comes(home: Home, tmp_path: Path) -> None:
    with Catalogue.open(home) as catalogue:
        before = catalogue_facts(catalogue)
        assert before == catalogue_facts(catalogue)
        assert (before.species, before.sheets, before.field_photos, before.invented) == (6, 24, 36, True)
        for role, invented in (("field", True), ("sheet", False)):
            folder = tmp_path / role / role / "Nova planta"
            folder.mkdir(parents=True)
            noise_picture(2 + invented).save(folder / "1.png")
            import_dataset(tmp_path / role, home)
            after = catalogue_facts(catalogue)
            assert after.digest != before.digest
            assert after.invented is invented
            before = after


@pytest.mark.parametrize(
    ("recipes", "seeds", "message"),
    [
        ([], [0], "at least one recipe"),
        ([PLAIN], [], "at least one recipe"),
        ([PLAIN, PLAIN], [0], "once each"),
        ([PLAIN], [1, 1], "once each"),
        ([PLAIN], [-1], "0 or more"),
        ([PLAIN, recipe("hiding", split={"hide_photos_of_species": 1})], [0], r"\[split\] of hiding differs"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, recipes: list[Recipe], seeds: list[int], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Comparison(Home(tmp_path), recipes, seeds, FACTS)


def test_splits_that_cannot_be_drawn_stop_everything(home: Home) -> None:
    hiding = recipe("hiding", split={"hide_photos_of_species": 6})
    with pytest.raises(InsufficientData, match="hide_photos_of_species"):
        run(home, [hiding], [0])


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for content in ("", "[]", "{}", '{"cost": {"x": 1}}'):
        path.write_text(content)
        with pytest.raises(InvalidConfig, match=r"result\.json is no result"):
            PairRecord.load(path)


def test_stored_parameters_are_those_of_the_network(compared: tuple[Home, list[PairRecord]]) -> None:
    home, records = compared
    model = load_model(home, str(records[0].model_id), CPU)
    network = model.encoder._network
    assert stored_parameters(model.artifact) == sum(int(np.prod(t.shape)) for t in network.state_dict().values())


def test_the_report_holds_every_recipe_group_and_seed(compared: tuple[Home, list[PairRecord]], tmp_path: Path) -> None:
    home, records = compared
    with Catalogue.open(home) as catalogue:
        comparison = Comparison(home, [PLAIN, OTHER], [0, 1], catalogue_facts(catalogue))
        seen = {p.species_id for p in catalogue.field_photos() if p.split is not Split.TEST}
        plants = {p.observation_key for p in catalogue.field_photos() if p.species_id not in seen}
    paths = write_comparison(tmp_path / "out", tabulate(comparison, records, "plain"))
    values = json.loads(paths[0].read_text())
    for source in ("test", "folds"):
        assert set(values["figures"][source]) == {"plain", "other"}
    row = values["figures"]["test"]["other"]["herbarium_only"]
    assert (row["n"], row["plants"], set(row["top1"]["by_seed"])) == (8, len(plants), {"0", "1"})
    assert row["difference"]["n"] == 8
    assert values["figures"]["test"]["plain"]["overall"]["difference"] is None
    # With one fold in place of two, other photos are asked about: they are not taken for each other.
    assert values["figures"]["folds"]["other"]["with_photos"]["difference"] is None
    assert values["costs"]["plain"]["parameters"] == records[0].cost.parameters  # type: ignore[union-attr]
    text = paths[1].read_text()
    assert "invented" in text
    assert "against plain" in text
    assert "vit_tiny_patch16_224 at 48 px, from random weights" in text
    assert paths[2].read_bytes().startswith(b"\x89PNG")
