"""Tables of the catalogue, and rows ↔ values. Portable SQL types only."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

from models.specimens import FieldPhoto, Image, Organ, Role, Sheet, Specimen, Split, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

SCHEMA_VERSION = 4
"""Number of the last migration, see `models/migrations`."""

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def key_type(length: int | None = None) -> TypeEngine[str]:
    """Text that is compared by code point, as Python and SQLite do; PostgreSQL may be set up to do otherwise."""
    plain: String = Text() if length is None else String(length)
    return plain.with_variant(type(plain)(length, collation="C"), "postgresql")


_MOMENT = String(32)
"""UTC in ISO 8601, for people to read: order comes from revisions, since clocks jump."""

# What is migrated is told by Alembic's own table. This one stops vouchers from before it: they look here with every
# transaction, and the oldest even writes its number, which the constraint refuses.
schema_version = Table(
    "schema_version",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    CheckConstraint("version >= 3", name="has_revisions"),
)

# One row for each committed change of what an index is made of.
revisions = Table(
    "revisions",
    METADATA,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("token", String(32), nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("sheets", Integer, nullable=False),
)

species = Table(
    "species",
    METADATA,
    Column("species_id", key_type(200), primary_key=True),
    Column("scientific_name", Text, nullable=False),
    Column("genus", Text),
    Column("family", Text),
)

images = Table(
    "images",
    METADATA,
    Column("image_id", key_type(20), primary_key=True),
    Column("source_sha256", key_type(64), nullable=False, unique=True),
    Column("stored_sha256", key_type(64), nullable=False, unique=True),
    Column("suffix", String(10), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)


def _image_of_a_species() -> tuple[Column[Any], ...]:
    return (
        Column("image_id", ForeignKey("images.image_id"), primary_key=True),
        Column("species_id", ForeignKey("species.species_id"), nullable=False, index=True),
        Column("plant_key", key_type(), nullable=False, index=True),
        Column("split", String(12)),
        Column("license", Text),
        Column("rights_holder", Text),
        Column("source_path", Text),
    )


_REMOVED = text("removed_at IS NOT NULL")

sheets = Table(
    "sheets",
    METADATA,
    *_image_of_a_species(),
    Column("institution_code", Text),
    Column("collection_code", Text),
    Column("catalog_number", Text),
    # Rows from before there were revisions have the first.
    Column("revision", Integer, nullable=False, server_default=text("1")),
    Column("added_at", _MOMENT),
    Column("removed_at", _MOMENT),
    Column("purged_at", _MOMENT),
    # In the order in which changed sheets are asked for.
    Index("ix_sheets_revision", "revision", "image_id"),
    Index("ix_sheets_catalog_number", "catalog_number"),
    # Removed sheets are few among many.
    Index("ix_sheets_removed", "image_id", sqlite_where=_REMOVED, postgresql_where=_REMOVED),
)

# What curators did to single sheets and species; an import is one row of `revisions` and none here.
changes = Table(
    "changes",
    METADATA,
    Column("revision", ForeignKey("revisions.revision"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("action", String(32), nullable=False),
    Column("sheet_id", ForeignKey("sheets.image_id"), index=True),
    Column("species_id", key_type(200), nullable=False),
    Column("previous_species_id", key_type(200)),
)

field_photos = Table("field_photos", METADATA, *_image_of_a_species(), Column("organ", String(12)))

# A table of its own, with the columns of `images`: no question about field photos or about images that were imported
# can meet a synthetic photo by mistake, and an import of the same bytes does not collide with it.
synthetic_photos = Table(
    "synthetic_photos",
    METADATA,
    Column("run_id", key_type(64), primary_key=True),
    Column("sheet_id", ForeignKey("sheets.image_id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("source_sha256", key_type(64), nullable=False),
    Column("stored_sha256", key_type(64), nullable=False, index=True),
    Column("suffix", String(10), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)

# Not part of what an index is made of: changes of these tables make no revision.
api_keys = Table(
    "api_keys",
    METADATA,
    Column("key_id", key_type(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("daily_quota", Integer),
    Column("per_minute", Integer),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT),
    Column("last_used_on", String(10)),
    Column("revoked_at", _MOMENT),
)

# Identifications of each key and UTC day.
api_key_usage = Table(
    "api_key_usage",
    METADATA,
    Column("key_id", ForeignKey("api_keys.key_id"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("identifications", Integer, nullable=False),
)

# Requests of the running minutes; `ends_at` is in seconds since 1970, and a row is of no use after it.
api_key_windows = Table(
    "api_key_windows",
    METADATA,
    Column("window_key", key_type(100), primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("ends_at", Float, nullable=False),
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
        added_at=_moment(row["added_at"]),
        removed_at=_moment(row["removed_at"]),
        purged_at=_moment(row["purged_at"]),
    )


def now() -> str:
    """This moment as it is stored."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _moment(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)


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


def sheet_row(sheet: Sheet) -> dict[str, Any]:
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
