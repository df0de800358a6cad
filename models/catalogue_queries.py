"""Questions to the catalogue that readers and writers share."""

from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, String, Table, bindparam, select
from sqlalchemy.sql.compiler import SQLCompiler

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


# Made once: every identification may ask it.
SHEETS_BY_ID: Select[Any] = with_image(schema.sheets).where(
    schema.sheets.c.image_id.in_(bindparam("sheet_ids", expanding=True)), schema.sheets.c.purged_at.is_(None)
)
"""Sheets whose images are kept, of the ids `sheet_ids`."""


class SpecimensById:
    """The ids and the specimens' codes of the same sheets, as the database's own driver is asked for them.

    Every identification asks this, and SQLAlchemy takes three times as long about it as SQLite. It still writes the
    statement, once for each number of ids.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def ask(self, sheet_ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Of 1 to some hundred ids. Raises the driver's errors, which are `dialect.loaded_dbapi.Error`."""
        compiled = self._compiled(len(sheet_ids))
        named = {f"id_{number}": sheet_id for number, sheet_id in enumerate(sheet_ids)}
        in_order = None if compiled.positiontup is None else [named[name] for name in compiled.positiontup]
        dialect = self._engine.dialect
        with closing(self._engine.raw_connection()) as connection:
            try:
                cursor = connection.cursor()
                cursor.execute(compiled.string, named if in_order is None else in_order)
                return list(cursor.fetchall())
            except dialect.loaded_dbapi.Error as error:
                if dialect.is_disconnect(error, connection, None):
                    connection.invalidate(error)
                raise

    def _compile(self, count: int) -> SQLCompiler:
        columns = (schema.sheets.c[n] for n in ("image_id", "institution_code", "collection_code", "catalog_number"))
        wanted = [bindparam(f"id_{number}", type_=String) for number in range(count)]
        is_wanted = schema.sheets.c.image_id.in_(wanted)
        query = select(*columns).where(is_wanted, schema.sheets.c.purged_at.is_(None))
        return query.compile(dialect=self._engine.dialect)


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
