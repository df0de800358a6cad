from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from indexer.augment import random_view
from indexer.run_config import AugmentationConfig, SamplingConfig
from indexer.sampling import CrossDomainSampler
from indexer.views import LiveViews, PictureReader, affordable_views, fill_cache
from models.compute import Compute
from models.errors import InvalidConfig
from models.preprocess import Preprocessing

CPU = Compute("cpu", None)
PLAIN = Preprocessing(24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop="squash")
AUGMENTATION = AugmentationConfig()


def sampler(classes: list[int], field: list[int], species: int, per_role: int, seed: int = 0) -> CrossDomainSampler:
    rows = np.arange(len(classes))
    config = SamplingConfig(species_per_batch=species, images_per_role=per_role)
    return CrossDomainSampler(rows, np.array(classes), np.array(field, dtype=bool), config, np.random.default_rng(seed))


def test_rare_species_come_as_often_as_common_ones() -> None:
    classes = np.array([0] * 100 + [1] * 3 + [2] * 50 + [3] * 2)
    field = np.array([i % 2 for i in range(103)] + [0] * 52, dtype=bool)  # 2 and 3 are herbarium-only
    drawn = sampler(list(classes), list(field), species=2, per_role=2)
    species_seen, both_roles = Counter(), 0
    for _ in range(200):
        rows = drawn.batch()
        assert len(rows) == drawn.expected_batch == 6
        species_seen.update(set(classes[rows].tolist()))
        both_roles += len(set(field[rows].tolist())) == 2
    assert species_seen == {0: 100, 1: 100, 2: 100, 3: 100}
    assert both_roles == 200


def test_a_batch_never_repeats_an_image_that_has_siblings_enough() -> None:
    drawn = sampler([0] * 4 + [1] * 4, [0, 0, 1, 1] * 2, species=2, per_role=2)
    assert len(set(drawn.batch().tolist())) == 8


def test_a_single_image_a_species_is_drawn_more_than_once() -> None:
    drawn = sampler([0, 1, 2], [0, 0, 0], species=3, per_role=2)
    assert sorted(drawn.batch().tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("both", "single", "species"), [(1, 9, 6), (9, 1, 6), (0, 4, 8), (4, 0, 8)])
def test_batches_are_as_large_as_the_species_allow(both: int, single: int, species: int) -> None:
    classes = [c for c in range(both) for _ in range(2)] + list(range(both, both + single))
    field = [0, 1] * both + [0] * single
    rows = sampler(classes, field, species, per_role=1).batch()
    assert len({classes[r] for r in rows}) == min(species, both + single)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(1)
    paths = []
    for i in range(5):
        pixels = np.kron(generator.integers(0, 255, (6, 5, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_views_depend_on_seed_row_and_number_alone(pictures: list[Path]) -> None:
    reader = PictureReader(pictures, PLAIN, AUGMENTATION, seed=3)
    first = reader.views(2, [0, 1, 2])
    np.testing.assert_array_equal(reader.views(2, [1])[0], first[1])
    assert not np.array_equal(first[1], first[2])
    assert not np.array_equal(PictureReader(pictures, PLAIN, AUGMENTATION, seed=4).views(2, [1])[0], first[1])
    with Image.open(pictures[2]) as image:
        np.testing.assert_array_equal(first[0], PLAIN.apply(image.convert("RGB")))


def test_augmentation_keeps_colour_and_sharp_edges() -> None:
    red = Image.new("RGB", (60, 60), (180, 40, 40))
    for seed in range(20):
        view = random_view(red, PLAIN, AUGMENTATION, np.random.default_rng(seed))
        assert view.shape == (3, 24, 24)
        assert (view[0] - view[1]).mean() > 0.4  # stays red: never grey, never another hue
    edge = Image.new("RGB", (60, 60), (255, 255, 255))
    edge.paste((0, 0, 0), (0, 0, 30, 60))
    plain = AugmentationConfig(rotation_degrees=0, brightness=0, contrast=0, saturation=0, hue=0, vertical_flip=0)
    view = random_view(edge, PLAIN, plain, np.random.default_rng(0))
    assert np.abs(np.diff(view[0, 12])).max() > 0.8  # not blurred


@pytest.mark.parametrize("degrees", [0.0, 90.0])
def test_turned_corners_are_not_black(degrees: float) -> None:
    bright = Image.new("RGB", (40, 60), (230, 230, 230))
    config = AugmentationConfig(rotation_degrees=degrees, brightness=0, contrast=0, saturation=0, hue=0)
    for seed in range(10):
        assert random_view(bright, PLAIN, config, np.random.default_rng(seed)).min() > 0.7


class Doubling(nn.Module):
    """Stands for a frozen trunk and counts the pictures that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        return pixels * 2


def filled(folder: Path, paths: list[Path], frozen: nn.Module, key: str = "k", views: int = 2):  # type: ignore[no-untyped-def]
    reader = PictureReader(paths, PLAIN, AUGMENTATION, seed=3)
    return fill_cache(folder, reader, frozen, (3, 24, 24), views, CPU, key=key, workers=2, batch=4)


def test_cached_views_equal_live_ones(pictures: list[Path], tmp_path: Path) -> None:
    frozen = Doubling()
    cached = filled(tmp_path / "cache", pictures, frozen)
    live = LiveViews(PictureReader(pictures, PLAIN, AUGMENTATION, seed=3), frozen, CPU, workers=2)
    rows = np.array([4, 0, 0, 3])
    torch.testing.assert_close(cached.plain_batch(rows), live.plain_batch(rows), atol=2e-3, rtol=1e-3)
    batch = cached.training_batch(rows, np.random.default_rng(0))
    assert batch.dtype == torch.float32
    reader = PictureReader(pictures, PLAIN, AUGMENTATION, seed=3)
    allowed = [torch.from_numpy(2 * reader.views(4, [v])[0]) for v in (1, 2)]
    assert any(torch.allclose(batch[0], a, atol=2e-3) for a in allowed)
    assert not torch.equal(live.training_batch(rows, np.random.default_rng(0))[1], batch[1])


def test_a_filled_cache_is_not_filled_again(pictures: list[Path], tmp_path: Path) -> None:
    frozen = Doubling()
    filled(tmp_path / "cache", pictures, frozen)
    assert frozen.seen == 5 * 3
    filled(tmp_path / "cache", pictures, frozen)
    assert frozen.seen == 5 * 3
    filled(tmp_path / "cache", pictures, frozen, key="other weights")
    assert frozen.seen == 2 * 5 * 3


def test_a_killed_filling_goes_on_where_it_was(pictures: list[Path], tmp_path: Path) -> None:
    class Dies(Doubling):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.seen >= 6:
                raise KeyboardInterrupt
            return super().forward(pixels)

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "cache", pictures, Dies())
    rest = Doubling()
    cached = filled(tmp_path / "cache", pictures, rest)
    assert 0 < rest.seen < 15
    reader = PictureReader(pictures, PLAIN, AUGMENTATION, seed=3)
    expected = np.stack([2 * reader.views(i, [0])[0] for i in range(5)])
    torch.testing.assert_close(cached.plain_batch(np.arange(5)), torch.from_numpy(expected), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("budget", "views"), [(0, -1), (199, -1), (200, 0), (399, 0), (400, 1), (600, 2), (10**9, 4)])
def test_the_budget_decides_on_the_number_of_views(budget: int, views: int) -> None:
    assert affordable_views(images=10, shape=(2, 5), wanted=4, budget_bytes=budget) == views


def test_a_cache_larger_than_the_disk_is_an_error_with_a_remedy(pictures: list[Path], tmp_path: Path) -> None:
    reader = PictureReader(pictures, PLAIN, AUGMENTATION, seed=3)
    with pytest.raises(InvalidConfig, match=r"the cache needs .* GiB .* lower cache_gib"):
        fill_cache(tmp_path / "cache", reader, Doubling(), (10**9, 10**5), 2, CPU, key="k", workers=1)
    assert not list((tmp_path / "cache").glob("values*"))


def test_values_beyond_float16_are_refused_and_not_cached(pictures: list[Path], tmp_path: Path) -> None:
    class Huge(Doubling):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels * 1e6

    with pytest.raises(InvalidConfig, match="beyond float16"):
        filled(tmp_path / "cache", pictures, Huge())


def test_a_batch_never_draws_a_species_twice() -> None:
    drawn = sampler([c for c in range(20) for _ in range(2)], [0, 1] * 20, species=16, per_role=1)
    counts: Counter[int] = Counter()
    for _ in range(50):
        rows = drawn.batch()
        assert len(set(rows.tolist())) == len(rows) == 32
        counts.update({int(r) // 2 for r in rows})
    assert max(counts.values()) - min(counts.values()) <= 2
