"""The catalogue and the images: whether the database is whole and of this version, and the files are what they were."""

import hashlib
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from models.catalogue import Catalogue
from models.catalogue_engine import catalogue_error, create_catalogue_engine, is_sqlite
from models.catalogue_migration import MIGRATIONS, PRESENT, stored_schema
from models.database_url import database_name
from models.findings import Finding
from models.home import Home
from models.image_store import ImageStore
from models.specimens import Image

_WAIT_SECONDS = 5.0
_SAMPLES = 10
_SAMPLE_ROWS = 20
_PAGE_ROWS = 1_000
_MOST_TOLD = 3
_MOST_SKEW_SECONDS = 60.0


def check_catalogue(home: Home, *, thorough: bool) -> Iterator[Finding]:
    """Whether the database can be read, is of this version and whole. It is not brought up to date here."""
    name = database_name(home.catalogue_url)
    on_file = is_sqlite(home.catalogue_url)
    if on_file and not home.catalogue_file.is_file():
        yield Finding.fault("catalogue", "there is none", where=name, remedy="begin with `voucher import`")
        return
    engine = create_catalogue_engine(home.catalogue_url, wait_seconds=_WAIT_SECONDS)
    try:
        with engine.connect() as connection:
            yield _schema(connection, home, name)
            if on_file:
                yield _integrity(connection, name, thorough=thorough)
            else:
                yield from _server(connection, name)
            yield from _contents(connection, name)
    except SQLAlchemyError as error:
        remedy = "restore it from a backup" if on_file else "see that the server runs, and check VOUCHER_DATABASE_URL"
        yield Finding.fault("catalogue", str(catalogue_error(home.catalogue_url, error)), where=name, remedy=remedy)
    finally:
        engine.dispose()


def _schema(connection: Connection, home: Home, name: str) -> Finding:
    found = stored_schema(connection)
    if found == PRESENT:
        return Finding.ok("catalogue", f"schema {found}, as this voucher has it", name)
    if found is None:
        remedy = "choose another --home or database, or begin with `voucher import`"
        return Finding.fault("catalogue", "is a database without a catalogue", where=name, remedy=remedy)
    if found not in MIGRATIONS:
        remedy = f"use the newer voucher that changed it, or a backup of {home.backups}"
        what = f"has schema {found}; this voucher knows schemas up to {PRESENT}"
        return Finding.fault("catalogue", what, where=name, remedy=remedy)
    what = f"has schema {found}; the next command that opens it brings it to {PRESENT}, after a backup"
    return Finding.warning("catalogue", what, where=name, remedy=f"see that {home.backups} has room for a copy of it")


def _integrity(connection: Connection, name: str, *, thorough: bool) -> Finding:
    pragma = "integrity_check" if thorough else "quick_check"
    told = [str(row[0]) for row in connection.execute(text(f"PRAGMA {pragma}({_MOST_TOLD})"))]
    if told == ["ok"] and thorough:
        broken = connection.execute(text("PRAGMA foreign_key_check")).fetchmany(_MOST_TOLD)
        told = [f"a row of {row[0]} refers to nothing in {row[2]}" for row in broken] or told
    if told == ["ok"]:
        return Finding.ok("catalogue file", f"is whole ({pragma})", name)
    remedy = "stop the service, and restore it from a backup, or mend it with the .recover command of sqlite3"
    return Finding.fault("catalogue file", "; ".join(told), where=name, remedy=remedy)


def _server(connection: Connection, name: str) -> Iterator[Finding]:
    version, now = connection.execute(text("SELECT current_setting('server_version_num')::int, now()")).one()
    major = version // 10_000
    yield Finding.ok("database server", f"PostgreSQL {major}", name)
    skew = abs((datetime.now(UTC) - now).total_seconds())
    if skew > _MOST_SKEW_SECONDS:
        remedy = "have both clocks kept by NTP"
        yield Finding.warning("clock", f"the database's is {skew:.0f} seconds off", where=name, remedy=remedy)
    dump = _pg_dump_major()
    remedy = "install PostgreSQL's client programs in the server's version (Debian: postgresql-client)"
    if dump is None:
        yield Finding.warning("pg_dump", "is not on the PATH: a schema cannot be changed without it", remedy=remedy)
    elif dump < major:
        what = f"is of version {dump}, older than the server: it cannot back it up before a schema changes"
        yield Finding.warning("pg_dump", what, remedy=remedy)
    else:
        yield Finding.ok("pg_dump", f"version {dump}")


def _pg_dump_major() -> int | None:
    program = shutil.which("pg_dump")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    digits = told.rpartition(") ")[2].partition(".")[0].split()
    return int(digits[0]) if digits and digits[0].isdecimal() else None


def _contents(connection: Connection, name: str) -> Iterator[Finding]:
    """How much there is; the tables are in every schema."""
    if stored_schema(connection) not in MIGRATIONS:
        return
    counts = [
        connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        for table in ("species", "sheets", "field_photos")
    ]
    what = f"{counts[0]} species, {counts[1]} sheets, {counts[2]} field photos"
    if counts[1] == 0:
        yield Finding.warning(
            "collection", what, where=name, remedy="add sheets: `voucher import`, `voucher sheets add`"
        )
    else:
        yield Finding.ok("collection", what, name)


def check_images(home: Home, *, thorough: bool) -> Iterator[Finding]:
    """Whether the files of a sample of the sheets, or of all sheets and photos, are there and unchanged."""
    if not _is_present(home):
        return  # told by the check of the catalogue
    looked_at, missing, changed = 0, [], []
    with Catalogue.open(home) as catalogue:
        for image in _images(catalogue, thorough=thorough):
            looked_at += 1
            state = _state_of(image, catalogue.image_store)
            if state == "missing":
                missing.append(image.image_id)
            elif state == "changed":
                changed.append(image.image_id)
    of_how_many = "all" if thorough else "a sample of"
    remedy = "import their dataset again, which puts the files back, or restore images/ from a backup"
    for what, found in (("are missing", missing), ("were changed", changed)):
        if found:
            told = ", ".join(found[:_MOST_TOLD]) + (" …" if len(found) > _MOST_TOLD else "")
            text_ = f"{len(found)} of {looked_at} files {what}: {told}"
            yield Finding.fault("images", text_, where=home.images, remedy=remedy)
    if not missing and not changed:
        yield Finding.ok("images", f"{of_how_many} {looked_at} files are there, with the right SHA-256", home.images)


def _is_present(home: Home) -> bool:
    if is_sqlite(home.catalogue_url) and not home.catalogue_file.is_file():
        return False
    engine = create_catalogue_engine(home.catalogue_url, wait_seconds=_WAIT_SECONDS)
    try:
        with engine.connect() as connection:
            return stored_schema(connection) == PRESENT
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def _images(catalogue: Catalogue, *, thorough: bool) -> Iterable[Image]:
    if thorough:
        return chain(_all_sheets(catalogue), [photo.image for photo in catalogue.field_photos()])
    # Ids are hexadecimal digests: what follows a random one is a random part of them.
    found = {
        sheet.sheet_id: sheet.image
        for _ in range(_SAMPLES)
        for sheet in catalogue.sheets_page(None, limit=_SAMPLE_ROWS, after=secrets.token_hex(8))
    }
    first = catalogue.sheets_page(None, limit=_SAMPLE_ROWS)
    return (found | {sheet.sheet_id: sheet.image for sheet in first}).values()


def _all_sheets(catalogue: Catalogue) -> Iterator[Image]:
    """Page by page: reading the files takes hours, and one question that long would keep SQLite's log growing."""
    after = None
    while page := catalogue.sheets_page(None, limit=_PAGE_ROWS, after=after):
        yield from (sheet.image for sheet in page)
        after = page[-1].sheet_id


def _state_of(image: Image, store: ImageStore) -> str:
    try:
        with store.path(image).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"
    return "well" if digest == image.stored_sha256 else "changed"
