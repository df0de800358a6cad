"""Pictures of the image store, for work that reads many of them."""

from pathlib import Path

from PIL import Image

from models.decoding import decode_image
from models.errors import InvalidImage

_MAX_PIXELS = 2**31
"""Stored images were checked when they were imported; this only guards against a swapped file."""


def read_stored(path: Path, minimum_side: int) -> Image.Image:
    """Upright RGB picture whose shorter side keeps at least `minimum_side` pixels.

    Raises `InvalidImage` naming the file.
    """
    try:
        return decode_image(path, max_pixels=_MAX_PIXELS, minimum_side=minimum_side)
    except InvalidImage as error:
        raise type(error)(f"{path}: {error}. If it was lost or damaged, import its dataset again.") from error
