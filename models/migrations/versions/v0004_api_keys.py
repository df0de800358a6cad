"""API keys of the service, and what each has used."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"


def _key(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """From a catalogue without keys."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", _key(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("daily_quota", sa.Integer()),
        sa.Column("per_minute", sa.Integer()),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32)),
        sa.Column("last_used_on", sa.String(10)),
        sa.Column("revoked_at", sa.String(32)),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    )
    op.create_table(
        "api_key_usage",
        sa.Column("key_id", _key(16), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("identifications", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", name="pk_api_key_usage"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.key_id"], name="fk_api_key_usage_key_id_api_keys"),
    )
    op.create_table(
        "api_key_windows",
        sa.Column("window_key", _key(100), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("window_key", name="pk_api_key_windows"),
    )
