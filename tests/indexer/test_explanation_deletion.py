"""The deletion test itself, and that the heat maps of a network trained on the drawn flora pass it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import TINY_CONFIG
from typer.testing import CliRunner

from indexer import explanation_deletion
from indexer.build_gallery import build
from indexer.cli import assemble
from indexer.explanation_deletion import DeletionResult, deletion_test, greyed_out
from indexer.import_dataset import import_dataset
from indexer.recipes import load_recipe
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.training_run import train
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import InsufficientData
from models.explanation import Explanation
from models.explanation import explain as really_explain
from models.home import Home
from models.identifier import Identifier

CPU = Compute("cpu", None)
SHARED = Path(os.environ.get("VOUCHER_SHARED", Path(__file__).resolve().parents[3] / "shared"))
WEIGHTS = SHARED / "weights" / "deit_tiny_patch16_224.safetensors"
REAL = SHARED / "data" / "plantclef100"

RESNET: dict[str, Any] = {
    "backbone": {
        "name": "resnet10t",
        "pretrained": False,
        "image_size": 64,
        "last_blocks": 1,
        "crop": "letterbox",
        "arguments": {"channels": [16, 24, 32, 48], "stem_width": 8},
    }
}


def trained(flora: Path, folder: Path, changes: dict[str, Any]) -> Identifier:
    home = Home(folder)
    import_dataset(flora, home)
    compute = Compute.resolve("cpu", precision="float32")
    with Catalogue.open(home) as catalogue:
        run = TrainingRun.start(home, catalogue, RunConfig.model_validate({**TINY_CONFIG, **changes}))
        train(home, catalogue, run, compute)
        build(home, catalogue, compute)
    return Identifier.load(home, CPU)


def measured(identifier: Identifier, home: Home, **given: Any) -> DeletionResult:
    with Catalogue.open(home) as catalogue:
        return deletion_test(identifier, catalogue, shares=(0.3,), **given)


def check(result: DeletionResult, *, least_gain: float) -> None:
    """Three tenths of the places greyed out: the hottest cost clearly more than random ones, and than the coldest."""
    for side in explanation_deletion.SIDES:
        hottest, random, coldest = (result.fall(side, 0.3, order) for order in explanation_deletion.ORDERS)
        assert hottest.mean > random.mean + least_gain, side
        assert hottest.mean > coldest.mean + least_gain, side
        assert hottest.interval[0] > random.mean, side
        assert hottest.beats_random > 0.7, side


def test_what_the_maps_mark_is_what_a_vision_transformer_compares(trained_home: Home) -> None:
    check(measured(Identifier.load(trained_home, CPU), trained_home, pairs=36), least_gain=0.02)


def test_what_the_maps_mark_is_what_a_convolutional_network_compares(tiny_flora: Path, tmp_path: Path) -> None:
    identifier = trained(tiny_flora, tmp_path, RESNET)
    check(measured(identifier, Home(tmp_path), pairs=36), least_gain=0.02)


@pytest.mark.parametrize("wrong", ["upside down", "the other picture's", "shuffled"])
def test_maps_that_are_wrong_do_not_pass(trained_home: Home, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    generator = np.random.default_rng(1)

    def explain(*given: Any) -> list[Explanation]:
        (right,) = really_explain(*given)
        photo, sheet = {
            "upside down": (-right.photo, -right.sheet),
            "the other picture's": (right.sheet, right.photo),
            "shuffled": tuple(generator.permuted(m.ravel()).reshape(m.shape) for m in (right.photo, right.sheet)),
        }[wrong]
        return [Explanation(photo, sheet, right.similarity)]

    monkeypatch.setattr(explanation_deletion, "explain", explain)
    result = measured(Identifier.load(trained_home, CPU), trained_home, pairs=36)
    with pytest.raises(AssertionError):
        check(result, least_gain=0.02)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not WEIGHTS.is_file() or not REAL.is_dir(), reason="needs ../shared/weights and ../shared/data")
def test_what_the_maps_mark_is_what_a_pretrained_network_compares(tmp_path: Path) -> None:
    """Real plants and sheets, and an embedding that is a class token, of which no patch is a part."""
    home, compute = Home(tmp_path), Compute.resolve("cpu")
    import_dataset(REAL, home)
    with Catalogue.open(home) as catalogue:
        config = load_recipe("frozen-whitened", True, {"backbone.weights": WEIGHTS})
        train(home, catalogue, TrainingRun.start(home, catalogue, config), compute)
        build(home, catalogue, compute)
    check(measured(Identifier.load(home, compute), home, pairs=40), least_gain=0.08)


def test_places_take_the_mean_colour_and_the_rest_stays() -> None:
    pixels = np.random.default_rng(0).standard_normal((3, 12, 12)).astype(np.float32)
    found = greyed_out(pixels, np.array([1, 5]), (2, 3))
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    assert np.array_equal(found[:, :6, 4:8], np.broadcast_to(mean, (3, 6, 4)))
    assert np.array_equal(found[:, 6:, 8:], np.broadcast_to(mean, (3, 6, 4)))
    assert np.array_equal(found[:, :6, :4], pixels[:, :6, :4])
    assert np.array_equal(found[:, 6:, :8], pixels[:, 6:, :8])
    assert np.array_equal(greyed_out(pixels, np.array([], dtype=int), (2, 3)), pixels)


def test_a_grid_that_does_not_divide_the_picture_covers_all_of_it() -> None:
    pixels = np.ones((3, 10, 10), dtype=np.float32)
    pixels[:, 0] = 5
    everything = greyed_out(pixels, np.arange(9), (3, 3))
    assert np.ptp(everything) < 1e-6


def test_the_same_seed_measures_the_same(trained_home: Home) -> None:
    identifier = Identifier.load(trained_home, CPU)
    one, other = (measured(identifier, trained_home, pairs=5, seed=3) for _ in range(2))
    assert one == other
    assert one.pairs == 5
    assert -1 <= one.similarity <= 1
    assert json.dumps(one.to_json())


def test_without_photos_there_is_nothing_to_measure(tmp_path: Path, trained_home: Home) -> None:
    identifier = Identifier.load(trained_home, CPU)
    with Catalogue.open(Home(tmp_path), create=True) as catalogue, pytest.raises(InsufficientData, match="field photo"):
        deletion_test(identifier, catalogue)


def test_the_command_measures_and_draws(trained_home: Home, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    arguments = ["bench", "explanations", "--home", str(trained_home.root), "--pairs", "3", "--plot", str(plot)]
    result = CliRunner().invoke(assemble(), [*arguments, "--device", "cpu", "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["pairs"] == 3
    assert {fall["order"] for fall in values["falls"]} == {"hottest", "random", "coldest"}
    assert plot.read_bytes().startswith(b"\x89PNG")
