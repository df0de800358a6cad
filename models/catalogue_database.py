"""The catalogue's database of a home: whether there is one, made, and opened in the present schema."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError

from models.catalogue_engine import begin_explicitly, catalogue_error, create_catalogue_engine, is_sqlite
from models.catalogue_migration import PRESENT, bring_up_to_date, stored_schema, upgrade
from models.database_url import sqlite_url
from models.durable import make_folder, sync_folder
from models.errors import CatalogueError
from models.home import Home

_WAIT_FOR_MIGRATIONS_SECONDS = 3600.0


def catalogue_exists(home: Home) -> bool:
    """Whether `home` has a catalogue, of whatever version. Raises `CatalogueError` when the server cannot be asked."""
    if is_sqlite(home.catalogue_url):
        return home.catalogue_file.exists()
    engine = create_catalogue_engine(home.catalogue_url)
    try:
        with engine.connect() as connection:
            return stored_schema(connection) is not None
    except SQLAlchemyError as error:
        raise catalogue_error(home.catalogue_url, error) from error
    finally:
        engine.dispose()


def is_up_to_date(home: Home) -> bool:
    """Whether the catalogue that is there has the present schema; changes nothing. Raises `CatalogueError`."""
    engine = create_catalogue_engine(home.catalogue_url)
    try:
        with engine.connect() as connection:
            return stored_schema(connection) == PRESENT
    except SQLAlchemyError as error:
        raise catalogue_error(home.catalogue_url, error) from error
    finally:
        engine.dispose()


def open_database(home: Home, *, create: bool) -> Engine:
    """The database of `home`, brought to the present schema; the caller disposes of it.

    Raises `CatalogueError` when there is none and `create` is false, when it is damaged, not a catalogue, or of a
    version that is not understood, and when it needs a migration and no backup can be made.
    """
    url = home.catalogue_url
    if is_sqlite(url) and not home.catalogue_file.exists():
        if not create:
            raise CatalogueError(f"there is no catalogue in {home.root}: run `voucher import` first")
        create_database(home.catalogue_file)
    # Another voucher may be at a large migration, or this one will be: both take longer than a change of rows.
    patient = create_catalogue_engine(url, wait_seconds=_WAIT_FOR_MIGRATIONS_SECONDS)
    try:
        bring_up_to_date(patient, home, create=create)
    except SQLAlchemyError as error:
        raise catalogue_error(url, error) from error
    finally:
        patient.dispose()
    return create_catalogue_engine(url)


def create_database(file: Path) -> None:
    """Put an empty catalogue at `file`, whole or not at all; another process may win the race."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(8)}")
    try:
        make_folder(file.parent)
        engine = create_engine(sqlite_url(temporary))
        begin_explicitly(engine)
        with engine.begin() as connection:
            upgrade(connection, PRESENT)
        engine.dispose()
        with suppress(FileExistsError):
            os.link(temporary, file)
        sync_folder(file.parent)
    except OSError as error:
        raise CatalogueError(
            f"no catalogue can be made at {file}: {error.strerror or error}; choose a home folder that you may write to"
        ) from error
    except SQLAlchemyError as error:
        raise catalogue_error(sqlite_url(file), error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
