"""Smaller copies of sheets for the screen, made when first asked for and kept on disk."""

import io
import logging
import math
from pathlib import Path

from models.durable import replace_file
from models.image_store import ImageStore
from models.specimens import Image

logger = logging.getLogger(__name__)

SIZES = (160, 320, 640, 1024, 2048)
"""Longest sides in pixels. A closed list: any other would let clients fill the disk with variants."""

JPEG_QUALITY = 85


class Renditions:
    """JPEG copies below `folder`, which may be deleted at any time."""

    def __init__(self, folder: Path, image_store: ImageStore) -> None:
        self._folder = folder
        self._image_store = image_store

    def get(self, image: Image, size: int) -> bytes:
        """JPEG whose longest side is `size` pixels, or that of the image where it is smaller.

        Raises `CatalogueError` when the stored file is gone and `UnreadableImage` when it is damaged.
        """
        path = self._folder / image.stored_sha256[:2] / f"{image.stored_sha256}-{size}.jpg"
        try:
            return path.read_bytes()
        except OSError:
            pass  # not there, or of no use: made anew
        rendition = self._render(image, size)
        try:
            _keep(rendition, path)
        except OSError as error:
            # A read-only or full disk makes thumbnails slow, not impossible.
            logger.warning("a thumbnail cannot be kept: %s", error.strerror)
        return rendition

    def _render(self, image: Image, size: int) -> bytes:
        shorter, longer = sorted((image.width, image.height))
        pixels = self._image_store.open(image, minimum_side=math.ceil(size * shorter / longer))
        pixels.thumbnail((size, size), reducing_gap=3.0)
        packed = io.BytesIO()
        pixels.save(packed, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)
        return packed.getvalue()


def _keep(rendition: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, rendition)
