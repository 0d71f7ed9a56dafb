"""What can be asked of the store without changing it.

Owns reading: rows become plain records here. ``Store`` adds the writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select
from worldstereo_client.schemas import (
    Event,
    SceneRequest,
    SceneStatus,
    TrajectoryInfo,
    TrajectoryStatus,
)

from deployments.errors import IdempotencyConflict, SceneNotFound
from deployments.outage import Outage
from deployments.records import EndedScene, SceneKind, SceneRecord, Submission, problem_from
from deployments.tables import attempts, events, idempotency_keys, scenes, trajectories
from deployments.waiting_line import waiting_line


@dataclass(frozen=True)
class ServiceLoad:
    """How much there is to do.

    Attributes:
        scenes: their number by state.
        clips: the same of the clips of scenes that have not ended.
        oldest_queued_s: how long the oldest waiting scene has waited, seconds; 0 for none.
    """

    scenes: Mapping[str, int]
    clips: Mapping[str, int]
    oldest_queued_s: float


class StoreQueries:
    """The reading half of a store; each call is one transaction that sees one moment.

    Args:
        engine: connections to the database, whose tables exist.
        outage: notes when the store is away; one that began before, or None.
    """

    def __init__(self, engine: Engine, outage: Outage | None = None) -> None:
        self._engine = engine
        self.outage = outage or Outage()
        self._reader = engine
        if engine.dialect.name == "postgresql":
            # Else a transaction of several questions would see a moment for each.
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    def submission(self, submission: Submission) -> str | None:
        """Id of the scene that was submitted with this key, or None.

        Raises:
            IdempotencyConflict: the key came with another request.
        """
        with self._reads() as connection:
            return scene_of(connection, submission)

    def has_key(self, owner: str, key: str) -> bool:
        """Whether this owner has sent a scene with this idempotency key."""
        keys = idempotency_keys.c
        query = select(keys.key).where(keys.owner == owner, keys.key == key)
        with self._reads() as connection:
            return connection.execute(query).one_or_none() is not None

    def queued(self, owner: str | None = None) -> int:
        """How many scenes wait, of this owner alone if one is named."""
        with self._reads() as connection:
            return count_queued(connection, owner)

    def load(self, now: float) -> ServiceLoad:
        """How much there is to do at this moment, seconds since the epoch."""
        by_state = select(scenes.c.status, func.count()).group_by(scenes.c.status)
        unended = [status for status in SceneStatus if not status.terminal]
        clips = (
            select(trajectories.c.status, func.count())
            .join(scenes, scenes.c.id == trajectories.c.scene_id)
            .where(scenes.c.status.in_(unended))
            .group_by(trajectories.c.status)
        )
        oldest = select(func.min(scenes.c.created_at)).where(scenes.c.status == SceneStatus.QUEUED)
        with self._reads() as connection:
            since = connection.execute(oldest).scalar()
            return ServiceLoad(
                scenes={row[0]: row[1] for row in connection.execute(by_state)},
                clips={row[0]: row[1] for row in connection.execute(clips)},
                oldest_queued_s=0.0 if since is None else max(0.0, now - since),
            )

    def scene(self, scene_id: str) -> SceneRecord:
        """The scene with its trajectories; SceneNotFound when there is none."""
        with self._reads() as connection:
            row = connection.execute(select(scenes).where(scenes.c.id == scene_id)).one_or_none()
            if row is None:
                raise SceneNotFound("no such scene", where=f"scene {scene_id}")
            return _with_costs(connection, _with_trajectories(connection, [row])[0])

    def page(
        self,
        status: SceneStatus | None,
        before: int | None,
        limit: int,
        owner: str | None = None,
        *,
        kind: SceneKind = "scene",
        oldest_first: bool = False,
    ) -> tuple[list[SceneRecord], int | None]:
        """Up to ``limit`` scenes, newest first, and the number to ask on with.

        Args:
            status: only scenes in this state.
            before: only scenes that come after the one with this number.
            limit: how many at most.
            owner: only this one's scenes; None: everybody's.
            kind: only scenes that were submitted as this.
            oldest_first: the other way round.

        Returns:
            The scenes, and the number of the last one when there are more.
        """
        number = scenes.c.number
        query = select(scenes).where(scenes.c.kind == kind).limit(limit + 1)
        query = query.order_by(number.asc() if oldest_first else number.desc())
        if status is not None:
            query = query.where(scenes.c.status == status)
        if owner is not None:
            query = query.where(scenes.c.owner == owner)
        if before is not None:
            query = query.where(number > before if oldest_first else number < before)
        with self._reads() as connection:
            rows = connection.execute(query).all()
            found = _with_trajectories(connection, rows[:limit])
        return found, found[-1].number if len(rows) > limit else None

    def queue_position(self, scene: SceneRecord) -> int | None:
        """How many scenes begin before this one as things stand; None when it does not wait."""
        if scene.status is not SceneStatus.QUEUED:
            return None
        line = waiting_line()
        query = select(line.c.place).where(line.c.id == scene.id)
        with self._reads() as connection:
            place: int | None = connection.execute(query).scalar_one_or_none()
        return None if place is None else place - 1

    def in_state(self, states: Collection[SceneStatus], limit: int | None = None) -> list[str]:
        """Ids of the scenes in these states, oldest first."""
        query = select(scenes.c.id).where(scenes.c.status.in_(states)).order_by(scenes.c.number)
        with self._reads() as connection:
            return list(connection.execute(query.limit(limit)).scalars())

    def next_waiting(self, limit: int) -> list[str]:
        """Ids of the scenes that are to begin next, in order."""
        line = waiting_line()
        query = select(line.c.id).order_by(line.c.place).limit(limit)
        with self._reads() as connection:
            return list(connection.execute(query).scalars())

    def ended(self) -> list[EndedScene]:
        """All scenes that have ended, the one that ended first in front."""
        states = [status for status in SceneStatus if status.terminal]
        columns = (scenes.c.id, scenes.c.name, scenes.c.status, scenes.c.finished_at)
        query = select(*columns).where(scenes.c.status.in_(states))
        with self._reads() as connection:
            rows = connection.execute(query.order_by(scenes.c.finished_at, scenes.c.number)).all()
        return [EndedScene(row.id, row.name, SceneStatus(row.status), row[3]) for row in rows]

    def known(self, scene_ids: Collection[str]) -> set[str]:
        """Those of the ids that scenes have."""
        query = select(scenes.c.id).where(scenes.c.id.in_(scene_ids))
        with self._reads() as connection:
            return set(connection.execute(query).scalars())

    def events(self, scene_id: str, after: int, limit: int = 500) -> list[Event]:
        """Up to ``limit`` events of a scene with an id above ``after``, in order."""
        query = select(events.c.body).where(events.c.scene_id == scene_id, events.c.id > after)
        with self._reads() as connection:
            bodies = connection.execute(query.order_by(events.c.id).limit(limit)).scalars()
            return [Event.model_validate(body) for body in bodies]

    def last_event_number(self) -> int:
        """Number of the newest event of all scenes."""
        with self._reads() as connection:
            return connection.execute(select(func.max(events.c.number))).scalar() or 0

    def scenes_with_news(self, after: int) -> tuple[set[str], int]:
        """Scenes with events whose number is above ``after``, and the newest number.

        Events become visible in the order of their numbers, so none comes below one that was seen.
        """
        query = select(events.c.scene_id, func.max(events.c.number))
        query = query.where(events.c.number > after).group_by(events.c.scene_id)
        with self._reads() as connection:
            rows = connection.execute(query).all()
        return {row[0] for row in rows}, max((row[1] for row in rows), default=after)

    def attempts(self, scene_id: str, trajectory_id: str) -> list[tuple[int, str | None, str]]:
        """(number, outcome, reason) of a trajectory's attempts, in order."""
        query = select(attempts.c.number, attempts.c.outcome, attempts.c.reason).where(
            attempts.c.scene_id == scene_id, attempts.c.trajectory_id == trajectory_id
        )
        with self._reads() as connection:
            rows = connection.execute(query.order_by(attempts.c.number)).all()
        return [(number, outcome, reason or "") for number, outcome, reason in rows]

    @contextmanager
    def _reads(self) -> Iterator[Connection]:
        with self.outage.watched(writes=False), self._reader.begin() as connection:
            yield connection


def scene_of(connection: Connection, submission: Submission) -> str | None:
    """The scene that was submitted with this key; IdempotencyConflict for another request."""
    query = select(idempotency_keys).where(
        idempotency_keys.c.owner == submission.owner, idempotency_keys.c.key == submission.key
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.body_sha256 != submission.body_sha256:
        raise IdempotencyConflict(
            "the key belongs to another request",
            where="Idempotency-Key",
            got=repr(submission.key),
            fix="send a key of its own with each scene",
        )
    return str(row.scene_id)


def count_queued(connection: Connection, owner: str | None = None) -> int:
    """How many scenes wait, of this owner alone if one is named."""
    query = select(func.count()).where(scenes.c.status == SceneStatus.QUEUED)
    if owner is not None:
        query = query.where(scenes.c.owner == owner)
    return connection.execute(query).scalar_one()


def unfinished_of(connection: Connection, scene_id: str) -> list[str]:
    """Ids of a scene's trajectories that failed or were skipped, in canonical order."""
    lost = (TrajectoryStatus.FAILED, TrajectoryStatus.SKIPPED)
    query = select(trajectories.c.id).where(
        trajectories.c.scene_id == scene_id, trajectories.c.status.in_(lost)
    )
    return list(connection.execute(query.order_by(trajectories.c.position)).scalars())


def _with_trajectories(connection: Connection, rows: Sequence[Row[Any]]) -> list[SceneRecord]:
    query = select(trajectories).where(trajectories.c.scene_id.in_([row.id for row in rows]))
    below: dict[str, list[TrajectoryInfo]] = {row.id: [] for row in rows}
    for row in connection.execute(query.order_by(trajectories.c.position)):
        below[row.scene_id].append(_trajectory(row))
    return [_scene(row, below[row.id]) for row in rows]


def _with_costs(connection: Connection, scene: SceneRecord) -> SceneRecord:
    """The scene, of each trajectory what its attempts cost."""
    cost = func.sum(attempts.c.gpu_seconds)
    query = select(attempts.c.trajectory_id, cost).where(attempts.c.scene_id == scene.id)
    rows = connection.execute(query.group_by(attempts.c.trajectory_id)).all()
    costs = {trajectory_id: seconds or 0.0 for trajectory_id, seconds in rows}
    below = [
        item.model_copy(update={"gpu_seconds": costs.get(item.id, 0.0)})
        for item in scene.trajectories
    ]
    return replace(scene, trajectories=tuple(below))


def _trajectory(row: Row[Any]) -> TrajectoryInfo:
    return TrajectoryInfo(
        id=row.id,
        position=row.position,
        status=TrajectoryStatus(row.status),
        depends_on=row.depends_on,
        stage=row.stage,
        step=row.step,
        steps=row.steps,
        attempt=row.attempt,
        started_at=row.started_at,
        finished_at=row.finished_at,
        stage_seconds=row.stage_seconds,
        error=problem_from(row.error),
    )


def _scene(row: Row[Any], below: Sequence[TrajectoryInfo]) -> SceneRecord:
    return SceneRecord(
        number=row.number,
        id=row.id,
        name=row.name,
        status=SceneStatus(row.status),
        parameters=SceneRequest.model_validate(row.parameters),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=problem_from(row.error),
        last_event=row.last_event,
        kind=row.kind,
        owner=row.owner,
        priority=row.priority,
        trajectories=tuple(below),
    )
