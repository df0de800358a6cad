"""Growth: the traits of a species → one individual in space.

x points right, y up, z to the viewer; the stem is about 1 long and starts at the origin. A pressed plant
lies in the plane z = 0, where z is only the order in which its parts lie on one another.
"""

from dataclasses import dataclass, replace

import numpy as np

from indexer.demo_flora.geometry import Points, turn, unit
from indexer.demo_flora.leaves import LeafShape, folded, leaf_shape
from indexer.demo_flora.traits import Arrangement, Inflorescence, LeafTraits, SpeciesTraits

_USUAL_SURFACE = 0.75
"""Surface of all leaves, in stem lengths squared."""

UP = np.array([0.0, 1.0, 0.0])
TO_VIEWER = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Leaf:
    """A leaf in space: `along` and `across` are unit vectors, `droop` and `keel` bend it in leaf lengths."""

    shape: LeafShape
    foot: Points
    along: Points
    across: Points
    length: float
    droop: float
    sway: float
    keel: float

    def in_space(self, points: Points) -> Points:
        """Points of the leaf's own plane in space; (N, 2) → (N, 3)."""
        x, y = points[:, 0], points[:, 1]
        normal = np.cross(self.along, self.across)
        sideways = y + self.sway * x * x
        lift = self.keel * np.abs(y) - self.droop * x * x
        local = x[:, None] * self.along + sideways[:, None] * self.across + lift[:, None] * normal
        return self.foot + self.length * local


@dataclass(frozen=True)
class Flower:
    """A flower of `radius` facing along `facing` (unit)."""

    centre: Points
    facing: Points
    radius: float


@dataclass(frozen=True)
class Plant:
    """One individual. `stems` are (N, 3) lines with a width."""

    traits: SpeciesTraits
    stems: tuple[tuple[Points, float], ...]
    leaves: tuple[Leaf, ...]
    flowers: tuple[Flower, ...]


def grow(traits: SpeciesTraits, rng: np.random.Generator, *, pressed: bool) -> Plant:
    """An individual of a species; `rng` decides its age, its vigour and all chance of growth."""
    habit = traits.habit
    flowering = rng.random() < 0.85
    shapes = tuple(
        leaf_shape(individual_leaf(traits.leaf, rng), habit.venation, habit.petiole * rng.uniform(0.85, 1.15))
        for _ in range(3)
    )
    vigour = _fullness(traits, shapes) * float(rng.uniform(0.9, 1.1))
    if habit.arrangement is Arrangement.ROSETTE:
        stem, leaves = _rosette(traits, shapes, vigour, rng, pressed)
    else:
        stem, leaves = _shoot(traits, shapes, vigour, rng, pressed)
    stems, flowers = _inflorescence(traits, stem, rng, pressed) if flowering else ((), ())
    if habit.arrangement is Arrangement.ROSETTE and not flowering:
        return Plant(traits, (), leaves, ())
    return Plant(traits, ((stem, 0.016), *stems), leaves, flowers)


def extent(plant: Plant) -> Points:
    """Points in space that bound all parts of a plant, (N, 3)."""
    parts = [line for line, _ in plant.stems]
    for leaf in plant.leaves:
        outline = [line[::6] for blade in leaf.shape.blades for line in (blade.left, blade.right)]
        parts.append(leaf.in_space(np.concatenate([*outline, *(line for line, _ in leaf.shape.stalks)])))
    for flower in plant.flowers:
        parts.append(flower.centre + flower.radius * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]))
    return np.concatenate(parts)


def leaf_cover(plant: Plant, box: float) -> float:
    """About what the leaves cover of a `box` around the plant, stem lengths squared, overlaps counted once."""
    surface = sum(leaf.shape.area * leaf.length**2 for leaf in plant.leaves)
    return float(box * (1.0 - np.exp(-surface / box)))


def _fullness(traits: SpeciesTraits, shapes: tuple[LeafShape, ...]) -> float:
    """How much longer than usual leaves grow so that few or narrow ones cover as much as many or broad ones.

    Otherwise the share of green in a picture would give species away.
    """
    habit = traits.habit
    leaves = habit.nodes * {Arrangement.OPPOSITE: 2, Arrangement.WHORLED: habit.leaves_per_node}.get(
        habit.arrangement, 1
    )
    surface = leaves * habit.leaf_length**2 * float(np.mean([shape.area for shape in shapes]))
    return float(np.clip((_USUAL_SURFACE / surface) ** 0.35, 0.72, 1.3))


def individual_leaf(leaf: LeafTraits, rng: np.random.Generator) -> LeafTraits:
    """`leaf` as one plant happens to grow it."""
    return replace(
        leaf,
        aspect=leaf.aspect * float(np.exp(rng.normal(0, 0.05))),
        widest=float(np.clip(leaf.widest + rng.normal(0, 0.015), 0.1, 0.9)),
        heart=leaf.heart * float(rng.uniform(0.85, 1.15)),
        depth=float(np.clip(leaf.depth * rng.uniform(0.93, 1.07), 0.0, 0.92)),
        teeth=max(0, leaf.teeth + int(rng.integers(-1, 2))) if leaf.teeth else 0,
        tooth_depth=leaf.tooth_depth * float(rng.uniform(0.85, 1.15)),
        vein_angle_degrees=leaf.vein_angle_degrees + float(rng.normal(0, 3)),
    )


def _stem_line(rng: np.random.Generator, pressed: bool, wobble: float = 1.0) -> Points:
    at = np.linspace(0.0, 1.0, 24)
    lean, bow = rng.normal(0, 0.07, 2) * wobble
    depth = 0.0 if pressed else rng.normal(0, 0.08)
    return np.stack([lean * at + bow * np.sin(np.pi * at), at, depth * at * at], axis=1)


def _on(line: Points, position: float) -> Points:
    return np.stack([np.interp(position, np.linspace(0, 1, len(line)), line[:, i]) for i in range(3)])


def _leaf(
    shape: LeafShape,
    foot: Points,
    azimuth: float,
    elevation: float,
    length: float,
    rng: np.random.Generator,
    pressed: bool,
) -> Leaf:
    """`azimuth` 0 points right, π left, −π/2 to the viewer; `elevation` from the horizontal; radians."""
    if pressed:
        side = 1.0 if np.cos(azimuth) >= 0 else -1.0
        along = np.array([side * np.cos(elevation), np.sin(elevation), 0.0])
        across = np.cross(TO_VIEWER, along)
        if rng.random() < 0.1:
            shape = folded(shape, float(rng.uniform(0.7, 1.1)))
        return Leaf(shape, foot, along, across, length, 0.0, float(rng.normal(0, 0.05)), 0.0)
    along = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(elevation), -np.sin(azimuth) * np.cos(elevation)])
    # Leaves turn to the light, which comes from above and, as photographers like it, from behind them.
    light = unit(np.array([rng.normal(0, 0.3), 0.45 + rng.normal(0, 0.2), 1.0]))
    across = unit(np.cross(light, along))
    droop, sway, keel = float(rng.uniform(0.0, 0.22)), float(rng.normal(0, 0.05)), float(rng.uniform(0, 0.25))
    return Leaf(shape, foot, along, across, length, droop, sway, keel)


def _shoot(
    traits: SpeciesTraits,
    shapes: tuple[LeafShape, ...],
    vigour: float,
    rng: np.random.Generator,
    pressed: bool,
) -> tuple[Points, tuple[Leaf, ...]]:
    habit = traits.habit
    stem = _stem_line(rng, pressed)
    nodes = max(2, habit.nodes + int(rng.integers(-1, 2)))
    top = 0.72 if habit.inflorescence in (Inflorescence.RACEME, Inflorescence.SPIKE) else 0.88
    divergence = np.radians(habit.divergence_degrees)
    leaves: list[Leaf] = []
    start = rng.integers(2)
    for i, height in enumerate(np.linspace(0.1, top, nodes)):
        foot = _on(stem, height + rng.normal(0, 0.008))
        size = habit.leaf_length * vigour * (1.0 - 0.45 * (height / top) ** 2)
        if habit.arrangement is Arrangement.ALTERNATE:
            azimuths = [float(np.pi) * ((i + int(start)) % 2)]
        elif habit.arrangement is Arrangement.OPPOSITE:
            azimuths = [0.0, float(np.pi)]
        else:
            count = habit.leaves_per_node
            azimuths = (np.arange(count) * 2 * np.pi / count + 0.3 + 0.5 * i).tolist()
        for azimuth in azimuths:
            spin = rng.normal(0, 0.35)
            elevation = np.pi / 2 - divergence * rng.uniform(0.85, 1.15) + 0.12 * rng.normal()
            if habit.arrangement is Arrangement.WHORLED and pressed:
                # A whorl pressed flat becomes a fan.
                elevation += 0.75 * np.sin(azimuth)
            length = size * float(rng.uniform(0.86, 1.1))
            shape = shapes[rng.integers(len(shapes))]
            leaves.append(_leaf(shape, foot, azimuth + spin * (not pressed), elevation, length, rng, pressed))
    return stem, tuple(leaves)


def _rosette(
    traits: SpeciesTraits,
    shapes: tuple[LeafShape, ...],
    vigour: float,
    rng: np.random.Generator,
    pressed: bool,
) -> tuple[Points, tuple[Leaf, ...]]:
    """All leaves at the ground around a bare flower stalk."""
    habit = traits.habit
    stem = _stem_line(rng, pressed, wobble=0.7)
    count = habit.nodes + int(rng.integers(-1, 2))
    leaves = []
    for i, angle in enumerate(np.linspace(-0.35, np.pi + 0.35, count)):
        direction = angle + rng.normal(0, 0.1)
        length = habit.leaf_length * vigour * float(rng.uniform(0.85, 1.1))
        along = np.array([np.cos(direction), np.sin(direction) * 0.9, 0.0])
        across = np.cross(TO_VIEWER, unit(along))
        if not pressed:
            along[2] = rng.uniform(0.0, 0.5)
            across = unit(np.cross(TO_VIEWER + rng.normal(0, 0.25, 3), along))
        foot = np.array([0.0, 0.0, 0.001 * i])
        droop = 0.0 if pressed else float(rng.uniform(0.0, 0.2))
        keel = 0.0 if pressed else float(rng.uniform(0.0, 0.25))
        shape = shapes[rng.integers(len(shapes))]
        leaves.append(Leaf(shape, foot, unit(along), across, length, droop, float(rng.normal(0, 0.05)), keel))
    return stem, tuple(leaves)


def _inflorescence(
    traits: SpeciesTraits, stem: Points, rng: np.random.Generator, pressed: bool
) -> tuple[tuple[tuple[Points, float], ...], tuple[Flower, ...]]:
    """Flower stalks and flowers on a stem."""
    kind, flower = traits.habit.inflorescence, traits.flower
    tip = stem[-1]
    tilt = 0.1 if pressed else 0.4

    def facing() -> Points:
        return unit(TO_VIEWER + 0.3 * UP * (not pressed) + rng.normal(0, tilt, 3) * np.array([1.0, 1.0, 0.0]))

    stalks: list[tuple[Points, float]] = []
    flowers: list[Flower] = []

    def stalked(foot: Points, end: Points, radius: float) -> None:
        stalks.append((np.stack([foot, end]), 0.008))
        flowers.append(Flower(end, facing(), radius * float(rng.uniform(0.9, 1.1))))

    if kind is Inflorescence.SOLITARY:
        flowers.append(Flower(tip, facing(), flower.size * 1.25))
    elif kind is Inflorescence.CAPITULUM:
        flowers.append(Flower(tip, facing(), flower.size * 1.2))
    elif kind is Inflorescence.UMBEL:
        for angle in np.linspace(-1.25, 1.25, flower.count + 2):
            reach = flower.size * 1.9
            away = np.append(turn(np.array([0.0, reach]), angle), 0.0 if pressed else rng.normal(0, 0.05))
            stalked(tip, tip + away, flower.size * 0.36)
    elif kind is Inflorescence.AXILLARY:
        for i, height in enumerate(np.linspace(0.25, 0.9, max(3, traits.habit.nodes - 1))):
            foot = _on(stem, height)
            away = np.array([0.11 * (-1) ** i, 0.06, 0.05])
            stalked(foot, foot + away, flower.size * 0.55)
    else:
        spike = kind is Inflorescence.SPIKE
        count = flower.count * (3 if spike else 1) + 2
        for i, height in enumerate(np.linspace(0.7, 1.0, count)):
            foot = _on(stem, height)
            reach = 0.015 if spike else 0.1 * (1.15 - (height - 0.7) / 0.4)
            away = np.array([reach * (-1) ** i, 0.35 * reach, 0.02])
            stalked(foot, foot + away, flower.size * (0.24 if spike else 0.36))
    return tuple(stalks), tuple(flowers)
