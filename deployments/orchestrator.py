"""The orchestrator: one replica that admits scenes and keeps each of them running to its end.

Owns which scenes are in progress. The store is the truth: whoever submits or cancels writes it
there and may call ``wake``, which only saves waiting for the next look. A replica works on a scene
while it holds the scene's lease; one that starts, or stands by, takes over those that ran out and
goes on with what it finds.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from worldstereo_client.schemas import GpuOutput, SceneRequest, SceneStatus

from actors.blobs import DEPTH, SOURCE
from actors.failures import cause_of, first_line
from actors.log_lines import set_up_logging
from actors.memory_bank import BankSpec, BuildSource, SceneBank
from actors.messages import ClipRequest
from configs.settings import (
    DepthSettings,
    OrchestratorSettings,
    ReconstructorSettings,
    RetentionSettings,
)
from deployments.clip_job import Stream
from deployments.depth import DepthService
from deployments.errors import InternalError, StateConflict, StoreAway
from deployments.fair_slots import FairSlots
from deployments.folders import SceneFolders
from deployments.leases import LeaseLost
from deployments.outage import patiently, wait_for_store
from deployments.reconstructor import ReconstructorService
from deployments.records import SceneRecord
from deployments.retention import Retention, sweep_for_ever
from deployments.scene_context import Memory, OnStage, SceneContext
from deployments.scene_job import SceneJob
from deployments.store import Store
from deployments.submission import build_parameters
from deployments.telemetry import SceneWatch
from deployments.telling import Tellers, Telling
from worldstereo.config import ModelConfig, SceneParameters, Variant
from worldstereo.errors import ParameterError

logger = logging.getLogger(__name__)

# How long a replica that starts waits for a store that is away, seconds.
_STORE_WAIT_S = 120.0

# A scene whose job breaks this often, for reasons that are not its own, has failed.
_MAX_BREAKS = 5


@dataclass(frozen=True)
class OrchestratorSpec:
    """What the orchestrator is made from.

    Attributes:
        folders: of all scenes.
        database_url: of the store.
        settings: limits and deadlines.
        clips_at_once: of one variant, which is its most replicas.
        clips_ahead: how many more it may be given to prepare while others are generated.
        configs: config.json of each variant that is served.
        image_features: folder or repository of the network that chooses among references.
        local_files_only: whether the Hub must not be asked.
        depth: of the depth deployment, where there is one.
        reconstructor: of the deployment of outputs that take a GPU, where there is one.
        retention: how long ended scenes are kept.
        telling: metrics, logs, traces, webhooks.
    """

    folders: SceneFolders
    database_url: str
    settings: OrchestratorSettings
    clips_at_once: int
    clips_ahead: int
    configs: Mapping[Variant, ModelConfig]
    image_features: str
    local_files_only: bool
    depth: DepthSettings | None
    reconstructor: ReconstructorSettings | None
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    telling: Telling = field(default_factory=Telling)


class Orchestrator:
    """The deployment.

    Args:
        spec: what it is made from.
        generators: handles of the generator deployments by variant.
        depth: handle of the depth deployment, where there is one.
        reconstructor: of the deployment of outputs that take a GPU, where there is one.
    """

    def __init__(
        self,
        spec: OrchestratorSpec,
        generators: Mapping[str, Any],
        depth: Any = None,
        reconstructor: Any = None,
    ) -> None:
        set_up_logging("orchestrator", spec.telling.logging)
        self._spec = spec
        self._telemetry = spec.telling.telemetry()
        self._generators = generators
        self._estimator = None if spec.depth is None else DepthService.of(depth, spec.depth)
        self._reconstructor = (
            None
            if spec.reconstructor is None
            else ReconstructorService.of(reconstructor, spec.reconstructor)
        )
        self._epoch = uuid.uuid4().hex
        store = wait_for_store(
            lambda outage: Store(spec.database_url, outage=outage), _STORE_WAIT_S
        )
        self._store = store.as_holder(self._epoch)
        self._slots = {
            variant: FairSlots(
                spec.clips_at_once, spec.settings.max_clips_per_scene, spec.clips_ahead
            )
            for variant in generators
        }
        self._jobs: dict[str, SceneJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._breaks: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._tidied = False
        retention = Retention(self._store, spec.folders, spec.retention)
        self._tellers = Tellers(
            spec.telling,
            self._telemetry,
            self._store,
            spec.database_url,
            spec.settings.poll_interval_s,
            lambda: [job.memory for job in self._jobs.values() if job.memory is not None],
        )
        self._tellers.start()
        # Serve runs constructors in the loop that serves requests.
        self._sweeper = asyncio.get_running_loop().create_task(sweep_for_ever(retention))
        self._main = asyncio.get_running_loop().create_task(self._serve())

    async def wake(self) -> None:
        """Look at the store now."""
        self._woken.set()
        self._tellers.wake()

    def __del__(self) -> None:
        # Serve calls it when it stops a replica: spans wait up to a second for others.
        telemetry = getattr(self, "_telemetry", None)  # none where the constructor failed
        if telemetry is not None:
            telemetry.trace.close()

    async def check_health(self) -> None:
        """Called by Serve; raises when nothing is orchestrated any more."""
        if self._main.done():
            raise RuntimeError("the orchestrator's loop has ended") from self._main.exception()
        self._tellers.check()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._loop())
            tasks.create_task(self._keep_leases())

    async def _keep_leases(self) -> None:
        """Renew the leases of all scenes in progress here, and drop those that another has."""
        lease_s = self._spec.settings.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            mine = list(self._tasks)
            try:
                lost = await patiently(self._store.renew, mine, self._epoch, lease_s)
            except Exception:
                logger.exception("cannot renew the leases")
                continue
            for scene_id in lost & self._tasks.keys():
                logger.warning("scene %s: another orchestrator took it over", scene_id)
                self._tasks[scene_id].cancel()

    async def _loop(self) -> None:
        while True:
            self._woken.clear()
            try:
                if not self._tidied:
                    await asyncio.to_thread(self._close_forgotten_banks)
                    self._tidied = True
                await self._look()
            except StoreAway:
                # The store has logged it; nothing is lost by looking again.
                logger.debug("no look at the store")
            except Exception:
                logger.exception("cannot look at the store")
            try:
                async with asyncio.timeout(self._spec.settings.poll_interval_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        active = (SceneStatus.IN_PROGRESS, SceneStatus.CANCELLING)
        for scene_id in await asyncio.to_thread(self._store.in_state, active):
            if scene_id not in self._tasks and await self._claim(scene_id):
                await self._take_up(scene_id)
        cancelling = (SceneStatus.CANCELLING,)
        for scene_id in await asyncio.to_thread(self._store.in_state, cancelling):
            if scene_id in self._jobs:
                self._jobs[scene_id].cancel()
        room = self._spec.settings.max_active_scenes - len(self._tasks)
        if room > 0:
            for scene_id in await asyncio.to_thread(self._store.next_waiting, room):
                if scene_id in self._tasks:  # resumed while its earlier job still tidies up
                    continue
                if await self._claim(scene_id):
                    # Cancelled or lost since: the next look finds out.
                    with suppress(StateConflict, LeaseLost):
                        await asyncio.to_thread(
                            self._store.advance_scene, scene_id, SceneStatus.IN_PROGRESS
                        )
                        await self._take_up(scene_id)

    async def _claim(self, scene_id: str) -> bool:
        lease_s = self._spec.settings.lease_s
        # In an outage nobody could renew: whoever has a scene gets the time to do so after it.
        take_over = self._store.outage.over_for_s > lease_s
        claim = self._store.claim
        return await asyncio.to_thread(claim, scene_id, self._epoch, lease_s, take_over=take_over)

    def _close_forgotten_banks(self) -> None:
        """End the banks of ended scenes whose orchestrator died before it could."""
        unended = (SceneStatus.QUEUED, SceneStatus.IN_PROGRESS, SceneStatus.CANCELLING)
        service = self._spec.folders.service
        for scene_id in SceneBank.scenes(service) - set(self._store.in_state(unended)):
            self._close_bank(scene_id)

    def _close_bank(self, scene_id: str) -> None:
        with suppress(ValueError):  # it has gone by itself
            SceneBank.of_scene(self._spec.folders.service, scene_id).close()

    async def _take_up(self, scene_id: str) -> None:
        record = await asyncio.to_thread(self._store.scene, scene_id)
        variant = record.parameters.variant
        context = SceneContext(
            epoch=self._epoch,
            store=self._store,
            settings=self._spec.settings,
            slots=self._slots.setdefault(variant, FairSlots(self._spec.clips_at_once)),
            dispatch=lambda request: self._dispatch(variant, request),
            memory=self._memory,
            make=self._make,
            watch=SceneWatch(self._telemetry, scene_id, variant),
        )
        self._jobs[scene_id] = SceneJob(context, scene_id)
        self._tasks[scene_id] = asyncio.create_task(self._run(scene_id, context))

    async def _run(self, scene_id: str, context: SceneContext) -> None:
        with context.watch.running():
            await self._run_watched(scene_id, context.watch.variant)

    async def _run_watched(self, scene_id: str, variant: str) -> None:
        job = self._jobs[scene_id]
        try:
            await self._run_or_break(scene_id, variant, job)
        except LeaseLost as error:
            logger.warning("dropped, %s", error)
        finally:
            del self._jobs[scene_id], self._tasks[scene_id]
            self._woken.set()

    async def _run_or_break(self, scene_id: str, variant: str, job: SceneJob) -> None:
        try:
            if variant in self._generators:
                await job.run()
            else:
                await job.give_up(_not_served(variant, self._generators))
            self._breaks.pop(scene_id, None)
            # One that ended unopened may have a bank that an earlier orchestrator left.
            await asyncio.to_thread(self._close_bank, scene_id)
        except LeaseLost:
            raise
        except Exception as error:
            logger.exception("scene %s: its job broke", scene_id)
            await self._after_break(scene_id, job, first_line(cause_of(error)))

    async def _after_break(self, scene_id: str, job: SceneJob, reason: str) -> None:
        """Let the scene be taken up again after a pause, but not for ever."""
        self._breaks[scene_id] = breaks = self._breaks.get(scene_id, 0) + 1
        if breaks >= _MAX_BREAKS:
            error = InternalError("the scene could not be run", got=f"{reason}, {breaks} times")
            await job.give_up(error)
            await asyncio.to_thread(self._close_bank, scene_id)  # of an earlier break
        else:
            await asyncio.sleep(self._spec.settings.retry_delay_s * 2**breaks)

    def _dispatch(self, variant: str, request: ClipRequest) -> Stream:
        stream: Stream = self._generators[variant].options(stream=True).generate.remote(request)
        return stream

    async def _make(self, scene_id: str, output: GpuOutput, on_stage: OnStage) -> None:
        if self._reconstructor is None:
            raise ParameterError(
                "this server no longer makes the output", where="outputs", got=output
            )
        folder = self._spec.folders.scene(scene_id).output
        await self._reconstructor.make(folder, output, on_stage, job_id=scene_id)

    async def _memory(self, record: SceneRecord) -> Memory:
        folders = self._spec.folders
        await asyncio.to_thread(folders.bring, record.id, (SOURCE, DEPTH))
        folder = folders.scene(record.id)
        parameters = engine_parameters(record.parameters)
        image = folder.image_file()
        config = self._spec.configs[parameters.variant]
        build = (
            BuildSource(image, build_parameters(record.parameters, config.nframe))
            if image
            else None
        )
        spec = BankSpec(
            service=folders.service,
            scene_id=record.id,
            input=folder.input / record.name,
            build=build,
            depth=folder.depth_file(),
            estimator=self._estimator,
            task_type=record.parameters.task_type,
            output=folder.output,
            parameters=parameters,
            config=config,
            image_features=self._spec.image_features,
            local_files_only=self._spec.local_files_only,
            blobs=folders.blobs,
            folder=folder.root,
            logging=self._spec.telling.logging,
            idle_s=self._spec.settings.bank_idle_s,
        )
        # Finding or making a named actor blocks.
        bank: SceneBank = await asyncio.to_thread(
            SceneBank.get_or_create, spec, num_cpus=self._spec.settings.bank_num_cpus
        )
        return bank


def engine_parameters(request: SceneRequest) -> SceneParameters:
    """The engine's parameters of a scene; ParameterError for an unknown variant."""
    fields = request.model_dump(include=set(SceneParameters.model_fields))
    return SceneParameters.model_validate(fields)


def _not_served(variant: str, generators: Collection[str]) -> ParameterError:
    return ParameterError(
        "this server no longer offers the variant",
        where="variant",
        got=repr(variant),
        allowed=", ".join(sorted(generators)),
    )
