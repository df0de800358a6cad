"""Questions to the catalogue that readers and writers share."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, select

from models import catalogue_schema as schema
from models.taxonomy import SpeciesId


def with_image(table: Table) -> Select[Any]:
    """Rows of `sheets` or `field_photos` with the columns of `images`."""
    return select(table, *(c for c in schema.images.c if c.name != "image_id")).join(schema.images)


def of_species(table: Table, species_id: SpeciesId | None) -> Select[Any]:
    """Rows with their images, by image id; of all species when None."""
    return only(with_image(table).order_by(table.c.image_id), table, species_id)


def only(query: Select[Any], table: Table, species_id: SpeciesId | None) -> Select[Any]:
    """Rows of one species; all when it is None."""
    return query if species_id is None else query.where(table.c.species_id == species_id)


def living(query: Select[Any], table: Table) -> Select[Any]:
    """Without the sheets that were removed; other tables have nothing of the kind."""
    return query.where(table.c.removed_at.is_(None)) if table is schema.sheets else query


def was_removed() -> ColumnElement[bool]:
    """Of sheets: removed, but their images are still kept."""
    return schema.sheets.c.removed_at.is_not(None) & schema.sheets.c.purged_at.is_(None)


def _by_id(query: Select[Any]) -> Select[Any]:
    return query.where(
        schema.sheets.c.image_id.in_(bindparam("sheet_ids", expanding=True)), schema.sheets.c.purged_at.is_(None)
    )


# Made once: every identification asks one of them.
SHEETS_BY_ID: Select[Any] = _by_id(with_image(schema.sheets))
"""Sheets whose images are kept, of the ids `sheet_ids`."""

SPECIMENS_BY_ID: Select[Any] = _by_id(
    select(*(schema.sheets.c[name] for name in ("image_id", "institution_code", "collection_code", "catalog_number")))
)
"""The ids of the same sheets, and the codes of their specimens."""


def purgeable_sheets(revision: int) -> Select[Any]:
    """Sheets that were removed at or before `revision`, and nothing has happened to since."""
    return of_species(schema.sheets, None).where(was_removed(), schema.sheets.c.revision <= revision)


def needed_files(connection: Connection, stored_digests: Sequence[str]) -> set[str]:
    """Which stored files sheets, field photos or synthetic photos refer to, among at most a thousand or so."""
    stored, purged = schema.images.c.stored_sha256, schema.sheets.c.purged_at
    imported = select(stored).outerjoin(schema.sheets).where(stored.in_(stored_digests), purged.is_(None))
    drawn = schema.synthetic_photos.c.stored_sha256
    found = set(connection.execute(imported).scalars())
    return found | set(connection.execute(select(drawn).where(drawn.in_(stored_digests))).scalars())
