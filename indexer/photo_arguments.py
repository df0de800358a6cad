"""Photos as they are named on the command line."""

from collections.abc import Sequence
from pathlib import Path

from models.errors import InvalidConfig, UnreadableImage

MAX_PHOTOS = 5
"""Of one plant."""


def check_photos(paths: Sequence[Path]) -> None:
    """Raises `InvalidConfig` for more photos than one plant has here, `UnreadableImage` for a missing file."""
    if len(paths) > MAX_PHOTOS:
        raise InvalidConfig(f"{len(paths)} photos of one plant are too many; up to {MAX_PHOTOS}, one call a plant")
    for path in paths:
        if not path.is_file():
            raise UnreadableImage(f"{path}: there is no such file")
