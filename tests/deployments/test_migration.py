"""A store of an earlier version is brought to the newest, with all that it holds."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import upgrade
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from worldstereo_client.schemas import SceneStatus

from deployments.migration import StoreError, alembic_config
from deployments.records import Submission
from deployments.store import Store
from deployments.tables import SCHEMA_VERSION, connect, metadata

# What the first program wrote for one scene that was sent with a key.
SCENE = (
    "INSERT INTO scenes (id, name, status, parameters, created_at, last_event) "
    "VALUES ('one', 'kitchen', 'queued', '{\"seed\": 7}', 5.0, 1)"
)
EVENT = (
    "INSERT INTO events (scene_id, id, body) VALUES ('one', 1, "
    '\'{"id": 1, "time": 5.0, "type": "scene", "status": "queued"}\')'
)
KEY = "INSERT INTO idempotency_keys VALUES ('key', 'body', 'one', 5.0)"


def first_version(database_url: str) -> None:
    """A store as the first program made it, which knew nothing of Alembic."""
    engine = connect(database_url)
    with engine.execution_options(writes=True).begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        upgrade(config, "1")
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text("CREATE TABLE meta (name VARCHAR(64) PRIMARY KEY, value TEXT)"))
        connection.execute(text("INSERT INTO meta VALUES ('schema_version', '1')"))
        for statement in (SCENE, EVENT, KEY):
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_the_newest_step_is_what_the_program_asks_for() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == SCHEMA_VERSION


def test_a_new_store_has_the_tables_that_are_written_down(database_url: str) -> None:
    Store(database_url).close()
    engine = connect(database_url)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_first_version_is_brought_to_the_newest(database_url: str) -> None:
    first_version(database_url)
    for _ in range(2):  # a second start finds nothing to do
        store = Store(database_url)
        scene = store.scene("one")
        assert (scene.status, scene.parameters.seed) == (SceneStatus.QUEUED, 7)
        assert (scene.kind, scene.owner, scene.priority) == ("scene", "", 0)
        assert [event.id for event in store.events("one", after=0)] == [1]
        assert store.submission(Submission("key", "body")) == "one"
        assert store.submission(Submission("key", "body", owner="other")) is None
        store.close()
    engine = connect(database_url)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_store_of_a_later_version_is_refused(database_url: str) -> None:
    Store(database_url).close()
    engine = connect(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '99'"))
    engine.dispose()
    with pytest.raises(StoreError, match="schema version 99"):
        Store(database_url)
