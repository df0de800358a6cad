"""Upright RGB pictures to the tensor that a network takes; the only such transform in voucher."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from models.errors import InvalidConfig
from models.retrieval import FloatArray

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as this many source pixels stay for each pixel of the
# result. At 2 some vectors of a small ViT fell to a cosine of 0.994 to those of the full decode.
_DECODE_OVERSAMPLING = 4

_LEAST_DEVIATION = 0.5
"""Grey levels added to a picture's own deviation, so that a blank one does not become noise."""


def letterboxed(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """A square of `size` pixels with the whole picture in its middle, on the picture's mean colour."""
    inner = image.resize(_inner_size(image.size, size), resampling)
    square = Image.new("RGB", (size, size), mean_colour(inner))
    square.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return square


def _inner_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height of a picture of `size` once its longer side has `side` pixels."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def mean_colour(image: Image.Image) -> tuple[int, ...]:
    """Mean of each channel, 0 … 255."""
    return tuple(int(v) for v in np.asarray(image).reshape(-1, 3).mean(axis=0))


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network wants its pixels; stored beside its weights and part of its `space_id`.

    ``center``: the shorter side is resized to ``image_size / crop_fraction`` and the middle square is cut
    out, which is timm's evaluation transform. ``squash``: the whole picture is resized to the square, so
    that no part of a tall sheet is lost. ``letterbox``: the same, but proportions are kept and the rest of the square
    is filled with the mean colour.

    `statistics` ``fixed`` normalises by `mean` and `std`, as pre-trained networks want it; ``image`` by each picture's
    own channel means and deviations, which takes light and paper out of it, for networks trained from random weights.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop: Literal["center", "squash", "letterbox"] = "center"
    crop_fraction: float = 1.0
    statistics: Literal["fixed", "image"] = "fixed"

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise InvalidConfig(f"image_size must be at least 16 pixels, not {self.image_size}")
        if not 0.5 <= self.crop_fraction <= 1.0:
            raise InvalidConfig(f"crop_fraction must lie in 0.5 … 1, not {self.crop_fraction}")
        if self.interpolation not in _RESAMPLING or self.crop not in ("center", "squash", "letterbox"):
            raise InvalidConfig(f"unknown interpolation or crop: {self.interpolation!r}, {self.crop!r}")
        if self.statistics not in ("fixed", "image"):
            raise InvalidConfig(f"statistics are fixed or image, not {self.statistics!r}")
        if min(self.std) <= 0:
            raise InvalidConfig("std must be positive")

    @property
    def resized_side(self) -> int:
        """Pixels of the shorter side after resizing, before the crop; of the longer one for a letterbox."""
        return int(self.image_size / self.crop_fraction) if self.crop == "center" else self.image_size

    @property
    def minimum_decode_side(self) -> int:
        """Shorter side, in pixels, below which a picture must not be decoded at reduced scale."""
        return _DECODE_OVERSAMPLING * self.resized_side

    def apply(self, image: Image.Image) -> FloatArray:
        """``(3, image_size, image_size)`` float32, normalised, of an upright RGB picture."""
        return self.normalise(self.resize(image))

    def resize(self, image: Image.Image) -> Image.Image:
        """RGB picture of ``image_size`` squared, resized and cropped in one pass of the resampler."""
        if image.mode != "RGB":
            raise ValueError(f"expected an RGB picture, got {image.mode}")
        size = self.image_size
        if self.crop == "letterbox":
            return letterboxed(image, size, _RESAMPLING[self.interpolation])
        return image.resize((size, size), _RESAMPLING[self.interpolation], box=self._source_box(image.size))

    def _source_box(self, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        if self.crop == "squash":
            return None
        width, height = size
        side = self.resized_side
        # As torchvision rounds: the longer side down, the crop offset to the nearest even half.
        if width <= height:
            resized = (side, int(side * height / width))
        else:
            resized = (int(side * width / height), side)
        left = round((resized[0] - self.image_size) / 2.0)
        top = round((resized[1] - self.image_size) / 2.0)
        scale_x, scale_y = width / resized[0], height / resized[1]
        return (
            max(left * scale_x, 0.0),
            max(top * scale_y, 0.0),
            min((left + self.image_size) * scale_x, float(width)),
            min((top + self.image_size) * scale_y, float(height)),
        )

    def square_on(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the network's square on an upright picture of `size`, in its pixels.

        It lies within the picture for ``center``, is the picture for ``squash``, and reaches beyond it for
        ``letterbox``.
        """
        if self.crop != "letterbox":
            return self._source_box(size) or (0.0, 0.0, float(size[0]), float(size[1]))
        side = self.image_size
        inner = _inner_size(size, side)
        box = []
        for length, scaled in zip(size, inner, strict=True):
            before, pixel = (side - scaled) // 2, length / scaled
            box.append((-before * pixel, (side - before) * pixel))
        (left, right), (top, bottom) = box
        return left, top, right, bottom

    def normalise(self, image: Image.Image) -> FloatArray:
        """``(3, H, W)`` float32: pixels / 255, less the mean, by the standard deviation."""
        pixels = np.asarray(image, dtype=np.float32)
        if self.statistics == "image":
            mean = pixels.mean(axis=(0, 1))
            inverse = 1.0 / (pixels.std(axis=(0, 1)) + _LEAST_DEVIATION)
        else:
            mean = np.asarray(self.mean, dtype=np.float32) * 255.0
            inverse = 1.0 / (np.asarray(self.std, dtype=np.float32) * 255.0)
        return np.ascontiguousarray(((pixels - mean) * inverse).transpose(2, 0, 1))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """Inverse of `to_json`. Raises `InvalidConfig` for unknown or missing keys."""
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (KeyError, TypeError) as error:
            raise InvalidConfig(f"preprocessing is incomplete or has unknown keys: {error}") from error

    @property
    def digest(self) -> str:
        """SHA-256 over all settings."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
