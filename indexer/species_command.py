"""`voucher species`: which species the catalogue has, and the identifiers that other commands ask for."""

from typing import Annotated, Any

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, HomeOption, JsonOption
from models.catalogue import Catalogue, SpeciesCounts
from models.plain_text import comparable
from models.taxonomy import Species


def species_command(
    search: Annotated[
        str | None, typer.Argument(help="Part of a name, genus, family or identifier. [default: all species]")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Species to show.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Species of the catalogue by name, with their identifiers and how many sheets and photos they have."""
    with Catalogue.open(console.home_of(home)) as catalogue:
        wanted = comparable(search or "")
        found = sorted((each for each in catalogue.species() if _fits(each, wanted)), key=lambda s: s.scientific_name)
        counts = catalogue.species_counts()
    shown, more = found[:limit], len(found) - limit
    if as_json:
        values = [_to_json(each, counts.get(each.species_id, SpeciesCounts())) for each in shown]
        console.show_json({"species": values, "more": max(0, more)})
        return
    rows = []
    for each in shown:
        counted = counts.get(each.species_id, SpeciesCounts())
        name = (each.species_id, each.scientific_name, each.genus or "", each.family or "")
        sheets, photos = counted.sheets + counted.test_sheets, counted.field_photos + counted.test_field_photos
        rows.append((*name, f"{sheets:,}", f"{photos:,}"))
    console.show_table("Species", ["species", "name", "genus", "family", "sheets", "photos"], rows)
    if more > 0:
        console.output.print(f"{more:,} more: give a part of the name, or --limit", markup=False)


def _fits(species: Species, wanted: str) -> bool:
    own = (species.scientific_name, species.genus or "", species.family or "", species.species_id)
    return any(wanted in comparable(text) for text in own)


def _to_json(species: Species, counts: SpeciesCounts) -> dict[str, Any]:
    return {
        "species_id": species.species_id,
        "scientific_name": species.scientific_name,
        "genus": species.genus,
        "family": species.family,
        "sheets": counts.sheets + counts.test_sheets,
        "field_photos": counts.field_photos + counts.test_field_photos,
    }
