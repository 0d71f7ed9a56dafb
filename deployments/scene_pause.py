"""What a scene does as a whole while there is no space for it: it says so, waits, tries again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from actors.failures import cause_of
from actors.full_storage import StorageAway
from deployments.clip_job import TELL_AGAIN_S
from deployments.http_errors import problem_of
from deployments.outage import patiently
from worldstereo.errors import GenerationCancelled

if TYPE_CHECKING:
    from deployments.scene_outputs import StageTeller

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def when_there_is_space(teller: StageTeller, work: Callable[[], Awaitable[T]]) -> T:
    """Do ``work``; while it finds no space, tell it and do it again every few seconds.

    Args:
        teller: of the scene.
        work: can be repeated; raises ``StorageAway`` where it finds no space.

    Raises:
        GenerationCancelled: the scene was cancelled while it waited.
    """
    told_to_log = False
    while True:
        try:
            return await work()
        except Exception as error:
            full = cause_of(error)
            if not isinstance(full, StorageAway):
                raise
        if teller.cancelled():
            raise GenerationCancelled("cancelled while there was no space for it")
        if not told_to_log:
            logger.warning("scene %s waits: %s", teller.scene_id, full)
            told_to_log = True
        problem = problem_of(full, teller.scene_id)
        await patiently(
            teller.context.store.record_scene_progress, teller.scene_id, "wait", 0, 0, problem
        )
        await asyncio.sleep(TELL_AGAIN_S)
