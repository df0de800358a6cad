"""What curators do to the collection: add, remove, restore and move sheets. A call is all or nothing, and durable."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from models.catalogue import Catalogue
from models.catalogue_revisions import ChangeAction
from models.curated_species import NewSpecies, checked_species, resolve_species
from models.curation_rows import CurationRows
from models.errors import InvalidImage, InvalidSheetDetails, UnknownSheet
from models.image_purge import purge_sheets, sweep_images
from models.plain_text import curator_name
from models.sheet_entry import (
    AddedSheet,
    NewSheet,
    Outcome,
    StoredSheet,
    enter_sheet,
    refuse_divided,
    split_among_siblings,
)
from models.specimens import Sheet
from models.taxonomy import Species, SpeciesId

__all__ = ["AddedSheet", "Curator", "NewSheet", "NewSpecies", "Outcome"]

_Made = TypeVar("_Made")


class Curator:
    """Changes the collection in the name of `actor`.

    Everything that a call returns is on the disk; a call that raises or is killed has changed nothing. Several
    processes may do so at once. Answers follow with the next build of the index.
    """

    def __init__(self, catalogue: Catalogue, actor: str) -> None:
        """Raises `InvalidSheetDetails` for a name that is empty, too long or not plain text."""
        self._catalogue = catalogue
        self._store = catalogue.image_store
        self._actor = curator_name(actor)

    def add(
        self, sheets: Sequence[NewSheet], *, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[AddedSheet, ...]:
        """The sheets in the order that they were given, entered in one transaction after their images are stored.

        An image that is there already is not entered again; one that was removed is restored, with the species and
        the details that are given now. An image of a specimen that is known by its codes joins the specimen, and its
        split, so that training and test never share a plant. `on_progress` receives the number of images that are
        stored and of all.

        Raises `InvalidSheetDetails`, `InvalidImage`, `UnknownSpecies`, `SpeciesConflict`, `SheetConflict` (the image
        is a field photo or a sheet of another species, or its specimen is of another species), `StorageFull` and
        `CatalogueError`.
        """
        checked = [_numbered(number, sheet.checked) for number, sheet in enumerate(sheets, start=1)]
        for species_id in {one.species for one in checked if isinstance(one.species, str)}:
            self._catalogue.get_species(species_id)  # before anything large is stored
        stored = []
        for number, one in enumerate(checked, start=1):
            stored.append(StoredSheet(number, one, _numbered(number, partial(self._store.add, one.content))))
            if on_progress is not None:
                on_progress(number, len(checked))
        with self._catalogue.writing(actor=self._actor, action="add") as writer:
            rows = CurationRows(writer)
            outcomes = [
                enter_sheet(rows, self._store, one, resolve_species(rows, one.told.species)[0]) for one in stored
            ]
            present = rows.sheets(sheet_id for sheet_id, _ in outcomes)
        return tuple(AddedSheet(present[sheet_id], outcome) for sheet_id, outcome in outcomes)

    def add_species(self, species: NewSpecies) -> tuple[Species, bool]:
        """The species as the catalogue holds it now, and whether it is new.

        Raises `InvalidSheetDetails`, and `SpeciesConflict` when the identifier or the name is another's.
        """
        wanted = species.checked()
        with self._catalogue.writing(actor=self._actor, action="add species") as writer:
            rows = CurationRows(writer)
            species_id, is_new = resolve_species(rows, wanted)
            found = rows.find_species(species_id)
        assert found is not None
        return found, is_new

    def remove(self, sheet_ids: Iterable[str]) -> tuple[Sheet, ...]:
        """The sheets, now removed; one that was so before stays as it is. Raises `UnknownSheet`."""
        with self._catalogue.writing(actor=self._actor, action="remove") as writer:
            rows = CurationRows(writer)
            sheets = _present(rows, sheet_ids)
            for sheet in sheets:
                if not sheet.removed:
                    rows.update(sheet, ChangeAction.REMOVED, {"removed_at": writer.now})
            return _again(rows, sheets)

    def restore(self, sheet_ids: Iterable[str]) -> tuple[Sheet, ...]:
        """The sheets, no longer removed. Raises `UnknownSheet`, and `SheetConflict` when a specimen is divided."""
        with self._catalogue.writing(actor=self._actor, action="restore") as writer:
            rows = CurationRows(writer)
            sheets = _present(rows, sheet_ids)
            for sheet in sheets:
                if sheet.removed:
                    refuse_divided(rows, sheet.specimen_key, sheet.species_id, f"sheet {sheet.sheet_id}")
                    split = split_among_siblings(rows, sheet.specimen_key, sheet.sheet_id, otherwise=sheet.split)
                    rows.update(sheet, ChangeAction.RESTORED, {"removed_at": None, "split": split})
            return _again(rows, sheets)

    def move(self, sheet_id: str, species: SpeciesId | NewSpecies) -> tuple[Sheet, ...]:
        """All sheets of the specimen, now of that species: what is determined is the plant.

        Removed ones move along, and are returned, so that they can be restored. Raises `UnknownSheet`,
        `UnknownSpecies`, `SpeciesConflict` and `InvalidSheetDetails`.
        """
        wanted = checked_species(species)
        with self._catalogue.writing(actor=self._actor, action="move") as writer:
            rows = CurationRows(writer)
            (sheet,) = _present(rows, [sheet_id])
            species_id, _ = resolve_species(rows, wanted)
            siblings = rows.of_specimen(sheet.specimen_key)
            for one in siblings:
                if one.species_id != species_id:
                    rows.update(one, ChangeAction.MOVED, {"species_id": species_id})
            return _again(rows, [one for one in siblings if not one.purged])

    def purge(self, revision: int) -> list[Sheet]:
        """The sheets that were removed at or before `revision` and whose images are deleted now, for good.

        They can still be added again. The caller deletes what else it has made of the images.
        """
        return purge_sheets(self._catalogue, revision)

    def sweep_files(self) -> int:
        """How many files without a row were deleted from the image store, as killed processes leave them."""
        return sweep_images(self._catalogue)


def _numbered(number: int, make: Callable[[], _Made]) -> _Made:
    """What `make` gives; its errors tell which sheet they are about."""
    try:
        return make()
    except (InvalidSheetDetails, InvalidImage) as error:
        raise type(error)(f"sheet {number}: {error}") from error


def _present(rows: CurationRows, sheet_ids: Iterable[str]) -> list[Sheet]:
    """The sheets with these ids, each once, in their order. Raises `UnknownSheet`."""
    wanted = list(dict.fromkeys(sheet_ids))
    found = rows.sheets(wanted)
    for sheet_id in wanted:
        if sheet_id not in found:
            raise UnknownSheet(f"sheet {sheet_id!r} is not in the catalogue")
        if found[sheet_id].purged:
            raise UnknownSheet(
                f"sheet {sheet_id!r} was removed and its image has been deleted; add the image again to bring it back"
            )
    return [found[sheet_id] for sheet_id in wanted]


def _again(rows: CurationRows, sheets: Iterable[Sheet]) -> tuple[Sheet, ...]:
    """The sheets as they are now."""
    wanted = [sheet.sheet_id for sheet in sheets]
    found = rows.sheets(wanted)
    return tuple(found[sheet_id] for sheet_id in wanted)
