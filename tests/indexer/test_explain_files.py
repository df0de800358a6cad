from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from indexer.cli import assemble
from indexer.explain_files import write_explanations
from indexer.identify_files import identify_files
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import InvalidConfig
from models.home import Home
from models.identifier import Identifier


@pytest.fixture(scope="module")
def identifier(trained_home: Home) -> Identifier:
    return Identifier.load(trained_home, Compute("cpu", None))


@pytest.fixture(scope="module")
def photos(trained_home: Home) -> list[Path]:
    with Catalogue.open(trained_home) as catalogue:
        return [catalogue.image_store.path(photo.image) for photo in catalogue.field_photos()][:3]


def test_the_best_sheet_of_the_first_candidates_stands_beside_the_photo(
    identifier: Identifier, trained_home: Home, photos: list[Path], tmp_path: Path
) -> None:
    answer = identify_files(identifier, photos[:1])
    with Catalogue.open(trained_home) as catalogue:
        written = write_explanations(
            identifier, catalogue, photos[:1], answer, tmp_path / "new" / "folder", candidates=2
        )
        sheet = catalogue.get_sheet(answer.candidates[0].sheets[0].sheet_id).image
    assert sorted(written) == sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.name.split("-")[0] for path in written] == ["1", "2"]
    assert answer.candidates[0].sheets[0].sheet_id in written[0].name
    drawn = Image.open(written[0])
    photo = identifier.decode(photos[0], max_pixels=10**8)
    width = 640 * (2 * photo.width / photo.height + 2 * sheet.width / sheet.height) + 3 * 16
    assert drawn.size == (pytest.approx(width, abs=4), 640)
    # The outer pictures are bare, the inner ones marked.
    pixels = np.asarray(drawn, dtype=int)
    across = round(640 * photo.width / photo.height)
    bare, marked = pixels[:, :across], pixels[:, across + 16 : 2 * across + 16]
    expected = np.asarray(photo.resize((across, 640), Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=int)
    assert np.abs(bare - expected).mean() < 3
    assert np.abs(marked - expected).max() > 60


def test_of_several_photos_one_is_drawn(
    identifier: Identifier, trained_home: Home, photos: list[Path], tmp_path: Path
) -> None:
    answer = identify_files(identifier, photos)
    with Catalogue.open(trained_home) as catalogue:
        assert len(write_explanations(identifier, catalogue, photos, answer, tmp_path)) == 3


def test_a_place_that_is_no_folder_is_named(
    identifier: Identifier, trained_home: Home, photos: list[Path], tmp_path: Path
) -> None:
    answer = identify_files(identifier, photos[:1])
    (tmp_path / "taken").write_text("a file")
    with Catalogue.open(trained_home) as catalogue, pytest.raises(InvalidConfig, match="taken"):
        write_explanations(identifier, catalogue, photos[:1], answer, tmp_path / "taken")


def test_the_command_draws_and_answers(trained_home: Home, photos: list[Path], tmp_path: Path) -> None:
    arguments = ["identify", str(photos[0]), "--home", str(trained_home.root), "--device", "cpu", "--explain"]
    result = CliRunner().invoke(assemble(), [*arguments, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.parametrize("with_what", [["--url", "http://127.0.0.1:9"], ["--out", "x.csv"]])
def test_a_service_or_a_folder_is_not_explained(photos: list[Path], tmp_path: Path, with_what: list[str]) -> None:
    given = str(photos[0]) if "--url" in with_what else str(photos[0].parent)
    result = CliRunner().invoke(assemble(), ["identify", given, "--explain", str(tmp_path / "out"), *with_what])
    assert isinstance(result.exception, InvalidConfig)
    assert "--explain" in str(result.exception)
    assert not (tmp_path / "out").exists()
