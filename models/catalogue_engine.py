"""Connections to the catalogue's database, SQLite or PostgreSQL: durable commits, and one state for each question."""

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event

from models.database_url import database_name
from models.errors import CatalogueBusy, CatalogueError, StorageFull, StorageReadOnly

_WAIT_FOR_LOCKS_SECONDS = 30.0
_PATIENCE = {
    "connect_timeout": 10,
    # A server whose machine is gone says nothing: the system asks whether it is there, and gives up within a minute.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Of libpq, in seconds, the last in milliseconds."""
_WRITE = "voucher_write"

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK_DETECTED = "40P01"
_DISK_FULL = "53100"
_READ_ONLY = "25006"
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


def catalogue_error(url: URL, error: Exception) -> CatalogueError | StorageFull:
    """What to raise, and to tell people, for an error of SQLAlchemy or of the database's driver."""
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
    if _is_read_only(url, cause):
        return StorageReadOnly(
            f"the catalogue {name} can be read but not changed, and nothing was: its folder or its disk may not be "
            "written to. Identification does not need that; for changes mount the disk for writing, or mend the "
            "rights of the folder"
        )
    if is_sqlite(url):
        return CatalogueError(
            f"{where}; check that the file is whole, and that its folder may be written to and has free space"
        )
    return CatalogueError(
        f"{where}; check that the server runs and can be reached, and the user, password and database name"
    )


def _is_lock(cause: BaseException) -> bool:
    """Whether somebody else's lock was waited for in vain."""
    code = _sqlite_code(cause)
    if code is not None:
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(cause, "sqlstate", None) in (_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED)


def _is_no_room(url: URL, cause: BaseException) -> bool:
    code = _sqlite_code(cause)
    if code is None:
        return getattr(cause, "sqlstate", None) == _DISK_FULL
    if code == sqlite3.SQLITE_IOERR and url.database:
        # The file that its processes share has no room to grow, and SQLite does not say why.
        with suppress(OSError):
            return shutil.disk_usage(Path(url.database).parent).free < _NO_ROOM_BYTES
    return code == sqlite3.SQLITE_FULL


def _is_read_only(url: URL, cause: BaseException) -> bool:
    code = _sqlite_code(cause)
    # Nor can the files be opened that its processes share.
    file = Path(url.database or "")
    is_shut = code == sqlite3.SQLITE_CANTOPEN and _can_only_be_read(file)
    return code == sqlite3.SQLITE_READONLY or is_shut or getattr(cause, "sqlstate", None) == _READ_ONLY


def _sqlite_code(cause: BaseException) -> int | None:
    """SQLite's number of an error, without the part that tells details; None for another database's."""
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file of the home, without a server."""
    return url.get_backend_name() == "sqlite"


def _sqlite_engine(url: URL, wait_seconds: float) -> Engine:
    file = Path(url.database or "").absolute()
    engine = create_engine(
        url,
        creator=lambda: _connect_sqlite(file, wait_seconds),
        max_overflow=-1,  # a streaming reader keeps its connection; others must not wait for it
    )
    begin_explicitly(engine)

    def forget(connection: Any, record: Any) -> None:
        # It sees no changes, and there may be some when the disk can be written again.
        if isinstance(connection, _UnchangingConnection):
            record.invalidate()

    event.listen(engine, "checkin", forget)
    return engine


class _UnchangingConnection(sqlite3.Connection):
    """To a file that nobody changes while it is open."""


def _connect_sqlite(file: Path, wait_seconds: float) -> sqlite3.Connection:
    """A connection to `file`; where its folder cannot be written to, one that can only read.

    Readers of a write-ahead log write beside the file where they are. On a disk that may not be written to, the file is
    read as one that does not change, unless there is a log with changes that it lacks.
    """
    connection = sqlite3.connect(file, timeout=wait_seconds, check_same_thread=False)
    try:
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if _sqlite_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not _can_only_be_read(file):
            raise
        return sqlite3.connect(
            f"file:{quote(str(file))}?immutable=1", uri=True, check_same_thread=False, factory=_UnchangingConnection
        )
    return connection


def _can_only_be_read(file: Path) -> bool:
    """Whether nothing can be written beside `file`, and it can be read as it is."""
    return not os.access(file.parent, os.W_OK) and os.access(file, os.R_OK) and _is_settled(file)


def _is_settled(file: Path) -> bool:
    """Whether everything that was written is in `file` itself."""
    try:
        log = file.with_name(f"{file.name}-wal")
        return file.stat().st_size > 0 and (not log.exists() or log.stat().st_size == 0)
    except OSError:
        return False


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
    engine = create_engine(
        url,
        connect_args={name: value for name, value in _PATIENCE.items() if name not in url.query},
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
