"""Databases of an older version are brought up to date, whole or not at all."""

import sqlite3
import threading
from pathlib import Path

import pytest

from models import catalogue_database
from models import catalogue_schema as schema
from models.catalogue import Catalogue, CatalogueCounts
from models.errors import CatalogueError
from models.home import Home

VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL, CONSTRAINT pk_schema_version PRIMARY KEY (version));
CREATE TABLE species (
    species_id VARCHAR(200) NOT NULL, scientific_name TEXT NOT NULL, genus TEXT, family TEXT,
    CONSTRAINT pk_species PRIMARY KEY (species_id)
);
CREATE TABLE images (
    image_id VARCHAR(20) NOT NULL, source_sha256 VARCHAR(64) NOT NULL, stored_sha256 VARCHAR(64) NOT NULL,
    suffix VARCHAR(10) NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL,
    CONSTRAINT pk_images PRIMARY KEY (image_id),
    CONSTRAINT uq_images_source_sha256 UNIQUE (source_sha256),
    CONSTRAINT uq_images_stored_sha256 UNIQUE (stored_sha256)
);
CREATE TABLE sheets (
    image_id VARCHAR(20) NOT NULL, species_id VARCHAR(200) NOT NULL, plant_key TEXT NOT NULL, split VARCHAR(12),
    license TEXT, rights_holder TEXT, source_path TEXT, institution_code TEXT, collection_code TEXT,
    catalog_number TEXT,
    CONSTRAINT pk_sheets PRIMARY KEY (image_id),
    CONSTRAINT fk_sheets_image_id_images FOREIGN KEY(image_id) REFERENCES images (image_id),
    CONSTRAINT fk_sheets_species_id_species FOREIGN KEY(species_id) REFERENCES species (species_id)
);
CREATE INDEX ix_sheets_plant_key ON sheets (plant_key);
CREATE INDEX ix_sheets_species_id ON sheets (species_id);
CREATE TABLE field_photos (
    image_id VARCHAR(20) NOT NULL, species_id VARCHAR(200) NOT NULL, plant_key TEXT NOT NULL, split VARCHAR(12),
    license TEXT, rights_holder TEXT, source_path TEXT, organ VARCHAR(12),
    CONSTRAINT pk_field_photos PRIMARY KEY (image_id),
    CONSTRAINT fk_field_photos_image_id_images FOREIGN KEY(image_id) REFERENCES images (image_id),
    CONSTRAINT fk_field_photos_species_id_species FOREIGN KEY(species_id) REFERENCES species (species_id)
);
CREATE INDEX ix_field_photos_plant_key ON field_photos (plant_key);
CREATE INDEX ix_field_photos_species_id ON field_photos (species_id);
INSERT INTO schema_version VALUES (1);
INSERT INTO species VALUES ('rose', 'Rosa canina L.', 'Rosa', 'Rosaceae');
"""
"""What voucher 0.1 made."""

_A, _B = "a" * 64, "b" * 64


@pytest.fixture
def old_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    connection = sqlite3.connect(home.catalogue_file)
    connection.executescript(VERSION_1)
    for table, digest, extra in (("sheets", _A, ", NULL, NULL, 'K1'"), ("field_photos", _B, ", 'leaf'")):
        connection.execute(f"INSERT INTO images VALUES ('{digest[:20]}', '{digest}', '{digest}', '.jpg', 3, 4, 5)")
        split = "'test'" if table == "field_photos" else "NULL"
        connection.execute(
            f"INSERT INTO {table} VALUES ('{digest[:20]}', 'rose', 'p', {split}, NULL, NULL, NULL{extra})"
        )
    connection.commit()
    connection.close()
    return home


def structure(file: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(file)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {
        name: [
            *connection.execute(f"PRAGMA table_info({name})"),
            *connection.execute(f"PRAGMA foreign_key_list({name})"),
            *sorted(row[1:] for row in connection.execute(f"PRAGMA index_list({name})")),
        ]
        for name in names
    }
    connection.close()
    return found


def version(home: Home) -> list[int]:
    connection = sqlite3.connect(home.catalogue_file)
    found = [row[0] for row in connection.execute("SELECT version FROM schema_version")]
    connection.close()
    return found


def test_a_version_1_catalogue_keeps_everything_and_gets_the_present_tables(old_home: Home, tmp_path: Path) -> None:
    with Catalogue.open(old_home) as catalogue:
        assert catalogue.counts() == CatalogueCounts(1, 1, 1)
        (sheet,), (photo,) = catalogue.sheets(), catalogue.field_photos()
        assert (sheet.specimen.catalog_number, photo.organ, photo.split) == ("K1", "leaf", "test")
        assert list(catalogue.synthetic_photos("run")) == []
    assert version(old_home) == [schema.SCHEMA_VERSION] == [2]
    fresh = Home(tmp_path / "fresh")
    Catalogue.open(fresh, create=True).close()
    assert structure(old_home.catalogue_file) == structure(fresh.catalogue_file)


def test_opening_again_changes_nothing(old_home: Home) -> None:
    Catalogue.open(old_home).close()
    before = structure(old_home.catalogue_file)
    Catalogue.open(old_home).close()
    assert structure(old_home.catalogue_file) == before
    assert version(old_home) == [2]


def test_a_failed_migration_leaves_version_1_whole(old_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = structure(old_home.catalogue_file)
    create = schema.synthetic_photos.create

    def die(*arguments: object, **more: object) -> None:
        create(*arguments, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(schema.synthetic_photos, "create", die)
    with pytest.raises(KeyboardInterrupt):
        Catalogue.open(old_home)
    monkeypatch.undo()
    assert version(old_home) == [1]
    assert structure(old_home.catalogue_file) == before
    with Catalogue.open(old_home) as catalogue:
        assert catalogue.counts() == CatalogueCounts(1, 1, 1)


def test_two_processes_may_migrate_at_once(old_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_read = threading.Barrier(2, timeout=20)
    migrate = catalogue_database._add_synthetic_photos

    def together(engine: object) -> None:
        both_have_read.wait()
        migrate(engine)  # type: ignore[arg-type]

    monkeypatch.setattr(catalogue_database, "_add_synthetic_photos", together)
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            Catalogue.open(old_home).close()
        except CatalogueError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert version(old_home) == [2]


def test_a_catalogue_whose_number_an_old_voucher_wrote_back_is_opened(old_home: Home) -> None:
    Catalogue.open(old_home).close()
    connection = sqlite3.connect(old_home.catalogue_file)
    connection.execute("UPDATE schema_version SET version = 1")  # as version 1 does with every transaction
    connection.commit()
    connection.close()
    with Catalogue.open(old_home) as catalogue:
        assert list(catalogue.synthetic_photos("run")) == []
    assert version(old_home) == [2]


def test_nothing_is_written_once_a_newer_voucher_has_changed_the_schema(old_home: Home) -> None:
    with Catalogue.open(old_home) as catalogue:
        connection = sqlite3.connect(old_home.catalogue_file)
        connection.execute("UPDATE schema_version SET version = 3")
        connection.commit()
        connection.close()
        with pytest.raises(CatalogueError, match="restart this one"), catalogue.writing():
            pass
    assert version(old_home) == [3]
