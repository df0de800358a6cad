"""Only shape tells the invented species apart, and it does so across the two kinds of picture."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from indexer.demo_flora import draw_flora
from indexer.demo_flora.brush import Brush, Palette
from indexer.demo_flora.geometry import Points, rotation
from indexer.demo_flora.leaves import folded, leaf_shape
from indexer.demo_flora.photo import render_photo
from indexer.demo_flora.plant import Plant, extent, grow, individual_leaf
from indexer.demo_flora.sheet import render_sheet
from indexer.demo_flora.spread import (
    FloraSpecies,
    design_flora,
    random_flower,
    random_habit,
    random_leaf,
    silhouette,
    species_vector,
)
from indexer.demo_flora.traits import Arrangement, LeafForm, SpeciesTraits

SPECIES, PICTURES = 10, 10
Features = NDArray[np.float64]
Labels = NDArray[np.int64]
Siblings = NDArray[np.bool_]

_INK = Palette(
    leaf=(0, 0, 0), stem=(0, 0, 0), petal=(0, 0, 0), eye=(0, 0, 0), shade_spread=0.0, hue_spread=0.0, halves=0.0,
    veins=1.0, opacity=255, shadow_alpha=0, shadow_offset=(0.0, 0.0), sheen=0, hole=(0, 0, 0), damage=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def flora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_flora(
        tmp_path_factory.mktemp("shapes") / "flora",
        species=SPECIES,
        herbarium_only=0,
        sheets_per_species=PICTURES,
        photos_per_species=PICTURES,
        test_photos_per_species=0,
        image_height=96,
        workers=1,
    ).folder


def colour_histogram(path: Path) -> Features:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3) // 64
    counts = np.bincount(pixels @ np.array([16, 4, 1]), minlength=64)
    return np.sqrt(counts / counts.sum())


def hues(path: Path) -> Features:
    with Image.open(path) as image:
        counts = np.bincount(np.asarray(image.convert("HSV"))[..., 0].ravel() // 11, minlength=24)
    return counts / counts.sum()


def mean_and_spread(path: Path) -> Features:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float64).reshape(-1, 3)
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])


def file_and_frame(path: Path) -> Features:
    with Image.open(path) as image:
        return np.array([path.stat().st_size, *image.size, path.stat().st_size / np.prod(image.size)])


def hit_rate(
    known: Features, known_species: Labels, asked: Features, asked_species: Labels, siblings: Siblings | None = None
) -> float:
    """Share of `asked` rows whose nearest species mean among `known` is their own.

    `siblings` (asked, known) marks what a row must not be compared with: itself, and pictures of its plant.
    """
    hits = 0
    for i, (row, species) in enumerate(zip(asked, asked_species, strict=True)):
        others = np.ones(len(known), dtype=bool) if siblings is None else ~siblings[i]
        means = [known[others & (known_species == s)].mean(axis=0) for s in range(SPECIES)]
        hits += int(np.argmin(np.linalg.norm(np.stack(means) - row, axis=1))) == species
    return hits / len(asked)


@pytest.mark.parametrize("role", ["sheet", "field"])
@pytest.mark.parametrize("features", [colour_histogram, hues, mean_and_spread, file_and_frame])
def test_colour_light_and_file_size_do_not_give_species_away(flora_folder: Path, role: str, features) -> None:  # type: ignore[no-untyped-def]
    with (flora_folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == role]
    ids = sorted({row["species_id"] for row in rows})
    species = np.array([ids.index(row["species_id"]) for row in rows])
    table = np.stack([features(flora_folder / row["path"]) for row in rows])
    table = (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-9)
    plants = np.array([row["specimen"] + row["observation"] for row in rows])
    siblings = plants[:, None] == plants[None, :]
    # Guessing hits 0.10 ± 0.03; how much of the frame a plant fills, which is shape, may add a little. A
    # colour of its own for each species would hit nearly always.
    assert hit_rate(table, species, table, species, siblings) < 3 / SPECIES


def test_the_colour_test_would_notice_a_leak() -> None:
    rng = np.random.default_rng(0)
    species = np.repeat(np.arange(SPECIES), PICTURES)
    table = rng.normal(size=(len(species), 6)) + 0.9 * rng.normal(size=(SPECIES, 6))[species]
    itself = np.eye(len(species), dtype=bool)
    assert hit_rate(table, species, table, species, itself) > 3 / SPECIES


def clean_silhouette(plant: Plant, turned: Points) -> Features:
    """The plant's outline, black on white, centred and blurred; (24 · 24,)."""
    size = 96

    def seen(space: Points) -> Points:
        return (space @ turned.T)[:, :2]

    bounds = seen(extent(plant))
    low, high = bounds.min(axis=0), bounds.max(axis=0)
    scale, middle = size * 0.95 / float((high - low).max()), (low + high) / 2
    image = Image.new("RGB", (size, size), "white")

    def projection(space: Points) -> Points:
        return (seen(space) - middle) * np.array([scale, -scale]) + size / 2

    Brush(image, projection, _INK, np.random.default_rng(0)).plant(plant)
    small = image.convert("L").filter(ImageFilter.GaussianBlur(2)).reduce(4)
    return 1.0 - np.asarray(small, dtype=np.float64).ravel() / 255.0


def test_living_plants_match_pressed_ones_by_silhouette_alone() -> None:
    flora = design_flora(7, SPECIES, 0)
    species = np.repeat(np.arange(SPECIES), 5)

    def outlines(pressed: bool) -> Features:
        rows = []
        for i, one in enumerate(species):
            rng = np.random.default_rng([i, pressed])
            turned = np.eye(3) if pressed else rotation(rng.normal(0, 0.25), rng.uniform(0, 0.5), rng.normal(0, 0.1))
            rows.append(clean_silhouette(grow(flora[one].traits, rng, pressed=pressed), turned))
        return np.stack(rows)

    pressed, alive = outlines(True), outlines(False)
    itself = np.eye(len(species), dtype=bool)
    assert hit_rate(pressed, species, pressed, species, itself) > 5 / SPECIES
    assert hit_rate(pressed, species, alive, species) > 3 / SPECIES


def test_individuals_of_a_species_are_alike_and_species_are_not() -> None:
    flora = design_flora(7, 12, 0)
    leaves = defaultdict(list)
    for one in flora:
        for i in range(4):
            leaves[one.species_id].append(species_vector(_with_leaf_of(one, i)))
    means = {key: np.mean(rows, axis=0) for key, rows in leaves.items()}
    within = [np.linalg.norm(row - means[key]) for key, rows in leaves.items() for row in rows]
    between = [np.linalg.norm(means[a] - means[b]) for a in means for b in means if a < b]
    assert min(between) > 3 * np.mean(within)


def _with_leaf_of(species: FloraSpecies, individual: int) -> SpeciesTraits:
    leaf = individual_leaf(species.traits.leaf, np.random.default_rng(individual))
    return SpeciesTraits(species.traits.habit, leaf, species.traits.flower)


def test_chosen_species_are_farther_apart_than_random_ones() -> None:
    rng = np.random.default_rng(0)
    chosen = [species_vector(one.traits) for one in design_flora(7, 18, 0)]
    drawn = [species_vector(SpeciesTraits(random_habit(rng), random_leaf(rng), random_flower(rng))) for _ in range(18)]

    def smallest_gap(points: list[Features]) -> float:
        return min(float(np.linalg.norm(a - b)) for i, a in enumerate(points) for b in points[:i])

    assert smallest_gap(chosen) > 1.3 * smallest_gap(drawn)


def test_congeners_share_arrangement_and_venation_but_not_leaves() -> None:
    genera = defaultdict(list)
    for one in design_flora(7, 12, 0):
        genera[one.genus].append(one.traits)
    for congeners in genera.values():
        assert len({traits.habit for traits in congeners}) == 1
        assert len({traits.leaf for traits in congeners}) == len(congeners) > 1


@pytest.mark.parametrize("form", list(LeafForm))
def test_every_leaf_form_is_drawn_as_a_surface_within_its_bounds(form: LeafForm) -> None:
    rng = np.random.default_rng(1)
    seen = 0
    while seen < 4:
        leaf = random_leaf(rng)
        if leaf.form is not form:
            continue
        seen += 1
        habit = random_habit(rng)
        shape = leaf_shape(leaf, habit.venation, petiole=0.2)
        assert shape.area > 0.02
        lines = [line for blade in shape.blades for line in (blade.left, blade.right, *blade.veins)]
        every = np.concatenate([*lines, *(line for line, _ in shape.stalks)])
        assert np.isfinite(every).all()
        assert np.abs(every).max() < 1.6
        assert 0.02 < silhouette(leaf, habit.venation).mean() < 0.95


def test_a_folded_leaf_covers_less_and_keeps_its_surface() -> None:
    rng = np.random.default_rng(2)
    leaf = next(one for one in iter(lambda: random_leaf(rng), None) if one.form is LeafForm.SIMPLE and one.aspect > 0.4)
    shape = leaf_shape(leaf, random_habit(rng).venation, petiole=0.2)
    bent = folded(shape, 0.8)
    assert [blade.underside for blade in bent.blades] == [False, True]
    assert max(blade.left[:, 0].max() for blade in bent.blades) <= 0.8 + 1e-9
    assert bent.area == pytest.approx(shape.area, rel=0.12)
    assert folded(shape, 5.0) is shape


@pytest.mark.parametrize("arrangement", list(Arrangement))
def test_every_arrangement_is_drawn_pressed_and_alive(arrangement: Arrangement) -> None:
    rng = np.random.default_rng(3)
    habit = next(one for one in iter(lambda: random_habit(rng), None) if one.arrangement is arrangement)
    traits = SpeciesTraits(habit, random_leaf(rng), random_flower(rng))
    sheet = render_sheet(grow(traits, rng, pressed=True), 96, rng)
    assert sheet.size == (64, 96)
    photo, _ = render_photo(grow(traits, rng, pressed=False), 96, rng)
    assert sorted(photo.size) == [72, 96]
