"""Which webhook has to be told what, in the store: one row a scene that named one.

Owns the table ``webhooks``. ``touch`` is called in the transaction of each change of a scene, so
that nothing is lost between a change and its telling; ``told_event`` moves on only when the
receiver has acknowledged, so whoever goes on after a crash tells it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Update, delete, insert, select, update
from worldstereo_client.schemas import Event

from deployments.outage import Outage
from deployments.tables import connect, events, scenes, webhooks

# Events of a scene that are read at once when the next of its own is looked for.
_PAGE = 500


@dataclass(frozen=True)
class DueWebhook:
    """A change of a scene that its webhook is to be told now.

    Attributes:
        scene_id, name: of the scene.
        url: where to.
        event: the change; its status and error.
        attempts: how often that was tried in vain.
    """

    scene_id: str
    name: str
    url: str
    event: Event
    attempts: int


def add_webhook(connection: Connection, scene_id: str, url: str | None) -> None:
    """Tell this URL of a new scene, from its first state on."""
    if url is not None:
        connection.execute(
            insert(webhooks).values(scene_id=scene_id, url=url, told_event=0, attempts=0)
        )


def touch_webhook(connection: Connection, scene_id: str, now: float) -> None:
    """The scene's state has changed: tell of it, unless an earlier change is still to be told."""
    connection.execute(
        update(webhooks)
        .where(webhooks.c.scene_id == scene_id, webhooks.c.next_at.is_(None))
        .values(next_at=now)
    )


class WebhookQueue:
    """The webhooks of one store.

    Args:
        url: SQLAlchemy URL; the tables must be there.
        outage: notes when the store is away; that of whoever uses the same store, or None.

    Raises:
        StoreAway: by every call. Each may be repeated: what is noted twice changes nothing.
    """

    def __init__(self, url: str, outage: Outage | None = None) -> None:
        self._engine = connect(url)
        self._outage = outage or Outage()

    def close(self) -> None:
        """Close all connections; twice is harmless."""
        self._engine.dispose()

    def due(self, now: float, limit: int, but: Collection[str] = ()) -> list[DueWebhook]:
        """Up to ``limit`` changes to tell now, one a scene, those that wait longest first.

        Args:
            now: seconds since the epoch.
            limit: how many.
            but: scenes to leave out.
        """
        query = (
            select(webhooks, scenes.c.name)
            .join(scenes, scenes.c.id == webhooks.c.scene_id)
            .where(webhooks.c.next_at <= now, webhooks.c.scene_id.not_in(but))
            .order_by(webhooks.c.next_at)
            .limit(limit)
        )
        found = []
        with self._outage.watched(writes=False), self._engine.begin() as connection:
            for row in connection.execute(query).all():
                event = _next_change(connection, row.scene_id, row.told_event)
                if event is not None:
                    found.append(DueWebhook(row.scene_id, row.name, row.url, event, row.attempts))
        return found

    def told(self, scene_id: str, event_id: int, now: float, error: str | None = None) -> None:
        """The receiver knows of this event, or will never; ``error`` says why it will not."""
        with self._writes_about(scene_id) as connection:
            moved = connection.execute(
                _row(scene_id)
                .where(webhooks.c.told_event < event_id)
                .values(told_event=event_id, attempts=0, last_error=error)
            )
            if moved.rowcount:
                more = _next_change(connection, scene_id, event_id) is not None
                connection.execute(_row(scene_id).values(next_at=now if more else None))

    def failed(self, due: DueWebhook, next_at: float, error: str) -> None:
        """It could not be told; try again then."""
        with self._writes_about(due.scene_id) as connection:
            connection.execute(
                _row(due.scene_id)
                .where(webhooks.c.told_event < due.event.id)
                .values(attempts=due.attempts + 1, next_at=next_at, last_error=error[:1000])
            )

    def stop(self, scene_id: str) -> None:
        """Tell this webhook nothing more, whatever becomes of its scene."""
        with self._writes_about(scene_id) as connection:
            connection.execute(delete(webhooks).where(webhooks.c.scene_id == scene_id))

    @contextmanager
    def _writes_about(self, scene_id: str) -> Iterator[Connection]:
        # The scene's row first, as the store does: a change of it that is not committed yet has
        # found that an earlier one is still to be told; this waits for it, and sees its event.
        locked = select(scenes.c.id).where(scenes.c.id == scene_id).with_for_update()
        with self._outage.writing(self._engine) as connection:
            connection.execute(locked)
            yield connection


def _row(scene_id: str) -> Update:
    return update(webhooks).where(webhooks.c.scene_id == scene_id)


def _next_change(connection: Connection, scene_id: str, after: int) -> Event | None:
    """The scene's first change of state after this event; steps and clips are passed over."""
    while True:
        query = (
            select(events.c.id, events.c.body)
            .where(events.c.scene_id == scene_id, events.c.id > after)
            .order_by(events.c.id)
            .limit(_PAGE)
        )
        rows = connection.execute(query).all()
        for row in rows:
            if row.body["type"] == "scene":
                return Event.model_validate(row.body)
        if len(rows) < _PAGE:
            return None
        after = rows[-1].id
