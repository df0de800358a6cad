"""What `voucher doctor` finds of catalogue."""

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import old_catalogues
import pytest
from findings_support import bad, told

from indexer import doctor_catalogue
from indexer.doctor_catalogue import check_catalogue, check_images
from models.catalogue import Catalogue
from models.home import Home


@pytest.mark.parametrize("thorough", [False, True])
def test_one_that_is_sound(home: Home, thorough: bool) -> None:
    findings = [*check_catalogue(home, thorough=thorough), *check_images(home, thorough=thorough)]
    assert bad(findings) == []
    looked_at = 60 if thorough else 24
    assert f"{looked_at} files are there" in told(findings)


def test_none(tmp_path: Path) -> None:
    assert bad(check_catalogue(Home(tmp_path), thorough=False)) == [("catalogue", "fault")]
    assert list(check_images(Home(tmp_path), thorough=False)) == []
    assert not list(tmp_path.iterdir())


def test_one_of_an_earlier_version_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with closing(sqlite3.connect(home.catalogue_file)) as connection, connection:
        connection.executescript(old_catalogues._VERSION_1)
    assert ("catalogue", "warning") in bad(check_catalogue(home, thorough=False))
    with closing(sqlite3.connect(home.catalogue_file)) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(1,)]
    assert list(check_images(home, thorough=False)) == []


def test_one_of_a_later_version(home: Home) -> None:
    with closing(sqlite3.connect(home.catalogue_file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    findings = list(check_catalogue(home, thorough=False))
    assert bad(findings) == [("catalogue", "fault")]
    assert "9999" in told(findings)


def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "catalogue.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    assert ("catalogue", "fault") in bad(check_catalogue(Home(tmp_path), thorough=False))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 1000)
    assert bad(check_catalogue(Home(tmp_path), thorough=False)) == [("catalogue", "fault")]


def test_a_file_that_is_damaged(home: Home) -> None:
    with closing(sqlite3.connect(home.catalogue_file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page, size) = connection.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = 'images'"
        ).fetchone()
    with home.catalogue_file.open("r+b") as file:
        file.seek((page - 1) * size + 8)
        file.write(os.urandom(200))
    assert any(severity == "fault" for _, severity in bad(check_catalogue(home, thorough=False)))


def test_a_row_that_refers_to_nothing_is_found_by_a_thorough_look(home: Home) -> None:
    with closing(sqlite3.connect(home.catalogue_file)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DELETE FROM species WHERE species_id = (SELECT min(species_id) FROM sheets)")
    assert bad(check_catalogue(home, thorough=False)) == []
    assert bad(check_catalogue(home, thorough=True)) == [("catalogue file", "fault")]


def test_no_sheets(tmp_path: Path) -> None:
    Catalogue.open(Home(tmp_path / "home"), create=True).close()
    assert bad(check_catalogue(Home(tmp_path / "home"), thorough=False)) == [("collection", "warning")]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    home = Home(tmp_path, f"postgresql://someone:s3cret@127.0.0.1:{port}/voucher")
    findings = list(check_catalogue(home, thorough=False))
    assert bad(findings) == [("catalogue", "fault")]
    assert "s3cret" not in told(findings)


def test_a_server_that_is_sound_and_one_whose_pg_dump_is_missing_or_old(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, postgres_url)
    assert ("catalogue", "fault") in bad(check_catalogue(home, thorough=False))
    Catalogue.open(home, create=True).close()
    monkeypatch.setattr(doctor_catalogue, "_pg_dump_major", lambda: 99)
    assert bad(check_catalogue(home, thorough=False)) == [("collection", "warning")]
    for version in (None, 9):
        monkeypatch.setattr(doctor_catalogue, "_pg_dump_major", lambda version=version: version)
        assert ("pg_dump", "warning") in bad(check_catalogue(home, thorough=False))
    monkeypatch.setattr(doctor_catalogue, "_MOST_SKEW_SECONDS", -1.0)
    assert ("clock", "warning") in bad(check_catalogue(home, thorough=False))


def test_a_thorough_look_goes_page_by_page(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_catalogue, "_PAGE_ROWS", 7)
    assert "all 60 files are there" in told(check_images(home, thorough=True))


def test_images_that_are_missing_or_were_changed(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        paths = [catalogue.image_store.path(sheet.image) for sheet in catalogue.sheets()]
        photo = next(catalogue.image_store.path(photo.image) for photo in catalogue.field_photos())
    paths[0].unlink()
    paths[1].chmod(0o644)
    paths[1].write_bytes(b"another picture")
    findings = list(check_images(home, thorough=False))
    assert bad(findings) == [("images", "fault"), ("images", "fault")]
    assert "1 of 24 files are missing" in told(findings)
    photo.unlink()
    assert "2 of 60 files are missing" in told(check_images(home, thorough=True))
