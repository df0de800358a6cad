"""Synthetic photos, in a table of their own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"


def _key(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """From the first tables."""
    op.create_table(
        "synthetic_photos",
        sa.Column("run_id", _key(64), nullable=False),
        sa.Column("sheet_id", _key(20), nullable=False),
        sa.Column("source_sha256", _key(64), nullable=False),
        sa.Column("stored_sha256", _key(64), nullable=False),
        sa.Column("suffix", sa.String(10), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "sheet_id", name="pk_synthetic_photos"),
        sa.ForeignKeyConstraint(
            ["sheet_id"], ["sheets.image_id"], name="fk_synthetic_photos_sheet_id_sheets", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_synthetic_photos_sheet_id", "synthetic_photos", ["sheet_id"])
    op.create_index("ix_synthetic_photos_stored_sha256", "synthetic_photos", ["stored_sha256"])
    op.execute(sa.text("UPDATE schema_version SET version = 2"))
