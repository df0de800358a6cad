"""Random views of a picture for training: what may change between two photos of one plant, and nothing else."""

import numpy as np
from PIL import Image, ImageEnhance

from indexer.run_config import AugmentationConfig
from models.preprocess import Preprocessing, letterboxed, mean_colour
from models.retrieval import FloatArray


def random_view(
    image: Image.Image, preprocessing: Preprocessing, config: AugmentationConfig, generator: np.random.Generator
) -> FloatArray:
    """``(3, image_size, image_size)`` float32 of a random crop, turned, flipped and mildly recoloured."""
    if preprocessing.crop == "letterbox":
        image = letterboxed(image, 2 * preprocessing.image_size, Image.Resampling.BILINEAR)
    view = _rotated(image, config.rotation_degrees * float(generator.uniform(-1, 1)))
    size = (preprocessing.image_size, preprocessing.image_size)
    view = view.resize(size, Image.Resampling.BICUBIC, box=_random_box(view.size, config.minimum_area, generator))
    if generator.random() < config.horizontal_flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if generator.random() < config.vertical_flip:
        view = view.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return preprocessing.normalise(_recoloured(view, config, generator))


def _rotated(image: Image.Image, degrees: float) -> Image.Image:
    if abs(degrees) < 1.0:
        return image
    # The corners that come in are given the mean colour, so that no black wedge tells views apart.
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=mean_colour(image))


def _random_box(
    size: tuple[int, int], minimum_area: float, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Corners of a random crop of at least `minimum_area` of the picture, aspect ratio 3:4 to 4:3 (Szegedy 2015)."""
    width, height = size
    area = width * height * float(generator.uniform(minimum_area, 1.0))
    ratio = float(np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3))))
    w, h = min((area * ratio) ** 0.5, width), min((area / ratio) ** 0.5, height)
    left, top = float(generator.uniform(0, width - w)), float(generator.uniform(0, height - h))
    return left, top, left + w, top + h


def _recoloured(image: Image.Image, config: AugmentationConfig, generator: np.random.Generator) -> Image.Image:
    for enhancer, strength in (
        (ImageEnhance.Brightness, config.brightness),
        (ImageEnhance.Contrast, config.contrast),
        (ImageEnhance.Color, config.saturation),
    ):
        factor = 1.0 + strength * float(generator.uniform(-1, 1))
        if strength > 0.0:
            image = enhancer(image).enhance(factor)
    shift = round(255 * config.hue * float(generator.uniform(-1, 1)))
    if shift:
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point([(i + shift) % 256 for i in range(256)])
        image = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return image
