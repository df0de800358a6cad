"""Painting a plant's geometry on an image; what it looks like is decided by a `Palette`."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from indexer.demo_flora.geometry import Points, unit
from indexer.demo_flora.plant import Flower, Leaf, Plant
from indexer.demo_flora.traits import Inflorescence, PetalShape

Colour = tuple[int, int, int]
Projection = Callable[[Points], Points]
"""(N, 3) in space → (N, 2) pixels."""


@dataclass(frozen=True)
class Palette:
    """The colours of one image; drawn anew for every image, whatever the species.

    `shade_spread` is how much leaves differ in brightness, `halves` how much the two halves of one leaf
    do, `veins` the brightness of veins against the leaf, `shadow_alpha` the darkness (0–255) of what a
    leaf throws on what lies below it, `sheen` the strength (0–255) of light on its surface.
    """

    leaf: Colour
    stem: Colour
    petal: Colour
    eye: Colour
    shade_spread: float
    hue_spread: float
    halves: float
    veins: float
    opacity: int
    shadow_alpha: int
    shadow_offset: tuple[float, float]
    sheen: int
    hole: Colour
    damage: float


def from_hsv(hue_degrees: float, saturation: float, value: float) -> Colour:
    """8-bit red, green and blue; hue in degrees, the others 0–1 and clipped."""
    sat, val = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    r, g, b = colorsys.hsv_to_rgb((hue_degrees % 360.0) / 360.0, sat, val)
    return round(r * 255), round(g * 255), round(b * 255)


def petal_hue(rng: np.random.Generator) -> float:
    """A hue in degrees for flowers: any but the greens."""
    return float(rng.uniform(165, 430) % 360)


def scaled(colour: Colour, factor: float) -> Colour:
    """`colour` brightened (> 1) or darkened (< 1)."""
    r, g, b = (min(255, max(0, round(c * factor))) for c in colour)
    return r, g, b


def mixed(one: Colour, other: Colour, part: float) -> Colour:
    """`one` with `part` (0–1) of `other`."""
    r, g, b = (round(x * (1 - part) + y * part) for x, y in zip(one, other, strict=True))
    return r, g, b


class Brush:
    """Paints on one image with one projection and one palette."""

    def __init__(self, image: Image.Image, projection: Projection, palette: Palette, rng: np.random.Generator):
        self._pen = ImageDraw.Draw(image, "RGBA")
        self._projection = projection
        self._palette = palette
        self._rng = rng

    def plant(self, plant: Plant) -> None:
        """Paints all of a plant, the farthest parts first."""
        for line, width in plant.stems:
            self._line(line, width, self._palette.stem)
        leaves = sorted(plant.leaves, key=lambda leaf: float(leaf.foot[2] + 0.6 * leaf.length * leaf.along[2]))
        for leaf in leaves:
            self.leaf(leaf)
        for flower in plant.flowers:
            self.flower(flower, plant)

    def leaf(self, leaf: Leaf) -> None:
        """Paints a leaf with its shadow, its two halves, its veins and perhaps some damage."""
        palette, rng = self._palette, self._rng
        blades, stalks = leaf.shape.blades, leaf.shape.stalks
        lines = [line for blade in blades for line in (blade.left, blade.right, *blade.veins)]
        lines += [line for line, _ in stalks]
        at = iter(self._many([leaf.in_space(np.concatenate(lines))], [len(line) for line in lines]))
        size = self._pixels(leaf.foot, leaf.length)
        tone = scaled(self._leaf_colour(), float(np.exp(rng.normal(0, palette.shade_spread))))
        vein_tone = scaled(tone, palette.veins)
        lit = 1.0 + palette.halves * float(rng.choice([-1.0, 1.0])) * rng.uniform(0.5, 1.0)
        painted = [(next(at), next(at), [next(at) for _ in blade.veins]) for blade in blades]
        for left, right, _ in painted:
            if palette.shadow_alpha:
                outline = np.concatenate([left, right[::-1]]) + np.array(palette.shadow_offset) * size
                self._polygon(outline, (0, 0, 0, palette.shadow_alpha))
        for _, width in stalks:
            self._stroke(next(at), width * size, (*mixed(tone, palette.stem, 0.4), 255))
        for blade, (left, right, veins) in zip(blades, painted, strict=True):
            # The underside, seen where a leaf is folded, is paler.
            face = scaled(tone, 1.22) if blade.underside else tone
            self._polygon(np.concatenate([left, right[::-1]]), (*face, palette.opacity))
            self._polygon(np.concatenate([right, veins[0][::-1]]), (*scaled(face, lit), palette.opacity))
            if palette.sheen:
                self._sheen(left, right)
            for i, vein in enumerate(veins):
                self._stroke(vein, size * (0.018 if i == 0 else 0.009), (*vein_tone, 200))
            if rng.random() < palette.damage:
                self._hole(left, right, size)

    def flower(self, flower: Flower, plant: Plant) -> None:
        """Paints a flower, or a head of ray flowers, or one of the small flowers of a spike."""
        traits = plant.traits.flower
        kind = plant.traits.habit.inflorescence
        side = unit(np.cross(np.array([0.0, 1.0, 0.0]), flower.facing))
        over = np.cross(flower.facing, side)
        head = kind is Inflorescence.CAPITULUM
        petals = 10 + traits.petals if head else traits.petals
        outline = petal_outline(PetalShape.NARROW if head else traits.petal_shape, petals)
        start = self._rng.uniform(0, 2 * np.pi)
        placed = []
        for angle in start + np.arange(petals) * 2 * np.pi / petals:
            reach = self._rng.uniform(0.86, 1.0)
            c, s = np.cos(angle), np.sin(angle)
            placed.append(outline @ np.array([[c, s], [-s, c]]) * reach)
        ring = np.linspace(0, 2 * np.pi, 14)[:-1]
        eye = np.stack([np.cos(ring), np.sin(ring)], axis=1) * (0.42 if head else 0.2)
        parts = [*placed, eye]
        flat = np.concatenate(parts) * flower.radius
        space = flower.centre + flat[:, :1] * side + flat[:, 1:] * over
        painted = self._many([space], [len(part) for part in parts])
        for i, petal in enumerate(painted[:-1]):
            tone = scaled(self._palette.petal, 0.94 + 0.1 * (i % 2))
            self._polygon(petal, (*tone, 255), (*scaled(tone, 0.72), 255))
        self._polygon(painted[-1], (*self._palette.eye, 255))

    def _leaf_colour(self) -> Colour:
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in self._palette.leaf))
        return from_hsv(h * 360 + self._rng.normal(0, self._palette.hue_spread), s, v)

    def _sheen(self, left: Points, right: Points) -> None:
        """Light on the raised middle of the two halves of a blade, and shade at its foot."""
        middle = (left.mean(axis=0) + right.mean(axis=0)) / 2
        strength = self._palette.sheen
        for side, share in ((left, 0.62), (right, 0.45)):
            raised = np.concatenate([side, middle[None]])
            inner = raised.mean(axis=0) + (raised - raised.mean(axis=0)) * share
            self._polygon(inner, (255, 255, 225, strength))

    def _hole(self, left: Points, right: Points, size: float) -> None:
        """A hole eaten by an insect."""
        i = int(self._rng.integers(len(left) // 4, 3 * len(left) // 4))
        j = min(i, len(right) - 1)
        centre = left[i] + (right[j] - left[i]) * self._rng.uniform(0.1, 0.9)
        ring = np.linspace(0, 2 * np.pi, 9)[:-1]
        radius = size * self._rng.uniform(0.015, 0.035) * self._rng.uniform(0.7, 1.3, (8, 1))
        self._polygon(centre + np.stack([np.cos(ring), np.sin(ring)], axis=1) * radius, (*self._palette.hole, 255))

    def _many(self, space: list[Points], counts: list[int]) -> list[Points]:
        """One projection for many lines; it is the calls that cost."""
        return np.split(self._projection(np.concatenate(space)), np.cumsum(counts)[:-1])

    def _pixels(self, at: Points, length: float) -> float:
        """How many pixels `length` is at a point in space, seen from the side."""
        ends = self._projection(np.stack([at, at + np.array([length, 0.0, 0.0])]))
        return float(np.hypot(*(ends[1] - ends[0])))

    def _line(self, line: Points, width: float, colour: Colour) -> None:
        self._stroke(self._projection(line), width * self._pixels(line[0], 1.0), (*colour, 255))

    def _stroke(self, pixels: Points, width: float, colour: tuple[int, int, int, int]) -> None:
        self._pen.line(pixels.ravel().tolist(), fill=colour, width=max(1, round(width)), joint="curve")

    def _polygon(
        self,
        pixels: Points,
        colour: tuple[int, int, int, int],
        outline: tuple[int, int, int, int] | None = None,
    ) -> None:
        self._pen.polygon(pixels.ravel().tolist(), fill=colour, outline=outline)


def petal_outline(shape: PetalShape, petals: int) -> Points:
    """One petal from (0, 0) to a distance of 1; (N, 2)."""
    at = np.linspace(0.0, 1.0, 9)
    room = min(0.62, np.pi / petals)
    width = {
        PetalShape.ROUND: np.sin(np.pi * at**1.6) ** 0.6 * room * 1.05,
        PetalShape.NARROW: np.sin(np.pi * at**0.9) ** 0.7 * room * 0.5,
        PetalShape.NOTCHED: np.sin(np.pi * at**2.2 * 0.86) ** 0.8 * room * 1.1,
        PetalShape.POINTED: np.sin(np.pi * at**0.7) * room * 0.9,
    }[shape]
    left = np.stack([at, width], axis=1)
    right = np.stack([at, -width], axis=1)[::-1]
    if shape is PetalShape.NOTCHED:
        return np.concatenate([left, [[0.78, 0.0]], right])
    return np.concatenate([left, right])
