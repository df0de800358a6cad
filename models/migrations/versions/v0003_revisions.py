"""Revisions of the catalogue, removed sheets, and what curators changed."""

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0003"
down_revision = "0002"


def _key(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """From a catalogue without a memory; its sheets get the first revision, without touching each row."""
    revisions = op.create_table(
        "revisions",
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("sheets", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_revisions"),
    )
    op.add_column("sheets", sa.Column("revision", sa.Integer(), nullable=False, server_default=sa.text("1")))
    for name in ("added_at", "removed_at", "purged_at"):
        op.add_column("sheets", sa.Column(name, sa.String(32)))
    op.create_index("ix_sheets_revision", "sheets", ["revision", "image_id"])
    op.create_index("ix_sheets_catalog_number", "sheets", ["catalog_number"])
    removed = sa.text("removed_at IS NOT NULL")
    op.create_index("ix_sheets_removed", "sheets", ["image_id"], sqlite_where=removed, postgresql_where=removed)
    op.create_table(
        "changes",
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("sheet_id", _key(20)),
        sa.Column("species_id", _key(200), nullable=False),
        sa.Column("previous_species_id", _key(200)),
        sa.PrimaryKeyConstraint("revision", "position", name="pk_changes"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.revision"], name="fk_changes_revision_revisions"),
        sa.ForeignKeyConstraint(["sheet_id"], ["sheets.image_id"], name="fk_changes_sheet_id_sheets"),
    )
    op.create_index("ix_changes_sheet_id", "changes", ["sheet_id"])
    connection = op.get_bind()
    sheets = connection.execute(sa.text("SELECT COUNT(*) FROM sheets")).scalar_one()
    if sheets:
        first = {
            "revision": 1,
            "token": secrets.token_hex(16),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "actor": "voucher",
            "action": "migration",
            "sheets": sheets,
        }
        connection.execute(sa.insert(revisions).values(first))
    _stop_older_vouchers()


def _stop_older_vouchers() -> None:
    """They compare the number here with theirs; the first one writes its own back, which the constraint refuses."""
    op.drop_table("schema_version")
    version = op.create_table(
        "schema_version",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_schema_version"),
        sa.CheckConstraint("version >= 3", name="ck_schema_version_has_revisions"),
    )
    op.execute(sa.insert(version).values(version=3))
