"""Tables of the catalogue, and rows ↔ values. Portable SQL types only."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, MetaData, RowMapping, String, Table, Text

from models.specimens import FieldPhoto, Image, Organ, Role, Sheet, Specimen, Split, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

SCHEMA_VERSION = 2

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

schema_version = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))

species = Table(
    "species",
    METADATA,
    Column("species_id", String(200), primary_key=True),
    Column("scientific_name", Text, nullable=False),
    Column("genus", Text),
    Column("family", Text),
)

images = Table(
    "images",
    METADATA,
    Column("image_id", String(20), primary_key=True),
    Column("source_sha256", String(64), nullable=False, unique=True),
    Column("stored_sha256", String(64), nullable=False, unique=True),
    Column("suffix", String(10), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)


def _image_of_a_species() -> tuple[Column[Any], ...]:
    return (
        Column("image_id", ForeignKey("images.image_id"), primary_key=True),
        Column("species_id", ForeignKey("species.species_id"), nullable=False, index=True),
        Column("plant_key", Text, nullable=False, index=True),
        Column("split", String(12)),
        Column("license", Text),
        Column("rights_holder", Text),
        Column("source_path", Text),
    )


sheets = Table(
    "sheets",
    METADATA,
    *_image_of_a_species(),
    Column("institution_code", Text),
    Column("collection_code", Text),
    Column("catalog_number", Text),
)

field_photos = Table("field_photos", METADATA, *_image_of_a_species(), Column("organ", String(12)))

# A table of its own, with the columns of `images`: no question about field photos or about images that were imported
# can meet a synthetic photo by mistake, and an import of the same bytes does not collide with it.
synthetic_photos = Table(
    "synthetic_photos",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("sheet_id", ForeignKey("sheets.image_id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("source_sha256", String(64), nullable=False),
    Column("stored_sha256", String(64), nullable=False, index=True),
    Column("suffix", String(10), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)

TABLE_OF = {Role.SHEET: sheets, Role.FIELD: field_photos}


def species_of(row: RowMapping) -> Species:
    """Species of a row of `species`."""
    return Species(SpeciesId(row["species_id"]), row["scientific_name"], row["genus"], row["family"])


def image_of(row: RowMapping) -> Image:
    """Image of a row that holds the columns of `images`."""
    return Image(
        source_sha256=row["source_sha256"],
        stored_sha256=row["stored_sha256"],
        suffix=row["suffix"],
        width=row["width"],
        height=row["height"],
        bytes=row["bytes"],
    )


def sheet_of(row: RowMapping) -> Sheet:
    """Sheet of a row of `sheets` joined with `images`."""
    return Sheet(
        sheet_id=row["image_id"],
        species_id=SpeciesId(row["species_id"]),
        image=image_of(row),
        specimen_key=row["plant_key"],
        specimen=Specimen(row["institution_code"], row["collection_code"], row["catalog_number"]),
        split=_split(row["split"]),
        license=row["license"],
        rights_holder=row["rights_holder"],
        source_path=row["source_path"],
    )


def field_photo_of(row: RowMapping) -> FieldPhoto:
    """Field photo of a row of `field_photos` joined with `images`."""
    return FieldPhoto(
        photo_id=row["image_id"],
        species_id=SpeciesId(row["species_id"]),
        image=image_of(row),
        observation_key=row["plant_key"],
        organ=None if row["organ"] is None else Organ(row["organ"]),
        split=_split(row["split"]),
        license=row["license"],
        rights_holder=row["rights_holder"],
        source_path=row["source_path"],
    )


def synthetic_photo_of(row: RowMapping) -> SyntheticPhoto:
    """Synthetic photo of a row of `synthetic_photos` with the species of its sheet."""
    return SyntheticPhoto(row["run_id"], row["sheet_id"], SpeciesId(row["species_id"]), image_of(row))


def _split(value: str | None) -> Split | None:
    return None if value is None else Split(value)


def image_row(image: Image) -> dict[str, Any]:
    """Row of `images`."""
    return {
        "image_id": image.image_id,
        "source_sha256": image.source_sha256,
        "stored_sha256": image.stored_sha256,
        "suffix": image.suffix,
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
    }


def _shared_row(record: Sheet | FieldPhoto) -> dict[str, Any]:
    return {
        "image_id": record.image.image_id,
        "species_id": record.species_id,
        "split": record.split,
        "license": record.license,
        "rights_holder": record.rights_holder,
        "source_path": record.source_path,
    }


def sheet_row(sheet: Sheet) -> Mapping[str, Any]:
    """Row of `sheets`."""
    return _shared_row(sheet) | {
        "plant_key": sheet.specimen_key,
        "institution_code": sheet.specimen.institution_code,
        "collection_code": sheet.specimen.collection_code,
        "catalog_number": sheet.specimen.catalog_number,
    }


def field_photo_row(photo: FieldPhoto) -> Mapping[str, Any]:
    """Row of `field_photos`."""
    return _shared_row(photo) | {"plant_key": photo.observation_key, "organ": photo.organ}


def synthetic_photo_row(photo: SyntheticPhoto) -> Mapping[str, Any]:
    """Row of `synthetic_photos`; the species is the sheet's."""
    stored = image_row(photo.image)
    del stored["image_id"]
    return stored | {"run_id": photo.run_id, "sheet_id": photo.sheet_id}
