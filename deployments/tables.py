"""The store's tables, and connections that behave the same on SQLite and PostgreSQL.

What is written here is the newest version; migrations/ makes it out of any earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.engine import Connection

# The newest of migrations/versions.
SCHEMA_VERSION = "2"

# How long a connection waits for another process that writes, or a call for a connection, seconds.
# Whoever waits longer is told that the store is away.
_BUSY_TIMEOUT_S = 5.0

# The same for PostgreSQL: to connect, for an answer of its machine, for a lock; and how long a
# client that stopped in the middle of a transaction may hold its locks.
_POSTGRESQL: Mapping[str, int | str] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c lock_timeout=5s -c idle_in_transaction_session_timeout=20s",
}

metadata = MetaData()

# ``number`` is the order of submission. ``last_event`` counts the scene's events. ``owner`` is the
# API key that sent it, "" where none is asked for. Of waiting scenes the highest priority goes
# first. Whoever works on a scene holds its lease until ``lease_expires_at``.
scenes = Table(
    "scenes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("error", JSON(none_as_null=True)),
    Column("last_event", Integer, nullable=False),
    Column("kind", String(16), nullable=False, server_default="scene"),
    Column("owner", String(32), nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("lease_holder", String(64)),
    Column("lease_expires_at", Float),
    Index("scenes_by_status", "status", "number"),
    Index("scenes_by_owner", "owner", "status", "number"),
    sqlite_autoincrement=True,
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("scene_id", String(64), ForeignKey("scenes.id", ondelete="CASCADE"), primary_key=True),
    Column("id", String(512), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("depends_on", JSON, nullable=False),
    Column("stage", String(16)),
    Column("step", Integer, nullable=False, default=0),
    Column("steps", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("stage_seconds", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
)

# ``outcome`` is null while the attempt runs.
attempts = Table(
    "attempts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("scene_id", String(64), ForeignKey("scenes.id", ondelete="CASCADE"), nullable=False),
    Column("trajectory_id", String(512), nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("outcome", String(16)),
    Column("reason", Text),
    Index("attempts_by_trajectory", "scene_id", "trajectory_id", "number"),
)

# ``number`` is the order of all events, ``id`` the gapless order within a scene.
events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("scene_id", String(64), ForeignKey("scenes.id", ondelete="CASCADE"), nullable=False),
    Column("id", Integer, nullable=False),
    Column("body", JSON, nullable=False),
    Index("events_by_scene", "scene_id", "id", unique=True),
    sqlite_autoincrement=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", String(32), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("scene_id", String(64), ForeignKey("scenes.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
)


# The secret itself is nowhere. Null limits: none of its own. After a rotation the secret before
# stays good until ``old_secret_until``.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("max_queued", Integer),
    Column("requests_per_minute", Integer),
    Column("max_priority", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("old_secret_sha256", String(64)),
    Column("old_secret_until", Float),
)

# ``told_event`` is the last event that the receiver acknowledged; ``next_at`` is null when there is
# nothing more to tell.
webhooks = Table(
    "webhooks",
    metadata,
    Column("scene_id", String(64), ForeignKey("scenes.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("told_event", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Float),
    Column("last_error", Text),
    Index("webhooks_by_time", "next_at"),
)


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite store in this file."""
    return f"sqlite:///{file.absolute()}"


def store_url(data_dir: Path, database_url: str | None) -> str:
    """The URL of a server's store: the database that is named, else a file in its data."""
    return database_url or sqlite_url(data_dir.expanduser().absolute() / "store.sqlite")


def connect(url: str) -> Engine:
    """Connections to the store at this SQLAlchemy URL; a SQLite file's folder is made."""
    target = make_url(url)
    if target.get_backend_name() == "postgresql":
        # What the URL says goes before.
        defaults = {key: value for key, value in _POSTGRESQL.items() if key not in target.query}
        return create_engine(
            target.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_timeout=_BUSY_TIMEOUT_S,
            # Enough for writes: each locks its scene's row first, and sees what is there after it.
            isolation_level="READ COMMITTED",
            connect_args=defaults,
        )
    if target.database:
        Path(target.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_timeout=_BUSY_TIMEOUT_S
    )
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    # Transactions are begun below, not by the driver at the first write.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    # A writer takes its lock at once: one that began as a reader would fail instead of waiting
    # when another process wrote meanwhile.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
