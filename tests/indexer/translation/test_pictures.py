from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests_support import noise_picture

from indexer.translation.pictures import (
    UnpairedPictures,
    read_ahead,
    to_numbers,
    to_picture,
    training_crop,
    whole_picture,
)
from models.errors import InvalidImage


def grey_files(folder: Path, levels: list[int]) -> list[Path]:
    """Pictures of one grey level each."""
    paths = [folder / f"{level}.png" for level in levels]
    for path, level in zip(paths, levels, strict=True):
        Image.new("RGB", (40, 50), (level,) * 3).save(path)
    return paths


def levels_of(batch: object) -> list[int]:
    return [round((float(one.mean()) + 1) * 127.5) for one in batch]  # type: ignore[attr-defined]


@pytest.fixture
def pictures(tmp_path: Path) -> UnpairedPictures:
    sheets, photos = grey_files(tmp_path, [0, 10, 20, 30, 40]), grey_files(tmp_path, [200, 210])
    return UnpairedPictures(sheets, photos, image_size=32, batch=2, seed=4)


def test_pixels_go_there_and_back() -> None:
    picture = noise_picture(1)
    numbers = to_numbers(picture)
    assert numbers.shape == (3, 60, 40)
    assert (float(numbers.min()), float(numbers.max())) == pytest.approx((-1.0, 1.0), abs=0.02)
    assert to_picture(numbers).tobytes() == picture.tobytes()
    assert set(to_picture(np.full((3, 2, 2), 1.7, dtype=np.float32)).tobytes()) == {255}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((90, 60), (3, 32, 48)), ((60, 90), (3, 48, 32)), ((20, 20), (3, 32, 32)), ((400, 10), (3, 32, 96))],
)
def test_whole_pictures_keep_their_proportions_up_to_a_limit(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int, int]
) -> None:
    noise_picture(1, size).save(tmp_path / "a.png")
    assert whole_picture(tmp_path / "a.png", 32).shape == expected


@pytest.mark.parametrize("size", [(40, 60), (9, 300), (33, 33)])
def test_crops_are_square_whatever_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    noise_picture(1, size).save(tmp_path / "a.png")
    crops = [training_crop(tmp_path / "a.png", 32, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert crops[0].shape == (3, 32, 32)
    assert np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


def test_each_kind_is_gone_through_before_one_comes_back(pictures: UnpairedPictures) -> None:
    assert len(pictures) == 5
    batches = list(pictures.batches(range(5), 5, workers=2))
    sheets = [level for batch, _ in batches for level in levels_of(batch)]
    photos = [level for _, batch in batches for level in levels_of(batch)]
    assert sorted(sheets[:5]) == sorted(sheets[5:]) == [0, 10, 20, 30, 40]
    assert all(sorted(photos[i : i + 2]) == [200, 210] for i in range(0, 10, 2))
    again = [level for batch, _ in pictures.batches(range(5, 10), 5, workers=2) for level in levels_of(batch)]
    assert again != sheets


def test_batches_from_the_middle_are_those_of_the_whole(pictures: UnpairedPictures) -> None:
    whole = list(pictures.batches(range(8), 3, workers=2))
    rest = list(pictures.batches(range(5, 8), 3, workers=1))
    for one, other in zip(whole[5:], rest, strict=True):
        assert all(bool((a == b).all()) for a, b in zip(one, other, strict=True))


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    good = grey_files(tmp_path, [5])
    (tmp_path / "torn.png").write_bytes(b"torn")
    pictures = UnpairedPictures([tmp_path / "torn.png"], good, image_size=32, batch=1, seed=0)
    with pytest.raises(InvalidImage, match=r"torn\.png"):
        list(pictures.batches(range(1), 1, workers=1))


def test_reading_ahead_keeps_the_order_and_stays_within_bounds() -> None:
    taken: list[int] = []

    def items() -> object:
        for i in range(20):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(3) as pool:
        outcomes = read_ahead(pool, lambda i: i * i, items(), 4)  # type: ignore[arg-type]
        assert next(outcomes) == 0
        assert len(taken) == 4
        assert list(outcomes) == [i * i for i in range(1, 20)]
