"""What species, sheets and field photos exist: the database, read."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Select, Table, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from models import catalogue_schema as schema
from models.catalogue_database import create_database, database_message, open_database
from models.catalogue_writer import CatalogueWriter
from models.errors import CatalogueError, UnknownSheet, UnknownSpecies
from models.home import Home
from models.image_store import ImageStore
from models.specimens import FieldPhoto, Image, Sheet, Split, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

_CHUNK_ROWS = 2_000
_CHUNK_IMAGES = 500

Record = TypeVar("Record", Sheet, FieldPhoto, SyntheticPhoto)


@dataclass(frozen=True, slots=True)
class SpeciesCounts:
    """Images of one species. Those of the test split are counted apart: nothing may be learnt from them."""

    sheets: int = 0
    field_photos: int = 0
    test_sheets: int = 0
    test_field_photos: int = 0


@dataclass(frozen=True, slots=True)
class CatalogueCounts:
    """Rows of the whole catalogue, all splits together."""

    species: int
    sheets: int
    field_photos: int


class Catalogue:
    """The species, sheets and field photos of one home. Threads may share it.

    All methods raise `CatalogueError` when the database cannot be read or written.
    """

    def __init__(self, engine: Engine, image_store: ImageStore) -> None:
        self._engine = engine
        self._image_store = image_store

    @classmethod
    def open(cls, home: Home, *, create: bool = False) -> "Catalogue":
        """The catalogue of `home`; with `create` an empty one is made where there is none.

        One of an older version is brought up to date, in one transaction.
        Raises `CatalogueError` when there is none, or it is damaged or of another version.
        """
        file = home.catalogue_file
        if not file.exists():
            if not create:
                raise CatalogueError(f"there is no catalogue in {home.root}: run `voucher import` first")
            create_database(file)
        return cls(open_database(file), ImageStore(home.images))

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

    def species_counts(self) -> dict[SpeciesId, SpeciesCounts]:
        """How many images each species has, with zeros for species that have none."""
        counted: dict[str, dict[str, int]] = {}
        with self._reading() as connection:
            for row in connection.execute(select(schema.species.c.species_id)):
                counted[row.species_id] = {}
            for table in (schema.sheets, schema.field_photos):
                query = select(table.c.species_id, table.c.split, func.count()).group_by(
                    table.c.species_id, table.c.split
                )
                for species_id, split, count in connection.execute(query):
                    field = f"test_{table.name}" if split == Split.TEST else table.name
                    of_species = counted[species_id]
                    of_species[field] = of_species.get(field, 0) + count
        return {SpeciesId(key): SpeciesCounts(**fields) for key, fields in sorted(counted.items())}

    def sheets(self, species_id: SpeciesId | None = None) -> Iterator[Sheet]:
        """Sheets by `sheet_id`, one after the other, as the catalogue was when the first was asked for."""
        return self._stream(schema.sheets, species_id, schema.sheet_of)

    def field_photos(self, species_id: SpeciesId | None = None) -> Iterator[FieldPhoto]:
        """Field photos by `photo_id`, one after the other, as the catalogue was at the first. Never synthetic ones."""
        return self._stream(schema.field_photos, species_id, schema.field_photo_of)

    def synthetic_photos(self, run_id: str) -> Iterator[SyntheticPhoto]:
        """What a run has drawn, by `sheet_id`, one after the other, each of the species that its sheet has now."""
        table = schema.synthetic_photos
        query = (
            select(table, schema.sheets.c.species_id)
            .join(schema.sheets)
            .where(table.c.run_id == run_id)
            .order_by(table.c.sheet_id)
        )
        return self._records(query, schema.synthetic_photo_of)

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
        """One sheet. Raises `UnknownSheet`."""
        query = _joined(schema.sheets).where(schema.sheets.c.image_id == sheet_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise UnknownSheet(f"sheet {sheet_id!r} is not in the catalogue")
        return schema.sheet_of(row)

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
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (schema.species, schema.sheets, schema.field_photos)
            )
        return CatalogueCounts(species, sheets, field_photos)

    def content_digest(self) -> str:
        """SHA-256 over the ordered (sheet_id, species_id, stored_sha256): equal when no sheet changed."""
        digest = hashlib.sha256()
        query = (
            select(schema.sheets.c.image_id, schema.sheets.c.species_id, schema.images.c.stored_sha256)
            .join(schema.images)
            .order_by(schema.sheets.c.image_id)
        )
        with self._reading() as connection:
            for row in connection.execution_options(yield_per=_CHUNK_ROWS).execute(query):
                digest.update(("\x1f".join(row) + "\x1e").encode())
        return digest.hexdigest()

    @contextmanager
    def writing(self) -> Iterator[CatalogueWriter]:
        """One transaction: all of it is kept when the block ends, nothing when it raises or is killed."""
        with self._reporting(), self._engine.begin() as connection:
            # Taking the write lock with the first statement keeps a second writer from reading what is
            # about to change; it waits here.
            version = schema.schema_version.c.version
            ours = update(schema.schema_version).where(version == schema.SCHEMA_VERSION)
            if connection.execute(ours.values(version=schema.SCHEMA_VERSION)).rowcount != 1:
                raise CatalogueError(
                    f"the catalogue is no longer of schema version {schema.SCHEMA_VERSION}: a newer voucher has "
                    "opened it; restart this one in the newer version"
                )
            yield CatalogueWriter(connection)

    def _stream(self, table: Table, species_id: SpeciesId | None, convert: Callable[[Any], Record]) -> Iterator[Record]:
        query = _joined(table).order_by(table.c.image_id)
        if species_id is not None:
            query = query.where(table.c.species_id == species_id)
        return self._records(query, convert)

    def _records(self, query: Select[Any], convert: Callable[[Any], Record]) -> Iterator[Record]:
        with self._reading() as connection:
            for row in connection.execution_options(yield_per=_CHUNK_ROWS).execute(query).mappings():
                yield convert(row)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._reporting(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise CatalogueError(database_message(self._engine.url.database, error)) from error


def _joined(table: Table) -> Select[Any]:
    return select(table, *(c for c in schema.images.c if c.name != "image_id")).join(schema.images)
