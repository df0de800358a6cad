import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from models.decoding import decode_image
from models.explanation_picture import heat_map, inferno, png_of, side_by_side, strengths
from models.preprocess import Preprocessing

MEAN, STD = (0.5,) * 3, (0.25,) * 3
PLACES = 6
CROPS: dict[str, dict[str, Any]] = {
    "center": {"crop": "center", "crop_fraction": 0.875},
    "center, nothing cut from a square": {"crop": "center"},
    "squash": {"crop": "squash"},
    "letterbox": {"crop": "letterbox"},
}
SIZES = [(120, 80), (80, 120), (96, 96), (301, 77)]


def preprocessing(crop: str) -> Preprocessing:
    return Preprocessing(48, MEAN, STD, **CROPS[crop])


def one_place(row: int, column: int) -> np.ndarray:
    contributions = np.full((PLACES, PLACES), -1.0, dtype=np.float32)
    contributions[row, column] = 1.0
    return contributions


def brightest(picture: Image.Image) -> tuple[float, float]:
    """Middle of what is drawn strongest, in parts of width and height."""
    alpha = np.asarray(picture)[..., 3]
    down, across = np.nonzero(alpha >= 0.9 * alpha.max())
    return (across.mean() + 0.5) / alpha.shape[1], (down.mean() + 0.5) / alpha.shape[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", CROPS)
def test_a_place_lies_where_the_network_saw_it(crop: str, size: tuple[int, int]) -> None:
    """A marker is painted on the picture; where the network sees it there is the heat, and the heat lies on it."""
    pre = preprocessing(crop)
    for across, down in ((0.5, 0.5), (0.4, 0.55), (0.62, 0.35)):
        picture = Image.new("RGB", size, (0, 0, 0))
        x, y = across * size[0], down * size[1]
        picture.paste((255, 255, 255), (round(x) - 2, round(y) - 2, round(x) + 3, round(y) + 3))
        seen = np.asarray(pre.resize(picture), dtype=np.float32).mean(axis=2)
        places = seen.reshape(PLACES, 8, PLACES, 8).mean(axis=(1, 3))
        found = brightest(heat_map(places.astype(np.float32), pre, size))
        # Within one place of the network's square, in parts of the picture.
        left, top, right, bottom = pre.square_on(size)
        assert abs(found[0] - (x + 0.5) / size[0]) < (right - left) / PLACES / size[0]
        assert abs(found[1] - (y + 0.5) / size[1]) < (bottom - top) / PLACES / size[1]


@pytest.mark.parametrize("size", [(120, 80), (80, 120)])
@pytest.mark.parametrize("corner", [(0, 0), (0, PLACES - 1), (PLACES - 1, 0), (PLACES - 1, PLACES - 1)])
def test_a_corner_is_the_corner_of_the_picture_where_it_is_seen_as_a_whole(
    size: tuple[int, int], corner: tuple[int, int]
) -> None:
    alpha = np.asarray(heat_map(one_place(*corner), preprocessing("squash"), size))[..., 3]
    row, column = (0 if index == 0 else -1 for index in corner)
    assert alpha[row, column] == alpha.max() > 190
    assert (alpha > 100).sum() < 1.5 * alpha.size / PLACES**2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", CROPS)
def test_it_has_the_proportions_of_the_picture_and_is_empty_where_nothing_was_seen(
    crop: str, size: tuple[int, int]
) -> None:
    pre = preprocessing(crop)
    picture = heat_map(np.ones((PLACES, PLACES), dtype=np.float32), pre, size, longer_side=240)
    assert max(picture.size) == 240
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.02)
    assert picture.mode == "RGBA"
    pixels = np.asarray(picture)
    left, top, right, bottom = pre.square_on(size)
    across = (np.arange(picture.width) + 0.5) * size[0] / picture.width
    down = (np.arange(picture.height) + 0.5) * size[1] / picture.height
    inside = np.outer((down > top) & (down < bottom), (across > left) & (across < right))
    # The outermost pixels of the square may fall to either side.
    assert np.mean((pixels[..., 3] > 0) != inside) < 0.01
    assert not pixels[pixels[..., 3] == 0].any()
    # Without a crop, or with one of the middle alone, everything or a known part is covered.
    if crop in ("squash", "letterbox"):
        assert inside.all()
    else:
        assert inside.mean() < 1 or size == (96, 96)


@pytest.mark.parametrize("size", SIZES)
def test_the_square_of_a_letterbox_is_what_was_pasted(size: tuple[int, int]) -> None:
    pre = preprocessing("letterbox")
    white = np.asarray(pre.resize(Image.new("RGB", size, (255, 255, 255))))
    assert white.min() == 255  # on its own mean colour
    left, top, right, bottom = pre.square_on(size)
    assert right - left == pytest.approx(48 * size[0] / max(1, round(48 * size[0] / max(size))))
    assert bottom - top == pytest.approx(48 * size[1] / max(1, round(48 * size[1] / max(size))))
    assert left <= 0 <= top + 1e-9 or top <= 0 <= left + 1e-9
    assert right >= size[0] - 1e-6
    assert bottom >= size[1] - 1e-6


def test_an_upright_picture_of_a_turned_upload_is_what_counts() -> None:
    """A phone's photo: stored lying, turned by EXIF; the marker at the upper left of the upright picture."""
    upright = Image.new("RGB", (80, 120), (0, 0, 0))
    upright.paste((255, 255, 255), (0, 0, 10, 10))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6
    packed = io.BytesIO()
    lying.save(packed, "JPEG", exif=exif, quality=95)
    decoded = decode_image(packed.getvalue())
    assert decoded.size == (80, 120)
    pre = preprocessing("letterbox")
    seen = np.asarray(pre.resize(decoded), dtype=np.float32).mean(axis=2)
    places = seen.reshape(PLACES, 8, PLACES, 8).mean(axis=(1, 3))
    picture = heat_map(places - places.mean(), pre, decoded.size)
    across, down = brightest(picture)
    assert across < 0.2
    assert down < 0.15
    assert picture.height > picture.width


def test_colours_are_those_of_inferno() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32)
    expected = 255 * mpl.colormaps["inferno"](np.arange(256))[:, :3]
    assert np.abs(inferno(values) - expected).max() <= 2.2
    lightness = inferno(values).astype(float) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) >= -0.5).all()


def test_strengths_are_relative_to_the_strongest_and_leave_out_what_counts_against() -> None:
    contributions = np.array([[-5.0, 0.0], [0.5, 1.0]], dtype=np.float32)
    found = strengths(contributions)
    assert found[1, 1] == 1
    assert found[1, 0] == pytest.approx(0.5, abs=0.03)
    assert not found[0].any()
    np.testing.assert_allclose(strengths(1e-6 * contributions), found, rtol=1e-4)


def test_one_place_beyond_all_others_does_not_hide_them() -> None:
    contributions = np.ones((20, 20), dtype=np.float32)
    contributions[3, 3] = 1000.0
    assert (strengths(contributions) == 1).all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_where_nothing_counts_for_it_nothing_is_drawn_strongly(value: float) -> None:
    contributions = np.full((PLACES, PLACES), value, dtype=np.float32)
    assert not strengths(contributions).any()
    assert np.asarray(heat_map(contributions, preprocessing("squash"), (50, 50)))[..., 3].max() < 30


def test_one_place_alone_is_shown_however_large_the_grid_is() -> None:
    contributions = np.zeros((40, 40), dtype=np.float32)
    contributions[0, 0] = 1e-3
    assert strengths(contributions)[0, 0] == 1


def test_the_file_is_a_png_without_anything_else() -> None:
    generator = np.random.default_rng(0)
    content = png_of(heat_map(generator.standard_normal((37, 37)).astype(np.float32), preprocessing("squash"), (6, 4)))
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (480, 320))
    assert picture.info == {}
    assert len(content) < 150_000


def test_pictures_beside_each_other_lie_under_their_heat() -> None:
    photo, sheet = Image.new("RGB", (60, 40), (0, 90, 0)), Image.new("RGB", (40, 60), (230, 220, 200))
    hot = np.ones((PLACES, PLACES), dtype=np.float32)
    parts = [(photo, heat_map(hot, preprocessing("squash"), photo.size)), (sheet, Image.new("RGBA", (4, 6)))]
    whole = side_by_side(parts, height=100)
    assert whole.size == (150 + 2 + 67, 100)
    assert np.asarray(whole)[50, 75, 0] > 150  # orange over green
    assert tuple(np.asarray(whole)[50, 180]) == (230, 220, 200)


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (8, 9000)])
def test_extreme_proportions_are_drawn_all_the_same(size: tuple[int, int]) -> None:
    for crop in CROPS:
        picture = heat_map(one_place(0, 0), preprocessing(crop), size)
        assert max(picture.size) == 480
        assert min(picture.size) >= 1
