"""Staged images → catalogue, inside one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.import_report import LISTED_AT_MOST, Conflict, Duplicate
from indexer.import_staging import StagedImage, contradiction
from models.catalogue_writer import CatalogueWriter, KnownImage, TornPlant
from models.errors import CatalogueError
from models.image_store import ImageStore
from models.specimens import FieldPhoto, Role, Sheet


@dataclass
class Merged:
    """Running figures of a merge."""

    sheets: int = 0
    field_photos: int = 0
    updated: int = 0
    already_present: int = 0
    already_removed: int = 0
    duplicate_count: int = 0
    duplicates: list[Duplicate] = field(default_factory=list)
    conflict_count: int = 0
    conflicts: list[Conflict] = field(default_factory=list)


def merge_chunk(
    writer: CatalogueWriter,
    store: ImageStore,
    staged: Sequence[StagedImage],
    told: frozenset[str],
    merged: Merged,
) -> None:
    """Enter what is new, update what the dataset tells otherwise, and count.

    Images that the catalogue holds as another species or role are counted as conflicts and left out.
    Raises `CatalogueError` when the file of a new image is gone.
    """
    known_by_digest: dict[str, KnownImage] = {}
    for known in writer.find([one.image.source_sha256 for one in staged], [one.image.stored_sha256 for one in staged]):
        known_by_digest[known.image.stored_sha256] = known
        known_by_digest[known.image.source_sha256] = known
    new: list[StagedImage] = []
    for one in staged:
        match = known_by_digest.get(one.image.source_sha256) or known_by_digest.get(one.image.stored_sha256)
        if match is None:
            new.append(one)
        else:
            _meet(writer, one, match, told, merged)
    _check_files(store, new)
    sheets = [_sheet(one) for one in new if one.role is Role.SHEET]
    photos = [_field_photo(one) for one in new if one.role is Role.FIELD]
    writer.add_sheets(sheets)
    writer.add_field_photos(photos)
    merged.sheets += len(sheets)
    merged.field_photos += len(photos)


def _check_files(store: ImageStore, new: Sequence[StagedImage]) -> None:
    """What was stored days ago, without a row, may have been swept away: files go under the write lock, held now."""
    if any(one.image not in store for one in new):
        raise CatalogueError(
            "images that were read for this import have been removed from the image store since; nothing was "
            "imported. Run the same import again, which stores them again"
        )


def _meet(writer: CatalogueWriter, one: StagedImage, known: KnownImage, told: frozenset[str], merged: Merged) -> None:
    """Deal with an image that the catalogue holds already."""
    kept = str(known.metadata["source_path"])
    if known.role is one.role and known.metadata.get("removed_at") is not None:
        merged.already_removed += 1
        return
    if (one.species_id, one.role) != (known.species_id, known.role):
        merged.conflict_count += 1
        if len(merged.conflicts) < LISTED_AT_MOST:
            in_catalogue = f"{kept}, in the catalogue since an earlier import"
            sides: dict[tuple[str, str, str | None], str] = {
                (str(one.species_id), one.role.value, None): one.name,
                (str(known.species_id), known.role.value, None): in_catalogue,
            }
            merged.conflicts.append(Conflict(contradiction(sides), (one.name, kept)))
        return
    if one.image.source_sha256 != known.image.source_sha256:
        merged.duplicate_count += 1
        if len(merged.duplicates) < LISTED_AT_MOST:
            merged.duplicates.append(Duplicate(one.name, kept))
        return
    merged.already_present += 1
    changed = {
        column: value for column, value in _metadata(one).items() if column in told and known.metadata[column] != value
    }
    if changed:
        merged.updated += 1
        writer.change(one.role, one.image.image_id, changed)


def _metadata(one: StagedImage) -> dict[str, Any]:
    shared = {
        "plant_key": one.plant_key,
        "split": one.split,
        "license": one.license,
        "rights_holder": one.rights_holder,
    }
    if one.role is Role.FIELD:
        return shared | {"organ": one.organ}
    return shared | {
        "institution_code": one.specimen.institution_code,
        "collection_code": one.specimen.collection_code,
        "catalog_number": one.specimen.catalog_number,
    }


def _sheet(one: StagedImage) -> Sheet:
    return Sheet(
        sheet_id=one.image.image_id,
        species_id=one.species_id,
        image=one.image,
        specimen_key=one.plant_key,
        specimen=one.specimen,
        split=one.split,
        license=one.license,
        rights_holder=one.rights_holder,
        source_path=one.name,
    )


def _field_photo(one: StagedImage) -> FieldPhoto:
    return FieldPhoto(
        photo_id=one.image.image_id,
        species_id=one.species_id,
        image=one.image,
        observation_key=one.plant_key,
        organ=one.organ,
        split=one.split,
        license=one.license,
        rights_holder=one.rights_holder,
        source_path=one.name,
    )


def torn_plant_in_words(torn: TornPlant) -> str:
    """A line that names the plant, and species, split and a file of each side."""
    plant = "specimen" if torn.role is Role.SHEET else "observation"
    sides = [
        f"species {species_id} {f'in the split {split}' if split else 'without a split'} ({path})"
        for species_id, split, path in torn.sides
    ]
    return f"{plant} {torn.plant_key}: {' and '.join(sides)}"
