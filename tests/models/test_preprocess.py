from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from models.errors import InvalidConfig
from models.preprocess import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smooth_picture(width: int, height: int) -> Image.Image:
    """A picture without noise, so that differences between resamplers show as such."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(x / 17.0 + k) * np.cos(y / 23.0 - k) * 100 + 128 for k in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@pytest.mark.parametrize("size", [(300, 451), (640, 320), (224, 224), (1000, 999)])
def test_center_crop_equals_timms_evaluation_transform(size: tuple[int, int]) -> None:
    picture = smooth_picture(*size)
    ours = Preprocessing(224, MEAN, STD, crop_fraction=0.9).apply(picture)
    transform = create_transform((3, 224, 224), interpolation="bicubic", mean=MEAN, std=STD, crop_pct=0.9)
    theirs = transform(picture).numpy()
    assert ours.shape == theirs.shape == (3, 224, 224)
    assert ours.dtype == np.float32
    # One grey level is 0.018 here; the crop's rounding and the resampler's make less than two on average.
    assert float(np.abs(ours - theirs).mean()) < 0.02
    flat = torch.nn.functional.cosine_similarity(
        torch.from_numpy(ours).flatten(), torch.from_numpy(theirs).flatten(), 0
    )
    assert float(flat) > 0.9995


def test_squash_keeps_the_ends_of_a_tall_sheet() -> None:
    sheet = Image.new("RGB", (100, 300), (255, 255, 255))
    sheet.paste((0, 0, 0), (0, 0, 100, 20))
    squashed = Preprocessing(60, (0, 0, 0), (1, 1, 1), crop="squash").apply(sheet)
    cropped = Preprocessing(60, (0, 0, 0), (1, 1, 1), crop="center").apply(sheet)
    assert squashed[:, 1].max() < 0.1
    assert cropped.min() > 0.9


def test_normalisation_takes_mean_and_deviation_of_each_channel() -> None:
    picture = Image.new("RGB", (32, 32), (51, 102, 204))
    pixels = Preprocessing(16, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125), crop="squash").apply(picture)
    np.testing.assert_allclose(pixels[:, 5, 5], [0.1 / 0.5, 0.2 / 0.25, 0.5 / 0.125], rtol=1e-5)


def test_other_modes_than_rgb_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="RGB"):
        Preprocessing(16, MEAN, STD).apply(Image.new("L", (20, 20)))


def test_json_round_trip_keeps_the_digest() -> None:
    one = Preprocessing(224, MEAN, STD, crop_fraction=0.9)
    assert Preprocessing.from_json(one.to_json()) == one
    assert Preprocessing.from_json(one.to_json()).digest == one.digest
    assert Preprocessing(224, MEAN, STD, crop_fraction=0.95).digest != one.digest


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 8},
        {"crop_fraction": 0.3},
        {"crop_fraction": 1.5},
        {"interpolation": "nearest"},
        {"crop": "random"},
        {"std": (1.0, 0.0, 1.0)},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        Preprocessing(**{"image_size": 224, "mean": MEAN, "std": STD, **values})  # type: ignore[arg-type]


def test_unknown_or_missing_keys_are_refused(tmp_path: Path) -> None:
    values = Preprocessing(224, MEAN, STD).to_json()
    with pytest.raises(InvalidConfig, match="colour"):
        Preprocessing.from_json({**values, "colour": 1})
    with pytest.raises(InvalidConfig, match="mean"):
        Preprocessing.from_json({k: v for k, v in values.items() if k != "mean"})


def test_decoding_may_shrink_to_four_times_the_resized_side() -> None:
    assert Preprocessing(224, MEAN, STD, crop_fraction=0.9).minimum_decode_side == 4 * 248
    assert Preprocessing(100, MEAN, STD, crop="squash").minimum_decode_side == 400
