"""The workers of one generator replica, as one thing: created whole or not at all.

Every worker is a rank and runs every clip; rank 0 leads: its frames and its progress are the
group's, and it alone is told to stop. Owns starting and ending them, and finding out what became
of a clip on each (outcomes.py says what that means). What becomes of the replica then is the
coordinator's part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine import EngineSpec
from actors.failures import cause_of, first_line, process_is_gone
from actors.log_lines import LogOptions
from actors.messages import ENGINE_FAILED, Advanced, ClipReport, WorkerLost, WorkerState
from actors.model_worker import Worker
from actors.outcomes import Gone, Outcome, Unfinished, judge, raise_out_of_step
from worldstereo.errors import GenerationError, WorldStereoError
from worldstereo.parallel.layout import check_world_size

logger = logging.getLogger(__name__)

# When one rank fails to start: how long the others may take to say why, which may tell more.
_START_GRACE_S = 3.0

T = TypeVar("T")


@dataclass(frozen=True)
class GroupSpec:
    """Which engine the workers load, and what each may take.

    ``workers`` is as many as ``engine.parallel`` has ranks. ``worker_num_cpus`` and
    ``worker_num_gpus`` are Ray's units. ``start_timeout_s``: longest time in which all workers
    must have met and loaded. ``logging``: of their processes; None leaves it as it is.
    """

    engine: EngineSpec
    workers: int
    worker_num_cpus: float
    worker_num_gpus: float
    start_timeout_s: float
    logging: LogOptions | None = None


class Execution:
    """A clip that runs on all workers.

    Args:
        workers: in the order of the ranks.
        answers: references to each one's frames and to its report.

    Attributes:
        frames: reference to the leader's.
    """

    def __init__(self, workers: Sequence[Worker], answers: Sequence[tuple[Any, Any]]) -> None:
        self.frames = answers[0][0]
        self._workers = workers
        self._answers = answers

    async def report(self, *, grace_s: float, answer_s: float) -> ClipReport:
        """The leader's report, once all workers are done; else as ``judge`` says.

        Args:
            grace_s: when one has failed, how long the others may take to end, too: who only lost
                the connection to one that died may say so before Ray says that it died.
            answer_s: a worker that does not answer for this long then counts as gone.
        """
        outcomes = await self._outcomes(grace_s, answer_s)
        try:
            return judge(outcomes)
        except WorkerLost:
            raise
        except WorldStereoError:
            if len(outcomes) > 1 and not await self._all_meet(answer_s):
                raise_out_of_step(outcomes)
            raise

    async def _outcomes(self, grace_s: float, answer_s: float) -> list[Outcome]:
        results = [asyncio.ensure_future(_report(*answer)) for answer in self._answers]
        for result in results:
            # One that ends after the verdict is nobody's concern.
            result.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait(results, return_when=asyncio.FIRST_EXCEPTION)
        if any(not result.done() or result.exception() for result in results):
            await asyncio.wait(results, timeout=grace_s)
            gone = await lost_workers(self._workers, answer_s)
        else:
            gone = {}
        return [
            Gone(gone[rank]) if rank in gone else _outcome(result)
            for rank, result in enumerate(results)
        ]

    async def _all_meet(self, limit_s: float) -> bool:
        """Whether the ranks still stand at the same place after a clip that failed on all."""
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(worker.meet() for worker in self._workers))
        except Exception as error:  # noqa: BLE001 - whatever it is, they did not meet
            logger.error("the ranks do not meet after a failed clip: %s", first_line(error))
            return False
        return True


class WorkerGroup:
    """Workers that are ready to generate. ``create`` makes it; ``shutdown`` frees it."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = tuple(workers)

    @classmethod
    async def create(
        cls,
        spec: GroupSpec,
        placement: PlacementGroup | None,
        bundles: Sequence[int] | None = None,
    ) -> Self:
        """Start all workers, let them meet and load their engines; when one fails, all are freed.

        Args:
            spec: of the workers.
            placement: the replica's placement group, whose bundle 0 is the coordinator's.
            bundles: of it, one for each rank; None: bundle ``i + 1`` for rank ``i``.

        Raises:
            ParameterError: there are not as many workers as the layout has ranks.
            CheckpointError: weights are missing or do not fit.
            WorkerLost: a worker died or was not ready after ``start_timeout_s`` seconds.
        """
        check_world_size(spec.engine.parallel, spec.workers)
        workers: list[Worker] = []
        try:
            for rank in range(spec.workers):
                bundle = rank + 1 if bundles is None else bundles[rank]
                options = _options(spec, placement, bundle)
                workers.append(Worker.start(spec.engine, rank, options, spec.logging))
            async with asyncio.timeout(spec.start_timeout_s):
                await _come_up(workers, spec.start_timeout_s)
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
        """The worker whose frames and progress are the group's; WorkerLost after ``shutdown``."""
        if not self._workers:
            raise WorkerLost("the group's workers have ended")
        return self._workers[0]

    @property
    def size(self) -> int:
        """How many workers share a clip."""
        return len(self._workers)

    def execute(
        self,
        attempt_id: str,
        clip: Any,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        scene_id: str = "",
    ) -> Execution:
        """Run a clip on all workers.

        Args:
            attempt_id: for ``progress`` and ``cancel``.
            clip: reference to the prepared ``worldstereo.types.Clip``.
            num_inference_steps, guidance_scale: None where the published value holds.
            scene_id: for log lines.

        Raises:
            WorkerLost: the group has been shut down.
        """
        if not self._workers:
            raise WorkerLost("its workers ended before its turn")
        answers = [
            worker.generate(attempt_id, clip, num_inference_steps, guidance_scale, scene_id)
            for worker in self._workers
        ]
        return Execution(self._workers, answers)

    async def progress(self, attempt_id: str, after: int, wait_s: float) -> list[Advanced]:
        """The leader's signs beyond the first ``after``; waits up to ``wait_s`` s for one."""
        return await self.leader.progress(attempt_id, after, wait_s)

    def cancel(self, attempt_id: str) -> None:
        """Ask the leader to stop this attempt at the next step; returns at once.

        After ``shutdown`` there is nobody to ask, and nothing that runs.
        """
        if self._workers:
            self.leader.cancel(attempt_id)

    async def is_cancelled(self, attempt_id: str) -> bool:
        """Whether the leader was asked to stop this attempt, by whoever."""
        return bool(self._workers) and await self.leader.is_cancelled(attempt_id)

    async def ping(self) -> list[WorkerState]:
        """A sign of life of every worker; raises Ray's actor error when one is dead."""
        return list(await asyncio.gather(*(worker.ping() for worker in self._workers)))

    async def check(self, limit_s: float) -> None:
        """Ask all workers for a sign of life.

        Raises:
            WorkerLost: one is gone, or does not answer for ``limit_s`` seconds.
        """
        for rank, reason in (await lost_workers(self._workers, limit_s)).items():
            raise WorkerLost("a worker died", where=f"rank {rank}", got=reason)

    def shutdown(self) -> None:
        """End all workers now; twice is harmless."""
        workers, self._workers = self._workers, ()
        _free(workers)


async def lost_workers(workers: Sequence[Worker], limit_s: float) -> dict[int, str]:
    """The ranks that are gone, or do not answer for ``limit_s`` seconds, each with the reason."""

    async def reason(worker: Worker) -> str | None:
        try:
            async with asyncio.timeout(limit_s):
                await worker.ping()
        except TimeoutError:
            return f"no answer for {limit_s:g} s"
        except Exception as error:  # noqa: BLE001 - a ping can fail for no other reason
            return first_line(error)
        return None

    reasons = await asyncio.gather(*(reason(worker) for worker in workers))
    return {rank: reason for rank, reason in enumerate(reasons) if reason is not None}


async def _come_up(workers: Sequence[Worker], timeout_s: float) -> None:
    if len(workers) > 1:
        (meeting,) = await _all([workers[0].open_meeting(timeout_s)])
        await _all(worker.join(meeting, timeout_s) for worker in workers)
    await _all(worker.load() for worker in workers)


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What all calls return; of several errors the one that tells most is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        await asyncio.wait(tasks, timeout=_START_GRACE_S)
        errors = [error for task in tasks if task.done() and (error := task.exception())]
    finally:
        for task in tasks:
            task.cancel()
    if not errors:
        return [task.result() for task in tasks]
    for error in errors:
        if isinstance(cause_of(error), WorldStereoError):
            raise error
    for error in errors:
        if process_is_gone(error):
            raise WorkerLost("a worker died while it started", got=first_line(error)) from error
    raise errors[0]


async def _report(frames: Awaitable[object], report: Awaitable[ClipReport]) -> ClipReport:
    try:
        return await report
    except Exception:
        with suppress(Exception):
            await frames  # Ray logs errors that nobody has looked at
        raise


def _outcome(result: asyncio.Future[ClipReport]) -> Outcome:
    if not result.done():
        return Unfinished()
    error = result.exception()
    if error is None:
        return result.result()
    cause = cause_of(error)
    if process_is_gone(error):
        return Gone(first_line(cause))
    if isinstance(cause, WorldStereoError):
        return cause
    return GenerationError(ENGINE_FAILED, got=f"{type(cause).__name__}: {first_line(cause)}")


def _options(spec: GroupSpec, placement: PlacementGroup | None, bundle: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_cpus": spec.worker_num_cpus,
        "num_gpus": spec.worker_num_gpus,
        "max_restarts": 0,
    }
    if placement is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            placement, placement_group_bundle_index=bundle
        )
    return options


def _free(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()
