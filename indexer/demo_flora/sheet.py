"""A plant, pressed: the herbarium sheet."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from indexer.demo_flora.brush import Brush, Colour, Palette, Projection, from_hsv, petal_hue, scaled
from indexer.demo_flora.geometry import Points, turn
from indexer.demo_flora.plant import Plant, extent, leaf_cover
from indexer.demo_flora.texture import clouds, developed

_LABEL_WORDS = (
    "dry slope", "roadside", "damp meadow", "by the stream", "chalk", "garden wall", "open wood", "leg.",
    "det.", "alt. 540 m", "shade", "frequent", "scarce", "exchange", "north bank", "field margin",
)  # fmt: skip


_COVERED = (0.13, 0.28)
"""Share of the paper that leaves cover, where they can."""


def render_sheet(plant: Plant, height: int, rng: np.random.Generator) -> Image.Image:
    """A portrait RGB picture, 2:3, of a pressed `plant` on paper with label, ruler and colour chart."""
    size = (2 * round(height * 2 / 3), 2 * height)
    paper = from_hsv(rng.uniform(30, 58), rng.uniform(0.02, 0.22), rng.uniform(0.72, 0.97))
    image = Image.new("RGB", size, paper)
    _furniture(image, paper, rng)
    palette = _dried(paper, rng)
    projection = _mounted(plant, size, rng)
    Brush(image, projection, palette, rng).plant(plant)
    _straps(image, plant, projection, paper, rng)
    small = (size[0] // 2, size[1] // 2)
    light = 1.0 + 0.018 * clouds(small, 3, rng) + 0.012 * clouds(small, 40, rng)
    warm = rng.normal(0, 0.02)
    cast = (1.0 + warm, 1.0, 1.0 - warm)
    return developed(image, light, cast, blur_pixels=rng.uniform(0, 0.5), grain=rng.uniform(1, 3.5), rng=rng)


def _dried(paper: Colour, rng: np.random.Generator) -> Palette:
    """Brown to olive drab, as the plant of this very sheet happened to dry."""
    hue, sat, value = rng.uniform(22, 75), rng.uniform(0.25, 0.62), rng.uniform(0.22, 0.6)
    petal = from_hsv(petal_hue(rng), rng.uniform(0.1, 0.45), rng.uniform(0.45, 0.85))
    return Palette(
        leaf=from_hsv(hue, sat, value),
        stem=from_hsv(hue - 8, sat, value * 0.8),
        petal=petal,
        eye=from_hsv(rng.uniform(25, 50), 0.5, rng.uniform(0.25, 0.5)),
        shade_spread=0.1,
        hue_spread=4.0,
        halves=0.05,
        veins=float(rng.choice([0.72, 1.3])),
        opacity=240,
        shadow_alpha=36,
        shadow_offset=(0.012, 0.014),
        sheen=0,
        hole=scaled(paper, 0.97),
        damage=0.12,
    )


def _mounted(plant: Plant, size: tuple[int, int], rng: np.random.Generator) -> Projection:
    """The flat projection that lays the plant on the paper."""
    width, height = size
    tilt = float(rng.normal(0, 0.1))
    flat = turn(extent(plant)[:, :2], tilt)
    low, high = flat.min(axis=0), flat.max(axis=0)
    room = np.array([width * 0.9, height * 0.84])
    scale = float((room / (high - low)).min()) * float(rng.uniform(0.9, 1.0))
    # How much of the paper is dark must not tell the species, so that dense plants lie smaller.
    covered = leaf_cover(plant, float(np.prod(high - low))) * scale**2 / (width * height)
    scale *= float(np.clip(np.sqrt(rng.uniform(*_COVERED) / covered), 0.72, 1.0))
    slack = room - (high - low) * scale
    shift = np.array([width * 0.05, height * 0.03]) + slack * rng.uniform(0.2, 0.8, 2)

    def projection(space: Points) -> Points:
        laid = (turn(space[:, :2], tilt) - low) * scale
        return np.stack([shift[0] + laid[:, 0], shift[1] + (high[1] - low[1]) * scale - laid[:, 1]], axis=1)

    return projection


def _straps(image: Image.Image, plant: Plant, projection: Projection, paper: Colour, rng: np.random.Generator) -> None:
    """Strips of linen tape that hold the plant."""
    pen = ImageDraw.Draw(image, "RGBA")
    lines = [line for line, _ in plant.stems[:1]]
    lines += [
        leaf.in_space(np.array([[0.0, 0.0], [0.8, 0.0]])) for leaf in plant.leaves[:: max(1, len(plant.leaves) // 2)]
    ]
    tape = (*scaled(paper, float(rng.uniform(0.94, 1.06))), 235)
    for line in lines:
        pixels = projection(line)
        i = int(len(pixels) * rng.uniform(0.15, 0.5))
        i = min(i, len(pixels) - 2)
        at = pixels[i] + (pixels[i + 1] - pixels[i]) * rng.uniform(0.2, 0.6)
        along = pixels[i + 1] - pixels[i]
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
        reach, half = image.height * rng.uniform(0.022, 0.035), image.height * 0.006
        forward = np.array([across[1], -across[0]]) * half
        corners = np.stack([at + across * reach + forward, at + across * reach - forward,
                            at - across * reach - forward, at - across * reach + forward])  # fmt: skip
        pen.polygon(corners.ravel().tolist(), fill=tape, outline=(*scaled(paper, 0.8), 255))


def _furniture(image: Image.Image, paper: Colour, rng: np.random.Generator) -> None:
    """Everything on the sheet that is not the plant, each thing where chance puts it."""
    pen = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    label_right = rng.random() < 0.7
    _label(pen, width, height, label_right, rng)
    if rng.random() < 0.85:
        _ruler(pen, width, height, rng)
    if rng.random() < 0.8:
        _colour_chart(pen, width, height, rng)
    if rng.random() < 0.7:
        _barcode(pen, width, height, label_right, rng)
    if rng.random() < 0.6:
        x, y = width * rng.uniform(0.1, 0.85), height * rng.uniform(0.05, 0.8)
        radius = height * 0.028
        ink = (*from_hsv(rng.choice([0, 225, 280]), 0.6, 0.55), 110)
        for r in (radius, radius * 0.72):
            pen.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=3)
    if rng.random() < 0.5:
        _packet(pen, width, height, rng)


def _packet(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    """A folded envelope for fragments, white or brown, small or large."""
    w, h = width * rng.uniform(0.16, 0.42), height * rng.uniform(0.05, 0.17)
    x, y = rng.choice([width * 0.02, width * 0.98 - w]), height * rng.uniform(0.01, 0.05)
    tone = from_hsv(rng.uniform(25, 55), rng.uniform(0.05, 0.5), rng.uniform(0.5, 0.95))
    edge = (*scaled(tone, 0.8), 255)
    pen.rectangle((x, y, x + w, y + h), fill=(*tone, 255), outline=edge, width=2)
    pen.line((x, y, x + w / 2, y + h * 0.45, x + w, y), fill=edge, width=2)


@lru_cache(maxsize=16)
def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=pixels)


def _label(pen: ImageDraw.ImageDraw, width: int, height: int, right: bool, rng: np.random.Generator) -> None:
    """A printed label: words that any label may bear and a number; never a name."""
    w, h = width * rng.uniform(0.34, 0.44), height * rng.uniform(0.09, 0.125)
    x = width - w - width * 0.03 if right else width * 0.03
    y = height - h - height * 0.02
    white = from_hsv(45, rng.uniform(0, 0.1), rng.uniform(0.9, 1.0))
    pen.rectangle((x, y, x + w, y + h), fill=(*white, 255), outline=(120, 110, 100, 255), width=2)
    size = max(6, round(h * 0.115))
    ink = (40, 35, 45, 255)
    lines = ["HERBARIUM OF INVENTED PLANTS", f"No. {rng.integers(1000, 99999)}"]
    lines += ["  ".join(rng.choice(_LABEL_WORDS, 2)) for _ in range(2)]
    lines.append(f"{rng.integers(1, 29)}.{rng.integers(4, 10)}.{rng.integers(1871, 2021)}")
    for i, text in enumerate(lines):
        pen.text((x + w * 0.05, y + h * (0.06 + 0.18 * i)), text, fill=ink, font=_font(size - (i > 0)))


def _ruler(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    length, thick = height * rng.uniform(0.3, 0.42), width * 0.045
    upright = rng.random() < 0.6
    x = rng.choice([width * 0.005, width * 0.95]) if upright else width * rng.uniform(0.03, 0.3)
    y = height * rng.uniform(0.1, 0.5) if upright else height * 0.965
    box = (x, y, x + thick, y + length) if upright else (x, y, x + length, y + thick)
    pen.rectangle(box, fill=(250, 250, 248, 255), outline=(60, 60, 60, 255))
    for i in range(21):
        along, tick = length * i / 20, thick * (0.7 if i % 5 == 0 else 0.4)
        line = (x, y + along, x + tick, y + along) if upright else (x + along, y, x + along, y + tick)
        pen.line(line, fill=(30, 30, 30, 255), width=2)


def _colour_chart(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    patches = ((30, 30, 30), (128, 128, 128), (245, 245, 245), (190, 40, 45), (240, 200, 40), (50, 140, 70),
               (40, 80, 170), (150, 60, 140))  # fmt: skip
    side = width * 0.042
    upright = rng.random() < 0.5
    x, y = (width * rng.choice([0.008, 0.95]), height * rng.uniform(0.02, 0.35)) if upright else (
        width * rng.uniform(0.05, 0.5), height * 0.004)  # fmt: skip
    for i, patch in enumerate(patches):
        px, py = (x, y + i * side) if upright else (x + i * side, y)
        pen.rectangle((px, py, px + side, py + side), fill=(*patch, 255))


def _barcode(pen: ImageDraw.ImageDraw, width: int, height: int, right: bool, rng: np.random.Generator) -> None:
    w, h = width * 0.22, height * 0.03
    x = width * rng.uniform(0.04, 0.2) if right else width * rng.uniform(0.6, 0.74)
    y = height * rng.uniform(0.9, 0.95)
    pen.rectangle((x, y, x + w, y + h), fill=(252, 252, 252, 255))
    at = x + 5
    while at < x + w - 6:
        bar = float(rng.choice([2, 3, 5]))
        pen.rectangle((at, y + h * 0.1, at + bar - 1, y + h * 0.75), fill=(20, 20, 20, 255))
        at += bar + float(rng.choice([2, 3, 5]))
