"""Events of scenes as server-sent events, one look at the store for all listeners of a process.

Owns waking listeners, heartbeats and the format on the wire; the events are the store's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

from worldstereo_client.schemas import Event, SceneStatus

from deployments.errors import StoreAway
from deployments.outage import patiently
from deployments.store import Store

logger = logging.getLogger(__name__)

# How often a stream tries a store that is away, seconds.
_AWAY_POLL_S = 1.0


class EventFeed:
    """Streams of events.

    Args:
        store: where they are.
        poll_s: how often the store is asked for news while anyone listens, seconds.
        heartbeat_s: longest silence of a stream, seconds.
    """

    def __init__(self, store: Store, *, poll_s: float, heartbeat_s: float) -> None:
        self._store = store
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._poller: asyncio.Task[None] | None = None

    async def stream(self, scene_id: str, after: int) -> AsyncIterator[str]:
        """A scene's events with an id above ``after``, until the scene has ended.

        Args:
            scene_id: of a scene that exists.
            after: id of the last event that the listener knows, 0 for none.

        Yields:
            Blocks of text/event-stream.
        """
        with self._listening(scene_id) as news:
            while True:
                news.clear()
                try:
                    found = await asyncio.to_thread(self._store.events, scene_id, after)
                    ended = not found and await self._has_ended(scene_id, after)
                except StoreAway:  # the stream goes on when it is back
                    yield ": the store is away\n\n"
                    await asyncio.sleep(_AWAY_POLL_S)
                    continue
                for event in found:
                    after = event.id
                    news.set()  # there may be more than one look gives
                    yield format_event(event)
                    if event.type == "scene" and SceneStatus(str(event.status)).terminal:
                        return
                if news.is_set():
                    continue
                if ended:
                    return
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        await news.wait()
                except TimeoutError:
                    yield ": still here\n\n"

    async def _has_ended(self, scene_id: str, after: int) -> bool:
        record = await asyncio.to_thread(self._store.scene, scene_id)
        return record.status.terminal and after >= record.last_event

    @contextmanager
    def _listening(self, scene_id: str) -> Iterator[asyncio.Event]:
        news = asyncio.Event()
        self._listeners.setdefault(scene_id, set()).add(news)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield news
        finally:
            self._listeners[scene_id].discard(news)
            if not self._listeners[scene_id]:
                del self._listeners[scene_id]

    async def _poll(self) -> None:
        """Wake the listeners of scenes that have news, as long as there are any listeners."""
        seen = await patiently(self._store.last_event_number)
        self._wake(self._listeners)
        while self._listeners:
            await asyncio.sleep(self._poll_s)
            try:
                scenes, seen = await asyncio.to_thread(self._store.scenes_with_news, seen)
            except StoreAway:
                continue
            except Exception:
                logger.exception("cannot look for events")
                continue
            self._wake(scenes)

    def _wake(self, scenes: Iterable[str]) -> None:
        for scene_id in scenes:
            for news in self._listeners.get(scene_id, ()):
                news.set()


def format_event(event: Event) -> str:
    """One event as a block of text/event-stream."""
    data = event.model_dump_json(exclude_none=True)
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
