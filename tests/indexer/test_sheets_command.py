"""`voucher sheets`: the curator's commands, as they are typed."""

import json
from pathlib import Path
from typing import Any

import pytest
from postgres import PASSWORD
from tests_support import noise_picture
from typer.testing import CliRunner

from indexer import sheets_command
from indexer.console import DATABASE_VARIABLE, home_of
from indexer.demo import demo_command
from models.catalogue import Catalogue
from models.errors import (
    InvalidConfig,
    InvalidDataset,
    InvalidImage,
    InvalidSheetDetails,
    SheetConflict,
    UnknownSheet,
    UnknownSpecies,
)
from models.home import Home
from models.taxonomy import Species, SpeciesId


@pytest.fixture
def home(empty_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Two species, no sheet; the commands find the database through the environment."""
    with Catalogue.open(empty_home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([Species(SpeciesId("rose"), "Rosa canina L."), Species(SpeciesId("mint"), "Mentha")])
    if empty_home.database_url is not None:
        monkeypatch.setenv(DATABASE_VARIABLE, empty_home.database_url)
    return empty_home


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        noise_picture(number, (20, 20)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def sheets(home: Home, *arguments: object) -> Any:
    """Result of a command; an expected error is raised, as `main` receives it."""
    result = CliRunner().invoke(sheets_command.sheets_app, [*map(str, arguments), "--home", str(home.root)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def as_json(home: Home, *arguments: object) -> Any:
    return json.loads(sheets(home, *arguments, "--json").stdout)


def test_sheets_are_added_listed_removed_restored_and_moved(home: Home, pictures: Path) -> None:
    told = ("--institution", "K", "--collection", "h", "--catalog-number", "K1", "--license", "CC0")
    added = as_json(home, "add", pictures, "--species", "rose", *told, "--rights-holder", "Kew", "--by", "Ada")
    assert [one["outcome"] for one in added["sheets"]] == ["added"] * 3
    first = added["sheets"][0]
    codes = (first["institution_code"], first["collection_code"], first["catalog_number"])
    assert (*codes, first["license"], first["rights_holder"]) == ("K", "h", "K1", "CC0", "Kew")
    ids = sorted(one["sheet_id"] for one in added["sheets"])

    listed = as_json(home, "list", "--limit", "2")
    assert ([one["sheet_id"] for one in listed["sheets"]], listed["more"]) == (ids[:2], True)
    rest = as_json(home, "list", "--after", ids[1], "--species", "rose")
    assert ([one["sheet_id"] for one in rest["sheets"]], rest["more"]) == (ids[2:], False)

    removed = as_json(home, "remove", ids[0], ids[1])
    assert all(one["removed_at"] for one in removed["sheets"])
    assert [one["sheet_id"] for one in as_json(home, "list", "--removed")["sheets"]] == ids[:2]
    assert as_json(home, "restore", ids[0])["sheets"][0]["removed_at"] is None
    moved = as_json(home, "move", ids[0], "--species", "mint")
    assert {one["species_id"] for one in moved["sheets"]} == {"mint"}
    assert len(moved["sheets"]) == 3  # one specimen
    with Catalogue.open(home_of(home.root)) as catalogue:
        history = [(r.action, r.sheets) for r in catalogue.revisions(1)]
        assert history == [("add", 3), ("remove", 2), ("restore", 1), ("move", 3)]
        assert catalogue.revisions()[1].actor == "Ada"
        assert catalogue.revision().revision == moved["revision"]


def test_a_new_species_comes_with_its_sheets(home: Home, pictures: Path) -> None:
    oak = ("--new-species", "Quercus robur L.", "--genus", "Quercus", "--family", "Fagaceae")
    added = as_json(home, "add", pictures / "0.png", *oak)
    assert added["sheets"][0]["species_id"] == "quercus-robur-l"
    named = as_json(home, "add", pictures / "1.png", "--new-species", "Acer", "--species-id", "7")
    assert named["sheets"][0]["species_id"] == "7"
    with Catalogue.open(home_of(home.root)) as catalogue:
        assert catalogue.get_species(SpeciesId("quercus-robur-l")).family == "Fagaceae"


def test_people_are_told_what_happened_and_what_comes_next(home: Home, pictures: Path) -> None:
    output = sheets(home, "add", pictures, "--species", "rose").stdout
    assert output.count("added") == 3
    assert "2.png" in output
    assert "voucher build" in output
    again = sheets(home, "add", pictures, "--species", "rose").stdout
    assert again.count("already present") == 3
    assert "voucher build" not in again
    assert "Nothing had to be changed." in again
    with Catalogue.open(home_of(home.root)) as catalogue:
        sheet_id = next(iter(list(catalogue.sheets()))).sheet_id
        (added,) = catalogue.revisions(1)
        assert added.actor  # the login name
    assert "voucher build" in sheets(home, "remove", sheet_id).stdout
    assert sheet_id in sheets(home, "list", "--removed").stdout
    assert "There are more: --after" in sheets(home, "list", "--limit", "1").stdout


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--species", "rose", "--new-species", "Rosa"),
        ("--species", "rose", "--genus", "Rosa"),
        ("--species", "rose", "--species-id", "x"),
    ],
)
def test_options_that_contradict_each_other_are_refused(home: Home, pictures: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSheetDetails, match="--new-species"):
        sheets(home, "add", pictures, *options)


def test_expected_errors_change_nothing(home: Home, pictures: Path, tmp_path: Path) -> None:
    sheets(home, "add", pictures / "0.png", "--species", "rose")
    with pytest.raises(SheetConflict, match=r"0\.png: .*nothing was added"):
        sheets(home, "add", pictures, "--species", "mint")
    with pytest.raises(UnknownSheet):
        sheets(home, "remove", "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidDataset, match="no image directly in the folder"):
        sheets(home, "add", tmp_path / "empty", "--species", "rose")
    with Catalogue.open(home_of(home.root)) as catalogue:
        assert catalogue.counts().sheets == 1


def test_the_demonstration_keeps_out_of_a_real_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, "postgresql://db.example/flora")
    with pytest.raises(InvalidConfig, match=f"unset {DATABASE_VARIABLE}"):
        demo_command(home=tmp_path / "demo", no_serve=True)
    assert not (tmp_path / "demo").exists()


def test_the_database_comes_from_the_environment_and_its_password_is_not_shown(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home_of(home.root) == home
    assert PASSWORD not in repr(home_of(home.root))
    monkeypatch.setenv(DATABASE_VARIABLE, "")
    assert home_of(home.root, may_be_new=True).database_url is None


def test_a_species_may_be_told_by_its_name(home: Home, pictures: Path) -> None:
    added = as_json(home, "add", pictures / "0.png", "--species", "rosa CANINA")
    assert added["sheets"][0]["species_id"] == "rose"
    sheet = added["sheets"][0]["sheet_id"]
    assert as_json(home, "move", sheet, "--species", "Mentha")["sheets"][0]["species_id"] == "mint"
    assert len(as_json(home, "list", "--species", "Mentha")["sheets"]) == 1
    with Catalogue.open(home) as catalogue, catalogue.writing() as writer:
        writer.put_species([Species(SpeciesId("dog-rose"), "Rosa canina Thunb.")])
    with pytest.raises(UnknownSpecies, match="several species: dog-rose, rose"):
        sheets(home, "add", pictures / "1.png", "--species", "Rosa canina")
    with pytest.raises(UnknownSpecies, match="`voucher species` lists"):
        sheets(home, "add", pictures / "1.png", "--species", "Rosa alba")


def test_an_error_names_the_file(home: Home, pictures: Path) -> None:
    (pictures / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(InvalidImage, match=r"2\.png: .*nothing was added"):
        sheets(home, "add", pictures, "--species", "rose")
    with Catalogue.open(home) as catalogue:
        assert catalogue.counts().sheets == 0
