"""Species far apart: many random candidates, of which the most unlike ones are kept."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from indexer.demo_flora.geometry import Points
from indexer.demo_flora.leaves import leaf_shape
from indexer.demo_flora.names import epithets, family_names, genus_names
from indexer.demo_flora.traits import (
    Arrangement,
    FlowerTraits,
    HabitTraits,
    Inflorescence,
    LeafForm,
    LeafTraits,
    Margin,
    PetalShape,
    SpeciesTraits,
    Venation,
)

SPECIES_PER_GENUS = 3
GENERA_PER_FAMILY = 2
_SILHOUETTE_PIXELS = 28


@dataclass(frozen=True, slots=True)
class FloraSpecies:
    """An invented species: its names, its traits and whether anyone has photographed it alive."""

    species_id: str
    scientific_name: str
    genus: str
    family: str
    traits: SpeciesTraits
    has_photos: bool


def design_flora(seed: int, species: int, herbarium_only: int) -> tuple[FloraSpecies, ...]:
    """`species` invented species of which `herbarium_only`, drawn by lot, have no field photos."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    genera = -(-species // SPECIES_PER_GENUS)
    habits = _farthest([random_habit(rng) for _ in range(genera * 12)], genera)
    traits = _spread_species(habits, species, rng)
    names = genus_names(genera, rng)
    families = family_names([names[i] for i in rng.permutation(genera)], -(-genera // GENERA_PER_FAMILY))
    words = epithets(species, rng)
    unphotographed = set(rng.permutation(species)[:herbarium_only].tolist())
    family_of = rng.integers(len(families), size=genera)
    flora = []
    for i, one in enumerate(traits):
        genus = i % genera
        flora.append(
            FloraSpecies(
                species_id=f"{900001 + i}",
                scientific_name=f"{names[genus]} {words[i]}",
                genus=names[genus],
                family=families[family_of[genus]],
                traits=one,
                has_photos=i not in unphotographed,
            )
        )
    return tuple(flora)


_NODES = {
    Arrangement.ALTERNATE: (5, 8),
    Arrangement.OPPOSITE: (3, 6),
    Arrangement.WHORLED: (3, 5),
    Arrangement.ROSETTE: (7, 11),
}


def random_habit(rng: np.random.Generator) -> HabitTraits:
    """The build of a random genus."""
    arrangement = Arrangement(rng.choice(list(Arrangement)))
    rosette = arrangement is Arrangement.ROSETTE
    return HabitTraits(
        arrangement=arrangement,
        venation=Venation(rng.choice(list(Venation), p=[0.4, 0.25, 0.15, 0.2])),
        inflorescence=Inflorescence(
            rng.choice([i for i in Inflorescence if not (rosette and i is Inflorescence.AXILLARY)])
        ),
        nodes=int(rng.integers(*_NODES[arrangement])),
        leaves_per_node=int(rng.integers(4, 6)),
        leaf_length=float(rng.uniform(0.42, 0.62)),
        petiole=float(rng.uniform(0.05, 0.4)),
        divergence_degrees=float(rng.uniform(38, 85)),
    )


_SIMPLE_PLANS = (
    # aspect, widest, base, apex, heart
    ((0.07, 0.11), (0.40, 0.60), (0.5, 0.8), (0.6, 1.0), (0.0, 0.0)),  # linear
    ((0.22, 0.30), (0.28, 0.40), (0.7, 1.1), (1.1, 1.6), (0.0, 0.0)),  # lanceolate
    ((0.55, 0.72), (0.26, 0.36), (0.4, 0.6), (0.9, 1.3), (0.0, 0.05)),  # ovate
    ((0.50, 0.66), (0.68, 0.80), (1.0, 1.5), (0.4, 0.6), (0.0, 0.0)),  # obovate
    ((0.28, 0.36), (0.74, 0.84), (1.3, 1.8), (0.4, 0.5), (0.0, 0.0)),  # spatulate
    ((0.80, 0.95), (0.25, 0.32), (0.3, 0.4), (1.1, 1.5), (0.22, 0.32)),  # heart-shaped
    ((1.20, 1.45), (0.40, 0.50), (0.4, 0.5), (0.35, 0.45), (0.35, 0.45)),  # kidney-shaped
    ((0.92, 1.05), (0.48, 0.52), (0.45, 0.5), (0.45, 0.5), (0.0, 0.0)),  # round
    ((0.78, 0.95), (0.42, 0.55), (1.1, 1.4), (1.1, 1.5), (0.0, 0.0)),  # diamond
)


def random_leaf(rng: np.random.Generator) -> LeafTraits:
    """The leaf of a random species."""
    form = LeafForm(rng.choice(list(LeafForm), p=[0.44, 0.07, 0.06, 0.09, 0.09, 0.06, 0.06, 0.08, 0.05]))
    plan = _SIMPLE_PLANS[rng.integers(len(_SIMPLE_PLANS)) if form is LeafForm.SIMPLE else 2]
    aspect, widest, base, apex, heart = (float(rng.uniform(low, high)) for low, high in plan)
    ranges = {
        LeafForm.SAGITTATE: (0.5, 0.9),
        LeafForm.FAN: (0.1, 0.55),
        LeafForm.PALMATE_LOBED: (0.1, 0.9),
        LeafForm.PINNATE_LOBED: (0.5, 0.8),
        LeafForm.TRIFOLIATE: (0.55, 0.9),
        LeafForm.PALMATE_COMPOUND: (0.22, 0.4),
        LeafForm.PINNATE_COMPOUND: (0.22, 0.7),
        LeafForm.DISSECTED: (0.1, 0.9),
    }
    if form in ranges:
        aspect = float(rng.uniform(*ranges[form]))
    toothless = form in (LeafForm.DISSECTED, LeafForm.SAGITTATE) or aspect < 0.12
    margin = Margin.ENTIRE if toothless else Margin(rng.choice(list(Margin), p=[0.3, 0.25, 0.15, 0.15, 0.15]))
    coarse = {Margin.SERRATE: (5, 10), Margin.CRENATE: (5, 8), Margin.SPINY: (5, 9), Margin.UNDULATE: (3, 5)}
    teeth = int(rng.integers(*coarse[margin])) if margin in coarse else 0
    return LeafTraits(
        form=form,
        aspect=aspect,
        widest=widest,
        base=base,
        apex=apex,
        heart=float(rng.uniform(0.05, 0.3)) if form is LeafForm.SAGITTATE else heart,
        parts=int(rng.integers(3, 8)),
        depth=float(rng.uniform(0.55, 0.85)),
        margin=margin,
        teeth=teeth,
        tooth_depth=float(rng.uniform(0.05, 0.085)) * min(1.0, 0.45 + aspect),
        vein_pairs=int(rng.integers(3, 8)),
        vein_angle_degrees=float(rng.uniform(35, 70)),
    )


def random_flower(rng: np.random.Generator) -> FlowerTraits:
    """The flower of a random species."""
    return FlowerTraits(
        petals=int(rng.choice([3, 4, 5, 6, 8])),
        petal_shape=PetalShape(rng.choice(list(PetalShape))),
        size=float(rng.uniform(0.1, 0.16)),
        count=int(rng.integers(5, 9)),
    )


def silhouette(leaf: LeafTraits, venation: Venation) -> NDArray[np.float64]:
    """Blurred mask of one leaf without its stalk, (28, 28) in 0–1, the leaf's longer side filling it."""
    shape = leaf_shape(leaf, venation, petiole=0.0)
    outlines = [np.concatenate([blade.left, blade.right[::-1]]) for blade in shape.blades]
    lines: list[Points] = [line for line, _ in shape.stalks]
    every = np.concatenate([*outlines, *lines])
    low, high = every.min(axis=0), every.max(axis=0)
    scale = (_SILHOUETTE_PIXELS - 2) * 2 / float((high - low).max())
    middle = (low + high) / 2
    mask = Image.new("L", (_SILHOUETTE_PIXELS * 2,) * 2)
    pen = ImageDraw.Draw(mask)

    def pixels(points: Points) -> list[float]:
        flat: list[float] = ((points - middle) * scale + _SILHOUETTE_PIXELS).ravel().tolist()
        return flat

    for outline in outlines:
        pen.polygon(pixels(outline), fill=255)
    for line in lines:
        pen.line(pixels(line), fill=255, width=2)
    blurred = mask.filter(ImageFilter.GaussianBlur(1.5)).reduce(2)
    return np.asarray(blurred, dtype=np.float64) / 255.0


def species_vector(traits: SpeciesTraits) -> NDArray[np.float64]:
    """A point in trait space; distances there weigh what the eye notices first."""
    outline = silhouette(traits.leaf, traits.habit.venation).ravel()
    leaf, flower = traits.leaf, traits.flower
    return np.concatenate(
        [
            outline * 0.12,
            _one_of(Margin, leaf.margin) * leaf.tooth_depth * 6,
            _habit_vector(traits.habit) * 0.8,
            _one_of(PetalShape, flower.petal_shape) * 0.2,
            [flower.petals / 16],
        ]
    )


def _habit_vector(habit: HabitTraits) -> NDArray[np.float64]:
    return np.concatenate(
        [
            _one_of(Arrangement, habit.arrangement),
            _one_of(Inflorescence, habit.inflorescence) * 0.6,
            _one_of(Venation, habit.venation) * 0.3,
            [habit.nodes / 8, habit.leaf_length * 2, habit.petiole * 2, habit.divergence_degrees / 60],
        ]
    )


def _one_of(kinds: type[StrEnum], kind: StrEnum) -> NDArray[np.float64]:
    return np.array([float(kind is every) for every in kinds])


def _spread_species(habits: list[HabitTraits], species: int, rng: np.random.Generator) -> list[SpeciesTraits]:
    """Species i belongs to genus i modulo the number of genera, and is unlike all before it."""
    chosen: list[SpeciesTraits] = []
    vectors = np.empty((0, 0))
    tries = max(4, min(24, 2400 // species))
    for i in range(species):
        habit = habits[i % len(habits)]
        candidates = [SpeciesTraits(habit, random_leaf(rng), random_flower(rng)) for _ in range(tries)]
        points = np.stack([species_vector(one) for one in candidates])
        if not chosen:
            best = 0
            vectors = points[:1]
        else:
            gaps = ((vectors**2).sum(axis=1) - 2 * points @ vectors.T).min(axis=1) + (points**2).sum(axis=1)
            best = int(np.argmax(gaps))
            vectors = np.concatenate([vectors, points[best : best + 1]])
        chosen.append(candidates[best])
    return chosen


def _farthest(candidates: list[HabitTraits], count: int) -> list[HabitTraits]:
    """`count` of the `candidates`, each as far as can be from those before it."""
    points = np.stack([_habit_vector(one) for one in candidates])
    chosen = [0]
    gaps = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(gaps)))
        gaps = np.minimum(gaps, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return [candidates[i] for i in chosen]
