"""The workers of one generator replica, as one thing: created whole or not at all.

Every worker runs every clip; the first one leads: its frames and its progress are the group's, and
it alone decides to stop. A group has one worker until clips are sharded over several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine import EngineSpec
from actors.messages import Advanced, ClipReport, WorkerLost, WorkerState
from actors.model_worker import Worker


@dataclass(frozen=True)
class GroupSpec:
    """How many workers of which engine, and what each may take.

    ``worker_num_cpus`` and ``worker_num_gpus`` are Ray's units; worker ``i`` goes into bundle
    ``i + 1`` of the replica's placement group, whose bundle 0 is the coordinator's.
    """

    engine: EngineSpec
    workers: int
    worker_num_cpus: float
    worker_num_gpus: float
    start_timeout_s: float


@dataclass(frozen=True)
class Execution:
    """A clip that runs: references to the leader's frames and to every worker's report."""

    frames: Any
    reports: tuple[Any, ...]

    async def report(self) -> ClipReport:
        """The leader's report, once all workers are done; raises what the first one raised."""
        reports: list[ClipReport] = await asyncio.gather(*self.reports)
        return reports[0]


class WorkerGroup:
    """Workers that are ready to generate. ``create`` makes it; ``shutdown`` frees it."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = tuple(workers)

    @classmethod
    async def create(cls, spec: GroupSpec, placement: PlacementGroup | None) -> Self:
        """Start all workers and load their engines; when one fails, all are freed.

        Raises:
            CheckpointError: weights are missing or do not fit.
            WorkerLost: a worker died or was not ready after ``start_timeout_s`` seconds.
        """
        workers: list[Worker] = []
        try:
            for index in range(spec.workers):
                workers.append(Worker.start(spec.engine, _options(spec, placement, index)))
            async with asyncio.timeout(spec.start_timeout_s):
                await asyncio.gather(*(worker.load() for worker in workers))
        except TimeoutError as error:
            _free(workers)
            raise WorkerLost(
                f"not every worker was ready after {spec.start_timeout_s:g} s",
                where="start of the worker group",
                fix="raise start_timeout_s of the model, or give the cluster what it asks for",
            ) from error
        except BaseException:
            _free(workers)
            raise
        return cls(workers)

    @property
    def leader(self) -> Worker:
        """The worker whose frames and progress are the group's."""
        return self._workers[0]

    def execute(
        self,
        attempt_id: str,
        clip: Any,
        num_inference_steps: int | None,
        guidance_scale: float | None,
    ) -> Execution:
        """Run a clip on all workers.

        Args:
            attempt_id: for ``progress`` and ``cancel``.
            clip: reference to the prepared ``worldstereo.types.Clip``.
            num_inference_steps, guidance_scale: None where the published value holds.
        """
        pairs = [
            worker.generate(attempt_id, clip, num_inference_steps, guidance_scale)
            for worker in self._workers
        ]
        return Execution(pairs[0][0], tuple(report for _, report in pairs))

    async def progress(self, attempt_id: str, after: int, wait_s: float) -> list[Advanced]:
        """The leader's signs beyond the first ``after``; waits up to ``wait_s`` s for one."""
        return await self.leader.progress(attempt_id, after, wait_s)

    def cancel(self, attempt_id: str) -> None:
        """Ask the leader to stop this attempt at the next step; returns at once.

        After ``shutdown`` there is nobody to ask, and nothing that runs.
        """
        if self._workers:
            self.leader.cancel(attempt_id)

    async def ping(self) -> list[WorkerState]:
        """A sign of life of every worker; raises Ray's actor error when one is dead."""
        return list(await asyncio.gather(*(worker.ping() for worker in self._workers)))

    def shutdown(self) -> None:
        """End all workers now; twice is harmless."""
        workers, self._workers = self._workers, ()
        _free(workers)


def _options(spec: GroupSpec, placement: PlacementGroup | None, index: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_cpus": spec.worker_num_cpus,
        "num_gpus": spec.worker_num_gpus,
        "max_restarts": 0,
    }
    if placement is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            placement, placement_group_bundle_index=index + 1
        )
    return options


def _free(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()
