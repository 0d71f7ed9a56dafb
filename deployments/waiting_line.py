"""The order in which waiting scenes begin: by priority, fair between those who sent them."""

from __future__ import annotations

from sqlalchemy import Subquery, func, select
from worldstereo_client.schemas import SceneStatus

from deployments.tables import scenes


def waiting_line() -> Subquery:
    """Each waiting scene's ``id`` and ``place``, 1 for the one that begins next.

    The highest priority first; of equal ones whoever has the fewest scenes in progress, and the
    oldest of theirs.
    """
    active = (
        select(scenes.c.owner, func.count().label("count"))
        .where(scenes.c.status.in_([SceneStatus.IN_PROGRESS, SceneStatus.CANCELLING]))
        .group_by(scenes.c.owner)
        .subquery()
    )
    of_owner = (scenes.c.priority.desc(), scenes.c.number)
    turn = func.row_number().over(partition_by=scenes.c.owner, order_by=of_owner)
    turns = (
        select(
            scenes.c.id,
            scenes.c.priority,
            scenes.c.number,
            (turn + func.coalesce(active.c.count, 0)).label("turn"),
        )
        .join_from(scenes, active, active.c.owner == scenes.c.owner, isouter=True)
        .where(scenes.c.status == SceneStatus.QUEUED)
        .subquery()
    )
    order = (turns.c.priority.desc(), turns.c.turn, turns.c.number)
    return select(turns.c.id, func.row_number().over(order_by=order).label("place")).subquery()
