"""The store: scenes, trajectories, attempts and events, in one SQL database.

Owns every write. A state changes in one place, ``_advance``, which checks the table of allowed
transitions, compares and sets, and writes the event in the same transaction; so what happened and
what is told can never differ. Calls block for a moment: asynchronous callers use a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError
from worldstereo_client.schemas import (
    Event,
    Problem,
    SceneStatus,
    TrajectoryStatus,
)

from deployments.errors import QueueFull, SceneNotFound, StateConflict
from deployments.migration import migrate
from deployments.queries import StoreQueries, count_queued, scene_of
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


class Store(StoreQueries):
    """One database; any number of processes may open it.

    Args:
        url: SQLAlchemy URL; the tables are made when they are missing.
        clock: seconds since the epoch.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(connect(url))
        self._clock = clock
        with self._writes() as connection:
            migrate(connection)

    def close(self) -> None:
        """Close all connections; twice is harmless."""
        self._engine.dispose()

    def add_scene(
        self, scene: NewScene, submission: Submission | None = None, *, max_queued: int
    ) -> SceneRecord:
        """Store a new scene as queued; with a key that is known, return the scene it made.

        Raises:
            IdempotencyConflict: the key came with another request.
            QueueFull: ``max_queued`` scenes wait already.
        """
        try:
            with self._writes() as connection:
                known = scene_of(connection, submission) if submission else None
                if known is None:
                    check_queue(count_queued(connection), max_queued)
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
        with self._writes() as connection:
            before = self._advance(
                connection, scene_id, None, to, error=error, values={"error": _json(error), **times}
            )
        return SceneStatus(before)

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
        with self._writes() as connection:
            self._advance(connection, scene_id, trajectory_id, to, error=error, values=values)

    def start_attempt(
        self, scene_id: str, trajectory_id: str, attempt_id: str, number: int
    ) -> None:
        """Record an attempt that a replica took, and put its trajectory in progress."""
        now = self._clock()
        with self._writes() as connection:
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

    def end_attempt(self, attempt_id: str, outcome: str, reason: str | None = None) -> None:
        """Record how an attempt ended: committed, failed, lost, cancelled."""
        change = update(attempts).where(attempts.c.id == attempt_id, attempts.c.outcome.is_(None))
        with self._writes() as connection:
            connection.execute(
                change.values(finished_at=self._clock(), outcome=outcome, reason=reason)
            )

    def abandon_attempts(self, scene_id: str) -> None:
        """End the attempts of a scene whose orchestrator is gone."""
        change = update(attempts).where(
            attempts.c.scene_id == scene_id, attempts.c.outcome.is_(None)
        )
        with self._writes() as connection:
            connection.execute(change.values(finished_at=self._clock(), outcome="abandoned"))

    def record_plan(self, scene_id: str, depends_on: Mapping[str, Sequence[str]]) -> None:
        """Keep what each trajectory waits for; no event, since no state changes."""
        with self._writes() as connection:
            for trajectory_id, others in depends_on.items():
                connection.execute(
                    _one(trajectories, scene_id, trajectory_id).values(depends_on=list(others))
                )

    def record_progress(
        self, scene_id: str, trajectory_id: str, stage: str, step: int, steps: int
    ) -> None:
        """Tell where a trajectory in progress is; nothing when it is not in progress."""
        running = _one(trajectories, scene_id, trajectory_id).where(
            trajectories.c.status == TrajectoryStatus.IN_PROGRESS
        )
        with self._writes() as connection:
            changed = connection.execute(running.values(stage=stage, step=step, steps=steps))
            if changed.rowcount:
                self._tell(
                    connection,
                    scene_id,
                    type="progress",
                    trajectory=trajectory_id,
                    stage=stage,
                    step=step,
                    steps=steps,
                )

    def record_scene_progress(self, scene_id: str, stage: str, step: int, steps: int) -> None:
        """Tell what is done for a scene as a whole; nothing when it is not in progress."""
        status = select(scenes.c.status).where(scenes.c.id == scene_id)
        with self._writes() as connection:
            if connection.execute(status).scalar_one_or_none() == SceneStatus.IN_PROGRESS:
                told = {"stage": stage, "step": step, "steps": steps}
                self._tell(connection, scene_id, type="progress", **told)

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
        # The count is raised first: that locks the scene's row, so ids have no gap and no repeat.
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

    @contextmanager
    def _writes(self) -> Iterator[Connection]:
        with self._engine.execution_options(writes=True).begin() as connection:
            yield connection


def may_follow(state: str, to: SceneStatus | TrajectoryStatus) -> bool:
    """Whether the table of transitions allows ``to`` after ``state``."""
    if isinstance(to, SceneStatus):
        return to in SCENE_TRANSITIONS[SceneStatus(state)]
    return to in TRAJECTORY_TRANSITIONS[TrajectoryStatus(state)]


def check_queue(waiting: int, max_queued: int) -> None:
    """Raise ``QueueFull`` when no further scene may wait."""
    if waiting >= max_queued:
        raise QueueFull(
            "too many scenes wait already",
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
