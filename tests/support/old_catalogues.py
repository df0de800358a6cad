"""Catalogues as earlier versions of voucher made them: their statements as they were, and rows in every table."""

import sqlite3
from contextlib import closing

import psycopg

from models.home import Home

_VERSION_1 = """
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

_SYNTHETIC_PHOTOS = """
CREATE TABLE synthetic_photos (
    run_id VARCHAR(64) NOT NULL, sheet_id VARCHAR(20) NOT NULL, source_sha256 VARCHAR(64) NOT NULL,
    stored_sha256 VARCHAR(64) NOT NULL, suffix VARCHAR(10) NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, bytes INTEGER NOT NULL,
    CONSTRAINT pk_synthetic_photos PRIMARY KEY (run_id, sheet_id),
    CONSTRAINT fk_synthetic_photos_sheet_id_sheets
        FOREIGN KEY(sheet_id) REFERENCES sheets (image_id) ON DELETE CASCADE
);
CREATE INDEX ix_synthetic_photos_sheet_id ON synthetic_photos (sheet_id);
CREATE INDEX ix_synthetic_photos_stored_sha256 ON synthetic_photos (stored_sha256);
"""

_SHEETS = tuple(f"{number:064x}" for number in range(1, 4))
_PHOTO = "b" * 64


def _rows() -> str:
    image = "INSERT INTO images VALUES ('{0}', '{1}', '{1}', '.jpg', 3, 4, 5);"
    sheet = "INSERT INTO sheets VALUES ('{0}', 'rose', 'p{2}', NULL, 'CC0', NULL, 'a/{2}.jpg', 'K', NULL, 'K{2}');"
    photo = "INSERT INTO field_photos VALUES ('{0}', 'rose', 'p', 'test', NULL, NULL, NULL, 'leaf');"
    entered = [
        image.format(f"sheet{n}", digest) + sheet.format(f"sheet{n}", digest, n) for n, digest in enumerate(_SHEETS)
    ]
    return "\n".join([*entered, image.format(_PHOTO[:20], _PHOTO), photo.format(_PHOTO[:20])])


_DRAWN = f"""
INSERT INTO synthetic_photos VALUES ('run', 'sheet1', '{"c" * 64}', '{"c" * 64}', '.png', 3, 4, 5);
UPDATE schema_version SET version = 2;
"""

_REVISIONS = """
CREATE TABLE revisions (
    revision INTEGER NOT NULL, token VARCHAR(32) NOT NULL, at VARCHAR(32) NOT NULL, actor TEXT NOT NULL,
    action VARCHAR(32) NOT NULL, sheets INTEGER NOT NULL,
    CONSTRAINT pk_revisions PRIMARY KEY (revision)
);
ALTER TABLE sheets ADD COLUMN revision INTEGER DEFAULT 1 NOT NULL;
ALTER TABLE sheets ADD COLUMN added_at VARCHAR(32);
ALTER TABLE sheets ADD COLUMN removed_at VARCHAR(32);
ALTER TABLE sheets ADD COLUMN purged_at VARCHAR(32);
CREATE INDEX ix_sheets_revision ON sheets (revision, image_id);
CREATE INDEX ix_sheets_catalog_number ON sheets (catalog_number);
CREATE INDEX ix_sheets_removed ON sheets (image_id) WHERE removed_at IS NOT NULL;
CREATE TABLE changes (
    revision INTEGER NOT NULL, position INTEGER NOT NULL, action VARCHAR(32) NOT NULL, sheet_id VARCHAR(20),
    species_id VARCHAR(200) NOT NULL, previous_species_id VARCHAR(200),
    CONSTRAINT pk_changes PRIMARY KEY (revision, position),
    CONSTRAINT fk_changes_revision_revisions FOREIGN KEY(revision) REFERENCES revisions (revision),
    CONSTRAINT fk_changes_sheet_id_sheets FOREIGN KEY(sheet_id) REFERENCES sheets (image_id)
);
CREATE INDEX ix_changes_sheet_id ON changes (sheet_id);
INSERT INTO revisions VALUES (1, '0123456789abcdef0123456789abcdef', '2026-01-01T00:00:00.000+00:00', 'voucher',
    'migration', 3);
DROP TABLE schema_version;
CREATE TABLE schema_version (
    version INTEGER NOT NULL, CONSTRAINT pk_schema_version PRIMARY KEY (version),
    CONSTRAINT ck_schema_version_has_revisions CHECK (version >= 3)
);
INSERT INTO schema_version VALUES (3);
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version VALUES ('0003');
"""

SCRIPTS = {
    1: _VERSION_1 + _rows(),
    2: _VERSION_1 + _rows() + _SYNTHETIC_PHOTOS + _DRAWN,
    3: _VERSION_1 + _rows() + _SYNTHETIC_PHOTOS + _DRAWN + _REVISIONS,
}
"""Version → statements that make a catalogue of it with one species, three sheets and a field photo."""

NUMBER_WRITTEN_BACK = SCRIPTS[2] + "UPDATE schema_version SET version = 1;"
"""Version 2, where a voucher of version 1 that was open meanwhile has written its number."""


def run_script(home: Home, script: str) -> None:
    """Execute statements on the database of `home` without any code of voucher."""
    if home.database_url is not None:
        with psycopg.connect(home.database_url) as connection:
            for statement in script.split(";\n"):
                connection.execute(statement.encode())
        return
    home.root.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home.catalogue_file)) as connection:
        connection.executescript(f"PRAGMA foreign_keys=ON;\n{script}")
        connection.commit()
