"""What species, sheets and field photos exist: the database, read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Select, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from models import catalogue_schema as schema
from models.catalogue_database import catalogue_exists, open_database
from models.catalogue_engine import catalogue_error, reading, writing
from models.catalogue_migration import PRESENT
from models.catalogue_queries import (
    SHEETS_BY_ID,
    SpecimensById,
    living,
    needed_files,
    of_species,
    only,
    purgeable_sheets,
    was_removed,
    with_image,
)
from models.catalogue_revisions import (
    CatalogueRevision,
    Change,
    Revision,
    is_in_history,
    latest_revision,
    list_revisions,
    stream_changes,
)
from models.catalogue_writer import CatalogueWriter
from models.errors import CatalogueError, UnknownSheet, UnknownSpecies
from models.home import Home
from models.image_store import ImageStore
from models.specimens import FieldPhoto, Image, Sheet, Specimen, Split, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

_CHUNK_ROWS = 2_000
_CHUNK_IMAGES = 500

Record = TypeVar("Record", Sheet, FieldPhoto, SyntheticPhoto)


@dataclass(frozen=True, slots=True)
class SpeciesCounts:
    """Images of one species, less removed sheets; those of the test split apart: nothing may be learnt from them."""

    sheets: int = 0
    field_photos: int = 0
    test_sheets: int = 0
    test_field_photos: int = 0


@dataclass(frozen=True, slots=True)
class CatalogueCounts:
    """Rows of the whole catalogue, all splits together; sheets that were removed do not count."""

    species: int
    sheets: int
    field_photos: int


class Catalogue:
    """The species, sheets and field photos of one home. Threads may share it.

    All methods raise `CatalogueError` when the database cannot be read or written.
    """

    def __init__(self, engine: Engine, image_store: ImageStore) -> None:
        self._engine = engine
        self._specimens_by_id = SpecimensById(engine)
        self._image_store = image_store

    @classmethod
    def open(cls, home: Home, *, create: bool = False) -> "Catalogue":
        """The catalogue of `home`; with `create` an empty one is made where there is none.

        One of an older version is brought up to date, in one transaction and after a backup.
        Raises `CatalogueError` when there is none, it is damaged or of a newer version, or no backup can be made.
        """
        return cls(open_database(home, create=create), ImageStore(home.images))

    @classmethod
    def exists(cls, home: Home) -> bool:
        """Whether there is a catalogue to open. Raises `CatalogueError` when its server cannot be asked."""
        return catalogue_exists(home)

    def close(self) -> None:
        """Release the database; the object is of no use afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def image_store(self) -> ImageStore:
        """The files of the images."""
        return self._image_store

    def species(self) -> list[Species]:
        """All species by id, also those without any image."""
        with self._reading() as connection:
            rows = connection.execute(select(schema.species).order_by(schema.species.c.species_id)).mappings()
            return [schema.species_of(row) for row in rows]

    def get_species(self, species_id: SpeciesId) -> Species:
        """One species. Raises `UnknownSpecies`."""
        query = select(schema.species).where(schema.species.c.species_id == species_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise UnknownSpecies(f"species {species_id!r} is not in the catalogue")
        return schema.species_of(row)

    def species_counts(self, species_id: SpeciesId | None = None) -> dict[SpeciesId, SpeciesCounts]:
        """How many images each species has, or that one, with zeros for species that have none."""
        counted: dict[str, dict[str, int]] = {}
        with self._reading() as connection:
            for row in connection.execute(only(select(schema.species.c.species_id), schema.species, species_id)):
                counted[row.species_id] = {}
            for table in (schema.sheets, schema.field_photos):
                group = (table.c.species_id, table.c.split)
                query = only(living(select(*group, func.count()), table).group_by(*group), table, species_id)
                for of_species, split, count in connection.execute(query):
                    field = f"test_{table.name}" if split == Split.TEST else table.name
                    counted[of_species][field] = counted[of_species].get(field, 0) + count
        return {SpeciesId(key): SpeciesCounts(**fields) for key, fields in sorted(counted.items())}

    def sheets(self, species_id: SpeciesId | None = None, *, include_removed: bool = False) -> Iterator[Sheet]:
        """Sheets by `sheet_id`, one after the other, as the catalogue was when the first was asked for."""
        query = of_species(schema.sheets, species_id)
        return self._records(query if include_removed else living(query, schema.sheets), schema.sheet_of)

    def sheets_page(
        self,
        species_id: SpeciesId | None,
        *,
        limit: int,
        offset: int = 0,
        after: str | None = None,
        removed: bool = False,
    ) -> list[Sheet]:
        """At most `limit` sheets by `sheet_id`, of all species when None; with `removed` those that were removed.

        `after` is the last id of the page before, and as fast for the last page as for the first; `offset` is not.
        """
        table = schema.sheets
        query = of_species(table, species_id)
        query = query.where(was_removed()) if removed else living(query, table)
        if after is not None:
            query = query.where(table.c.image_id > after)
        with self._reading() as connection:
            rows = connection.execute(query.limit(limit).offset(offset)).mappings()
            return [schema.sheet_of(row) for row in rows]

    def changed_sheets(self, since: int) -> Iterator[Sheet]:
        """Sheets that were added or changed after a revision, also removed ones, by the revision of their last change.

        Takes time in proportion to what changed.
        """
        table = schema.sheets
        changed = with_image(table).where(table.c.revision > since).order_by(table.c.revision, table.c.image_id)
        return self._records(changed, schema.sheet_of)

    def removed_count(self, species_id: SpeciesId | None = None) -> int:
        """Sheets that were removed and whose images are still kept, of one species or of all."""
        query = only(select(func.count()).where(was_removed()), schema.sheets, species_id)
        with self._reading() as connection:
            return connection.execute(query).scalar_one()

    def purgeable_sheets(self, revision: int) -> Iterator[Sheet]:
        """Sheets that were removed at or before `revision`, as far as their images are still kept."""
        return self._records(purgeable_sheets(revision), schema.sheet_of)

    def needed_files(self, stored_digests: Sequence[str]) -> set[str]:
        """Which stored files the catalogue refers to, among at most a thousand or so."""
        with self._reading() as connection:
            return needed_files(connection, stored_digests)

    def revision(self) -> CatalogueRevision:
        """The present state; 0 and an empty token before the first change."""
        with self._reading() as connection:
            return latest_revision(connection)

    def has_revision(self, revision: int, token: str) -> bool:
        """Whether the present state has come from that one, and not from another with the same number."""
        with self._reading() as connection:
            return is_in_history(connection, CatalogueRevision(revision, token))

    def revisions(self, since: int = 0, until: int | None = None, limit: int | None = None) -> list[Revision]:
        """Changes after `since`, up to and with `until`, oldest first; with `limit` the newest of them."""
        with self._reading() as connection:
            return list_revisions(connection, since, until, limit)

    def changes(self, since: int = 0, until: int | None = None) -> Iterator[Change]:
        """What curators did to single sheets after `since`, up to and with `until`, in order. Imports are not told."""
        with self._reading() as connection:
            yield from stream_changes(connection, since, until)

    def field_photos(self, species_id: SpeciesId | None = None) -> Iterator[FieldPhoto]:
        """Field photos by `photo_id`, one after the other, as the catalogue was at the first. Never synthetic ones."""
        return self._records(of_species(schema.field_photos, species_id), schema.field_photo_of)

    def synthetic_photos(self, run_id: str) -> Iterator[SyntheticPhoto]:
        """What a run has drawn, by `sheet_id`, one after the other, each of the species that its sheet has now.

        Those of removed sheets are left out as long as their sheets are.
        """
        table = schema.synthetic_photos
        drawn = select(table, schema.sheets.c.species_id).join(schema.sheets).where(table.c.run_id == run_id)
        return self._records(living(drawn, schema.sheets).order_by(table.c.sheet_id), schema.synthetic_photo_of)

    def remove_synthetic_photos(self, run_id: str) -> int:
        """How many synthetic photos of a run were removed, with those of their files that nothing else needs."""
        with self.writing() as writer:
            images = writer.remove_synthetic_photos(run_id)
        # Files go after their rows: a kill in between leaves files too many, never too few. And under the write lock,
        # so that nobody enters an image whose file is just going.
        for start in range(0, len(images), _CHUNK_IMAGES):
            with self.writing() as writer:
                for image in writer.unreferenced(images[start : start + _CHUNK_IMAGES]):
                    self._image_store.discard(image)
        return len(images)

    def get_sheet(self, sheet_id: str) -> Sheet:
        """One sheet, also a removed one as long as its image is kept. Raises `UnknownSheet`."""
        found = self.get_sheets([sheet_id])
        if not found:
            raise UnknownSheet(f"sheet {sheet_id!r} is not in the catalogue")
        return found[sheet_id]

    def get_sheets(self, sheet_ids: Sequence[str]) -> dict[str, Sheet]:
        """Some sheets by their ids, as `get_sheet`, in one question; those that are not there are left out."""
        with self._reading() as connection:
            found = connection.execute(SHEETS_BY_ID, {"sheet_ids": list(sheet_ids)}).mappings()
            sheets = [schema.sheet_of(row) for row in found]
        return {sheet.sheet_id: sheet for sheet in sheets}

    def get_specimens(self, sheet_ids: Sequence[str]) -> dict[str, Specimen]:
        """The pressed plants of some sheets, by the sheets' ids, as `get_sheets` but in a tenth of the time."""
        if not sheet_ids:
            return {}
        try:
            with self._reporting():
                found = self._specimens_by_id.ask(sheet_ids)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise catalogue_error(self._engine.url, error) from error
        return {sheet_id: Specimen(*codes) for sheet_id, *codes in found}

    def find_image(self, source_sha256: str) -> Image | None:
        """The image that was imported from a file with this digest, None when there is none."""
        query = select(schema.images).where(schema.images.c.source_sha256 == source_sha256)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else schema.image_of(row)

    def counts(self) -> CatalogueCounts:
        """Rows of the whole catalogue."""
        with self._reading() as connection:
            species, sheets, field_photos = (
                connection.execute(living(select(func.count()).select_from(table), table)).scalar_one()
                for table in (schema.species, schema.sheets, schema.field_photos)
            )
        return CatalogueCounts(species, sheets, field_photos)

    def content_digest(self) -> str:
        """SHA-256 over the ordered (sheet_id, species_id, stored_sha256) of sheets that were not removed."""
        digest = hashlib.sha256()
        table = schema.sheets
        columns = (table.c.image_id, table.c.species_id, schema.images.c.stored_sha256)
        query = living(select(*columns).join(schema.images), table).order_by(table.c.image_id)
        with self._reading() as connection, _streamed(connection, query) as rows:
            for row in rows:
                digest.update(("\x1f".join(row) + "\x1e").encode())
        return digest.hexdigest()

    @contextmanager
    def writing(self, *, actor: str = "voucher", action: str = "change") -> Iterator[CatalogueWriter]:
        """One transaction: all of it is kept when the block ends, nothing when it raises or is killed.

        Others that want to write wait. When it changes sheets, species or field photos it makes the next revision,
        for which `actor` and `action` (at most 32 characters) are noted.
        """
        with self._reporting(), writing(self._engine.connect()) as connection, connection.begin():
            # Taking the write lock with the first statement keeps a second writer from reading what is
            # about to change; it waits here.
            ours = text("UPDATE alembic_version SET version_num = :ours WHERE version_num = :ours")
            if connection.execute(ours, {"ours": PRESENT}).rowcount != 1:
                raise CatalogueError(
                    f"the catalogue no longer has schema {PRESENT}: a newer voucher has opened it; restart this one "
                    "in the newer version"
                )
            writer = CatalogueWriter(connection, actor, action)
            yield writer
            writer.finish()

    def _records(self, query: Select[Any], convert: Callable[[Any], Record]) -> Iterator[Record]:
        with self._reading() as connection, _streamed(connection, query) as rows:
            for row in rows.mappings():
                yield convert(row)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._reporting(), reading(self._engine.connect()) as connection:
            yield connection

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise catalogue_error(self._engine.url, error) from error


def _streamed(connection: Connection, query: Select[Any]) -> CursorResult[Any]:
    """Rows that stay on the server until they are asked for; closed by whoever asks, who may stop half-way."""
    return connection.execution_options(yield_per=_CHUNK_ROWS).execute(query)
