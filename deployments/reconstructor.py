"""The outputs that take a GPU and further software: Gaussian splats, and WorldMirror's results.

Owns the replica that makes them one at a time (``Reconstructor``), its deployment
(``reconstructor_deployment``), and the caller's side with its deadline and retries
(``ReconstructorService``). How they are made is worldstereo.reconstruction's. A caller stops the
work by cancelling ``ReconstructorService.make``. Importing it loads no torch.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ray import serve
from ray.serve import Application
from worldstereo_client.schemas import Output

from actors.failures import cause_of, first_line, process_is_gone
from configs.settings import ReconstructorSettings
from worldstereo.errors import GenerationError, ParameterError, WorldStereoError
from worldstereo.reconstruction.splats import train_splats
from worldstereo.reconstruction.worldmirror_run import (
    LICENCE_NOTICE,
    STAGE,
    check_licence,
    progress_of,
    run_worldmirror,
)

logger = logging.getLogger(__name__)

RECONSTRUCTOR_NAME = "reconstructor"

GpuOutput = Literal["splats", "worldmirror_results"]
# Other outputs that must have been written into the result folder before.
NEEDS: Mapping[GpuOutput, tuple[Output, ...]] = MappingProxyType(
    {"splats": ("points",), "worldmirror_results": ("worldmirror",)}
)

# What is done, step, of how many steps; zeros where nothing is counted.
Sign = tuple[str, int, int]
OnStage = Callable[[str, int, int], None]

# News are told at most this often: the work has hundreds a second.
TELL_EVERY_S = 0.25
# A line of a log that is told as a stage is cut to so many characters.
LONGEST_LINE = 80
# Time for the last word to leave the process before it ends.
_LAST_WORD_S = 0.3
_PATHS = re.compile(r"\S*/\S*")


class ReconstructorLost(WorldStereoError):
    """The reconstructor gave no sign, or its process died each time it was asked."""


class Reconstructor:
    """The deployment. A replica makes one output at a time, in a thread.

    Args:
        settings: what it makes and how, and its deadlines.
    """

    def __init__(self, settings: ReconstructorSettings) -> None:
        self._settings = settings
        self._free = asyncio.Lock()
        self._ending = False
        if settings.worldmirror is not None:
            logger.warning("WorldMirror is offered. %s", LICENCE_NOTICE)

    async def make(self, folder: str, output: GpuOutput, job_id: str) -> AsyncIterator[Sign]:
        """Make one output of a scene, and tell how far it is until it is there.

        The work stops when the stream is cancelled: training before its next step, WorldMirror
        with all its processes. A replica whose work does not stop ends.

        Args:
            folder: the scene's result folder, which this machine must see.
            output: what to make; the outputs of ``NEEDS`` must be there.
            job_id: what logs call it.

        Yields:
            What is done, with step and steps: what changed, or again what was told last.

        Raises:
            WorldStereoError: as ``train_splats`` and ``run_worldmirror``.
            ReconstructorLost: the device failed; the replica ends, and another may be asked.
        """
        if self._ending:
            await asyncio.sleep(self._settings.beat_timeout_s)  # until this process has ended
        # One that was cancelled may not have stopped yet.
        async with self._free:
            work = _Work(self._settings, Path(folder), output, job_id)
            task = asyncio.ensure_future(asyncio.to_thread(work.run))
            try:
                async with aclosing(self._signs(work, task)) as signs:
                    async for sign in signs:
                        yield sign
                outcome = task.result()
                if outcome is not None:
                    if isinstance(outcome, ReconstructorLost):
                        self._give_way(str(outcome))
                    raise outcome
            finally:
                work.stop.set()
                await asyncio.wait({task}, timeout=self._settings.stop_timeout_s)
                if not task.done():
                    self._give_way(f"{job_id} does not stop")

    async def check_health(self) -> None:
        """Called by Serve; raises while the replica ends."""
        if self._ending:
            raise ReconstructorLost("the replica ends", where=RECONSTRUCTOR_NAME)

    async def _signs(self, work: _Work, task: asyncio.Future[Any]) -> AsyncGenerator[Sign, None]:
        told, told_at = work.sign, time.monotonic()
        yield told
        over = False
        while not over:
            await asyncio.wait({task}, timeout=TELL_EVERY_S)
            over = task.done()
            sign, now = work.sign, time.monotonic()
            if sign != told or (now - told_at >= self._settings.beat_interval_s and not over):
                told, told_at = sign, now
                yield sign

    def _give_way(self, reason: str) -> None:
        """End this process in a moment: Serve brings up another where one is needed."""
        if not self._ending:
            self._ending = True
            logger.error("replica ends: %s", reason)
            asyncio.get_running_loop().call_later(_LAST_WORD_S, os._exit, 1)


class _Work:
    """One output being made; ``run`` works in a thread, and ``sign`` is its latest word."""

    def __init__(
        self, settings: ReconstructorSettings, folder: Path, output: GpuOutput, job_id: str
    ) -> None:
        self.stop = threading.Event()
        self.sign: Sign = ("prepare", 0, 0)
        self._settings, self._folder = settings, folder
        self._output, self._job_id = output, job_id

    def run(self) -> WorldStereoError | None:
        """Make it; returns why it could not be made."""
        try:
            self._make()
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told
            return _reason(error, self._output)
        finally:
            _free_device_memory()
        return None

    def _make(self) -> None:
        splats, worldmirror = self._settings.splats, self._settings.worldmirror
        if self._output == "splats" and splats is not None:
            train_splats(self._folder, splats, on_stage=self._tell, stop=self.stop.is_set)
        elif self._output == "worldmirror_results" and worldmirror is not None:
            run_worldmirror(
                self._folder,
                worldmirror,
                on_stage=self._tell,
                on_line=self._hear,
                stop=self.stop.is_set,
            )
        else:
            raise ParameterError(
                "this reconstructor does not make that",
                where="output",
                got=self._output,
                allowed=", ".join(offered_outputs(self._settings)),
            )

    def _tell(self, stage: str, step: int, steps: int) -> None:
        self.sign = stage, step, steps

    def _hear(self, line: str) -> None:
        logger.info("%s: %s", self._job_id, line)
        if progress_of(line) == (0, 0):
            # Whoever asks for the scene reads it, and shall not read where things lie here.
            words = _PATHS.sub("...", line).strip()[:LONGEST_LINE]
            self._tell(f"{STAGE}: {words}", 0, 0)


def reconstructor_deployment(settings: ReconstructorSettings) -> Application:
    """The deployment of ``Reconstructor``, bound: to be bound into whoever asks it.

    Args:
        settings: all there is to choose.

    Returns:
        The application; where it is bound, a handle for ``ReconstructorService`` arrives.

    Raises:
        ParameterError: WorldMirror is set and its licence was not accepted.
    """
    if settings.worldmirror is not None:
        check_licence(settings.worldmirror)
    application: Application = (
        serve.deployment(Reconstructor)
        .options(
            name=RECONSTRUCTOR_NAME,
            max_ongoing_requests=1,
            ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
            health_check_period_s=settings.health_check_period_s,
            graceful_shutdown_timeout_s=settings.graceful_shutdown_timeout_s,
            autoscaling_config={
                "min_replicas": settings.min_replicas,
                "max_replicas": 1,
                "target_ongoing_requests": 1,
                "upscale_delay_s": 0,
                "downscale_delay_s": settings.downscale_delay_s,
            },
        )
        .bind(settings)
    )
    return application


def offered_outputs(settings: ReconstructorSettings | None) -> tuple[GpuOutput, ...]:
    """What a reconstructor of these settings makes; nothing where there are none."""
    offered: list[GpuOutput] = []
    if settings is not None and settings.splats is not None:
        offered.append("splats")
    if settings is not None and settings.worldmirror is not None:
        offered.append("worldmirror_results")
    return tuple(offered)


@dataclass(frozen=True)
class ReconstructorService:
    """The caller's side, for an event loop.

    Attributes:
        handle: Serve's handle of the deployment.
        timeout_s: longest time of one output, the wait for a replica included.
        beat_timeout_s: running work that is silent for this long is lost.
        max_attempts: how often an output is asked for when replicas die.
        retry_delay_s: doubles with each attempt.
    """

    handle: Any
    timeout_s: float = 7200.0
    beat_timeout_s: float = 60.0
    max_attempts: int = 3
    retry_delay_s: float = 1.0

    @classmethod
    def of(cls, handle: Any, settings: ReconstructorSettings) -> ReconstructorService:
        """The service behind a handle, with the deadline and retries of these settings."""
        return cls(
            handle=handle,
            timeout_s=settings.timeout_s,
            beat_timeout_s=settings.beat_timeout_s,
            max_attempts=settings.max_attempts,
            retry_delay_s=settings.retry_delay_s,
        )

    async def make(
        self,
        folder: Path,
        output: GpuOutput,
        on_stage: OnStage = lambda stage, step, steps: None,
        *,
        job_id: str | None = None,
    ) -> None:
        """Have one output of a scene made; cancelling this stops the work.

        Args:
            folder: the scene's result folder, which the replica's machine must see.
            output: what to make; the outputs of ``NEEDS`` must be there.
            on_stage: is told what is done, with step and steps; first ``wait``, until a replica
                has taken it.
            job_id: what the replica's logs call it; default: a new one.

        Raises:
            ReconstructorLost: the replica died at each attempt.
            GenerationError: it failed, or was not done by the deadline.
            WorldStereoError: as ``Reconstructor.make``.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._attempts(str(folder), output, on_stage, job_id or uuid.uuid4().hex)
        except TimeoutError as error:
            raise GenerationError(
                f"not done within {self.timeout_s:g} s",
                where=f"output {output}",
                fix="raise timeout_s of the reconstructor settings if it is honestly that slow, "
                "or its GPUs come free that late",
            ) from error

    async def _attempts(
        self, folder: str, output: GpuOutput, on_stage: OnStage, job_id: str
    ) -> None:
        for attempt in range(1, self.max_attempts + 1):
            on_stage("wait", 0, 0)
            lost = await self._attempt(folder, output, on_stage, job_id)
            if lost is None:
                return
            logger.warning("%s, %s, attempt %d: %s", job_id, output, attempt, lost)
            if attempt < self.max_attempts:
                # The process that said it is lost has ended by then.
                await asyncio.sleep(_LAST_WORD_S + self.retry_delay_s * 2 ** (attempt - 1))
        raise ReconstructorLost(
            f"the replica died at each of {self.max_attempts} attempts",
            where=f"output {output}",
            got=lost,
        )

    async def _attempt(
        self, folder: str, output: GpuOutput, on_stage: OnStage, job_id: str
    ) -> str | None:
        """One attempt; returns why its replica was lost."""
        stream = self.handle.options(stream=True).make.remote(folder, output, job_id)
        signs, started = aiter(stream), False
        try:
            while True:
                waiting = asyncio.ensure_future(anext(signs))
                try:
                    done, _ = await asyncio.wait(
                        {waiting}, timeout=self.beat_timeout_s if started else None
                    )
                finally:
                    waiting.cancel()
                if not done:
                    return f"no sign of it for {self.beat_timeout_s:g} s"
                on_stage(*waiting.result())
                started = True
        except StopAsyncIteration:
            return None
        except Exception as error:
            cause = cause_of(error)
            if isinstance(cause, ReconstructorLost) or process_is_gone(error):
                return first_line(cause)
            if isinstance(cause, WorldStereoError):
                raise cause from None
            raise
        finally:
            stream.cancel()


def _reason(error: Exception, output: GpuOutput) -> WorldStereoError:
    if isinstance(error, WorldStereoError):
        return error
    logger.error("no %s", output, exc_info=error)
    where, text = f"output {output}", f"{type(error).__name__}: {first_line(error)}"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return GenerationError(
            "the GPU's memory does not suffice",
            where=where,
            got=text,
            fix="lower max_gaussians and max_initial_points of the splats",
        )
    if torch is not None and isinstance(error, torch.AcceleratorError):
        return ReconstructorLost("the device failed", where=where, got=text)
    return GenerationError("the output could not be made", where=where, got=text)


def _free_device_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
