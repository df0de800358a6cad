"""The catalogue's database file: made, opened and brought to the present schema."""

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from models import catalogue_schema as schema
from models.durable import make_folder, sync_folder
from models.errors import CatalogueError

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_SECONDS = 30.0
_BEFORE_SYNTHETIC_PHOTOS = 1


def open_database(file: Path) -> Engine:
    """The database at `file`, brought to the present schema; the caller disposes of it.

    Raises `CatalogueError` when it is damaged, not a catalogue, or of a version that is not understood.
    """
    engine = _sqlite_engine(file)
    try:
        _bring_up_to_date(engine, file)
    except SQLAlchemyError as error:
        engine.dispose()
        raise CatalogueError(database_message(str(file), error)) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def create_database(file: Path) -> None:
    """Put an empty catalogue at `file`, whole or not at all; another process may win the race."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(8)}")
    try:
        make_folder(file.parent)
        engine = create_engine(f"sqlite:///{temporary}")
        with engine.begin() as connection:
            schema.METADATA.create_all(connection)
            connection.execute(insert(schema.schema_version).values(version=schema.SCHEMA_VERSION))
        engine.dispose()
        with suppress(FileExistsError):
            os.link(temporary, file)
        sync_folder(file.parent)
    except OSError as error:
        raise CatalogueError(
            f"no catalogue can be made at {file}: {error.strerror or error}; choose a home folder that you may write to"
        ) from error
    except SQLAlchemyError as error:
        raise CatalogueError(database_message(str(file), error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def database_message(file: str | None, error: SQLAlchemyError) -> str:
    """What to tell people about an error of the database."""
    cause = getattr(error, "orig", None) or error
    return (
        f"the catalogue {file} cannot be read or written: {cause}; check that the file is whole, that its "
        "folder may be written to and has free space, and that no other program holds it locked"
    )


def _sqlite_engine(file: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{file}",
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS},
        max_overflow=-1,  # a streaming reader keeps its connection; others must not wait for it
    )

    def configure(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", configure)
    return engine


def _bring_up_to_date(engine: Engine, file: Path) -> None:
    found = _versions(engine, file)
    if found == [_BEFORE_SYNTHETIC_PHOTOS]:
        _add_synthetic_photos(engine)
        logger.info("%s now has schema version %d; older vouchers cannot read it", file, schema.SCHEMA_VERSION)
        found = _versions(engine, file)
    if found != [schema.SCHEMA_VERSION]:
        versions = ", ".join(map(str, found)) or "none"
        raise CatalogueError(
            f"{file} has schema version {versions}, this voucher expects {schema.SCHEMA_VERSION}: use the "
            "voucher that wrote it, or import into a new home"
        )


def _versions(engine: Engine, file: Path) -> list[int]:
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, schema.schema_version.name):
            raise CatalogueError(
                f"{file} is a database, but not a catalogue of voucher; choose another --home, "
                "or move the file away and run `voucher import`"
            )
        return list(connection.execute(select(schema.schema_version.c.version)).scalars().all())


def _add_synthetic_photos(engine: Engine) -> None:
    """Version 1 to 2, in one transaction; does nothing where another process was faster."""
    version = schema.schema_version.c.version
    with engine.begin() as connection:
        # The update comes first: it takes the write lock and opens the transaction, which the driver does not do
        # for CREATE TABLE alone.
        moved = connection.execute(
            update(schema.schema_version).where(version == _BEFORE_SYNTHETIC_PHOTOS).values(version=2)
        )
        if moved.rowcount:
            # The table may be there: a voucher of version 1 that was open meanwhile writes its number back.
            schema.synthetic_photos.create(connection, checkfirst=True)
