"""One worker: a process with the model on its device, generating one clip at a time.

Owns the engine, this rank's place among those that share a clip, cancellation and progress of the
clip that runs. Which clip runs where, what the ranks' failures mean together, deadlines and
retries are others'. ``ModelWorker`` is what runs remotely, ``Worker`` the local face of it.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from actors.engine import ClipEngine, EngineSpec, load_engine
from actors.failures import first_line
from actors.log_lines import LogOptions, log_ids, set_up_logging
from actors.messages import ENGINE_FAILED, Advanced, ClipReport, WorkerState
from actors.rendezvous import MeetingPoint, join_mesh, join_store, meet, open_store
from worldstereo.errors import GenerationCancelled, GenerationError, WorldStereoError
from worldstereo.types import Clip, Progress, UInt8

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from worldstereo.parallel.mesh import ParallelMesh

logger = logging.getLogger(__name__)

# Cancelled attempts that are remembered, so that one cancelled before it starts never starts.
_REMEMBERED = 1000


class ModelWorker:
    """The remote side. What works on clips shares one thread, the rest have their own.

    Args:
        spec: of the engine.
        rank: of this worker; 0 leads.
        logging: of its process; None leaves it as it is.
    """

    def __init__(self, spec: EngineSpec, rank: int = 0, logging: LogOptions | None = None) -> None:
        set_up_logging(f"worker {rank}", logging)
        self._spec = spec
        self._rank = rank
        self._store: Store | None = None
        self._mesh: ParallelMesh | None = None
        self._engine: ClipEngine | None = None
        self._changed = threading.Condition()
        self._running = False
        self._attempt_id: str | None = None  # the one that runs, or the last that ran
        self._log: list[Advanced] = []
        self._signs = 0
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def open_meeting(self, timeout_s: float) -> MeetingPoint:
        """Where all ranks can ``join``; asked of rank 0, when there are several."""
        self._store, meeting = open_store(ray.util.get_node_ip_address(), timeout_s=timeout_s)
        return meeting

    def join(self, meeting: MeetingPoint, timeout_s: float) -> None:
        """Meet the other ranks; returns when all are there.

        Raises:
            ParameterError: no network interface holds this node's address.
            torch.distributed.DistError: the others were not there in time.
        """
        if self._store is None:
            self._store = join_store(meeting, timeout_s=timeout_s)
        self._mesh = join_mesh(
            self._spec.parallel,
            self._rank,
            self._store,
            # Ray shows each worker its own GPU alone.
            "cuda:0" if self._spec.device == "cuda" else "cpu",
            ray.util.get_node_ip_address(),
            timeout_s,
        )

    def load(self) -> WorkerState:
        """Load the engine; until then nothing can be generated. ``join`` comes before it.

        Raises:
            CheckpointError: weights are missing or do not fit.
        """
        self._limit_threads()
        self._engine = load_engine(self._spec, self._mesh)
        return self.ping()

    def generate(
        self,
        attempt_id: str,
        clip: Clip,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        scene_id: str = "",
    ) -> tuple[UInt8 | None, ClipReport]:
        """Frames [F, height, width, 3] of the clip, None beyond rank 0; and what it took.

        ``scene_id`` is for log lines.

        Raises:
            GenerationCancelled: ``cancel`` was called with this attempt, or rank 0 ended it.
            GenerationError: the engine failed on this clip; the worker goes on.
        """
        with log_ids(scene=scene_id, trajectory=clip.trajectory_id, attempt=attempt_id):
            return self._generate(attempt_id, clip, num_inference_steps, guidance_scale)

    def _generate(
        self,
        attempt_id: str,
        clip: Clip,
        num_inference_steps: int | None,
        guidance_scale: float | None,
    ) -> tuple[UInt8 | None, ClipReport]:
        with self._changed:
            self._attempt_id, self._log, self._running = attempt_id, [], True
        stages = _StageClock()

        def on_stage(progress: Progress) -> None:
            stages.enter(progress.stage)
            self._tell(Advanced(progress.stage, progress.step, progress.steps))
            self._stop_if_cancelled(attempt_id)

        try:
            self._limit_threads()
            outcome = self._attempt(attempt_id, clip, num_inference_steps, guidance_scale, on_stage)
            if isinstance(outcome, WorldStereoError):
                self._recover()
                logger.info("clip ended: %s", outcome, extra={"error": type(outcome).__name__})
                raise outcome
            seconds = stages.seconds()
            logger.info("clip generated in %.3f s", sum(seconds.values()))
            return outcome if self._rank == 0 else None, ClipReport(seconds)
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _attempt(
        self,
        attempt_id: str,
        clip: Clip,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        on_stage: Callable[[Progress], None],
    ) -> UInt8 | WorldStereoError:
        """The frames, or what ended the clip; not as it was raised, which holds on to tensors."""
        assert self._engine is not None, "load comes first"
        try:
            self._on_all_ranks(lambda: self._stop_if_cancelled(attempt_id))
            return self._engine.generate(
                clip,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                on_stage=on_stage,
            )
        except WorldStereoError as error:
            return copy.copy(error)
        except Exception as error:
            if self._leader_stopped(error):
                return GenerationCancelled("rank 0 ended the clip", where=f"rank {self._rank}")
            where, got = clip.trajectory_id, f"{type(error).__name__}: {error}"
            if _is_out_of_memory(error):
                return GenerationError(
                    "the device ran out of memory", where=where, got=first_line(error)
                )
            logger.exception("clip %s, attempt %s, rank %d", where, attempt_id, self._rank)
            return GenerationError(ENGINE_FAILED, where=where, got=got)

    def meet(self) -> None:
        """Check after a failed clip that all ranks stand at the same place; each is asked.

        Raises:
            GenerationError: they do not. Where it shows in another way this may never return.
        """
        assert self._mesh is not None, "there is nobody to meet"
        meet(self._mesh)

    def cancel(self, attempt_id: str) -> None:
        """Stop this attempt at its next sign of progress, or before it starts."""
        with self._changed:
            self._cancelled[attempt_id] = None
            while len(self._cancelled) > _REMEMBERED:
                self._cancelled.popitem(last=False)

    def is_cancelled(self, attempt_id: str) -> bool:
        """Whether ``cancel`` was called with this attempt, which may wait for its turn."""
        with self._changed:
            return attempt_id in self._cancelled

    def progress(self, attempt_id: str, after: int, wait_s: float) -> list[Advanced]:
        """What the attempt showed beyond its first ``after`` signs; waits up to ``wait_s`` s."""

        def worth_telling() -> bool:
            mine = self._attempt_id == attempt_id
            return mine and (len(self._log) > after or not self._running)

        with self._changed:
            self._changed.wait_for(worth_telling, timeout=wait_s)
            return self._log[after:] if self._attempt_id == attempt_id else []

    def ping(self) -> WorkerState:
        """A sign of life that needs no engine."""
        with self._changed:
            running = self._attempt_id if self._running else None
            return WorkerState(os.getpid(), running, self._signs)

    def _tell(self, sign: Advanced) -> None:
        with self._changed:
            self._log.append(sign)
            self._signs += 1
            self._changed.notify_all()

    def _stop_if_cancelled(self, attempt_id: str) -> None:
        if self.is_cancelled(attempt_id):
            raise GenerationCancelled("stopped on request")

    def _on_all_ranks(self, step: Callable[[], None]) -> None:
        """Run the leader's step; where it raises, all ranks do."""
        if self._mesh is None:
            step()
        else:
            self._mesh.agree(step)

    def _leader_stopped(self, error: Exception) -> bool:
        if self._mesh is None:
            return False
        from worldstereo.parallel.mesh import LeaderStopped

        return isinstance(error, LeaderStopped)

    def _limit_threads(self) -> None:
        # Sums are split over threads, so their rounding depends on the count.
        if self._spec.torch_threads is not None:
            import torch

            torch.set_num_threads(self._spec.torch_threads)

    def _recover(self) -> None:
        """Free the device after a clip that failed; a device that is lost takes the process along.

        Where another rank never entered an exchange that the device is at, this never returns.
        """
        gc.collect()
        if self._spec.device == "cuda":
            import torch

            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:
                # After an illegal access, say, every later call of this process fails too.
                logger.exception("rank %d ends: its device is lost", self._rank)
                os._exit(1)


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # without it nobody can have raised its error
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


class _StageClock:
    """Seconds of each stage; a stage lasts until the next one starts."""

    def __init__(self) -> None:
        self._starts: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        if not self._starts or self._starts[-1][0] != stage:
            self._starts.append((stage, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        if not self._starts:  # of a rank that is told nothing
            return {}
        ends = [start for _, start in self._starts[1:]] + [time.perf_counter()]
        total: dict[str, float] = {}
        for (stage, start), end in zip(self._starts, ends, strict=True):
            total[stage] = total.get(stage, 0.0) + end - start
        return total


class Worker:
    """The local face of a remote ``ModelWorker``: every remote method, typed.

    Args:
        actor: handle of the actor.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    @classmethod
    def start(
        cls,
        spec: EngineSpec,
        rank: int,
        options: dict[str, Any],
        logging: LogOptions | None = None,
    ) -> Worker:
        """Ask Ray for the process; ``load`` waits for it."""
        remote = ray.remote(concurrency_groups={"control": 4})(ModelWorker)
        return cls(remote.options(**options).remote(spec, rank, logging))

    async def open_meeting(self, timeout_s: float) -> MeetingPoint:
        """As ``ModelWorker.open_meeting``."""
        meeting: MeetingPoint = await self.actor.open_meeting.remote(timeout_s)
        return meeting

    async def join(self, meeting: MeetingPoint, timeout_s: float) -> None:
        """As ``ModelWorker.join``."""
        await self.actor.join.remote(meeting, timeout_s)

    async def load(self) -> WorkerState:
        """As ``ModelWorker.load``."""
        state: WorkerState = await self.actor.load.remote()
        return state

    def generate(
        self,
        attempt_id: str,
        clip: Any,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        scene_id: str = "",
    ) -> tuple[Any, Any]:
        """References to the frames and to the report of ``ModelWorker.generate``."""
        frames, report = self.actor.generate.options(num_returns=2).remote(
            attempt_id, clip, num_inference_steps, guidance_scale, scene_id
        )
        return frames, report

    def cancel(self, attempt_id: str) -> Any:
        """Reference to the answer of ``ModelWorker.cancel``; sent at once, await it or not."""
        return self.actor.cancel.options(concurrency_group="control").remote(attempt_id)

    async def is_cancelled(self, attempt_id: str) -> bool:
        """As ``ModelWorker.is_cancelled``."""
        call = self.actor.is_cancelled.options(concurrency_group="control")
        answer: bool = await call.remote(attempt_id)
        return answer

    async def meet(self) -> None:
        """As ``ModelWorker.meet``."""
        await self.actor.meet.remote()

    async def progress(self, attempt_id: str, after: int, wait_s: float) -> list[Advanced]:
        """As ``ModelWorker.progress``."""
        call = self.actor.progress.options(concurrency_group="control")
        news: list[Advanced] = await call.remote(attempt_id, after, wait_s)
        return news

    async def ping(self) -> WorkerState:
        """As ``ModelWorker.ping``."""
        state: WorkerState = await self.actor.ping.options(concurrency_group="control").remote()
        return state

    def kill(self) -> None:
        """End the process now."""
        ray.kill(self.actor)
