"""`voucher species`."""

import json

from typer.testing import CliRunner

from indexer import cli
from models.catalogue import Catalogue
from models.home import Home

runner = CliRunner()


def species(*arguments: object) -> str:
    result = runner.invoke(cli.assemble(), ["species", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_identifiers_are_found_by_parts_of_names(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        everything = catalogue.species()
        counts = catalogue.counts()
    found = json.loads(species("--home", tiny_home.root, "--json"))["species"]
    assert {each["species_id"] for each in found} == {each.species_id for each in everything}
    assert sum(each["sheets"] for each in found) == counts.sheets
    assert sum(each["field_photos"] for each in found) == counts.field_photos
    wanted = everything[0]
    part = wanted.scientific_name.split()[1].upper()
    named = json.loads(species(part, "--home", tiny_home.root, "--json"))["species"]
    assert wanted.species_id in {each["species_id"] for each in named}
    assert all(part.lower() in each["scientific_name"].lower() for each in named)


def test_a_long_list_says_how_many_more_there_are(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        count = len(catalogue.species())
    shown = species("--home", tiny_home.root, "--limit", 1)
    assert f"{count - 1} more" in shown
    assert json.loads(species("--home", tiny_home.root, "--limit", 1, "--json"))["more"] == count - 1
    assert json.loads(species("nothing is called so", "--home", tiny_home.root, "--json"))["species"] == []
