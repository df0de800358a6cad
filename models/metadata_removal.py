"""Image files without what their owners may not want to give away, and their orientation.

Works on the container only and never decodes a pixel, so that JPEG, PNG and WebP keep their pixels bit for
bit. Decoders are given the result, never the original: compressed text, huge EXIF directories and other
traps in metadata cannot reach them.
"""

from dataclasses import dataclass
from enum import StrEnum

from models.containers.jpeg import clean_jpeg, insert_jpeg_exif
from models.containers.orientation import minimal_exif
from models.containers.png import PNG_SIGNATURE, clean_png, insert_png_exif
from models.containers.webp import clean_webp, insert_webp_exif, is_animated
from models.errors import UnreadableImage


class ImageFormat(StrEnum):
    """Container formats that are read, by Pillow's name, and their usual suffix."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    TIFF = "TIFF"

    @property
    def suffix(self) -> str:
        """File name suffix with its dot."""
        return {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}[self.value]


@dataclass(frozen=True, slots=True)
class CleanFile:
    """An image file without metadata.

    `orientation` is the EXIF orientation, 1 … 8, that was found (1 for TIFF, whose decoder applies it).
    `removable` is false where the container cannot be cleaned in place (TIFF, animated WebP): the pixels
    must then be written anew before the file is kept.
    """

    format: ImageFormat
    data: bytes
    orientation: int = 1
    removable: bool = True

    def with_orientation(self) -> bytes:
        """The file to keep: with an EXIF block that holds the orientation alone, if it is not upright."""
        if self.orientation == 1:
            return self.data
        return _INSERT_EXIF[self.format](self.data, minimal_exif(self.orientation))


def detect_format(data: bytes) -> ImageFormat:
    """Format by the first bytes. Raises `UnreadableImage` when it is none of the four."""
    if not data:
        raise UnreadableImage("the file is empty; send a JPEG, PNG, WebP or TIFF image")
    if data.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if data.startswith(PNG_SIGNATURE):
        return ImageFormat.PNG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return ImageFormat.TIFF
    raise UnreadableImage("the file is not a JPEG, PNG, WebP or TIFF image; convert it to one of these")


def remove_metadata(data: bytes) -> CleanFile:
    """`data` without EXIF, GPS, XMP, comments, thumbnails and trailing bytes.

    Colour profiles and everything else that decides on the pixels stay. Raises `UnreadableImage` when the
    container is not one of the four formats, or is damaged or cut off.
    """
    match detect_format(data):
        case ImageFormat.JPEG:
            return CleanFile(ImageFormat.JPEG, *clean_jpeg(data))
        case ImageFormat.PNG:
            return CleanFile(ImageFormat.PNG, *clean_png(data))
        case ImageFormat.WEBP:
            if is_animated(data):
                return CleanFile(ImageFormat.WEBP, data, removable=False)
            return CleanFile(ImageFormat.WEBP, *clean_webp(data))
        case ImageFormat.TIFF:
            return CleanFile(ImageFormat.TIFF, data, removable=False)


_INSERT_EXIF = {
    ImageFormat.JPEG: insert_jpeg_exif,
    ImageFormat.PNG: insert_png_exif,
    ImageFormat.WEBP: insert_webp_exif,
}
