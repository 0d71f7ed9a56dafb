"""Owners, priorities, leases and kinds of scenes; API keys; webhooks; one key space an owner."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add them; scenes that are there have no owner, and nobody works on them."""
    # Column by column, not Alembic's batch: it would rebuild the table in SQLite, and dropping the
    # old one would take everything below a scene with it.
    op.add_column(
        "scenes", sa.Column("kind", sa.String(16), nullable=False, server_default="scene")
    )
    op.add_column("scenes", sa.Column("owner", sa.String(32), nullable=False, server_default=""))
    op.add_column("scenes", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("scenes", sa.Column("lease_holder", sa.String(64)))
    op.add_column("scenes", sa.Column("lease_expires_at", sa.Float))
    op.create_index("scenes_by_owner", "scenes", ["owner", "status", "number"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("max_queued", sa.Integer),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("max_priority", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("old_secret_sha256", sa.String(64)),
        sa.Column("old_secret_until", sa.Float),
    )
    op.create_table(
        "webhooks",
        sa.Column(
            "scene_id",
            sa.String(64),
            sa.ForeignKey("scenes.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("told_event", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float),
        sa.Column("last_error", sa.Text),
    )
    op.create_index("webhooks_by_time", "webhooks", ["next_at"])
    op.rename_table("idempotency_keys", "idempotency_keys_v1")
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column(
            "scene_id",
            sa.String(64),
            sa.ForeignKey("scenes.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.execute(
        "INSERT INTO idempotency_keys (owner, key, body_sha256, scene_id, created_at) "
        "SELECT '', key, body_sha256, scene_id, created_at FROM idempotency_keys_v1"
    )
    op.drop_table("idempotency_keys_v1")
