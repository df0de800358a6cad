"""One sheet that a curator adds: what it is to be, and how it enters the catalogue, inside a transaction."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from models.catalogue_revisions import ChangeAction
from models.curated_species import NewSpecies, checked_species
from models.curation_rows import CurationRows
from models.errors import InvalidSheetDetails, SheetConflict
from models.image_store import ImageStore
from models.plain_text import optional_text
from models.specimens import Image, Role, Sheet, Specimen, Split
from models.taxonomy import SpeciesId

MAX_CODE = 200
_UNCITED = Specimen()
MAX_RIGHTS = 1_000
_MAX_PATH = 4_000


@dataclass(frozen=True, slots=True)
class NewSheet:
    """An image of a pressed plant, and what is told of it. `content` is the file, or its bytes."""

    content: bytes | Path
    species: SpeciesId | NewSpecies
    specimen: Specimen = _UNCITED
    license: str | None = None
    rights_holder: str | None = None
    source_path: str | None = None

    def checked(self) -> "NewSheet":
        """The same with its text in order. Raises `InvalidSheetDetails`."""
        codes = ("institution_code", "collection_code", "catalog_number")
        told = (optional_text(code, getattr(self.specimen, code), most=MAX_CODE) for code in codes)
        return replace(
            self,
            species=checked_species(self.species),
            specimen=Specimen(*told),
            license=optional_text("license", self.license, most=MAX_RIGHTS),
            rights_holder=optional_text("rights_holder", self.rights_holder, most=MAX_RIGHTS),
            source_path=optional_text("source_path", self.source_path, most=_MAX_PATH),
        )


class Outcome(StrEnum):
    """What adding a sheet came to."""

    ADDED = "added"
    RESTORED = "restored"
    ALREADY_PRESENT = "already_present"


@dataclass(frozen=True, slots=True)
class AddedSheet:
    """A sheet as the catalogue holds it now, and whether it did so before."""

    sheet: Sheet
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StoredSheet:
    """A new sheet whose image is in the store; `number` is its place in the call, from 1, for messages."""

    number: int
    told: NewSheet
    image: Image


def enter_sheet(rows: CurationRows, store: ImageStore, new: StoredSheet, species_id: SpeciesId) -> tuple[str, Outcome]:
    """Id and outcome of a sheet that is in the catalogue afterwards.

    Raises `SheetConflict` when the image is a field photo or a sheet of another species, or the specimen is of another
    species, and `InvalidSheetDetails` when the file was changed meanwhile.
    """
    # Files of purged sheets and files without a row go under the write lock, which is held now.
    if new.image not in store and store.add(new.told.content) != new.image:
        raise InvalidSheetDetails(f"sheet {new.number}: its file was changed while it was added; add it again")
    known = rows.find_image(new.image)
    if known is None:
        return _add(rows, new, species_id), Outcome.ADDED
    if known.role is Role.FIELD:
        raise SheetConflict(
            f"sheet {new.number}: the image is in the catalogue as a field photo of species {known.species_id!r}; "
            "an image is a sheet or a photo, not both"
        )
    present = rows.sheets([known.image.image_id])[known.image.image_id]
    if present.removed:
        _restore(rows, store, new, present, species_id)
        return present.sheet_id, Outcome.RESTORED
    if present.species_id != species_id:
        raise SheetConflict(
            f"sheet {new.number}: the image is in the catalogue as sheet {present.sheet_id} of species "
            f"{present.species_id!r}; move that sheet to correct its determination"
        )
    return present.sheet_id, Outcome.ALREADY_PRESENT


def refuse_divided(rows: CurationRows, specimen_key: str, species_id: SpeciesId, what: str, but: str = "") -> None:
    """Raises `SheetConflict` when sheets of the specimen, other than `but`, are of another species."""
    for sibling in rows.of_specimen(specimen_key):
        if not sibling.removed and sibling.sheet_id != but and sibling.species_id != species_id:
            raise SheetConflict(
                f"{what}: its specimen is of species {sibling.species_id!r} in the catalogue (sheet "
                f"{sibling.sheet_id}), not of {species_id!r}; move that sheet first, or check the specimen's codes"
            )


def split_among_siblings(rows: CurationRows, specimen_key: str, sheet_id: str, otherwise: Split | None) -> Split | None:
    """The split that a sheet must have beside the others of its specimen; `otherwise` where there are none."""
    siblings = [sheet for sheet in rows.of_specimen(specimen_key) if sheet.sheet_id != sheet_id]
    return min(siblings, key=lambda sheet: sheet.removed).split if siblings else otherwise


def _add(rows: CurationRows, new: StoredSheet, species_id: SpeciesId) -> str:
    specimen_key = _specimen_key(rows, new, but="")
    refuse_divided(rows, specimen_key, species_id, f"sheet {new.number}")
    told = new.told
    sheet = Sheet(
        sheet_id=new.image.image_id,
        species_id=species_id,
        image=new.image,
        specimen_key=specimen_key,
        specimen=told.specimen,
        split=split_among_siblings(rows, specimen_key, new.image.image_id, otherwise=None),
        license=told.license,
        rights_holder=told.rights_holder,
        source_path=told.source_path,
    )
    rows.add(sheet)
    return sheet.sheet_id


def _restore(rows: CurationRows, store: ImageStore, new: StoredSheet, present: Sheet, species_id: SpeciesId) -> None:
    """Bring a removed sheet back, with what is told of it now."""
    told = new.told
    given = {"license": told.license, "rights_holder": told.rights_holder, "source_path": told.source_path}
    values: dict[str, str | None] = {column: value for column, value in given.items() if value is not None}
    specimen_key = present.specimen_key
    if told.specimen != _UNCITED:
        specimen_key = _specimen_key(rows, new, but=present.sheet_id)
        values |= {
            "institution_code": told.specimen.institution_code,
            "collection_code": told.specimen.collection_code,
            "catalog_number": told.specimen.catalog_number,
        }
    refuse_divided(rows, specimen_key, species_id, f"sheet {new.number}", but=present.sheet_id)
    if present.image not in store:
        # Purged, and stored again; a newer decoder may have packed the same pixels otherwise.
        rows.replace_file(present.sheet_id, new.image)
    values |= {"removed_at": None, "purged_at": None, "species_id": species_id, "plant_key": specimen_key}
    values["split"] = split_among_siblings(rows, specimen_key, present.sheet_id, otherwise=present.split)
    rows.update(present, ChangeAction.RESTORED, values)


def _specimen_key(rows: CurationRows, new: StoredSheet, but: str) -> str:
    """Key of the pressed plant: that of the other sheets which are cited alike, less `but`, or a new one."""
    specimen = new.told.specimen
    cited = [sheet for sheet in rows.cited_as(specimen) if sheet.sheet_id != but]
    if cited:
        return min(cited, key=lambda sheet: sheet.removed).specimen_key
    if specimen.catalog_number is None:
        return new.image.image_id
    # As an import names it, so that images that are imported later join it.
    codes = (specimen.institution_code, specimen.collection_code, specimen.catalog_number)
    return ":".join(code or "" for code in codes)
