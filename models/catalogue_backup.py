"""A copy of the catalogue's database before its schema changes, below ``backups/`` of the home."""

import os
import secrets
import shutil
import sqlite3
import subprocess
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from models.durable import make_folder, sync_file, sync_folder
from models.errors import CatalogueError
from models.home import Home

_SERVER_OPTIONS = ("host", "hostaddr", "port", "user", "dbname", "options", "service", "connect_timeout")
_SECURITY_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "gssencmode", "krbsrvname")
_DUMP_OPTIONS = frozenset(_SERVER_OPTIONS + _SECURITY_OPTIONS)


def back_up(connection: Connection, home: Home, schema: str) -> Path:
    """The file of a whole, checked copy that is on the disk; `schema` is told in its name.

    `connection` keeps writers out meanwhile. Raises `CatalogueError` when no copy can be made, with nothing changed.
    """
    on_server = connection.dialect.name == "postgresql"
    suffix = ".dump" if on_server else ".sqlite"
    temporary = home.backups / f".{os.getpid()}-{secrets.token_hex(8)}{suffix}"
    try:
        make_folder(home.backups)
        if on_server:
            _dump(connection, temporary)
        else:
            _copy(home.catalogue_file, temporary)
        sync_file(temporary)
        return _keep(temporary, home.backups, f"catalogue-{schema}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}", suffix)
    except (OSError, sqlite3.Error) as error:
        raise CatalogueError(
            f"the catalogue's schema is of an earlier version ({schema}), and no backup of it can be written to "
            f"{home.backups}: {error}; nothing was changed. Free space there or mend its permissions, and try again"
        ) from error
    finally:
        for left in (temporary, temporary.with_name(f"{temporary.name}-journal")):
            with suppress(OSError):
                left.unlink()


def _copy(file: Path, target: Path) -> None:
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        # One file, without a write-ahead log beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
        found = copy.execute("PRAGMA integrity_check(3)").fetchall()
        if found != [("ok",)]:
            faults = "; ".join(str(row[0]) for row in found)
            raise CatalogueError(
                f"the catalogue {file} is damaged ({faults}) and is not brought to the present schema; nothing was "
                "changed. Restore it from a backup, or mend it with the .recover command of the sqlite3 program"
            )


def _dump(connection: Connection, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise CatalogueError(
            "the catalogue's schema is of an earlier version and is backed up before it changes, but pg_dump is not "
            "on the PATH; nothing was changed. Install PostgreSQL's client programs (Debian: postgresql-client) in "
            "the server's version, and try again"
        )
    session = connection.connection.driver_connection.info  # type: ignore[union-attr]
    from psycopg.conninfo import make_conninfo

    # As this connection was made, less the password; options that only a newer libpq knows are left out.
    where = make_conninfo("", **{k: v for k, v in session.get_parameters().items() if k in _DUMP_OPTIONS})
    # The password is not among the arguments, which other users of the machine can see.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGPASSWORD": session.password}
    command = [program, "--format=custom", "--no-password", f"--file={target}", f"--dbname={where}"]
    finished = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        reason = " ".join(finished.stderr.split())[:500]
        raise CatalogueError(
            f"the catalogue's schema is of an earlier version and is backed up before it changes, but pg_dump failed: "
            f"{reason}; nothing was changed. It must be of the server's version or a newer one"
        )


def _keep(temporary: Path, folder: Path, name: str, suffix: str) -> Path:
    """The final path of a finished copy: no other copy is replaced, whatever the clock says."""
    for number in range(1, 1000):
        path = folder / f"{name}{f'-{number}' if number > 1 else ''}{suffix}"
        try:
            os.link(temporary, path)
        except FileExistsError:
            continue
        sync_folder(folder)
        return path
    raise FileExistsError(f"a thousand backups of one second in {folder}")
