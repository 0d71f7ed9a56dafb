"""One scene from its admission to its end: plan, ready clips, skipped ones, outputs, the manifest.

Owns the scene's dependency graph while it runs. It starts from whatever the store and the memory
bank say, so a scene that another orchestrator left behind needs no path of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from worldstereo_client.schemas import SceneStatus, TrajectoryStatus

from actors.failures import cause_of, first_line, process_is_gone
from actors.memory_bank import OpenedScene, PlannedClip
from actors.messages import MemoryBankLost
from deployments.clip_job import ClipContext, ClipJob, Outcome
from deployments.errors import StateConflict
from deployments.http_errors import problem_of
from deployments.outage import patiently
from deployments.records import SceneRecord
from deployments.scene_context import Memory, SceneContext
from deployments.scene_outputs import StageTeller, make_outputs
from deployments.scene_pause import when_there_is_space
from worldstereo.errors import GenerationCancelled, GenerationError, WorldStereoError

logger = logging.getLogger(__name__)

_ENDED_AS: Mapping[Outcome, TrajectoryStatus] = {
    "committed": TrajectoryStatus.COMPLETED,
    "failed": TrajectoryStatus.FAILED,
    "cancelled": TrajectoryStatus.CANCELLED,
}


class SceneJob:
    """Brings a scene that is in progress or cancelling to an end.

    Args:
        context: of the orchestrator.
        scene_id: of the scene.
    """

    def __init__(self, context: SceneContext, scene_id: str) -> None:
        self._context = context
        self._store = context.store
        self._scene_id = scene_id
        self._cancelled = False
        self._memory: Memory | None = None
        self._clips: dict[str, ClipJob] = {}
        self._states: dict[str, TrajectoryStatus] = {}

    def cancel(self) -> None:
        """Start nothing more, and stop what runs; ``run`` ends when all has stopped."""
        self._cancelled = True
        for clip in self._clips.values():
            clip.cancel()

    async def run(self) -> None:
        """Run the scene to its end; cancelling this task leaves it for another orchestrator.

        Raises:
            LeaseLost: another one has it already.
        """
        record = await self._read()
        if self._cancelled and not self._begun():
            await self.give_up(GenerationCancelled("cancelled before it began"))
            return
        told = StageTeller(self._context, self._scene_id, lambda: self._cancelled)
        try:
            memory = await when_there_is_space(told, lambda: self._context.memory(record))
            self._memory = memory
            opened = await self._open_unless_cancelled(told, memory)
            await self._adopt(opened)
        except WorldStereoError as error:
            await self.give_up(error)
        else:
            await self._run_clips(record, memory, opened)
            lacking = None
            if not self._cancelled and TrajectoryStatus.COMPLETED in self._states.values():
                lacking = await make_outputs(told, memory, record.parameters.outputs)
            await self._finish(told, memory)
            await self._end(lacking)
            memory.close()

    async def _finish(self, told: StageTeller, memory: Memory) -> None:
        """Have the manifest written; a cancelled scene for which there is no space has none."""

        async def finish() -> None:
            async with asyncio.timeout(self._context.settings.commit_timeout_s):
                await memory.finish({key: str(state) for key, state in self._states.items()})

        try:
            await when_there_is_space(told, finish)
        except GenerationCancelled as cancelled:
            logger.warning("scene %s has no manifest: %s", self._scene_id, cancelled)

    async def give_up(self, error: WorldStereoError) -> None:
        """End a scene that cannot be run; if it is being cancelled, it is cancelled."""
        await self._read()
        for trajectory_id, state in list(self._states.items()):
            if state.terminal:
                continue
            if self._cancelled:
                await self._advance(trajectory_id, TrajectoryStatus.CANCELLED)
            elif state is TrajectoryStatus.BLOCKED:
                await self._advance(trajectory_id, TrajectoryStatus.SKIPPED, error)
            else:
                await self._advance(trajectory_id, TrajectoryStatus.FAILED, error)
        await self._end_scene(SceneStatus.FAILED, error)
        if self._memory is not None:
            self._memory.close()

    async def _read(self) -> SceneRecord:
        record = await patiently(self._store.scene, self._scene_id)
        self._states = {item.id: item.status for item in record.trajectories}
        if record.status is SceneStatus.CANCELLING:
            self.cancel()
        return record

    def _begun(self) -> bool:
        """Whether there may be results, which a cancelled scene keeps with their manifest."""
        begun = (TrajectoryStatus.IN_PROGRESS, TrajectoryStatus.COMPLETED)
        return any(state in begun for state in self._states.values())

    async def _open_unless_cancelled(self, told: StageTeller, memory: Memory) -> OpenedScene:
        """Open the memory bank, which may build the scene: nobody waits for that in vain."""
        opening = asyncio.ensure_future(when_there_is_space(told, lambda: self._open(memory)))

        async def stop() -> None:
            if not self._begun():
                opening.cancel()

        try:
            async with told.stages_of(memory.stage, stop):
                await asyncio.wait([opening])
        finally:
            opening.cancel()  # where this very task is cancelled
        if opening.cancelled():
            raise GenerationCancelled("cancelled before it began")
        return opening.result()

    async def _open(self, memory: Memory) -> OpenedScene:
        settings = self._context.settings
        for attempt in range(1, settings.max_attempts + 1):
            try:
                async with asyncio.timeout(settings.plan_timeout_s):
                    # It may still make outputs for an orchestrator that has gone.
                    await memory.stop()
                    return await memory.open(self._context.epoch)
            except TimeoutError:
                lost = MemoryBankLost(f"no plan after {settings.plan_timeout_s:g} s")
            except Exception as error:  # noqa: BLE001 - raised again unless the process is gone
                cause = cause_of(error)
                if not process_is_gone(error):
                    raise cause from None
                lost = MemoryBankLost("its process died", got=first_line(cause))
            logger.warning("scene %s, attempt %d to open it: %s", self._scene_id, attempt, lost)
            await asyncio.sleep(settings.retry_delay_s * 2**attempt)
        raise lost

    async def _adopt(self, opened: OpenedScene) -> None:
        """Bring the store to what is on disk: nothing of this scene runs at this moment."""
        plan = {clip.id: clip.depends_on for clip in opened.clips}
        assert set(plan) == set(self._states), "the plan and the store differ"
        await patiently(self._store.record_plan, self._scene_id, plan)
        committed_ids = sorted(opened.committed)
        await patiently(self._store.abandon_attempts, self._scene_id, committed_ids)
        for trajectory_id, state in list(self._states.items()):
            committed = trajectory_id in opened.committed
            if state is TrajectoryStatus.COMPLETED and not committed:
                raise GenerationError("its result has gone from the disk", where=trajectory_id)
            if state.terminal:
                continue
            if committed:
                if state is TrajectoryStatus.BLOCKED:
                    await self._advance(trajectory_id, TrajectoryStatus.QUEUED)
                await self._advance(trajectory_id, TrajectoryStatus.COMPLETED)
            elif state is TrajectoryStatus.IN_PROGRESS:
                await self._advance(trajectory_id, TrajectoryStatus.QUEUED)

    async def _run_clips(self, record: SceneRecord, memory: Memory, opened: OpenedScene) -> None:
        context = ClipContext(
            scene_id=self._scene_id,
            request=record.parameters,
            owner=record.owner,
            priority=record.priority,
            bank=memory.actor,
            epoch=self._context.epoch,
            store=self._store,
            slots=self._context.slots,
            settings=self._context.settings,
            dispatch=self._context.dispatch,
        )
        urgency = chain_lengths(opened.clips)
        running: dict[asyncio.Task[Outcome], str] = {}
        try:
            while True:
                await self._skip_orphans(opened.clips)
                ready = self._ready(opened.clips)
                for clip in sorted(ready, key=lambda clip: -urgency[clip.id]):
                    if self._states[clip.id] is TrajectoryStatus.BLOCKED:
                        await self._advance(clip.id, TrajectoryStatus.QUEUED)
                    job = self._clips[clip.id] = ClipJob(context, clip.id, urgency[clip.id])
                    if self._cancelled:
                        job.cancel()
                    running[asyncio.create_task(job.run())] = clip.id
                if not running:
                    break
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._states[running.pop(task)] = _ENDED_AS[task.result()]
        finally:
            for task in running:
                task.cancel()
        for trajectory_id, state in list(self._states.items()):
            if not state.terminal:
                await self._advance(trajectory_id, TrajectoryStatus.CANCELLED)

    def _ready(self, clips: tuple[PlannedClip, ...]) -> list[PlannedClip]:
        """Clips to start now, in canonical order."""
        waiting = (TrajectoryStatus.BLOCKED, TrajectoryStatus.QUEUED)
        return [
            clip
            for clip in clips
            if not self._cancelled
            and clip.id not in self._clips
            and self._states[clip.id] in waiting
            and all(self._states[other] is TrajectoryStatus.COMPLETED for other in clip.depends_on)
        ]

    async def _skip_orphans(self, clips: tuple[PlannedClip, ...]) -> None:
        lost = (TrajectoryStatus.FAILED, TrajectoryStatus.SKIPPED)
        for clip in clips:  # dependencies stand before their dependents
            if self._states[clip.id] is TrajectoryStatus.BLOCKED:
                causes = [other for other in clip.depends_on if self._states[other] in lost]
                if causes:
                    error = GenerationError("skipped: what it depends on failed", got=causes[0])
                    await self._advance(clip.id, TrajectoryStatus.SKIPPED, error)

    async def _end(self, lacking: WorldStereoError | None) -> None:
        failed = [
            trajectory_id
            for trajectory_id, state in self._states.items()
            if state in (TrajectoryStatus.FAILED, TrajectoryStatus.SKIPPED)
        ]
        if not failed and lacking is None:
            await self._end_scene(SceneStatus.COMPLETED)
        elif not failed:
            await self._end_scene(SceneStatus.FAILED, lacking)
        else:
            error = GenerationError(
                f"{len(failed)} of {len(self._states)} trajectories failed or were skipped",
                got=", ".join(failed[:5]) + (", ..." if len(failed) > 5 else ""),
                fix="each of them tells why",
            )
            await self._end_scene(SceneStatus.FAILED, error)

    async def _end_scene(self, to: SceneStatus, error: WorldStereoError | None = None) -> None:
        """End the scene; when it is being cancelled, even since this moment, it is cancelled."""
        record = await patiently(self._store.scene, self._scene_id)
        if record.status is SceneStatus.CANCELLING:
            to, error = SceneStatus.CANCELLED, None
        problem = problem_of(error, self._scene_id) if error is not None else None
        try:
            await patiently(self._store.advance_scene, self._scene_id, to, problem)
        except StateConflict:
            record = await patiently(self._store.scene, self._scene_id)
            if record.status is not SceneStatus.CANCELLING:
                raise
            await patiently(self._store.advance_scene, self._scene_id, SceneStatus.CANCELLED)

    async def _advance(
        self, trajectory_id: str, to: TrajectoryStatus, error: WorldStereoError | None = None
    ) -> None:
        problem = problem_of(error, trajectory_id) if error is not None else None
        await patiently(self._store.advance_trajectory, self._scene_id, trajectory_id, to, problem)
        self._states[trajectory_id] = to


def chain_lengths(clips: tuple[PlannedClip, ...]) -> dict[str, int]:
    """For each clip, how many clips the longest chain of dependents from it on has.

    Args:
        clips: in canonical order, so dependencies stand before their dependents.
    """
    lengths = {clip.id: 1 for clip in clips}
    for clip in reversed(clips):
        for other in clip.depends_on:
            lengths[other] = max(lengths[other], lengths[clip.id] + 1)
    return lengths
