"""Event streams of running scenes: news arrive, silence is filled, the end ends them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from worldstereo_client.schemas import SceneRequest, SceneStatus

from deployments.event_feed import EventFeed
from deployments.records import NewScene
from deployments.store import Store

pytestmark = pytest.mark.virtual_time


def add(store: Store, scene_id: str) -> None:
    store.add_scene(NewScene(scene_id, "s", SceneRequest(), ("renders/a",)), max_queued=99)


@pytest.fixture
def feed(store: Store) -> EventFeed:
    add(store, "one")
    return EventFeed(store, poll_s=0.01, heartbeat_s=0.15)


async def read(stream: AsyncIterator[str], count: int) -> list[str]:
    async with asyncio.timeout(5):
        return [(await anext(stream)).splitlines()[0] for _ in range(count)]


async def test_events_arrive_while_they_happen(feed: EventFeed, store: Store) -> None:
    stream = feed.stream("one", 0)
    assert await read(stream, 1) == ["id: 1"]
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    assert await read(stream, 1) == ["id: 2"]
    store.advance_scene("one", SceneStatus.COMPLETED)
    assert await read(stream, 1) == ["id: 3"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_silence_is_filled_with_comments(feed: EventFeed) -> None:
    stream = feed.stream("one", 1)
    assert await read(stream, 2) == [": still here", ": still here"]
    await stream.aclose()  # type: ignore[attr-defined]


async def test_each_listener_gets_its_own_scene(feed: EventFeed, store: Store) -> None:
    add(store, "two")
    streams = [feed.stream("one", 1), feed.stream("two", 1), feed.stream("two", 0)]
    reads = [asyncio.create_task(read(stream, 1)) for stream in streams[:2]]
    assert await read(streams[2], 1) == ["id: 1"]
    await asyncio.sleep(0.05)
    store.advance_scene("two", SceneStatus.CANCELLING)
    assert await reads[1] == ["id: 2"]
    assert await read(streams[2], 1) == ["id: 2"]
    assert await reads[0] == [": still here"]
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_store_that_is_away_for_a_moment_ends_no_stream(
    feed: EventFeed, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = feed.stream("one", 1)
    waiting = asyncio.create_task(read(stream, 1))
    await asyncio.sleep(0.03)

    def away(seen: int) -> tuple[set[str], int]:
        raise OSError("away")

    monkeypatch.setattr(store, "scenes_with_news", away)
    await asyncio.sleep(0.03)
    monkeypatch.undo()
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    assert await waiting == ["id: 2"]
    await stream.aclose()  # type: ignore[attr-defined]
