"""Species, images, sheets and field photos.

Nothing here is taken from `models.catalogue_schema`, which is the schema of today.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None


def _key(length: int | None = None) -> TypeEngine[str]:
    plain: sa.String = sa.Text() if length is None else sa.String(length)
    return plain.with_variant(type(plain)(length, collation="C"), "postgresql")


def _image_table(name: str, *columns: sa.Column[str]) -> None:
    op.create_table(
        name,
        sa.Column("image_id", _key(20), nullable=False),
        sa.Column("species_id", _key(200), nullable=False),
        sa.Column("plant_key", _key(), nullable=False),
        sa.Column("split", sa.String(12)),
        sa.Column("license", sa.Text()),
        sa.Column("rights_holder", sa.Text()),
        sa.Column("source_path", sa.Text()),
        *columns,
        sa.PrimaryKeyConstraint("image_id", name=f"pk_{name}"),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name=f"fk_{name}_image_id_images"),
        sa.ForeignKeyConstraint(["species_id"], ["species.species_id"], name=f"fk_{name}_species_id_species"),
    )
    op.create_index(f"ix_{name}_species_id", name, ["species_id"])
    op.create_index(f"ix_{name}_plant_key", name, ["plant_key"])


def upgrade() -> None:
    """From nothing."""
    version = op.create_table(
        "schema_version",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_schema_version"),
    )
    op.execute(sa.insert(version).values(version=1))
    op.create_table(
        "species",
        sa.Column("species_id", _key(200), nullable=False),
        sa.Column("scientific_name", sa.Text(), nullable=False),
        sa.Column("genus", sa.Text()),
        sa.Column("family", sa.Text()),
        sa.PrimaryKeyConstraint("species_id", name="pk_species"),
    )
    op.create_table(
        "images",
        sa.Column("image_id", _key(20), nullable=False),
        sa.Column("source_sha256", _key(64), nullable=False),
        sa.Column("stored_sha256", _key(64), nullable=False),
        sa.Column("suffix", sa.String(10), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_images"),
        sa.UniqueConstraint("source_sha256", name="uq_images_source_sha256"),
        sa.UniqueConstraint("stored_sha256", name="uq_images_stored_sha256"),
    )
    _image_table(
        "sheets",
        sa.Column("institution_code", sa.Text()),
        sa.Column("collection_code", sa.Text()),
        sa.Column("catalog_number", sa.Text()),
    )
    _image_table("field_photos", sa.Column("organ", sa.String(12)))
