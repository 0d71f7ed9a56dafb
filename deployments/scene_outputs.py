"""What a scene's result holds beside its clips: made after them, and told while it is made.

Owns who makes which output, and that a scene that is cancelled stops making them. How an output is
made is the engine's; where the GPUs for some of them are is the reconstructor's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from worldstereo_client.schemas import GPU_OUTPUTS, GpuOutput, Output

from actors.failures import cause_of, first_line
from actors.memory_bank import SceneStage
from deployments.clip_job import TELL_AGAIN_S
from deployments.reconstructor import NEEDS
from deployments.scene_context import Memory, SceneContext
from deployments.scene_pause import when_there_is_space
from worldstereo.errors import GenerationCancelled, GenerationError, WorldStereoError

logger = logging.getLogger(__name__)

# How often it is asked what is done.
STAGE_POLL_S = 0.5


class StageTeller:
    """Tells the store what is done for a scene as a whole.

    Args:
        context: of the scene.
        scene_id: of the scene.
        cancelled: whether the scene shall stop.
    """

    def __init__(self, context: SceneContext, scene_id: str, cancelled: Callable[[], bool]) -> None:
        self.context = context
        self.scene_id = scene_id
        self.cancelled = cancelled

    @asynccontextmanager
    async def stages_of(
        self,
        stage: Callable[[], Awaitable[SceneStage]],
        stop: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[None]:
        """While the block runs, tell its stages, and stop it when the scene is cancelled.

        Args:
            stage: says what is done now.
            stop: ends it soon; is called again until it has ended.
        """
        watch = asyncio.create_task(self._watch(stage, stop))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(
        self,
        stage: Callable[[], Awaitable[SceneStage]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        told: SceneStage | None = None
        told_at = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(STAGE_POLL_S)
            try:
                async with asyncio.timeout(TELL_AGAIN_S):
                    if self.cancelled():
                        await stop()
                    now = await stage()
                if now != told or clock() - told_at >= TELL_AGAIN_S:
                    told, told_at = now, clock()
                    await asyncio.to_thread(
                        self.context.store.record_scene_progress,
                        self.scene_id,
                        now.name,
                        now.step,
                        now.steps,
                    )
            except Exception as error:  # noqa: BLE001 - whoever waits for the block hears of it
                logger.debug("scene %s: no stage: %s", self.scene_id, error)


async def make_outputs(
    teller: StageTeller, memory: Memory, outputs: tuple[Output, ...]
) -> WorldStereoError | None:
    """Have a scene's outputs made from its committed clips.

    Args:
        teller: of the scene.
        memory: the scene's memory bank, which makes those that take no GPU.
        outputs: what the scene asked for.

    Returns:
        None, or why one of them could not be made; the clips stay.
    """
    on_gpu = [name for name in GPU_OUTPUTS if name in outputs]
    needed = {need for name in on_gpu for need in NEEDS[name]}
    by_bank = [*outputs, *sorted(needed - set(outputs))]
    by_bank = [name for name in by_bank if name not in GPU_OUTPUTS]
    limit_s = teller.context.settings.outputs_timeout_s

    async def reconstruct() -> None:
        async with teller.stages_of(memory.stage, memory.stop), asyncio.timeout(limit_s):
            await memory.reconstruct(by_bank)

    try:
        if by_bank:
            await when_there_is_space(teller, reconstruct)
        for name in on_gpu:
            await _make_on_gpu(teller, name)
    except TimeoutError:
        await _stop(memory)
        return GenerationError(
            "the outputs took too long",
            got=f"more than {limit_s:g} s",
            fix="the clips are there: ask for fewer outputs, or export them from the results",
        )
    except Exception as error:  # noqa: BLE001 - raised again unless it says what is wrong
        cause = cause_of(error)
        if not isinstance(cause, WorldStereoError):
            raise cause from None
        return cause
    return None


async def _stop(memory: Memory) -> None:
    """End what the memory bank makes; else its manifest waits until that has ended by itself."""
    try:
        async with asyncio.timeout(TELL_AGAIN_S):
            await memory.stop()
    except Exception as error:  # noqa: BLE001 - the scene ends all the same, only later
        logger.warning("outputs that took too long do not stop: %s", first_line(error))


async def _make_on_gpu(teller: StageTeller, output: GpuOutput) -> None:
    now = SceneStage("wait")

    def hear(name: str, step: int, steps: int) -> None:
        nonlocal now
        now = SceneStage(name, step, steps)

    async def stage() -> SceneStage:
        return now

    async def stop() -> None:
        making.cancel()

    making = asyncio.ensure_future(teller.context.make(teller.scene_id, output, hear))
    try:
        async with teller.stages_of(stage, stop):
            await asyncio.wait([making])
    finally:
        making.cancel()  # where this very task is cancelled
    if making.cancelled():
        raise GenerationCancelled("cancelled while an output was made", where=output)
    making.result()
