"""Bringing a catalogue's database to the present schema: one process at a time, after a backup, whole or not at all."""

import logging
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from models.catalogue_backup import back_up
from models.catalogue_engine import writing
from models.database_url import database_name
from models.errors import CatalogueError
from models.home import Home

logger = logging.getLogger(__name__)

MIGRATIONS = ("0001", "0002", "0003", "0004")
"""The steps in `models/migrations/versions`; the last one makes the present schema."""

PRESENT = MIGRATIONS[-1]

_STEPS = Path(__file__).resolve().parent / "migrations"

_ADVISORY_LOCK = int.from_bytes(b"voucher")
"""Number of the lock that is taken for a migration on PostgreSQL."""

_one_in_this_process = threading.Lock()
"""Alembic keeps the migration that is under way in module globals."""


def bring_up_to_date(engine: Engine, home: Home, *, create: bool) -> None:
    """Run the migrations that `home`'s database lacks; with `create` also on a server's database without tables.

    Raises `CatalogueError` when the database is of a newer version or not a catalogue, or no backup can be made.
    """
    with engine.connect() as connection:
        found = _understood_schema(connection, home, create)
    if found == PRESENT:
        return
    with writing(engine.connect()) as connection, connection.begin():
        _lock(connection)
        found = _understood_schema(connection, home, create)
        if found == PRESENT:  # another process was faster
            return
        if found is not None:
            backup = back_up(connection, home, found)
            logger.info("changing the catalogue's schema from %s to %s; backup: %s", found, PRESENT, backup)
        upgrade(connection, PRESENT, found)
    logger.info("%s now has schema %s; older vouchers cannot open it", database_name(home.catalogue_url), PRESENT)


def stored_schema(connection: Connection) -> str | None:
    """The migration that a database has reached, None when it has no table of ours; it may be an unknown one."""
    tables = inspect(connection)
    if tables.has_table("alembic_version"):
        return ", ".join(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) or "unknown"
    if not tables.has_table("schema_version"):
        return None
    numbers = list(connection.execute(text("SELECT version FROM schema_version")).scalars())
    # A voucher of version 1 that was open while the table came writes its number back.
    if numbers == [1] and tables.has_table("synthetic_photos"):
        return "0002"
    return {(1,): "0001", (2,): "0002"}.get(tuple(numbers), ", ".join(map(str, numbers)) or "unknown")


def upgrade(connection: Connection, target: str, found: str | None = None) -> None:
    """Run the steps after `found`, up to and with `target`, in the transaction that `connection` is in."""
    # Imported here: nearly always there is nothing to do.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(_STEPS))

    def planned(heads: Any, _: MigrationContext) -> Any:
        return steps._upgrade_revs(target, heads)

    # A step that takes its own lock or commits would end the transaction that makes the whole of it one.
    context = MigrationContext.configure(connection, opts={"fn": planned, "transactional_ddl": True})
    if found is not None and not context.get_current_heads():
        context.stamp(steps, found)
    with _one_in_this_process, Operations.context(context):
        context.run_migrations()


def _understood_schema(connection: Connection, home: Home, create: bool) -> str | None:
    """As `stored_schema`. Raises `CatalogueError` for what this voucher can neither use nor migrate."""
    found = stored_schema(connection)
    if found in MIGRATIONS:
        return found
    name = database_name(home.catalogue_url)
    if found is not None:
        raise CatalogueError(
            f"{name} has schema {found}, this voucher knows schemas up to {PRESENT}: use the newer voucher that "
            f"changed it, or a backup of {home.backups}"
        )
    if connection.dialect.name == "sqlite":
        raise CatalogueError(
            f"{name} is a database, but not a catalogue of voucher; choose another --home, "
            "or move the file away and run `voucher import`"
        )
    if not create:
        raise CatalogueError(f"there is no catalogue in {name}: run `voucher import` first")
    return None


def _lock(connection: Connection) -> None:
    """Keep other migrations and all writers out until the transaction ends; on SQLite its beginning has done so."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
    for table in ("alembic_version", "schema_version"):
        if inspect(connection).has_table(table):
            # Held against writers but not against the readers that make the backup.
            connection.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
