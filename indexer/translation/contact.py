"""Sheets beside what was drawn after them, for a person to look at."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from indexer.stored_images import read_stored
from models.durable import replace_file

_GAP, _CAPTION, _HEIGHT, _WIDTH, _COLUMNS = 10, 20, 220, 160, 4
_PAPER, _INK = (250, 249, 246), (38, 40, 36)


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a sheet and of the photo drawn after it, and the name to write above them."""

    sheet: Path
    drawn: Path
    caption: str


def write_pairs(destination: Path, pairs: Sequence[Pair]) -> None:
    """Put a PNG at `destination`: four pairs a row, the sheet on the left of each."""
    cell = (2 * _WIDTH + 3 * _GAP, _HEIGHT + _CAPTION + _GAP)
    rows = max(1, -(-len(pairs) // _COLUMNS))
    page = Image.new("RGB", (_COLUMNS * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for position, pair in enumerate(pairs):
        left, top = _GAP + position % _COLUMNS * cell[0], _GAP + position // _COLUMNS * cell[1]
        pen.text((left, top), _shortened(pair.caption, pen, font), fill=_INK, font=font)
        for file in (pair.sheet, pair.drawn):
            picture = ImageOps.contain(read_stored(file, 2 * _HEIGHT), (_WIDTH, _HEIGHT))
            page.paste(picture, (left, top + _CAPTION))
            left += _WIDTH + _GAP
    packed = io.BytesIO()
    page.save(packed, "PNG", optimize=True)
    replace_file(destination, packed.getvalue())


def _shortened(caption: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The caption, cut where a pair ends."""
    whole = caption = caption.replace("\n", " ")
    while caption and pen.textlength(caption if caption == whole else f"{caption}…", font=font) > 2 * _WIDTH + _GAP:
        caption = caption[:-1]
    return caption if caption == whole else f"{caption}…"
