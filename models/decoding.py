"""Image files → upright RGB pixels. The only file that lets Pillow read bytes from outside."""

import io
import re
import warnings
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageCms, ImageOps

from models.errors import ImageTooLarge, InvalidImage, UnreadableImage
from models.metadata_removal import CleanFile, ImageFormat, remove_metadata

ACCEPTED_FORMATS = tuple(fmt.value for fmt in ImageFormat)
"""Formats that are read, by Pillow's names."""

SMALLEST_SIDE = 8
"""Pixels; nothing can be seen on less."""

LARGEST_FILE_BYTES = 2_000_000_000
"""A file beyond this is not even read into memory."""

MAX_PIXELS_CEILING = 1_000_000_000

# Pillow's own limit is a process-wide global that warns at 89 million pixels and raises at twice that, below
# what a sheet scanner delivers. `decode_image` compares header sizes with `max_pixels` itself; this stays as
# a net beneath it. It is set once, here: changing it per call would race between threads.
PillowImage.MAX_IMAGE_PIXELS = MAX_PIXELS_CEILING // 2

_LARGEST_PROFILE_BYTES = 4_000_000
_PILLOW_MODULES = r"(PIL\.|models\.decoding$)"
_SIDEWAYS = (5, 6, 7, 8)
_TRANSPOSE = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}


def decode_image(
    source: bytes | Path, *, max_pixels: int = 64_000_000, minimum_side: int | None = None
) -> PillowImage.Image:
    """Upright 8-bit sRGB image of the first frame, without any metadata.

    Transparency is laid over white; 16-bit and float greyscale is scaled, not clipped; colour profiles are
    applied where they can be read. With `minimum_side` a JPEG may come out at 1/2, 1/4 or 1/8 of its size as
    long as its shorter side keeps that many pixels, which saves most of the decoding.

    Raises `UnreadableImage` (no image, cut off, damaged, another format, a side below 8 pixels) or
    `ImageTooLarge` (more than `max_pixels` by its header; found before anything is decoded).
    """
    return decode_clean(remove_metadata(read_source(source)), max_pixels=max_pixels, minimum_side=minimum_side)


def read_source(source: bytes | Path) -> bytes:
    """The bytes of a file. Raises `UnreadableImage` or `ImageTooLarge`."""
    if isinstance(source, bytes):
        return source
    try:
        size = source.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise ImageTooLarge(f"the file has {size:,} bytes, the limit is {LARGEST_FILE_BYTES:,}")
        return source.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage("there is no such file") from None
    except OSError as error:
        raise UnreadableImage(f"the file cannot be read: {error.strerror or type(error).__name__}") from error


def upright_size(clean: CleanFile) -> tuple[int, int]:
    """Width and height in pixels after turning upright, from the header alone. Raises `UnreadableImage`."""
    try:
        with _open(clean) as opened:
            width, height = opened.size
            if clean.format is ImageFormat.TIFF:  # Pillows differ in when they turn the size
                width, height = _tiff_tag(opened, 256, width), _tiff_tag(opened, 257, height)
                if _tiff_tag(opened, 274, 1) in _SIDEWAYS:
                    width, height = height, width
    except InvalidImage:
        raise
    except Exception as error:
        raise _refusal(error) from error
    return (height, width) if clean.orientation in _SIDEWAYS else (width, height)


def decode_clean(clean: CleanFile, *, max_pixels: int, minimum_side: int | None = None) -> PillowImage.Image:
    """As `decode_image`, of a file whose metadata has been removed."""
    # Pillow's plugins answer hostile bytes with almost any exception: struct.error, IndexError, SyntaxError,
    # OverflowError, MemoryError, zlib.error, ... Nothing but plugin code and pixel arithmetic runs in here.
    try:
        with _open(clean) as opened:
            _check_size(opened, max_pixels)
            if minimum_side is not None and clean.format is ImageFormat.JPEG:
                opened.draft(None, (max(1, minimum_side), max(1, minimum_side)))
            opened.load()
            if clean.format is ImageFormat.TIFF:
                ImageOps.exif_transpose(opened, in_place=True)  # older Pillows leave it to the caller
            rgb = _to_rgb(opened)
    except InvalidImage:
        raise
    except Exception as error:
        raise _refusal(error) from error
    if clean.orientation != 1:
        rgb = rgb.transpose(_TRANSPOSE[clean.orientation])
    rgb.info = {}
    return rgb


def _open(clean: CleanFile) -> PillowImage.Image:
    _silence_pillow()
    # Pillow takes a JPEG with an MPF block for another format; that block is gone here.
    return PillowImage.open(io.BytesIO(clean.data), formats=(clean.format.value,))


def _silence_pillow() -> None:
    """Keep Pillow's remarks on odd files off standard error.

    `warnings.catch_warnings` is not thread-safe, so the filter is installed for good, and again when
    someone has replaced the filters since.
    """
    for category in (UserWarning, RuntimeWarning):
        if not any(f[0] == "ignore" and f[2] is category and _is_ours(f[3]) for f in warnings.filters):
            warnings.filterwarnings("ignore", category=category, module=_PILLOW_MODULES)


def _is_ours(module: object) -> bool:
    return isinstance(module, re.Pattern) and module.pattern == _PILLOW_MODULES


def _refusal(error: Exception) -> InvalidImage:
    if isinstance(error, PillowImage.DecompressionBombError):
        return ImageTooLarge(f"the image has more than {MAX_PIXELS_CEILING:,} pixels")
    if isinstance(error, MemoryError):
        return ImageTooLarge("the image does not fit into memory")
    # The type only: a plugin's message may quote bytes of the file.
    return UnreadableImage(
        f"the image is cut off or damaged and cannot be decoded ({type(error).__name__}); "
        "open and save it again, or take it from its origin once more"
    )


def _check_size(opened: PillowImage.Image, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image has {width} × {height} = {width * height:,} pixels, the limit is {max_pixels:,}; scale it down"
        )
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableImage(f"the image has {width} × {height} pixels; each side needs at least {SMALLEST_SIDE}")
    if opened.format == ImageFormat.TIFF:
        # A tile is decoded as a whole, however small the image is.
        tile = int(_tiff_tag(opened, 322, 1)) * int(_tiff_tag(opened, 323, 1))
        if tile > max(max_pixels, 4_000_000):
            raise ImageTooLarge(f"the TIFF has tiles of {tile:,} pixels, the limit is {max_pixels:,}")


def _tiff_tag(opened: PillowImage.Image, tag: int, default: int) -> int:
    """First value of a TIFF tag."""
    found = opened.tag_v2.get(tag, default)  # type: ignore[attr-defined]
    return int(found[0]) if isinstance(found, tuple) else int(found)


def _to_rgb(opened: PillowImage.Image) -> PillowImage.Image:
    """8-bit RGB over white, from any mode that the four formats can hold."""
    if opened.mode == "I" or opened.mode == "F" or opened.mode.startswith("I;16"):
        return _scaled_grey(opened)
    if opened.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _through_profile(opened, ImageCms.ImageCmsProfile(lab))
    if opened.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in opened.info:
        return _over_white(opened)
    return _managed(opened)


def _over_white(opened: PillowImage.Image) -> PillowImage.Image:
    rgba = opened.convert("RGBA")
    colours = rgba.convert("RGB")
    if profile := opened.info.get("icc_profile"):
        colours.info["icc_profile"] = profile
        colours = _managed(colours)
    white = PillowImage.new("RGB", rgba.size, (255, 255, 255))
    return PillowImage.composite(colours, white, rgba.getchannel("A"))


def _managed(opened: PillowImage.Image) -> PillowImage.Image:
    """RGB by the embedded colour profile, or plainly when there is none that fits."""
    profile = opened.info.get("icc_profile")
    colour_space = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}.get(opened.mode)
    if profile and colour_space and len(profile) <= _LARGEST_PROFILE_BYTES:
        try:
            read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            fits = read.profile.xcolor_space.strip() == colour_space
            if fits and not (colour_space == "RGB" and _is_srgb(read)):
                return _through_profile(opened, read)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a damaged profile is no reason to refuse a photo: its numbers are taken as sRGB
    return opened.convert("RGB")


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether the transform would change nothing; cameras embed sRGB far more often than anything else."""
    return "srgb" in (profile.profile.profile_description or "").lower()


def _through_profile(opened: PillowImage.Image, profile: ImageCms.ImageCmsProfile) -> PillowImage.Image:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = ImageCms.profileToProfile(opened, profile, srgb, outputMode="RGB")
    return cast(PillowImage.Image, converted)


def _scaled_grey(opened: PillowImage.Image) -> PillowImage.Image:
    """Greyscale of more than 8 bits; `convert("RGB")` would turn everything above 255 white."""
    values = np.asarray(opened)
    if opened.mode.startswith("I;16"):
        bits = _tiff_tag(opened, 258, 16) if opened.format == ImageFormat.TIFF else 16
        full_scale = float(2 ** min(bits, 16) - 1)
        grey = values.astype(np.float32) * (255.0 / full_scale)
        if opened.format == ImageFormat.TIFF and _tiff_tag(opened, 262, 1) == 0:
            grey = 255.0 - grey  # WhiteIsZero, which Pillow leaves as it is
        transparent = opened.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255.0
    else:
        grey = _by_range(values.astype(np.float32), of_16_bits=opened.format == ImageFormat.PNG)
    eight_bit = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return PillowImage.fromarray(eight_bit, "L").convert("RGB")


def _by_range(values: np.ndarray, *, of_16_bits: bool) -> np.ndarray:
    """Grey values 0 … 255 from numbers whose scale the file does not tell, by the range they lie in."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if of_16_bits or (low >= 0.0 and 255.0 < high <= 65535.0):
        return finite / 257.0
    if low >= 0.0 and high <= 1.0:
        return finite * 255.0
    if low >= 0.0 and high <= 255.0:
        return finite
    spread = high - low
    return (finite - low) * (255.0 / spread if spread > 0.0 else 0.0)
