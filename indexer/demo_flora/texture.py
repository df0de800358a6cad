"""Noise, tone and the last steps from a large drawing to a small picture."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Field = NDArray[np.float32]


def clouds(size: tuple[int, int], cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise of about unit variance, (height, width); `cells` is the count along the shorter side."""
    width, height = size
    unit = min(width, height) / cells
    coarse = rng.normal(0, 1, (max(2, round(height / unit)), max(2, round(width / unit)))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)


def developed(
    drawing: Image.Image,
    light: Field,
    cast: tuple[float, float, float],
    *,
    blur_pixels: float,
    grain: float,
    rng: np.random.Generator,
) -> Image.Image:
    """`drawing` at half size under `light` (height, width), a colour `cast`, blur and `grain` (8-bit levels)."""
    small = drawing.reduce(2)
    if blur_pixels > 0.2:
        small = small.filter(ImageFilter.GaussianBlur(blur_pixels))
    pixels = np.asarray(small, dtype=np.float32) * light[..., None] * np.asarray(cast, dtype=np.float32)
    noise = rng.standard_normal(pixels.shape[:2], dtype=np.float32)
    pixels += grain * noise[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
