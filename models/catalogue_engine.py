"""Connections to the catalogue's database, SQLite or PostgreSQL: durable commits, and one state for each question."""

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from models.database_url import database_name
from models.errors import CatalogueBusy, CatalogueError, StorageFull

_WAIT_FOR_LOCKS_SECONDS = 30.0
_CONNECT_SECONDS = 10
_WRITE = "voucher_write"

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK_DETECTED = "40P01"
_DISK_FULL = "53100"
"""Of PostgreSQL's error codes."""
_NO_ROOM_BYTES = 1 << 20


def create_catalogue_engine(url: URL, wait_seconds: float = _WAIT_FOR_LOCKS_SECONDS) -> Engine:
    """Connections to `url`, none made yet. Committed work is on the disk, and locks are waited for so long."""
    return _sqlite_engine(url, wait_seconds) if is_sqlite(url) else _postgresql_engine(url, wait_seconds)


def reading(connection: Connection) -> Connection:
    """The connection, to be used for questions that see one state of the database."""
    if connection.dialect.name == "postgresql":
        return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return connection


def writing(connection: Connection) -> Connection:
    """The connection, to be used for one transaction that changes something."""
    if connection.dialect.name == "postgresql":
        # Whoever has waited for the lock must see what the one before has written.
        return connection.execution_options(isolation_level="READ COMMITTED")
    return connection.execution_options(**{_WRITE: True})


def catalogue_error(url: URL, error: SQLAlchemyError) -> CatalogueError | StorageFull:
    """What to raise, and to tell people, for an error of the database."""
    cause = getattr(error, "orig", None) or error
    name = database_name(url)
    if _is_lock(cause):
        return CatalogueBusy(
            f"the catalogue {name} is locked: another change of it, such as a large import, takes long; nothing was "
            "changed here. Try again when that is done"
        )
    if _is_no_room(url, cause):
        return StorageFull(
            f"the disk of the catalogue {name} is full: nothing was changed; free some space, for example with "
            "`voucher gc`, and try again"
        )
    where = f"the catalogue {name} cannot be read or written: {' '.join(str(cause).split())}"
    if is_sqlite(url):
        return CatalogueError(
            f"{where}; check that the file is whole, and that its folder may be written to and has free space"
        )
    return CatalogueError(
        f"{where}; check that the server runs and can be reached, and the user, password and database name"
    )


def _is_lock(cause: BaseException) -> bool:
    """Whether somebody else's lock was waited for in vain."""
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # the rest of the number tells details
    return getattr(cause, "sqlstate", None) in (_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED)


def _is_no_room(url: URL, cause: BaseException) -> bool:
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return getattr(cause, "sqlstate", None) == _DISK_FULL
    if code & 0xFF == sqlite3.SQLITE_IOERR and url.database:
        # The file that its processes share has no room to grow, and SQLite does not say why.
        with suppress(OSError):
            return shutil.disk_usage(Path(url.database).parent).free < _NO_ROOM_BYTES
    return bool(code & 0xFF == sqlite3.SQLITE_FULL)


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file of the home, without a server."""
    return url.get_backend_name() == "sqlite"


def _sqlite_engine(url: URL, wait_seconds: float) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": wait_seconds},
        max_overflow=-1,  # a streaming reader keeps its connection; others must not wait for it
    )
    begin_explicitly(engine)

    def configure(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", configure)
    return engine


def begin_explicitly(engine: Engine) -> None:
    """Let transactions begin where SQLAlchemy says so: Python's driver begins them late, and not at all for DDL."""

    def take_over(connection: Any, _: object) -> None:
        connection.isolation_level = None

    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that had to wait half-way could not go on from what it has read.
        immediate = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", take_over)
    event.listen(engine, "begin", begin)


def _postgresql_engine(url: URL, wait_seconds: float) -> Engine:
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
    engine = create_engine(
        url,
        connect_args=patience,
        pool_pre_ping=True,  # the server may have been restarted meanwhile
        max_overflow=-1,
    )

    def configure(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(wait_seconds * 1000)}")
            # A server that is set up to forget its last commits in a crash must not do so with sheets.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()

    event.listen(engine, "connect", configure)
    return engine
