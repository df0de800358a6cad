import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import TINY_CONFIG, write_manifest
from typer.testing import CliRunner

from indexer import bench_plain_loop
from indexer.bench_command import bench_app
from indexer.bench_identify import bench_identify
from indexer.bench_networks import separate_networks, shared_network
from indexer.bench_train import TrainBench, bench_train
from indexer.import_dataset import import_dataset
from indexer.run_config import RunConfig
from models.compute import Compute
from models.errors import InsufficientData, InvalidConfig, VoucherError
from models.home import Home

CPU = Compute("cpu", None)
TOKENS_BYTES = 37 * 24 * 2  # 6 × 6 patches and the class token, 24 numbers each, float16


def config(**sections: Any) -> RunConfig:
    values = {**TINY_CONFIG, "split": {"validation_fraction": 0.0}, "augmentation": {"views": 2}, **sections}
    return RunConfig.model_validate(values)


def bench(path: Path, **more: Any) -> TrainBench:
    return bench_train(path, more.pop("config", config()), CPU, **{"images": 30, **more})


def test_both_ways_go_through_the_same_losses(tiny_flora: Path) -> None:
    result = bench(tiny_flora)
    assert result.loss_difference <= result.largest_loss_difference < 1e-3
    assert result.cached_losses == pytest.approx(result.plain_losses, rel=1e-3)
    assert set(result.plain_losses) == {"specialist", "generalist"}
    assert all(loss > 0 for loss in result.plain_losses.values())


def test_counts_and_ratios_follow_from_what_was_run(tiny_flora: Path) -> None:
    result = bench(tiny_flora)
    assert (result.images, result.species, result.views) == (30, 6, 2)
    assert (result.blocks, result.last_blocks) == (2, 1)
    assert (result.epochs, result.steps) == (2, 6)
    # Four species in both domains, two with sheets alone, two images of each role.
    assert result.images_in_steps == 6 * (4 * 4 + 2 * 2)
    assert 30 * 3 * TOKENS_BYTES < result.cache_bytes < 30 * 3 * TOKENS_BYTES + 10_000
    assert min(result.cache_seconds, result.fit_seconds, result.plain_seconds) > 0
    assert result.cached_seconds == pytest.approx(result.cache_seconds + result.fit_seconds)
    assert result.ratio == pytest.approx(result.plain_seconds / result.cached_seconds)
    assert result.ratio_of_refit == pytest.approx(result.plain_seconds / result.fit_seconds)
    assert not result.plain_is_extrapolated


def test_a_plain_loop_that_was_cut_short_says_so_and_compares_the_epochs_it_ran(tiny_flora: Path) -> None:
    whole, short = bench(tiny_flora), bench(tiny_flora, plain_epochs=1)
    assert short.plain_is_extrapolated
    assert (short.plain_epochs, short.epochs) == (1, 2)
    assert short.cached_losses != whole.cached_losses
    assert short.cached_losses == pytest.approx(short.plain_losses, rel=1e-3)


def test_networks_trained_apart_arrive_where_networks_trained_together_do(tiny_flora: Path) -> None:
    together, apart = bench(tiny_flora), bench(tiny_flora, apart=True)
    assert apart.plain_networks_apart
    assert apart.plain_losses == pytest.approx(together.plain_losses, rel=1e-5)


def test_other_inputs_are_noticed_by_their_losses(tiny_flora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_rows(work: Any, stage: int, epochs: int) -> Any:
        for _ in range(epochs * work.steps):
            yield np.arange(20), np.ones(20, dtype=np.int64)

    monkeypatch.setattr(bench_plain_loop, "_plan", other_rows)
    with pytest.raises(VoucherError, match="must arrive at the same losses"):
        bench(tiny_flora)


def test_losses_that_are_not_numbers_are_no_agreement(tiny_flora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.bench_train.plain_loop", lambda *_, **__: (1.0, [{"specialist": float("nan")}] * 2))
    with pytest.raises(VoucherError, match="must arrive at the same losses"):
        bench(tiny_flora)


def test_a_home_is_read_and_left_as_it_is(tiny_flora: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    import_dataset(tiny_flora, home)
    before = sorted(path for path in home.root.rglob("*") if ".sqlite-" not in path.name)
    assert bench(home.root).images == 30
    assert sorted(path for path in home.root.rglob("*") if ".sqlite-" not in path.name) == before


def test_images_are_taken_evenly_from_species_and_roles(tmp_path: Path) -> None:
    rows = [("a", "sheet")] * 9 + [("a", "field")] * 5 + [("b", "sheet")] * 2 + [("b", "field")] * 5
    write_manifest(tmp_path, rows)
    small = config(sampling={"species_per_batch": 2, "images_per_role": 1})
    result = bench(tmp_path / "dataset", config=small, images=8)
    assert result.images == 8
    assert result.images_in_steps == 6 * 4


def test_too_few_species_in_both_domains_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, [("a", "sheet"), ("a", "field"), ("b", "sheet"), ("b", "sheet")])
    with pytest.raises(InsufficientData, match="at least 2 species with sheets and field photos"):
        bench(tmp_path / "dataset")


def test_more_blocks_than_there_are_is_refused(tiny_flora: Path) -> None:
    backbone = {**TINY_CONFIG["backbone"], "last_blocks": 9}
    with pytest.raises(InvalidConfig, match="there are 2"):
        bench(tiny_flora, config=config(backbone=backbone))


def test_a_recipe_that_does_not_train_both_streams_is_refused(tiny_flora: Path) -> None:
    with pytest.raises(InvalidConfig, match="must be tuned, not tuned and frozen"):
        bench(tiny_flora, config=config(generalist={"kind": "frozen"}))


def test_whole_networks_give_what_the_shared_trunk_gives() -> None:
    network, _ = shared_network(config(), 7, CPU)
    specialist, generalist = separate_networks(network.eval())
    pixels = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    tokens = network.trunk(pixels)
    logits, features = network.classify_tokens(tokens)
    torch.testing.assert_close(specialist.eval()(pixels), (logits, features))
    torch.testing.assert_close(generalist.eval()(pixels)[0], network.embed_tokens(tokens))
    assert specialist.trunk is not generalist.trunk


def test_the_seed_alone_decides_the_weights() -> None:
    def first_weight(seed: int) -> torch.Tensor:
        network, _ = shared_network(config(seed=seed), 7, CPU)
        return torch.cat([network.trunk.blocks[0].mlp.fc1.weight.flatten(), network.specialist_head.weight.flatten()])

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))


def test_voucher_costs_the_trunk_once_and_the_last_blocks_for_the_class_token() -> None:
    result = bench_identify(config(), species=7, rounds=2, compute=CPU)
    assert result.largest_difference < 1e-5
    assert [cost.photos for cost in result.batches] == [1, 8]
    for cost in result.batches:
        assert cost.ratio == pytest.approx(cost.two_networks_milliseconds / cost.shared_trunk_milliseconds)
        assert cost.shared_trunk_milliseconds > 0
    # Multiply-adds, counted twice: the patches' embedding, and the products of a block's four linear maps.
    patches, tokens, width = 36, 37, 24
    stem, linear = 2 * patches * 3 * 64 * width, 2 * tokens * 12 * width**2
    attention = 2 * 2 * tokens**2 * width
    # In both last blocks: keys and values of all tokens, but queries, attention's sums, projection and MLP of one.
    linear_of_one, attention_of_one = 2 * (2 * tokens + 10) * width**2, 2 * 2 * tokens * width
    saved = 1e9 * (result.two_networks_gigaflops - result.shared_trunk_gigaflops)
    saved_linear = stem + linear + 2 * (linear - linear_of_one)
    saved_attention = attention + 2 * (attention - attention_of_one)
    assert saved in (pytest.approx(saved_linear), pytest.approx(saved_linear + saved_attention))
    assert result.flop_ratio == pytest.approx(result.two_networks_gigaflops / result.shared_trunk_gigaflops)


def invoke(*arguments: str) -> Any:
    common = ["--backbone", "test_vit", "--image-size", "64", "--last-blocks", "3", "--device", "cpu"]
    return CliRunner().invoke(bench_app, [*arguments, *common], catch_exceptions=False)


def test_the_training_benchmark_as_a_command(tiny_flora: Path) -> None:
    options = ["--epochs", "1", "--views", "1", "--images", "24", "--precision", "float32", "--json"]
    values = json.loads(invoke("train", str(tiny_flora), *options).stdout)
    assert (values["images"], values["epochs"], values["views"], values["last_blocks"]) == (24, 1, 1, 3)
    assert values["ratio"] > 0
    assert values["plain_losses"].keys() == {"specialist", "generalist"}


def test_the_identification_benchmark_as_a_command() -> None:
    text = invoke("identify", "--rounds", "1", "--species", "5").stdout
    assert "flop ratio" in text
    assert "batches of 8 photos ratio" in text
