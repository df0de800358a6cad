"""`voucher sheets`: add sheets to the collection, remove them, bring them back, correct a determination."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, ByOption, HomeOption, JsonOption, who
from models.errors import InvalidDataset, InvalidImage, InvalidSheetDetails, SheetConflict, UnknownSpecies
from models.species_names import species_meant
from models.specimens import Sheet, Specimen
from models.taxonomy import SpeciesId

if TYPE_CHECKING:
    from models.catalogue import Catalogue
    from models.curation import Curator, NewSpecies

sheets_app = typer.Typer(no_args_is_help=True, help="Sheets of the collection: add, remove, restore, move, list.")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
"""Of the images that are taken from a folder; a file that is named itself may be called anything."""

NEXT = "`voucher build` puts this into service."

SheetIds = Annotated[list[str], typer.Argument(metavar="ID...", help="As `voucher sheets list` shows them.")]
SpeciesOption = Annotated[
    str | None, typer.Option("--species", help="Identifier or name, as `voucher species` shows them.")
]
NewSpeciesOption = Annotated[str | None, typer.Option("--new-species", help="Scientific name of one to be entered.")]
SpeciesIdOption = Annotated[str | None, typer.Option("--species-id", help="Of the new one; none: made from the name.")]
GenusOption = Annotated[str | None, typer.Option(help="Of the new species.")]
FamilyOption = Annotated[str | None, typer.Option(help="Of the new species.")]


@sheets_app.callback()
def _group() -> None:
    """Sheets of the collection: add, remove, restore, move, list."""


@sheets_app.command("add")
def add_command(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Images, or folders of images.")],
    home: HomeOption = DEFAULT_HOME,
    species: SpeciesOption = None,
    new_species: NewSpeciesOption = None,
    species_id: SpeciesIdOption = None,
    genus: GenusOption = None,
    family: FamilyOption = None,
    institution: Annotated[str | None, typer.Option(help="Institution code of the specimen.")] = None,
    collection: Annotated[str | None, typer.Option(help="Collection code of the specimen.")] = None,
    catalog_number: Annotated[
        str | None, typer.Option(help="Catalogue number: all images are of this one specimen.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the images.")] = None,
    rights_holder: Annotated[str | None, typer.Option(help="Who holds the rights in the images.")] = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add images of pressed plants, all of one species. All are added, or none.

    An image that is there already is not added again; one that was removed comes back.
    """
    from indexer.progress import of_stage
    from models.catalogue import Catalogue
    from models.curation import Curator, NewSheet, Outcome

    specimen, images = Specimen(institution, collection, catalog_number), list(_images(paths))
    with Catalogue.open(console.home_of(home)) as catalogue:
        wanted = _in_catalogue(catalogue, _species(species, new_species, species_id, genus, family))
        new = [NewSheet(path, wanted, specimen, license, rights_holder, source_path=path.name) for path in images]
        with console.progress_bars() as report, _naming(images):
            added = Curator(catalogue, who(by)).add(new, on_progress=of_stage(report, "storing images"))
        revision = catalogue.revision().revision
    if as_json:
        console.show_json(
            {
                "sheets": [{"outcome": one.outcome.value, **sheet_to_json(one.sheet)} for one in added],
                "revision": revision,
            }
        )
        return
    rows = [
        (one.sheet.sheet_id, one.outcome.value.replace("_", " "), one.sheet.species_id, told.source_path or "")
        for one, told in zip(added, new, strict=True)
    ]
    console.show_table("Sheets", ["sheet", "outcome", "species", "file"], rows)
    _say_what_comes_next(is_changed=any(one.outcome is not Outcome.ALREADY_PRESENT for one in added))


@sheets_app.command("remove")
def remove_command(
    sheet_ids: SheetIds, home: HomeOption = DEFAULT_HOME, by: ByOption = None, as_json: JsonOption = False
) -> None:
    """Take sheets out of the collection; until `voucher gc` has deleted their images this can be undone."""
    _change(home, by, as_json, lambda _, curator: curator.remove(sheet_ids))


@sheets_app.command("restore")
def restore_command(
    sheet_ids: SheetIds, home: HomeOption = DEFAULT_HOME, by: ByOption = None, as_json: JsonOption = False
) -> None:
    """Bring removed sheets back."""
    _change(home, by, as_json, lambda _, curator: curator.restore(sheet_ids))


@sheets_app.command("move")
def move_command(
    sheet_id: Annotated[str, typer.Argument(metavar="ID", help="As `voucher sheets list` shows it.")],
    home: HomeOption = DEFAULT_HOME,
    species: SpeciesOption = None,
    new_species: NewSpeciesOption = None,
    species_id: SpeciesIdOption = None,
    genus: GenusOption = None,
    family: FamilyOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a determination: all sheets of the specimen move to another species."""
    told = _species(species, new_species, species_id, genus, family)
    _change(home, by, as_json, lambda catalogue, curator: curator.move(sheet_id, _in_catalogue(catalogue, told)))


@sheets_app.command("list")
def list_command(
    home: HomeOption = DEFAULT_HOME,
    species: SpeciesOption = None,
    removed: Annotated[bool, typer.Option("--removed", help="Those that were removed and can be restored.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Sheets to show.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on after this sheet.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Sheets by their identifier."""
    from models.catalogue import Catalogue

    with Catalogue.open(console.home_of(home)) as catalogue:
        wanted = None if species is None else _known(catalogue, species)
        found = catalogue.sheets_page(wanted, limit=limit + 1, after=after, removed=removed)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        console.show_json({"sheets": [sheet_to_json(sheet) for sheet in shown], "more": more})
        return
    _show("Removed sheets" if removed else "Sheets", shown)
    if more:
        console.output.print(f"There are more: --after {shown[-1].sheet_id}", markup=False)


def sheet_to_json(sheet: Sheet) -> dict[str, Any]:
    """A sheet as JSON values; the keys stay stable."""
    return {
        "sheet_id": sheet.sheet_id,
        "species_id": sheet.species_id,
        "institution_code": sheet.specimen.institution_code,
        "collection_code": sheet.specimen.collection_code,
        "catalog_number": sheet.specimen.catalog_number,
        "license": sheet.license,
        "rights_holder": sheet.rights_holder,
        "added_at": None if sheet.added_at is None else sheet.added_at.isoformat(),
        "removed_at": None if sheet.removed_at is None else sheet.removed_at.isoformat(),
    }


def _species(
    species: str | None, new_species: str | None, species_id: str | None, genus: str | None, family: str | None
) -> "SpeciesId | NewSpecies":
    """What the options say. Raises `InvalidSheetDetails` when they say nothing, or two things."""
    from models.curation import NewSpecies

    if (species is None) == (new_species is None):
        raise InvalidSheetDetails(
            "say of which species: either --species with its identifier or name, or --new-species with the name of one "
            "to be entered"
        )
    if new_species is not None:
        return NewSpecies(new_species, genus, family, species_id)
    if species_id is not None or genus is not None or family is not None:
        raise InvalidSheetDetails("--species-id, --genus and --family describe a new species; name it by --new-species")
    return SpeciesId(species or "")


def _in_catalogue(catalogue: "Catalogue", told: "SpeciesId | NewSpecies") -> "SpeciesId | NewSpecies":
    """Of a species that is not new, its identifier. Raises `UnknownSpecies`."""
    return _known(catalogue, told) if isinstance(told, str) else told


def _known(catalogue: "Catalogue", text: str) -> SpeciesId:
    species = catalogue.species()
    present = {each.species_id for each in species}
    found = [SpeciesId(key) for key in species_meant([text], species) if key in present]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownSpecies(
            f"{text!r} is the name of several species: {', '.join(sorted(found))}; give the identifier"
        )
    raise UnknownSpecies(
        f"species {text!r} is not in the catalogue; `voucher species` lists what is, and --new-species enters another"
    )


@contextmanager
def _naming(images: Sequence[Path]) -> Iterator[None]:
    """Have errors name the file; to the library they are sheets with a number, since clients' names are private."""
    try:
        yield
    except (InvalidImage, InvalidSheetDetails, SheetConflict) as error:
        number, colon, rest = str(error).removeprefix("sheet ").partition(": ")
        if not colon or not number.isdecimal() or not 0 < int(number) <= len(images):
            raise
        raise type(error)(f"{images[int(number) - 1]}: {rest}; nothing was added") from error


def _images(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves, and the images directly in folders, by name. Raises `InvalidDataset`."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        images = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
        if not images:
            raise InvalidDataset(f"there is no image directly in the folder {path}; name its folders one by one")
        yield from images


def _change(
    home: Path, by: str | None, as_json: bool, change: "Callable[[Catalogue, Curator], tuple[Sheet, ...]]"
) -> None:
    """Make a change and show the sheets as they are now."""
    from models.catalogue import Catalogue
    from models.curation import Curator

    with Catalogue.open(console.home_of(home)) as catalogue:
        before = catalogue.revision()
        sheets = change(catalogue, Curator(catalogue, who(by)))
        after = catalogue.revision()
    if as_json:
        console.show_json({"sheets": [sheet_to_json(sheet) for sheet in sheets], "revision": after.revision})
        return
    _show("Sheets", sheets)
    _say_what_comes_next(is_changed=after != before)


def _say_what_comes_next(*, is_changed: bool) -> None:
    console.output.print(NEXT if is_changed else "Nothing had to be changed.", markup=False)


def _show(title: str, sheets: Sequence[Sheet]) -> None:
    rows = [
        (sheet.sheet_id, sheet.species_id, _cited(sheet.specimen), _moment(sheet.added_at), _moment(sheet.removed_at))
        for sheet in sheets
    ]
    console.show_table(title, ["sheet", "species", "specimen", "added", "removed"], rows)


def _cited(specimen: Specimen) -> str:
    codes = (specimen.institution_code, specimen.collection_code, specimen.catalog_number)
    return " ".join(code for code in codes if code)


def _moment(at: Any) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
