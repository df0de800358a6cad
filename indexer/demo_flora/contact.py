"""The contact sheet: what the demo flora looks like, at a glance."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from indexer.demo_flora.photo import render_photo
from indexer.demo_flora.plant import Plant, grow
from indexer.demo_flora.sheet import render_sheet
from indexer.demo_flora.spread import FloraSpecies, design_flora
from indexer.demo_flora.traits import LeafForm

_GAP, _CAPTION = 8, 24
_PAPER, _INK, _FAINT = (250, 249, 246), (38, 40, 36), (120, 124, 116)
_SHEETS, _PHOTOS = 2, 3


def draw_contact_sheet(
    destination: Path,
    *,
    seed: int = 7,
    species: int = 30,
    herbarium_only: int = 10,
    rows: int = 8,
    image_height: int = 210,
) -> None:
    """Writes a picture with a row for some species: two sheets beside three photos.

    The format follows the suffix; as .jpg the default size stays below 400 kB.
    """
    flora = design_flora(seed, species, herbarium_only)
    shown = _shown(flora, rows)
    sheet_width, photo_width = round(image_height * 2 / 3), image_height
    row_width = 2 * _GAP + _SHEETS * (sheet_width + _GAP) + _PHOTOS * (photo_width + _GAP)
    columns = 2 if len(shown) > 1 else 1
    lines = -(-len(shown) // columns)
    row_height = image_height + _CAPTION + _GAP
    page = Image.new("RGB", (columns * row_width + _GAP, lines * row_height + _GAP), _PAPER)
    for i, one in enumerate(shown):
        row = _row(one, seed, i, (row_width, row_height), image_height)
        page.paste(row, (_GAP + (i % columns) * row_width, _GAP + (i // columns) * row_height))
    destination.parent.mkdir(parents=True, exist_ok=True)
    page.save(destination, quality=80, optimize=True)


def _shown(flora: Sequence[FloraSpecies], rows: int) -> list[FloraSpecies]:
    """Some species of either kind, about one in three without photos, with as many leaf forms as can be."""
    with_photos = _varied([one for one in flora if one.has_photos])
    without = _varied([one for one in flora if not one.has_photos])
    few = min(len(without), max(rows // 3, rows - len(with_photos)))
    return with_photos[: rows - few] + without[:few]


def _varied(flora: list[FloraSpecies]) -> list[FloraSpecies]:
    """`flora` in an order in which leaf forms come back as late as they can."""
    met: Counter[LeafForm] = Counter()
    turns = []
    for one in flora:
        turns.append(met[one.traits.leaf.form])
        met[one.traits.leaf.form] += 1
    return [flora[i] for i in np.argsort(turns, kind="stable")]


def _row(species: FloraSpecies, seed: int, position: int, size: tuple[int, int], image_height: int) -> Image.Image:
    row = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(row)
    x = 0
    for i in range(_SHEETS + _PHOTOS):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4, position, i)))
        pressed = i < _SHEETS
        plant = grow(species.traits, rng, pressed=pressed)
        picture = render_sheet(plant, image_height, rng) if pressed else _square_photo(plant, image_height, rng)
        width = round(image_height * 2 / 3) if pressed else image_height
        row.paste(picture, (x, _CAPTION))
        x += width + _GAP
    name_font, note_font = ImageFont.load_default(size=15), ImageFont.load_default(size=13)
    pen.text((0, 3), species.scientific_name, fill=_INK, font=name_font)
    note = f"{species.family}, {'sheets and photos' if species.has_photos else 'herbarium only'}"
    pen.text((pen.textlength(species.scientific_name, font=name_font) + 10, 4), note, fill=_FAINT, font=note_font)
    return row


def _square_photo(plant: Plant, side: int, rng: np.random.Generator) -> Image.Image:
    photo, _ = render_photo(plant, round(side * 4 / 3), rng)
    return ImageOps.fit(photo, (side, side), centering=(0.5, 0.15))
