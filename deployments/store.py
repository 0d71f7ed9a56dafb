"""The store: scenes, trajectories, attempts and events, in one SQL database.

Owns every write. A state changes in one place, ``_advance``, which checks the table of allowed
transitions, compares and sets, and writes the event in the same transaction; so what happened and
what is told can never differ. Every write about a scene that is there locks its row first and all
else after it, so those of one scene come one after the other, and no two wait for each other.
Calls block for a moment: asynchronous callers use a thread.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from worldstereo_client.schemas import (
    Event,
    Problem,
    SceneStatus,
    TrajectoryStatus,
)

from deployments.errors import QueueFull, SceneNotFound, StateConflict
from deployments.leases import LeaseLost, Leases
from deployments.migration import migrate
from deployments.outage import Outage
from deployments.queries import StoreQueries, count_queued, scene_of, unfinished_of
from deployments.records import NewScene, SceneRecord, Submission
from deployments.states import SCENE_TRANSITIONS, TRAJECTORY_TRANSITIONS
from deployments.tables import (
    attempts,
    connect,
    events,
    idempotency_keys,
    scenes,
    trajectories,
)
from deployments.webhook_queue import add_webhook, touch_webhook

# PostgreSQL's advisory locks, any numbers: submissions come one after the other, and so do events.
_SUBMISSIONS, _EVENTS = 7_236_114, 7_236_115


class Store(StoreQueries, Leases):
    """One database; any number of processes may open it.

    Args:
        url: SQLAlchemy URL; the tables are made when they are missing.
        clock: seconds since the epoch; None: the wall clock, and for leases the database's own
            where it has one.
        outage: notes when the store is away; that of earlier tries to open it, or None.

    Raises:
        StoreAway: by every call, too: the database is stopped, cut off, locked or full.
        StoreError: the database is of a later version of this program.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] | None = None,
        outage: Outage | None = None,
    ) -> None:
        super().__init__(connect(url), outage)
        self._clock = clock or time.time
        self._lease_clock = time.time if self._engine.dialect.name == "sqlite" else None
        self._lease_clock = clock or self._lease_clock
        self._holder: str | None = None
        try:
            with self._writes() as connection:
                migrate(connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections; twice is harmless."""
        self._engine.dispose()

    def check(self) -> None:
        """Ask whether the store is there, and takes writes where it did not the last time.

        Raises:
            StoreAway: it does not, or is not.
        """
        with self._reads() as connection:
            connection.execute(text("SELECT 1"))
        if self.outage.lasts:
            with self._writes():
                pass

    def as_holder(self, holder: str) -> Self:
        """The same store for whoever works on scenes: each write about one needs its lease.

        A holder may repeat a write whose answer was lost: asking for the state that its scene or
        trajectory is in changes and tells nothing.

        Args:
            holder: the name in the leases; its writes raise ``LeaseLost`` where it has none.
        """
        held = copy.copy(self)
        held._holder = holder
        return held

    def add_scene(
        self,
        scene: NewScene,
        submission: Submission | None = None,
        *,
        max_queued: int,
        max_queued_of_owner: int | None = None,
    ) -> SceneRecord:
        """Store a new scene as queued; with a key that is known, return the scene it made.

        Raises:
            IdempotencyConflict: the key came with another request.
            QueueFull: ``max_queued`` scenes wait already, or ``max_queued_of_owner`` of its owner.
        """
        try:
            with self._writes() as connection:
                # Else many at once would each find room for one more, or no such key.
                _in_turn(connection, _SUBMISSIONS)
                known = scene_of(connection, submission) if submission else None
                if known is None:
                    check_queue(count_queued(connection), max_queued)
                    if max_queued_of_owner is not None:
                        waiting = count_queued(connection, scene.owner)
                        check_queue(waiting, max_queued_of_owner, "of this key")
                    self._insert(connection, scene, submission)
        except IntegrityError:
            # Another process stored the same key between our look and our write.
            known = self.submission(submission) if submission else None
            if known is None:
                raise
        return self.scene(known or scene.id)

    def _insert(
        self, connection: Connection, scene: NewScene, submission: Submission | None
    ) -> None:
        now = self._clock()
        connection.execute(
            insert(scenes).values(
                id=scene.id,
                name=scene.name,
                status=SceneStatus.QUEUED,
                parameters=scene.parameters.model_dump(mode="json"),
                created_at=now,
                last_event=0,
                kind=scene.kind,
                owner=scene.owner,
                priority=scene.priority,
            )
        )
        connection.execute(
            insert(trajectories),
            [
                {
                    "scene_id": scene.id,
                    "id": trajectory_id,
                    "position": position,
                    "status": TrajectoryStatus.BLOCKED,
                    "depends_on": [],
                    "stage_seconds": {},
                }
                for position, trajectory_id in enumerate(scene.trajectories)
            ],
        )
        if submission is not None:
            connection.execute(
                insert(idempotency_keys).values(
                    owner=submission.owner,
                    key=submission.key,
                    body_sha256=submission.body_sha256,
                    scene_id=scene.id,
                    created_at=now,
                )
            )
        add_webhook(connection, scene.id, scene.parameters.webhook_url)
        self._tell(connection, scene.id, type="scene", status=SceneStatus.QUEUED)

    def advance_scene(
        self, scene_id: str, to: SceneStatus, error: Problem | None = None
    ) -> SceneStatus:
        """Put a scene into state ``to``; returns the state it was in.

        Raises:
            SceneNotFound, StateConflict: there is no such scene; ``to`` cannot follow its state.
        """
        times = {"started_at": self._clock()} if to is SceneStatus.IN_PROGRESS else {}
        times |= {"finished_at": self._clock()} if to.terminal else {}
        with self._writes_about(scene_id) as connection:
            before = self._advance(
                connection, scene_id, None, to, error=error, values={"error": _json(error), **times}
            )
        return SceneStatus(before)

    def resume_scene(
        self, scene_id: str, *, max_queued: int, max_queued_of_owner: int | None = None
    ) -> None:
        """Queue a failed scene again, and with it its trajectories that failed or were skipped.

        Its events go on where they were. Attempts that were lost count no longer.

        Raises:
            SceneNotFound, StateConflict: there is no such scene; it has not failed.
            QueueFull: ``max_queued`` scenes wait already, or ``max_queued_of_owner`` of its owner.
        """
        anew: dict[str, Any] = {"error": None, "started_at": None, "finished_at": None}
        lost = update(attempts).where(attempts.c.scene_id == scene_id, attempts.c.outcome == "lost")
        with self._writes() as connection:
            _in_turn(connection, _SUBMISSIONS)
            self._lock(connection, scene_id)
            self._advance(connection, scene_id, None, SceneStatus.QUEUED, values=anew)
            # This scene is among those that wait now.
            check_queue(count_queued(connection) - 1, max_queued)
            if max_queued_of_owner is not None:
                owner = select(scenes.c.owner).where(scenes.c.id == scene_id)
                waiting = count_queued(connection, connection.execute(owner).scalar_one())
                check_queue(waiting - 1, max_queued_of_owner, "of this key")
            for trajectory_id in unfinished_of(connection, scene_id):
                self._advance(
                    connection, scene_id, trajectory_id, TrajectoryStatus.BLOCKED, values=anew
                )
            connection.execute(lost.values(outcome="forgiven"))

    def delete_scene(self, scene_id: str) -> None:
        """Forget an ended scene and all that belongs to it; its files are the caller's part.

        Raises:
            SceneNotFound, StateConflict: there is no such scene; it has not ended.
        """
        ended = [status for status in SceneStatus if status.terminal]
        with self._writes() as connection:
            gone = connection.execute(
                delete(scenes).where(scenes.c.id == scene_id, scenes.c.status.in_(ended))
            )
            if gone.rowcount:
                return
            query = select(scenes.c.status).where(scenes.c.id == scene_id)
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise SceneNotFound("no such scene", where=f"scene {scene_id}")
        raise StateConflict(
            "a scene that has not ended cannot be deleted",
            where=f"scene {scene_id}",
            got=found,
            allowed=", ".join(ended),
            fix="cancel it first",
        )

    def advance_trajectory(
        self,
        scene_id: str,
        trajectory_id: str,
        to: TrajectoryStatus,
        error: Problem | None = None,
        stage_seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Put a trajectory into state ``to``.

        Raises:
            SceneNotFound, StateConflict: there is none; ``to`` cannot follow its state.
        """
        values: dict[str, Any] = {"error": _json(error), "stage": None, "step": 0, "steps": 0}
        if stage_seconds is not None:
            values["stage_seconds"] = dict(stage_seconds)
        if to.terminal:
            values["finished_at"] = self._clock()
        with self._writes_about(scene_id) as connection:
            self._advance(connection, scene_id, trajectory_id, to, error=error, values=values)

    def start_attempt(
        self, scene_id: str, trajectory_id: str, attempt_id: str, number: int
    ) -> None:
        """Record an attempt that a replica took, and put its trajectory in progress."""
        now = self._clock()
        known = select(attempts.c.id).where(attempts.c.id == attempt_id)
        with self._writes_about(scene_id) as connection:
            if self._holder is not None and connection.execute(known).scalar_one_or_none():
                return
            self._advance(
                connection,
                scene_id,
                trajectory_id,
                TrajectoryStatus.IN_PROGRESS,
                values={"attempt": number, "started_at": now, "error": None},
            )
            connection.execute(
                insert(attempts).values(
                    id=attempt_id,
                    scene_id=scene_id,
                    trajectory_id=trajectory_id,
                    number=number,
                    started_at=now,
                )
            )

    def end_attempt(
        self,
        attempt_id: str,
        outcome: str,
        reason: str | None = None,
        gpu_seconds: float | None = None,
    ) -> None:
        """Record how an attempt ended, committed, failed, lost or cancelled, and what it cost."""
        change = update(attempts).where(attempts.c.id == attempt_id, attempts.c.outcome.is_(None))
        owner = select(attempts.c.scene_id).where(attempts.c.id == attempt_id)
        with self._writes() as connection:
            self._lock(connection, connection.execute(owner).scalar_one_or_none())
            connection.execute(
                change.values(
                    finished_at=self._clock(),
                    outcome=outcome,
                    reason=reason,
                    gpu_seconds=gpu_seconds,
                )
            )

    def abandon_attempts(self, scene_id: str, committed: Collection[str] = ()) -> None:
        """End the attempts of a scene whose orchestrator is gone.

        Args:
            scene_id: of the scene.
            committed: its trajectories whose results are there: their attempts came to that.
        """
        left = update(attempts).where(attempts.c.scene_id == scene_id, attempts.c.outcome.is_(None))
        done = left.where(attempts.c.trajectory_id.in_(committed))
        with self._writes_about(scene_id) as connection:
            for change, outcome in ((done, "committed"), (left, "abandoned")):
                connection.execute(change.values(finished_at=self._clock(), outcome=outcome))

    def record_plan(self, scene_id: str, depends_on: Mapping[str, Sequence[str]]) -> None:
        """Keep what each trajectory waits for; no event, since no state changes."""
        with self._writes_about(scene_id) as connection:
            for trajectory_id, others in depends_on.items():
                connection.execute(
                    _one(trajectories, scene_id, trajectory_id).values(depends_on=list(others))
                )

    def record_progress(
        self,
        scene_id: str,
        trajectory_id: str,
        stage: str,
        step: int,
        steps: int,
        waits_for: Problem | None = None,
    ) -> None:
        """Tell where a trajectory in progress is, and for what it waits there, if it does.

        Nothing when it is not in progress.
        """
        running = _one(trajectories, scene_id, trajectory_id).where(
            trajectories.c.status == TrajectoryStatus.IN_PROGRESS
        )
        with self._writes_about(scene_id) as connection:
            where = {"stage": stage, "step": step, "steps": steps}
            changed = connection.execute(running.values(error=_json(waits_for), **where))
            if changed.rowcount:
                self._tell(
                    connection,
                    scene_id,
                    type="progress",
                    trajectory=trajectory_id,
                    error=waits_for,
                    **where,
                )

    def record_scene_progress(
        self,
        scene_id: str,
        stage: str,
        step: int,
        steps: int,
        waits_for: Problem | None = None,
    ) -> None:
        """Tell what is done for a scene as a whole, and for what it waits, if it does.

        Nothing when it is not in progress.
        """
        status = select(scenes.c.status).where(scenes.c.id == scene_id)
        with self._writes_about(scene_id) as connection:
            if connection.execute(status).scalar_one_or_none() == SceneStatus.IN_PROGRESS:
                told = {"stage": stage, "step": step, "steps": steps}
                self._tell(connection, scene_id, type="progress", error=waits_for, **told)

    def _advance(
        self,
        connection: Connection,
        scene_id: str,
        trajectory_id: str | None,
        to: SceneStatus | TrajectoryStatus,
        *,
        values: Mapping[str, Any],
        error: Problem | None = None,
    ) -> str:
        table = scenes if trajectory_id is None else trajectories
        where = f"scene {scene_id}" + (f", trajectory {trajectory_id}" if trajectory_id else "")
        query = select(table.c.status).where(*_key(table, scene_id, trajectory_id))
        found: str | None = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise SceneNotFound("no such scene or trajectory", where=where)
        if found == to and self._holder is not None:
            return found
        if not may_follow(found, to):
            raise StateConflict("not possible in this state", where=where, got=f"{found} -> {to}")
        changed = connection.execute(
            _one(table, scene_id, trajectory_id)
            .where(table.c.status == found)
            .values(status=to, **values)
        )
        if changed.rowcount != 1:
            raise StateConflict("its state changed meanwhile", where=where, got=f"{found} -> {to}")
        self._tell(
            connection,
            scene_id,
            type="scene" if trajectory_id is None else "trajectory",
            status=to,
            trajectory=trajectory_id,
            error=error,
        )
        return found

    def _tell(self, connection: Connection, scene_id: str, **fields: Any) -> None:
        # From here to the end of the transaction no other one numbers an event: they become
        # visible in the order of their numbers, and whoever looks for news misses none.
        _in_turn(connection, _EVENTS)
        # The count is in the scene's row, which is locked: ids have no gap and no repeat.
        event_id = connection.execute(
            update(scenes)
            .where(scenes.c.id == scene_id)
            .values(last_event=scenes.c.last_event + 1)
            .returning(scenes.c.last_event)
        ).scalar_one()
        told = Event(id=event_id, time=self._clock(), **fields)
        body = told.model_dump(mode="json", exclude_none=True)
        connection.execute(insert(events).values(scene_id=scene_id, id=event_id, body=body))
        if told.type == "scene" and told.status is not None:
            touch_webhook(connection, scene_id, told.time)

    def _lock(self, connection: Connection, scene_id: str | None) -> None:
        """Lock a scene's row; LeaseLost where this is a holder's store and the lease is not its."""
        query = select(scenes.c.lease_holder).where(scenes.c.id == scene_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if self._holder is not None and row is not None and row.lease_holder != self._holder:
            raise LeaseLost(f"scene {scene_id}: {row.lease_holder} has its lease")

    @contextmanager
    def _writes_about(self, scene_id: str) -> Iterator[Connection]:
        with self._writes() as connection:
            self._lock(connection, scene_id)
            yield connection

    @contextmanager
    def _writes(self) -> Iterator[Connection]:
        with self.outage.writing(self._engine) as connection:
            yield connection


def _in_turn(connection: Connection, lock: int) -> None:
    """Wait until no other transaction holds this lock, and hold it to the end of this one."""
    # With SQLite, one that writes is alone anyway.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


def may_follow(state: str, to: SceneStatus | TrajectoryStatus) -> bool:
    """Whether the table of transitions allows ``to`` after ``state``."""
    if isinstance(to, SceneStatus):
        return to in SCENE_TRANSITIONS[SceneStatus(state)]
    return to in TRAJECTORY_TRANSITIONS[TrajectoryStatus(state)]


def check_queue(waiting: int, max_queued: int, whose: str = "") -> None:
    """Raise ``QueueFull`` when no further scene may wait."""
    if waiting >= max_queued:
        raise QueueFull(
            " ".join(f"too many scenes {whose} wait already".split()),
            got=f"{waiting} waiting",
            allowed=f"at most {max_queued}",
            fix="try again later",
        )


def _key(table: Any, scene_id: str, trajectory_id: str | None) -> list[Any]:
    if trajectory_id is None:
        return [table.c.id == scene_id]
    return [table.c.scene_id == scene_id, table.c.id == trajectory_id]


def _one(table: Any, scene_id: str, trajectory_id: str | None) -> Any:
    return update(table).where(*_key(table, scene_id, trajectory_id))


def _json(error: Problem | None) -> dict[str, Any] | None:
    return error.model_dump(mode="json", exclude_none=True) if error is not None else None
