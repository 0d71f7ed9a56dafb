"""A store that is away for a while: work on it pauses, tells, goes on, and nothing is lost."""

import asyncio
import logging
import resource
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from worldstereo_client.schemas import Event, SceneStatus

from actors.messages import Advanced, Committed
from configs.settings import OrchestratorSettings
from deployments import orchestrator, outage, tables
from deployments.errors import StoreAway
from deployments.event_feed import EventFeed
from deployments.outage import Outage, wait_for_store
from deployments.store import Store
from deployments.tables import sqlite_url
from tests.deployments.doubles import FakeReplicas, Script
from tests.deployments.http_api import problem_in
from tests.deployments.orchestrators import PLAN, Cluster, Orchestrators, check_told_once, submit
from tests.deployments.postgresql import PostgresqlServer
from worldstereo.config import ModelConfig

# An outage lasts several leases, and longer than whatever waits between two tries.
LEASE_S, AWAY_S = 1.5, 4.0
SETTINGS = OrchestratorSettings(lease_s=LEASE_S, poll_interval_s=0.1, beat_timeout_s=30)
SLOW: Script = [*(Advanced("denoise", step, 60) for step in range(60)), Committed(first=True)]


class Stopped:
    """A PostgreSQL server of its own, stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._server = PostgresqlServer()
        self.url = self._server.new_database()

    def begin(self) -> None:
        self._server.stop()

    def end(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()


class Locked:
    """A SQLite file that another program keeps locked."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "store.sqlite"
        self.url = sqlite_url(self._file)

    def begin(self) -> None:
        self._other = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        self._other.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        self._other.execute("ROLLBACK")
        self._other.close()

    def close(self) -> None:
        pass


class Full:
    """A SQLite file on a disk without room: the file that takes the writes cannot grow."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "store.sqlite"
        self.url = sqlite_url(self._file)
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def begin(self) -> None:
        size = self._file.with_name("store.sqlite-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._limit[1]))

    def end(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)

    def close(self) -> None:
        self.end()


@pytest.fixture(params=[Stopped, Locked, Full])
def away(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    monkeypatch.setattr(tables, "_BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(outage, "_LONGEST_WAIT_S", 0.3)
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(away: Any) -> Iterator[Store]:
    """The ingress' own; the fixtures of the API take it."""
    opened = Store(away.url)
    yield opened
    opened.close()


@pytest.fixture
def replicas() -> FakeReplicas:
    made = FakeReplicas(4, {name: [SLOW] for name in PLAN})
    made.step_s = 0.02
    return made


@pytest.fixture
async def orchestrators(
    away: Any,
    store: Store,
    replicas: FakeReplicas,
    tmp_path: Path,
    tiny_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Orchestrators]:
    cluster = Cluster(replicas)
    monkeypatch.setattr(orchestrator, "SceneBank", cluster)
    made = Orchestrators(away.url, tmp_path, cluster, SETTINGS, tiny_config)
    yield made
    await made.close()


async def listen(feed: EventFeed, heard: list[Event]) -> None:
    async for block in feed.stream("one", 0):
        for line in block.splitlines():
            if line.startswith("data: "):
                heard.append(Event.model_validate_json(line.removeprefix("data: ")))


async def check_http_while_away(http: httpx.AsyncClient, kitchen_zip: bytes, away: Any) -> None:
    asked = [await http.post("/v1/scenes/one/cancel")]
    if not isinstance(away, Full):  # an upload takes room as well
        asked += [await http.post("/v1/scenes", files={"scene": ("kitchen.zip", kitchen_zip)})]
    if isinstance(away, Stopped):
        asked += [await http.get("/v1/scenes/one"), await http.get("/v1/scenes")]
        asked += [await http.get("/v1/scenes/one/events")]
    for response in asked:
        problem = problem_in(response, 503, "StoreAway")
        assert "sql" not in problem.model_dump_json().lower()
        assert int(response.headers["Retry-After"]) > 0
    ready = await http.get("/readyz")
    assert ready.status_code == 503
    assert "store" in ready.json()["reason"]
    assert int(ready.headers["Retry-After"]) > 0


def test_a_write_that_changes_nothing_does_not_end_the_outage(tmp_path: Path) -> None:
    """It succeeds on a full disk; whoever it is refused to would take the scene too early."""
    disk = Full(tmp_path)
    store = Store(disk.url)
    try:
        submit(store, "one")
        assert store.claim("one", "first", 60)
        disk.begin()
        with pytest.raises(StoreAway):
            store.renew(["one"], "first", 60)
        with pytest.raises(StoreAway):
            store.claim("one", "second", 60, take_over=False)
        assert store.outage.lasts
        disk.end()
        assert not store.claim("one", "second", 60, take_over=False)
        assert not store.outage.lasts
    finally:
        disk.close()
        store.close()


async def test_a_scene_survives_the_outage_of_its_store(
    away: Any,
    store: Store,
    replicas: FakeReplicas,
    orchestrators: Orchestrators,
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    submit(store, "one")
    heard: list[Event] = []
    listening = asyncio.create_task(listen(EventFeed(store, poll_s=0.02, heartbeat_s=0.2), heard))
    # The second one finds nothing to take over: who had the scene before the outage keeps it.
    async with orchestrators.started() as first, orchestrators.started() as second:
        async with asyncio.timeout(60):
            while len(heard) < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        served, idle = (first, second) if first._tasks else (second, first)
        caplog.clear()
        replicas.step_s = 0.5  # the scene lasts until the outage is noticed
        await asyncio.to_thread(away.begin)
        async with asyncio.timeout(60):
            while not served._store.outage.lasts:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        replicas.step_s = 0.02
        task = served._tasks["one"]
        await check_http_while_away(http, kitchen_zip, away)
        await asyncio.sleep(AWAY_S)
        assert served._store.outage.lasts
        assert served._tasks["one"] is task  # it waits where it was
        await served.check_health()
        await asyncio.to_thread(away.end)
        async with asyncio.timeout(60):
            await listening
            while served._tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not idle._tasks
    assert store.scene("one").status is SceneStatus.COMPLETED
    check_told_once(store, "one")
    assert [event.id for event in heard] == [event.id for event in store.events("one", 0, 9999)]
    for name in PLAN:
        assert store.attempts("one", name) == [(1, "committed", "")]
    told = [r.message for r in caplog.records if r.name == "deployments.outage"]
    assert sum("the store is away" in line for line in told) <= 6  # not one a call
    assert any("the store is back after" in line for line in told)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert (await http.get("/readyz")).status_code == 200


def test_a_replica_that_starts_waits_for_the_store(
    away: Any, caplog: pytest.LogCaptureFixture
) -> None:
    there = Store(away.url)
    away.begin()
    tries = 0

    def opening(outage: Outage) -> Store:
        nonlocal tries
        tries += 1
        if tries == 3:
            away.end()
        return Store(away.url, outage=outage)

    began = time.monotonic()
    opened = wait_for_store(opening, 30)
    if isinstance(away, Full):  # opening takes no room
        assert (tries, opened.outage.over_for_s) == (1, float("inf"))
    else:
        assert tries == 3
        assert opened.outage.over_for_s < time.monotonic() - began
        assert caplog.text.count("the store is away") == 1
        assert caplog.text.count("the store is back") == 1
    opened.close()
    there.close()


@pytest.mark.parametrize("away", [Locked], indirect=True)
async def test_one_that_starts_in_an_outage_gives_the_others_a_lease_before_it_takes_over(
    away: Any, store: Store, orchestrators: Orchestrators, caplog: pytest.LogCaptureFixture
) -> None:
    submit(store, "one")
    assert store.claim("one", "another", 0.01)  # who could not renew it, and then can
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    ended_at = 0.0

    def end() -> None:
        nonlocal ended_at
        while "the store is away" not in caplog.text:
            time.sleep(0.01)
        ended_at = time.monotonic()
        away.end()

    away.begin()
    ending = threading.Thread(target=end)
    ending.start()
    async with orchestrators.started() as starting, asyncio.timeout(60):
        while not starting._tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert time.monotonic() - ended_at > LEASE_S
    ending.join()


def test_what_is_wrong_with_a_request_is_no_outage(store: Store) -> None:
    with pytest.raises(Exception, match="nonsense") as raised, store._reads() as connection:
        connection.exec_driver_sql("SELECT nonsense FROM scenes")
    assert not isinstance(raised.value, StoreAway)
    assert not store.outage.lasts
