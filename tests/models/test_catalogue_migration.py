"""Older databases are brought up to date after a backup, whole or not at all, by one process at a time."""

import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hatchling.builders.wheel import WheelBuilder
from old_catalogues import NUMBER_WRITTEN_BACK, SCRIPTS, run_script
from postgres import PASSWORD, PostgresServer
from sqlalchemy import Engine, inspect, text

from models import catalogue_backup, catalogue_migration
from models import catalogue_schema as schema
from models.catalogue import Catalogue, CatalogueCounts
from models.catalogue_database import catalogue_exists
from models.catalogue_engine import create_catalogue_engine
from models.catalogue_migration import MIGRATIONS, PRESENT, stored_schema
from models.errors import CatalogueError
from models.home import Home

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(empty_home: Home) -> Home:
    return empty_home


@pytest.fixture(params=sorted(SCRIPTS))
def old_home(home: Home, request: pytest.FixtureRequest) -> Home:
    """A home with a catalogue of an earlier version."""
    run_script(home, SCRIPTS[request.param])
    return home


@pytest.fixture
def old_sqlite(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    run_script(home, SCRIPTS[1])
    return home


@pytest.fixture
def old_postgres(tmp_path: Path, postgres_url: str) -> Home:
    home = Home(tmp_path / "home", postgres_url)
    run_script(home, SCRIPTS[1])
    return home


def engine_of(home: Home) -> Engine:
    return create_catalogue_engine(home.catalogue_url)


def contents(home: Home) -> dict[str, object]:
    """Columns, indexes, foreign keys and rows of every table."""
    engine = engine_of(home)
    found: dict[str, object] = {}
    with engine.connect() as connection:
        inspector = inspect(connection)
        for table in inspector.get_table_names():
            columns = [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)]
            rows = sorted(map(repr, connection.execute(text(f"SELECT * FROM {table}"))))
            indexes = [
                (i["name"], i["column_names"], i["unique"], sorted(map(str, i.get("dialect_options", {}).values())))
                for i in inspector.get_indexes(table)
            ]
            keys = (sorted(map(repr, inspector.get_foreign_keys(table))), sorted(map(repr, indexes)))
            found[table] = (columns, rows, keys)
    engine.dispose()
    return found


def columns(home: Home) -> list[tuple[str, str]]:
    """Table and column names, or statements that made them: a quick look that any step of a migration changes."""
    if home.database_url is None:
        with closing(sqlite3.connect(home.catalogue_file)) as connection:
            return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    with psycopg.connect(home.database_url) as server:
        return server.execute(query).fetchall()


def backups(home: Home) -> list[Path]:
    return sorted(home.backups.iterdir()) if home.backups.exists() else []


def schema_of(home: Home) -> str | None:
    engine = engine_of(home)
    with engine.connect() as connection:
        found = stored_schema(connection)
    engine.dispose()
    return found


def with_home(home: Home, script: str) -> str:
    """A script that has `home` by that name."""
    arguments = f"Path({str(home.root)!r}), {home.database_url!r}"
    head = f"from pathlib import Path\nfrom models.home import Home\nhome = Home({arguments})\n"
    return head + textwrap.dedent(script)


def in_processes(home: Home, script: str, count: int = 1) -> list[subprocess.CompletedProcess[str]]:
    """Results of `count` processes that run `script` at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", with_home(home, script)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    return [
        subprocess.CompletedProcess("", process.returncode, *output)
        for process, output in zip(started, outputs, strict=True)
    ]


def test_an_old_catalogue_keeps_all_rows_and_gets_the_first_revision(old_home: Home) -> None:
    before = contents(old_home)
    with Catalogue.open(old_home) as catalogue:
        assert catalogue.counts() == CatalogueCounts(1, 3, 1)
        (photo,) = catalogue.field_photos()
        assert [s.specimen.catalog_number for s in catalogue.sheets()] == ["K0", "K1", "K2"]
        assert (photo.organ, photo.split) == ("leaf", "test")
        assert len(list(catalogue.synthetic_photos("run"))) == ("synthetic_photos" in before)
        assert catalogue.revision().revision == 1
        (first,) = catalogue.revisions()
        assert (first.action, first.sheets, first.token) == ("migration", 3, catalogue.revision().token)
        assert [s.sheet_id for s in catalogue.changed_sheets(0)] == ["sheet0", "sheet1", "sheet2"]
        assert list(catalogue.changed_sheets(1)) == []
        assert not any(s.removed for s in catalogue.sheets())
    after = contents(old_home)
    for table in ("species", "images", "field_photos", "synthetic_photos"):
        assert after[table][1] == before.get(table, (0, []))[1]  # type: ignore[index]


def test_the_migrated_schema_is_the_present_one(old_home: Home, tmp_path: Path) -> None:
    Catalogue.open(old_home).close()
    engine = engine_of(old_home)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.METADATA) == []
    engine.dispose()
    if old_home.database_url is None:
        fresh = Home(tmp_path / "fresh")
        Catalogue.open(fresh, create=True).close()
        assert {t: c[0] for t, c in contents(old_home).items()} == {t: c[0] for t, c in contents(fresh).items()}  # type: ignore[index]


def test_an_empty_old_catalogue_has_no_revision(home: Home) -> None:
    empty = "DELETE FROM sheets;\nDELETE FROM field_photos;\nDELETE FROM images;\n"
    run_script(home, SCRIPTS[1] + empty)
    with Catalogue.open(home) as catalogue:
        assert (catalogue.revision().revision, catalogue.revisions()) == (0, [])


def test_the_backup_holds_what_was_there(old_home: Home, postgres_server: PostgresServer) -> None:
    before = contents(old_home)
    found = schema_of(old_home)
    Catalogue.open(old_home).close()
    (backup,) = backups(old_home)
    assert backup.name.startswith(f"catalogue-{found}-2")
    if old_home.database_url is None:
        restored = Home(old_home.root.parent / "restored")
        restored.root.mkdir()
        backup.rename(restored.catalogue_file)
    else:
        name = postgres_server.create_database()
        restored = Home(old_home.root.parent / "restored", postgres_server.url(name))
        restore(restored, backup)
    assert contents(restored) == before
    Catalogue.open(restored).close()
    if old_home.database_url is not None:
        postgres_server.drop_database(name)


def restore(home: Home, dump: Path) -> None:
    command = ["pg_restore", "--no-owner", "-d", home.database_url or "", str(dump)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_opening_again_changes_nothing(old_home: Home) -> None:
    Catalogue.open(old_home).close()
    before = contents(old_home), backups(old_home)
    Catalogue.open(old_home, create=True).close()
    assert (contents(old_home), backups(old_home)) == before


@pytest.mark.slow
def test_a_kill_at_any_statement_leaves_the_old_or_the_new_catalogue(home: Home) -> None:
    run_script(home, SCRIPTS[2])
    old, old_columns = contents(home), columns(home)
    # On a server every third will do: there the whole is one transaction of a database that is made for that.
    step = 1 if home.database_url is None else 3
    # One process, which has loaded everything, forks a child for each statement and the child dies before it.
    script = """
        import os, sys
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        import alembic.operations, alembic.script, alembic.runtime.migration
        import models.catalogue_backup
        from models.catalogue import Catalogue

        def child(last):
            seen = 0
            def count(*_):
                nonlocal seen
                seen += 1
                if seen == last:
                    os._exit(9)
            event.listen(Engine, "before_cursor_execute", count)
            event.listen(Engine, "commit", count)
            models.catalogue_backup._dump = lambda connection, target: target.write_bytes(b"x")
            Catalogue.open(home)
            os._exit(0)

        number = 1 - step
        while True:
            number += step
            pid = os.fork()
            if pid == 0:
                child(number)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(status, flush=True)
            if input() == "stop":
                break
    """
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", f"step = {step}\n{with_home(home, script)}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        deaths = 0
        while (status := process.stdout.readline().strip()) == "9":
            deaths += 1
            assert columns(home) == old_columns
            assert deaths % 10 or contents(home) == old
            process.stdin.write("on\n")
            process.stdin.flush()
        process.stdin.write("stop\n")
        process.stdin.flush()
    assert status == "0"
    assert deaths > 10
    with Catalogue.open(home) as catalogue:
        assert catalogue.counts() == CatalogueCounts(1, 3, 1)


def test_processes_may_open_an_old_catalogue_at_once(home: Home) -> None:
    run_script(home, SCRIPTS[1])
    script = """
        from models.catalogue import Catalogue
        with Catalogue.open(home) as catalogue:
            print(catalogue.revision())
    """
    results = in_processes(home, script, 3)
    assert [r.stderr for r in results if r.returncode] == []
    assert len({r.stdout for r in results}) == 1
    assert len(backups(home)) == 1


def test_processes_may_create_a_catalogue_at_once(home: Home) -> None:
    script = """
        from models.catalogue import Catalogue
        from models.taxonomy import Species, SpeciesId
        with Catalogue.open(home, create=True) as catalogue:
            with catalogue.writing() as writer:
                writer.put_species([Species(SpeciesId("rose"), "Rosa")])
    """
    results = in_processes(home, script, 3)
    assert [r.stderr for r in results if r.returncode] == []
    with Catalogue.open(home) as catalogue:
        assert (catalogue.counts().species, catalogue.revision().revision) == (1, 1)
    assert backups(home) == []


def test_a_number_that_an_old_voucher_wrote_back_is_no_obstacle(home: Home) -> None:
    run_script(home, NUMBER_WRITTEN_BACK)
    with Catalogue.open(home) as catalogue:
        assert len(list(catalogue.synthetic_photos("run"))) == 1
    assert schema_of(home) == PRESENT


def test_vouchers_from_before_the_migration_cannot_write_afterwards(old_home: Home) -> None:
    Catalogue.open(old_home).close()
    before = contents(old_home)
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        run_script(old_home, "UPDATE schema_version SET version = 1;\n")  # as version 1 does with every transaction
    assert contents(old_home) == before
    assert "schema_version" in before
    assert before["schema_version"][1] == ["(3,)"]  # type: ignore[index]  # version 2 writes only where there is a 2


def test_nothing_is_written_once_a_newer_voucher_has_changed_the_schema(old_home: Home) -> None:
    with Catalogue.open(old_home) as catalogue:
        run_script(old_home, "UPDATE alembic_version SET version_num = '0999';\n")
        before = contents(old_home)
        with pytest.raises(CatalogueError, match="restart this one"), catalogue.writing():
            pass
    assert contents(old_home) == before


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE alembic_version SET version_num = '0999'", "0999"),
        ("DELETE FROM alembic_version", "unknown"),
        ("DROP TABLE alembic_version;\nUPDATE schema_version SET version = 99", "99"),
        ("DROP TABLE alembic_version;\nDELETE FROM schema_version", "unknown"),
    ],
)
def test_a_catalogue_of_a_newer_voucher_is_refused_and_left_alone(home: Home, statement: str, found: str) -> None:
    Catalogue.open(home, create=True).close()
    run_script(home, f"{statement};\n")
    before = contents(home)
    for create in (False, True):
        with pytest.raises(CatalogueError, match=rf"has schema {found}, this voucher knows schemas up to {PRESENT}"):
            Catalogue.open(home, create=create)
    assert contents(home) == before
    assert backups(home) == []


def test_a_server_database_without_tables_is_no_catalogue_until_one_is_created(
    tmp_path: Path, postgres_url: str
) -> None:
    home = Home(tmp_path / "home", postgres_url)
    run_script(home, "CREATE TABLE recipes (id INTEGER);\n")
    assert not catalogue_exists(home)
    with pytest.raises(CatalogueError, match="run `voucher import` first"):
        Catalogue.open(home)
    Catalogue.open(home, create=True).close()
    assert catalogue_exists(home)
    assert "recipes" in contents(home)


def test_without_room_for_the_backup_nothing_changes(old_sqlite: Home) -> None:
    before = old_sqlite.catalogue_file.read_bytes()
    old_sqlite.backups.write_text("in the way")
    with pytest.raises(CatalogueError, match="no backup of it can be written"):
        Catalogue.open(old_sqlite)
    assert schema_of(old_sqlite) == "0001"
    old_sqlite.backups.unlink()
    assert len(before) > 40_000
    script = f"""
        import resource, signal
        from models.catalogue import Catalogue
        from models.errors import CatalogueError
        import alembic.operations, alembic.script
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2}, {len(before) // 2}))
        try:
            Catalogue.open(home)
        except CatalogueError as error:
            print(error)
    """
    (result,) = in_processes(old_sqlite, script)
    assert "no backup of it can be written" in result.stdout, result.stderr
    assert backups(old_sqlite) == []
    assert schema_of(old_sqlite) == "0001"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_damaged_catalogue_is_not_migrated(old_sqlite: Home) -> None:
    with closing(sqlite3.connect(old_sqlite.catalogue_file)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'ix_sheets_species_id'")
        connection.commit()
    with pytest.raises(CatalogueError, match="is damaged"):
        Catalogue.open(old_sqlite)
    assert schema_of(old_sqlite) == "0001"
    assert backups(old_sqlite) == []


def test_backups_of_one_second_do_not_replace_each_other(old_sqlite: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Standing(catalogue_backup.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: object = None) -> "Standing":
            return cls(2026, 1, 1)

    monkeypatch.setattr(catalogue_backup, "datetime", Standing)
    for _ in range(2):
        Catalogue.open(old_sqlite).close()
        old_sqlite.catalogue_file.unlink()
        run_script(old_sqlite, SCRIPTS[1])
    names = [path.name for path in backups(old_sqlite)]
    assert names == ["catalogue-0001-20260101T000000Z-2.sqlite", "catalogue-0001-20260101T000000Z.sqlite"]


def test_without_pg_dump_nothing_changes(old_postgres: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old_postgres)
    monkeypatch.setattr(catalogue_backup.shutil, "which", lambda _: None)
    with pytest.raises(CatalogueError, match=r"pg_dump is not on the PATH.*postgresql-client"):
        Catalogue.open(old_postgres)
    assert contents(old_postgres) == before


def test_a_failing_pg_dump_changes_nothing_and_never_gets_the_password_as_an_argument(
    old_postgres: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(old_postgres)
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "server version mismatch" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with pytest.raises(CatalogueError, match="pg_dump failed: server version mismatch"):
        Catalogue.open(old_postgres)
    assert contents(old_postgres) == before
    assert backups(old_postgres) == []
    arguments = (tmp_path / "arguments").read_text()
    assert "--no-password" in arguments
    assert PASSWORD not in arguments


def test_the_steps_are_in_the_wheel() -> None:
    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    steps = {path.relative_to(ROOT).as_posix() for path in (ROOT / "models" / "migrations").rglob("*.py")}
    assert len(steps) >= 2 + len(MIGRATIONS)
    assert steps <= files


def test_the_steps_are_one_chain_that_ends_at_the_present_schema() -> None:
    steps = ScriptDirectory(str(Path(catalogue_migration.__file__).parent / "migrations"))
    assert steps.get_heads() == [PRESENT]
    assert [step.revision for step in steps.walk_revisions()] == list(reversed(MIGRATIONS))
    assert int(PRESENT) == schema.SCHEMA_VERSION
