"""Heat maps as pictures: figures of the network's places, laid over the whole upright picture that they belong to."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.preprocess import Preprocessing
from models.retrieval import FloatArray

LONGER_SIDE = 480
"""Pixels of a heat map; far more than the network has places, few enough for a phone."""

_FULL_STRENGTH_QUANTILE = 0.98
"""Of a picture's places, beyond which all are drawn in full strength: in some networks without registers a few places
hold what belongs to the whole picture (Darcet et al. 2024, "Vision Transformers Need Registers")."""

_LEVELS = 32
"""Of strength that are told apart: fewer distinct pixels, and a file of half the size."""

_FULL_ALPHA = 0.8
_LEAST_ALPHA = 0.06
"""Of the part that the network saw, so that one can tell it from what was cut away."""

_BRIGHTEST = 0.85
"""Of the colour map; its palest colours would not be seen on paper."""

# Every eighth colour of matplotlib's inferno (Smith & van der Walt, CC0): even steps for the eye, also without red or
# green. In between it is linear, which is off by less than two of 255 levels.
_INFERNO = (
    "0000040403120b0724150b37210c4a2f0a5b3d09654a0c6b56106e63156e70196e7d1e6d89226a962766a32c61af315bbb3654c63d4dd14545"
    "da4f3ce35932eb6529f1721ef67f14f98c0afb9b06fcaa0ffbba1ff9c932f5d949f2e865f3f586fcffa4"
)


def inferno(values: FloatArray) -> NDArray[np.uint8]:
    """``(…, 3)`` sRGB colours of values 0 … 1."""
    anchors = np.frombuffer(bytes.fromhex(_INFERNO), dtype=np.uint8).reshape(-1, 3)
    steps = np.linspace(0.0, 1.0, len(anchors))
    channels = [np.interp(values, steps, anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def strengths(contributions: FloatArray) -> FloatArray:
    """``(h, w)`` 0 … 1: what counts for the similarity, by the strongest places of the same picture.

    What counts against it is 0, and everything is where nothing counts for it.
    """
    positive = np.maximum(contributions, 0.0)
    full = float(np.quantile(positive, _FULL_STRENGTH_QUANTILE)) or float(positive.max())
    return np.clip(positive / full, 0.0, 1.0).astype(np.float32) if full > 0.0 else np.zeros_like(contributions)


def heat_map(
    contributions: FloatArray, preprocessing: Preprocessing, size: tuple[int, int], *, longer_side: int = LONGER_SIDE
) -> Image.Image:
    """RGBA picture with the proportions of an upright picture of `size`, to be laid over it.

    `contributions` is ``(h, w)``, of the places of the network's square. The stronger, the brighter and the less
    transparent; what the network did not see is wholly transparent. The longer side has `longer_side` pixels.
    """
    scale = longer_side / max(size)
    width, height = (max(1, round(length * scale)) for length in size)
    rows, columns = contributions.shape
    left, top, right, bottom = preprocessing.square_on(size)
    across, down = columns / (right - left), rows / (bottom - top)
    # From a pixel of the heat map to the place that it lies on.
    to_place = (across * size[0] / width, 0.0, -left * across, 0.0, down * size[1] / height, -top * down)

    def laid(values: FloatArray, resampling: Image.Resampling) -> FloatArray:
        plane = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        turned = plane.transform((width, height), Image.Transform.AFFINE, to_place, resampling)
        return np.clip(np.asarray(turned, dtype=np.float32), 0.0, 1.0)

    strength = laid(strengths(contributions), Image.Resampling.BICUBIC)
    strength = (np.rint(_LEVELS * strength) / _LEVELS).astype(np.float32)
    seen = laid(np.ones_like(contributions), Image.Resampling.NEAREST)
    alpha = seen * (_LEAST_ALPHA + (_FULL_ALPHA - _LEAST_ALPHA) * strength)
    pixels = np.empty((height, width, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(seen[..., None] > 0.0, inferno(np.float32(_BRIGHTEST) * strength), 0)
    pixels[..., 3] = np.rint(255.0 * alpha)
    return Image.fromarray(pixels, "RGBA")


def png_of(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    packed = io.BytesIO()
    picture.save(packed, "PNG", compress_level=6)
    return packed.getvalue()


def side_by_side(parts: list[tuple[Image.Image, Image.Image]], *, height: int = LONGER_SIDE) -> Image.Image:
    """RGB picture: each of some upright pictures under its heat map, from left to right, all of one height."""
    drawn = [_under(picture, heat, height) for picture, heat in parts]
    gap = max(1, height // 40)
    whole = Image.new("RGB", (sum(p.width for p in drawn) + gap * (len(drawn) - 1), height), (255, 255, 255))
    left = 0
    for part in drawn:
        whole.paste(part, (left, 0))
        left += part.width + gap
    return whole


def _under(picture: Image.Image, heat: Image.Image, height: int) -> Image.Image:
    size = (max(1, round(picture.width * height / picture.height)), height)
    base = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).convert("RGBA")
    return Image.alpha_composite(base, heat.resize(size, Image.Resampling.BICUBIC)).convert("RGB")
