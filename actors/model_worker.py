"""One worker: a process with the model on its device, generating one clip at a time.

Owns the engine, cancellation and progress of the clip that runs. Which clip runs where, deadlines
and retries are others'. ``ModelWorker`` is what runs remotely, ``Worker`` the local face of it.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections import OrderedDict
from typing import Any

import ray

from actors.engine import ClipEngine, EngineSpec, load_engine
from actors.messages import Advanced, ClipReport, WorkerState
from worldstereo.errors import GenerationCancelled, GenerationError, WorldStereoError
from worldstereo.types import Clip, Progress, UInt8

logger = logging.getLogger(__name__)

# Cancelled attempts that are remembered, so that one cancelled before it starts never starts.
_REMEMBERED = 1000


class ModelWorker:
    """The remote side. ``load`` and ``generate`` share one thread, the rest have their own."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: ClipEngine | None = None
        self._changed = threading.Condition()
        self._running = False
        self._attempt_id: str | None = None  # the one that runs, or the last that ran
        self._log: list[Advanced] = []
        self._signs = 0
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def load(self) -> WorkerState:
        """Load the engine; until then nothing can be generated.

        Raises:
            CheckpointError: weights are missing or do not fit.
        """
        self._limit_threads()
        self._engine = load_engine(self._spec)
        return self.ping()

    def generate(
        self,
        attempt_id: str,
        clip: Clip,
        num_inference_steps: int | None,
        guidance_scale: float | None,
    ) -> tuple[UInt8, ClipReport]:
        """Frames [F, height, width, 3] of the clip, and what it took.

        Raises:
            GenerationCancelled: ``cancel`` was called with this attempt.
            GenerationError: the engine failed on this clip; the worker goes on.
        """
        assert self._engine is not None, "load comes first"
        with self._changed:
            self._attempt_id, self._log, self._running = attempt_id, [], True
        self._limit_threads()
        stages = _StageClock()

        def on_stage(progress: Progress) -> None:
            stages.enter(progress.stage)
            self._tell(Advanced(progress.stage, progress.step, progress.steps))
            self._stop_if_cancelled(attempt_id)

        try:
            self._stop_if_cancelled(attempt_id)
            frames = self._engine.generate(
                clip,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                on_stage=on_stage,
            )
            return frames, ClipReport(stages.seconds())
        except WorldStereoError:
            raise
        except Exception as error:
            logger.exception("clip %s, attempt %s", clip.trajectory_id, attempt_id)
            failure = f"{type(error).__name__}: {error}"
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()
        # Out here the engine's exception, which holds on to tensors, is gone.
        self._free_device_memory()
        raise GenerationError("the engine failed", where=clip.trajectory_id, got=failure)

    def cancel(self, attempt_id: str) -> None:
        """Stop this attempt at its next sign of progress, or before it starts."""
        with self._changed:
            self._cancelled[attempt_id] = None
            while len(self._cancelled) > _REMEMBERED:
                self._cancelled.popitem(last=False)

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
        with self._changed:
            if attempt_id in self._cancelled:
                raise GenerationCancelled("stopped on request")

    def _limit_threads(self) -> None:
        # Sums are split over threads, so their rounding depends on the count.
        if self._spec.torch_threads is not None:
            import torch

            torch.set_num_threads(self._spec.torch_threads)

    def _free_device_memory(self) -> None:
        gc.collect()
        if self._spec.device == "cuda":
            import torch

            torch.cuda.empty_cache()


class _StageClock:
    """Seconds of each stage; a stage lasts until the next one starts."""

    def __init__(self) -> None:
        self._starts: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        if not self._starts or self._starts[-1][0] != stage:
            self._starts.append((stage, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
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
    def start(cls, spec: EngineSpec, options: dict[str, Any]) -> Worker:
        """Ask Ray for the process; ``load`` waits for it."""
        remote = ray.remote(concurrency_groups={"control": 4})(ModelWorker)
        return cls(remote.options(**options).remote(spec))

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
    ) -> tuple[Any, Any]:
        """References to the frames and to the report of ``ModelWorker.generate``."""
        frames, report = self.actor.generate.options(num_returns=2).remote(
            attempt_id, clip, num_inference_steps, guidance_scale
        )
        return frames, report

    def cancel(self, attempt_id: str) -> Any:
        """Reference to the answer of ``ModelWorker.cancel``; sent at once, await it or not."""
        return self.actor.cancel.options(concurrency_group="control").remote(attempt_id)

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
