import json
from pathlib import Path
from typing import Any

import pytest
from tests_support import noise_picture
from typer.testing import CliRunner

from indexer.bench_command import bench_app
from models.errors import InsufficientData


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for i in range(16):
        noise_picture(i, (64, 48)).save(tmp_path / f"{i}.png")
    return tmp_path


def bench(folder: Path, *more: str) -> Any:
    arguments = ["embed", str(folder), "--backbone", "test_vit", "--image-size", "64", "--rounds", "1"]
    return CliRunner().invoke(bench_app, [*arguments, "--device", "cpu", *more])


def test_both_ways_give_the_same_vectors(pictures: Path) -> None:
    result = bench(pictures, "--json")
    values = json.loads(result.stdout)
    assert values["images"] == 16
    assert values["minimum_cosine"] > 0.999
    assert values["ratio"] == pytest.approx(values["voucher_per_second"] / values["plain_per_second"])
    assert values["share_of_matrix_product"] > 0


def test_figures_for_people(pictures: Path) -> None:
    text = bench(pictures).stdout
    assert "ratio" in text
    assert "minimum cosine" in text


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    assert isinstance(bench(tmp_path).exception, InsufficientData)
