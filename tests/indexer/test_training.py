import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import TINY_CONFIG, write_manifest
from torch import nn

from indexer.folds import draw_folds
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.splits import Splits
from indexer.train import EpochRecord, Stream, Task, fit
from indexer.training_run import train
from indexer.training_set import TrainingSet, read_training_set
from models.bundle import load_model
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import BundleCorrupt, InsufficientData, InvalidConfig, VoucherError
from models.home import Home
from models.specimens import Split
from models.taxonomy import Species, SpeciesId, Taxonomy

CPU = Compute("cpu", None)


class Numbers:
    """Views of rows that are plain numbers."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def training_batch(self, rows: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        noise = torch.from_numpy(generator.normal(size=(len(rows), self.values.shape[1])) * 0.01).float()
        return self.values[rows] + noise

    def plain_batch(self, rows: np.ndarray) -> torch.Tensor:
        return self.values[rows]


def small_task(validate: Any = None) -> tuple[Task, nn.Linear]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    values = torch.randn(24, 3)
    classes = (values[:, 0] > 0).long().numpy()
    groups = [{"params": list(module.parameters()), "lr": 0.1, "base_rate": 0.1, "weight_decay": 0.0}]
    stream = Stream("only", module, groups)

    def loss(inputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor, __: float) -> dict[str, torch.Tensor]:
        return {"only": nn.functional.cross_entropy(module(inputs), labels)}

    rows = np.arange(24)
    field = np.arange(24) % 2 == 0
    return Task((stream,), Numbers(values), rows, classes, field, loss, validate), module


def config(**optimizer: Any) -> RunConfig:
    return RunConfig.model_validate({"optimizer": {"steps_per_epoch": 4, **optimizer}})


def run(task: Task, path: Path, epochs: int = 4, **more: Any) -> list[EpochRecord]:
    return fit(task, config(), CPU, epochs=epochs, stage=1, checkpoint=path / "c.safetensors", **more)


def test_the_loop_learns(tmp_path: Path) -> None:
    history = run(small_task()[0], tmp_path, epochs=6)
    assert history[-1].losses["only"] < 0.6 * history[0].losses["only"]


def test_resuming_gives_what_an_undisturbed_run_gives(tmp_path: Path) -> None:
    whole, module = small_task()
    undisturbed = run(whole, tmp_path / "a")
    expected = {k: v.clone() for k, v in module.state_dict().items()}

    def die(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small_task()[0], tmp_path / "b", on_epoch=die)
    again, module = small_task()
    done: list[int] = []
    resumed = run(again, tmp_path / "b", on_epoch=lambda r: done.append(r.epoch))
    assert done == [2, 3]
    assert resumed == undisturbed
    assert all(torch.equal(v, expected[k]) for k, v in module.state_dict().items())


def test_the_best_epoch_is_kept_and_the_later_of_equals(tmp_path: Path) -> None:
    figures = iter([0.2, 0.9, 0.9, 0.1])
    weights: list[torch.Tensor] = []
    task, module = small_task(lambda: {"only": next(figures)})
    run(task, tmp_path, on_epoch=lambda _: weights.append(module.weight.detach().clone()))
    assert torch.equal(module.weight, weights[2])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task, module = small_task()
    broken = Task(
        task.streams,
        task.views,
        task.rows,
        task.classes,
        task.is_field,
        lambda x, c, f, p: {"only": module(x).sum() * np.nan},
    )
    with pytest.raises(InvalidConfig, match="not finite at step 1 of 16"):
        run(broken, tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"torn")
    with pytest.raises(BundleCorrupt, match="Delete it"):
        run(small_task()[0], tmp_path)


def training_set(photos: dict[int, int], sheets: int = 2, validation_every: int = 5) -> TrainingSet:
    """`sheets` of each species and so many photos of each; every fifth image validates."""
    classes, field = [], []
    for species, count in photos.items():
        classes += [species] * (sheets + count)
        field += [False] * sheets + [True] * count
    n = len(classes)
    taxonomy = Taxonomy(tuple(Species(SpeciesId(f"s{i}"), f"S{i}") for i in photos))
    return TrainingSet(
        taxonomy,
        tuple(f"i{i}" for i in range(n)),
        tuple(Path(f"{i}.png") for i in range(n)),
        np.array(classes),
        np.array(field),
        np.arange(n),
        np.arange(n) % validation_every == 0,
        np.zeros(n, dtype=bool),
    )


def test_rotating_folds_ask_about_every_photo_unseen() -> None:
    data = training_set({0: 6, 1: 6, 2: 6, 3: 6, 4: 0, 5: 0})
    folds = draw_folds(data, 3, np.random.default_rng(0))
    photos = set(np.flatnonzero(data.is_field).tolist())
    hidden_somewhere: set[int] = set()
    asked = np.concatenate([fold.asked for fold in folds])
    assert set(asked.tolist()) == photos
    for fold in folds:
        assert not set(fold.rows.tolist()) & set(fold.asked.tolist())
        assert set(fold.rows.tolist()) | set(fold.asked.tolist()) == set(range(len(data)))
        seen = set(data.classes[fold.rows[data.is_field[fold.rows]]].tolist())
        hidden_somewhere |= {0, 1, 2, 3} - seen
        assert seen < {0, 1, 2, 3}
    assert hidden_somewhere == {0, 1, 2, 3}


def test_a_single_fold_hides_a_quarter_and_asks_about_the_validation_split() -> None:
    data = training_set(dict.fromkeys(range(8), 5))
    (fold,) = draw_folds(data, 1, np.random.default_rng(0))
    seen = set(data.classes[fold.rows[data.is_field[fold.rows]]].tolist())
    assert len(seen) == 6
    assert not data.is_validation[fold.rows].any()
    others = fold.asked[np.isin(data.classes[fold.asked], list(seen))]
    assert data.is_validation[others].all()
    assert len(others)


@pytest.mark.parametrize("photos", [{0: 0, 1: 0}, {0: 3, 1: 0}])
def test_without_two_species_in_both_domains_there_are_no_folds(photos: dict[int, int]) -> None:
    assert draw_folds(training_set(photos), 3, np.random.default_rng(0)) == []


def home_with(tmp_path: Path, rows: list[tuple[str, str]]) -> Home:
    return write_manifest(tmp_path, rows)


def trained(home: Home, **changes: Any) -> Any:
    with Catalogue.open(home) as catalogue:
        config = RunConfig.model_validate({**TINY_CONFIG, **changes})
        return train(home, catalogue, TrainingRun.start(home, catalogue, config), CPU)


def test_one_species_cannot_be_told_apart_from_others(tmp_path: Path) -> None:
    home = home_with(tmp_path, [("a", "sheet"), ("a", "field"), ("a", "field")])
    with pytest.raises(InsufficientData, match="at least 2"):
        trained(home)


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "sheet"), ("b", "sheet")],
        [("a", "sheet"), ("b", "field")],
        [("a", "field"), ("b", "field"), ("c", "field")],
        [("a", "sheet"), ("a", "field"), ("b", "sheet")],
    ],
)
def test_one_image_a_species_and_single_domains_train(
    tmp_path: Path, rows: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    home = home_with(tmp_path, rows)
    with caplog.at_level(logging.WARNING):
        result = trained(home)
    assert "keeps the backbone's own embedding" in caplog.text
    model = load_model(home, result.model_id, CPU)
    assert len(model.taxonomy) == len({species for species, _ in rows})
    assert len(model.calibration()) == 0


def test_warm_up_trains_the_whole_network_and_allows_one_fold(tiny_home: Home) -> None:
    result = trained(tiny_home, warmup={"epochs": 1, "views": 1}, calibration={"folds": 3, "epochs": 1})
    model = load_model(tiny_home, result.model_id, CPU)
    assert model.calibration().hidden.any()
    assert len(np.unique(model.calibration().has_field_photos, axis=0)) == 1


def test_without_cache_space_the_run_computes_live(tiny_home: Home, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = trained(tiny_home, cache_gib=0.0, calibration={"folds": 0})
    assert "computing live" in caplog.text
    assert len(load_model(tiny_home, result.model_id, CPU).calibration()) > 0


def test_equal_seeds_give_equal_models(tiny_home: Home) -> None:
    one, other, third = trained(tiny_home), trained(tiny_home), trained(tiny_home, seed=6)
    spaces = [load_model(tiny_home, r.model_id, CPU).encoder.space_id for r in (one, other, third)]
    assert spaces[0] == spaces[1] != spaces[2]


def test_nothing_of_a_finished_run_is_left_to_resume(tiny_home: Home) -> None:
    assert TrainingRun.unfinished(tiny_home) is None
    assert {p.name for p in tiny_home.cache.glob("*")} <= {"validation"}
    assert not list(tiny_home.runs.glob("*/checkpoints"))


def test_a_changed_catalogue_cannot_be_resumed_on(tiny_home: Home, tmp_path: Path) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        run_ = TrainingRun.start(tiny_home, catalogue, RunConfig.model_validate(TINY_CONFIG))
        (run_.folder / "images.sha256").write_text("another set")
        with pytest.raises(InvalidConfig, match="catalogue has changed"):
            train(tiny_home, catalogue, run_, CPU)


def test_more_blocks_than_there_are_is_refused(tiny_home: Home) -> None:
    backbone = {**TINY_CONFIG["backbone"], "last_blocks": 9}
    with pytest.raises(InvalidConfig, match="last_blocks is 9; there are 2"):
        trained(tiny_home, backbone=backbone)


def test_weights_of_a_file_are_what_the_run_begins_with(tiny_home: Home, tmp_path: Path) -> None:
    from models.backbone import create_network

    settings = TINY_CONFIG["backbone"]
    torch.manual_seed(99)
    network = create_network(settings["name"], image_size=48, arguments=settings["arguments"])
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth.tar")
    result = trained(tiny_home, backbone={**settings, "weights": str(tmp_path / "w.pth.tar")})
    trunk = load_model(tiny_home, result.model_id, CPU).encoder._network.trunk
    assert torch.equal(trunk.state_dict()["blocks.0.mlp.fc1.weight"], network.state_dict()["blocks.0.mlp.fc1.weight"])


def test_the_training_set_never_holds_test_images(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        splits = Splits.load(next(tiny_home.models.glob("*/splits.parquet")))
        data = read_training_set(catalogue, splits)
        assert Split.TEST in splits.split_of.values()
        assert all(splits.split_of[i] is not Split.TEST for i in data.image_ids)
        assert len(data) == sum(split is not Split.TEST for split in splits.split_of.values())


_KILLED_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.training_run import train
from models.catalogue import Catalogue
from models.compute import Compute
from models.home import Home
from tests_support import TINY_CONFIG
home = Home(Path(sys.argv[1]))
config = {{**TINY_CONFIG, "optimizer": {{**TINY_CONFIG["optimizer"], "epochs": 400}}}}
with Catalogue.open(home) as catalogue:
    train(home, catalogue, TrainingRun.start(home, catalogue, RunConfig.model_validate(config)), Compute("cpu", None))
"""


@pytest.mark.slow
def test_kill_9_loses_at_most_one_epoch(tiny_home: Home) -> None:
    from indexer.training_state import load_tensors

    shutil.rmtree(tiny_home.runs)
    code = _KILLED_RUN.format(support=str(Path(__file__).resolve().parents[1] / "support"))
    process = subprocess.Popen([sys.executable, "-c", code, str(tiny_home.root)])
    try:
        deadline = time.monotonic() + 120
        while not (found := list(tiny_home.runs.glob("*/checkpoints/proper.safetensors"))):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    _, notes = load_tensors(found[0])
    before = len(notes["history"])
    assert 1 <= before < 400
    unfinished = TrainingRun.unfinished(tiny_home)
    assert unfinished is not None
    short = unfinished.config.model_copy(
        update={"optimizer": unfinished.config.optimizer.model_copy(update={"epochs": before + 1})}
    )
    unfinished.config = short
    epochs: list[str] = []
    with Catalogue.open(tiny_home) as catalogue:
        handler = _Collect(epochs)
        logging.getLogger("indexer.training_run").addHandler(handler)
        logging.getLogger("indexer.training_run").setLevel(logging.INFO)
        try:
            result = train(tiny_home, catalogue, unfinished, CPU)
        finally:
            logging.getLogger("indexer.training_run").removeHandler(handler)
    assert len(result.history) == before + 1
    assert sum(line.startswith("proper, epoch") for line in epochs) == 1
    assert TrainingRun.unfinished(tiny_home) is None


class _Collect(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_a_picture_lost_from_the_store_is_named(tiny_home: Home) -> None:
    lost = next(path for path in tiny_home.images.glob("*/*/*") if path.is_file())
    lost.unlink()
    with pytest.raises(VoucherError, match=lost.name):
        trained(tiny_home)


def test_a_run_killed_after_publishing_its_model_is_finished_by_resuming(tiny_home: Home) -> None:
    result = trained(tiny_home)
    (tiny_home.runs / result.run_id / "model.json").unlink()
    again = TrainingRun.unfinished(tiny_home)
    assert again is not None
    with Catalogue.open(tiny_home) as catalogue:
        resumed = train(tiny_home, catalogue, again, CPU)
    assert resumed.model_id == result.model_id
    assert resumed.history == result.history
    assert TrainingRun.unfinished(tiny_home) is None


def test_a_failed_start_leaves_nothing_that_hides_an_older_run(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        older = TrainingRun.start(tiny_home, catalogue, RunConfig.model_validate(TINY_CONFIG))
    with pytest.raises(InvalidConfig, match="timm knows no model"):
        trained(tiny_home, backbone={"name": "typo", "pretrained": False})
    unfinished = TrainingRun.unfinished(tiny_home)
    assert unfinished is not None
    assert unfinished.run_id == older.run_id


def test_a_run_is_trained_by_one_process_at_a_time(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        run_ = TrainingRun.start(tiny_home, catalogue, RunConfig.model_validate(TINY_CONFIG))
        with run_.alone(), pytest.raises(InvalidConfig, match="another process"):
            train(tiny_home, catalogue, run_, CPU)


def test_an_unfinished_run_of_another_version_is_named(tiny_home: Home) -> None:
    folder = tiny_home.runs / "99999999-000000-abcdef"
    folder.mkdir()
    (folder / "config.json").write_text('{"unknown": 1}')
    with pytest.raises(InvalidConfig, match="another version"):
        TrainingRun.unfinished(tiny_home)


def test_a_species_with_validation_photos_alone_is_herbarium_only() -> None:
    data = training_set({0: 1, 1: 4}, sheets=4, validation_every=5)
    assert data.is_validation[np.flatnonzero(data.is_field & (data.classes == 0))].tolist() == [False]
    only = TrainingSet(
        data.taxonomy,
        data.image_ids,
        data.paths,
        data.classes,
        data.is_field,
        data.groups,
        data.is_field & (data.classes == 0),
        data.is_synthetic,
    )
    assert only.has_field_photos.tolist() == [False, True]


def test_the_reported_figure_is_the_one_of_the_epoch_that_was_kept() -> None:
    from indexer.training_run import best_figures

    history = [EpochRecord(i, {}, {"specialist": f}) for i, f in enumerate([0.2, 0.8, 0.8, 0.1])]
    assert best_figures(history) == {"specialist": {"epoch": 3, "top1": 0.8}}


def test_float16_is_not_trained_in(tiny_home: Home, caplog: pytest.LogCaptureFixture) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        run_ = TrainingRun.start(tiny_home, catalogue, RunConfig.model_validate(TINY_CONFIG))
        with caplog.at_level(logging.WARNING):
            train(tiny_home, catalogue, run_, Compute("cpu", torch.float16))
    assert "training in float32" in caplog.text
