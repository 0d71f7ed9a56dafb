"""Leases: which orchestrator works on a scene, so that never two do.

A lease is a name and a moment in the scene's row, changed by compare-and-set alone. It is taken
where nobody has it, or whoever had it let it run out. What protects the scene is the name, not the
clock: every write of a holder checks it in its own transaction, so one that comes back late from a
pause is refused, however the clocks went. The moment only says when another may try, and an
orchestrator whose lease ran out keeps it as long as nobody else took it.

The moment is the database server's own where there is one, since the clocks of several machines
differ. A SQLite file is on one machine, whose clock all its processes share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from sqlalchemy import Connection, or_, select, text, update
from worldstereo_client.schemas import SceneStatus

from deployments.tables import scenes

UNENDED = tuple(status for status in SceneStatus if not status.terminal)


class LeaseLost(Exception):
    """Another orchestrator has the scene; whoever gets this drops it and writes nothing more.

    No ``WorldStereoError``: it says nothing about the scene, which goes on elsewhere.
    """


class Leases:
    """The part of a store that gives leases."""

    _lease_clock: Callable[[], float] | None  # None: the database's own

    def _writes(self) -> AbstractContextManager[Connection]:
        raise NotImplementedError

    def claim(self, scene_id: str, holder: str, lease_s: float, *, take_over: bool = True) -> bool:
        """Take a scene that has not ended, if nobody else has it now.

        Args:
            scene_id: of the scene.
            holder: who takes it; claiming again what one has prolongs it.
            lease_s: for how long, seconds.
            take_over: whether one that ran out may be taken from another.

        Returns:
            Whether ``holder`` has the scene now.
        """
        with self._writes() as connection:
            now = self._moment(connection)
            free = or_(scenes.c.lease_holder.is_(None), scenes.c.lease_holder == holder)
            if take_over:
                free = or_(free, scenes.c.lease_expires_at <= now)
            taken = connection.execute(
                update(scenes)
                .where(scenes.c.id == scene_id, scenes.c.status.in_(UNENDED), free)
                .values(lease_holder=holder, lease_expires_at=now + lease_s)
            )
            return taken.rowcount == 1

    def renew(self, scene_ids: Collection[str], holder: str, lease_s: float) -> set[str]:
        """Prolong the leases of a holder.

        Args:
            scene_ids: what it works on.
            holder: its name.
            lease_s: for how long from now on, seconds.

        Returns:
            Those of ``scene_ids`` that it no longer has.
        """
        if not scene_ids:
            return set()
        held = (scenes.c.id.in_(scene_ids), scenes.c.lease_holder == holder)
        with self._writes() as connection:
            # In one order, so that two that renew and claim never wait for each other.
            locked = select(scenes.c.id).where(*held).order_by(scenes.c.number).with_for_update()
            mine = set(connection.execute(locked).scalars())
            until = self._moment(connection) + lease_s
            connection.execute(update(scenes).where(*held).values(lease_expires_at=until))
        return set(scene_ids) - mine

    def _moment(self, connection: Connection) -> float:
        """Seconds since the epoch, the same for all that share this database."""
        if self._lease_clock is not None:
            return self._lease_clock()
        # Not now(): that is when the transaction began, and it may have waited for a lock since.
        asked = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")
        return float(connection.execute(asked).scalar_one())
