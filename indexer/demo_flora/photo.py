"""A plant, alive: the field photo."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from indexer.demo_flora.brush import Brush, Colour, Palette, Projection, from_hsv, mixed, petal_hue, scaled
from indexer.demo_flora.geometry import Points, rotation, turn
from indexer.demo_flora.plant import Plant, extent, leaf_cover
from indexer.demo_flora.texture import Field, clouds, developed
from models.specimens import Organ

CAMERA_DISTANCE = 3.2
"""In stem lengths; near enough that near leaves look larger."""


_COVERED = (0.2, 0.5)
"""Share of the picture that leaves cover, where they can."""


def render_photo(plant: Plant, long_side: int, rng: np.random.Generator) -> tuple[Image.Image, Organ]:
    """An RGB picture, 4:3 or 3:4, of a living `plant`, and what it shows: habit, leaf or flower."""
    portrait = rng.random() < 0.6
    short = round(long_side * 0.75)
    size = (2 * short, 2 * long_side) if portrait else (2 * long_side, 2 * short)
    green = rng.uniform(70, 126)
    palette = _living(green, rng)
    image = _background(size, green, palette, rng)
    projection, organ = _framed(plant, size, rng)
    Brush(image, projection, palette, rng).plant(plant)
    _foreground(image, palette, rng)
    small = (size[0] // 2, size[1] // 2)
    light = _daylight(small, rng)
    warm, tint = rng.normal(0, 0.09), rng.normal(0, 0.03)
    cast = (1.0 + warm, 1.0 + tint, 1.0 - warm)
    grain, blur = rng.uniform(1.5, 6), max(0.0, rng.normal(0.3, 0.35))
    return developed(image, light, cast, blur_pixels=blur, grain=grain, rng=rng), organ


def _living(green: float, rng: np.random.Generator) -> Palette:
    value = rng.uniform(0.45, 0.82)
    leaf = from_hsv(green, rng.uniform(0.35, 0.72), value)
    petal = from_hsv(petal_hue(rng), rng.choice([0.06, 0.6, 0.85]), rng.uniform(0.8, 1.0))
    return Palette(
        leaf=leaf,
        stem=mixed(leaf, from_hsv(rng.uniform(10, 60), 0.5, 0.45), rng.uniform(0, 0.6)),
        petal=petal,
        eye=from_hsv(rng.uniform(20, 60), 0.8, rng.uniform(0.3, 0.95)),
        shade_spread=0.13,
        hue_spread=5.0,
        halves=0.16,
        veins=float(rng.uniform(1.18, 1.4)),
        opacity=255,
        shadow_alpha=int(rng.integers(0, 70)),
        shadow_offset=(float(rng.normal(0, 0.05)), 0.07),
        sheen=int(rng.integers(8, 34)),
        hole=scaled(leaf, 0.3),
        damage=0.1,
    )


def _framed(plant: Plant, size: tuple[int, int], rng: np.random.Generator) -> tuple[Projection, Organ]:
    """A camera on the whole plant, on some of its leaves or on its flowers."""
    turned = rotation(rng.normal(0, 0.25), rng.uniform(0.0, 0.55), rng.normal(0, 0.22))
    middle = np.array([0.0, 0.5, 0.0])

    def seen(space: Points) -> Points:
        local = (space - middle) @ turned.T
        return local[:, :2] / (1.0 - local[:, 2:] / CAMERA_DISTANCE)

    view = seen(extent(plant))
    low, high = view.min(axis=0), view.max(axis=0)
    frame = np.array(size, dtype=np.float64)
    scale = float((frame / (high - low)).min())
    # As on sheets: how much of the picture is green is no mark of a species.
    covered = leaf_cover(plant, float(np.prod(high - low))) * scale**2 / float(np.prod(frame))
    scale *= float(np.clip(np.sqrt(rng.uniform(*_COVERED) / covered), 0.82, 1.2))
    kind = rng.choice(["habit", "leaf", "flower"], p=[0.5, 0.38, 0.12])
    centre = (low + high) / 2
    if kind == "flower" and plant.flowers:
        focus = seen(np.stack([flower.centre for flower in plant.flowers])).mean(axis=0)
        scale, centre = scale * rng.uniform(1.35, 1.7), centre * 0.45 + focus * 0.55
    elif kind == "habit":
        scale *= rng.uniform(0.9, 1.08)
    else:
        kind = "leaf"
        scale *= rng.uniform(1.15, 1.5)
        leaf = plant.leaves[rng.integers(len(plant.leaves))]
        focus = seen(leaf.in_space(np.array([[0.6, 0.0]])))[0]
        centre = centre * 0.5 + focus * 0.5
    shift = frame / 2 + rng.normal(0, 0.03, 2) * frame

    def projection(space: Points) -> Points:
        return shift + (seen(space) - centre) * np.array([scale, -scale])

    return projection, Organ(str(kind))


def _background(size: tuple[int, int], green: float, palette: Palette, rng: np.random.Generator) -> Image.Image:
    """What stands behind the plant: out of focus, and of no species of the flora."""
    small = (size[0] // 4, size[1] // 4)
    kind = rng.choice(["foliage", "soil", "sky", "meadow", "shade"])
    base = {
        "foliage": from_hsv(green + rng.normal(0, 15), rng.uniform(0.3, 0.6), rng.uniform(0.18, 0.4)),
        "soil": from_hsv(rng.uniform(18, 42), rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.6)),
        "sky": from_hsv(rng.uniform(195, 220), rng.uniform(0.05, 0.4), rng.uniform(0.75, 0.98)),
        "meadow": from_hsv(green - rng.uniform(0, 30), rng.uniform(0.3, 0.55), rng.uniform(0.3, 0.55)),
        "shade": from_hsv(green, rng.uniform(0.2, 0.5), rng.uniform(0.06, 0.18)),
    }[str(kind)]
    image = Image.new("RGB", small, base)
    pen = ImageDraw.Draw(image, "RGBA")
    others_bloom = rng.choice([0.0, 0.0, 0.0, 0.12, 0.25])
    for _ in range(int(rng.integers(12, 34))):
        tone = scaled(mixed(base, palette.leaf, float(rng.uniform(0.0, 0.45))), float(rng.uniform(0.6, 1.2)))
        if rng.random() < others_bloom:
            # Flowers of other plants, so that the share of bright colour is no mark of a species.
            tone = from_hsv(petal_hue(rng), rng.uniform(0.2, 0.8), rng.uniform(0.5, 0.95))
        _clutter(pen, small, tone, rng)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(4, 12))):
            x, y, r = rng.uniform(0, small[0]), rng.uniform(0, small[1]), rng.uniform(2, 9)
            pen.ellipse((x - r, y - r, x + r, y + r), fill=(*from_hsv(rng.uniform(40, 200), 0.15, 0.95), 60))
    blurred = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.2, 4.0))))
    return blurred.resize(size, Image.Resampling.BICUBIC)


def _clutter(pen: ImageDraw.ImageDraw, size: tuple[int, int], tone: Colour, rng: np.random.Generator) -> None:
    """A blade of grass, a pebble or a leaf of no particular kind."""
    at = rng.uniform(-0.1, 1.1, 2) * size
    angle = rng.uniform(0, np.pi)
    reach = rng.uniform(0.06, 0.3) * max(size)
    if rng.random() < 0.35:
        ring = np.linspace(0, 2 * np.pi, 12)[:-1]
        radius = 1.0 + 0.25 * np.sin(ring * rng.integers(1, 5) + rng.uniform(0, 6))
        shape = np.stack([np.cos(ring) * radius, np.sin(ring) * radius * rng.uniform(0.3, 1.0)], axis=1) * reach * 0.5
    else:
        along = np.linspace(0, 1, 8)
        width = np.sin(np.pi * along) * rng.uniform(0.02, 0.16)
        bend = rng.normal(0, 0.2) * along**2
        shape = (
            np.concatenate([np.stack([along, bend + width], axis=1), np.stack([along, bend - width], axis=1)[::-1]])
            * reach
            * 1.6
        )
    pen.polygon((turn(shape, angle) + at).ravel().tolist(), fill=(*tone, int(rng.integers(120, 255))))


def _foreground(image: Image.Image, palette: Palette, rng: np.random.Generator) -> None:
    """Blades of grass that cross the picture in front of the plant."""
    pen = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    for _ in range(int(rng.integers(0, 4))):
        foot = np.array([rng.uniform(0, width), height * 1.02])
        tip = np.array([foot[0] + rng.normal(0, 0.2) * width, height * rng.uniform(0.3, 0.85)])
        along = np.linspace(0, 1, 10)[:, None]
        bend = np.array([rng.normal(0, 0.06) * width, 0.0])
        line = foot + (tip - foot) * along + bend * np.sin(np.pi * along)
        half = np.array([1.0, 0.0]) * width * rng.uniform(0.005, 0.012) * (1 - along)
        tone = scaled(palette.leaf, float(rng.uniform(0.6, 1.15)))
        pen.polygon(np.concatenate([line + half, (line - half)[::-1]]).ravel().tolist(), fill=(*tone, 255))


def _daylight(size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Brightness over the picture: soft unevenness and sometimes flecks of sun."""
    light = rng.uniform(0.8, 1.15) + 0.07 * clouds(size, 2, rng)
    if rng.random() < 0.35:
        light = light * (0.85 + 0.45 / (1 + np.exp(-5 * (clouds(size, 5, rng) - 0.6))))
    return light
