"""Brings a store of an earlier version to the newest with Alembic; the steps lie in migrations/."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from deployments.tables import SCHEMA_VERSION
from worldstereo.errors import WorldStereoError

# Any number, the same for all programs that migrate a store.
_LOCK = 7_236_113


class StoreError(WorldStereoError):
    """The database is of a later version of this program."""


def migrate(connection: Connection) -> None:
    """Make the tables, or bring them to the newest version, in this transaction.

    Args:
        connection: in a transaction that writes, so that one process at a time gets here.

    Raises:
        StoreError: the store was made by a later version.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    found = _version(connection)
    if found == SCHEMA_VERSION:
        return
    if found is not None and int(found) > int(SCHEMA_VERSION):
        raise StoreError(
            "the store is of a later version of this program",
            where="database_url",
            got=f"schema version {found}",
            allowed=f"at most {SCHEMA_VERSION}",
            fix="run the version that made it, or a later one",
        )
    config = alembic_config()
    config.attributes["connection"] = connection
    if found is not None:
        command.stamp(config, found)
    command.upgrade(config, "head")
    if found is not None and inspect(connection).has_table("meta"):
        connection.execute(text("DROP TABLE meta"))


def alembic_config() -> Config:
    """Alembic's settings, without a connection."""
    config = Config()
    config.set_main_option("script_location", "deployments:migrations")
    return config


def _version(connection: Connection) -> str | None:
    """Of the store; the first program wrote it into a table of its own. None: an empty store."""
    tables = inspect(connection)
    for table, query in (
        ("alembic_version", "SELECT version_num FROM alembic_version"),
        ("meta", "SELECT value FROM meta WHERE name = 'schema_version'"),
    ):
        if tables.has_table(table):
            return str(connection.execute(text(query)).scalar_one())
    return None
