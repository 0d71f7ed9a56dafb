"""Depth as a service: replicas that hold an estimator, and the ``DepthSource`` that asks them.

Owns loading, batching and replacing replicas (``DepthEstimator``), their deployment
(``depth_deployment``), and the caller's side with its deadline and retries (``DepthService``).
What a map is and how it is estimated is worldstereo.depth's. Importing it loads no torch.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve import Application

from actors.failures import cause_of, first_line, process_is_gone
from configs.settings import DepthSettings
from worldstereo.depth.estimators import load_estimator
from worldstereo.depth.protocol import DepthMap, DepthSource
from worldstereo.errors import GenerationError, WorldStereoError
from worldstereo.types import UInt8

logger = logging.getLogger(__name__)

DEPTH_NAME = "depth"

# Time for the last word to leave the process before it ends.
_LAST_WORD_S = 0.3

_Outcome = DepthMap | WorldStereoError


class DepthLost(WorldStereoError):
    """The depth estimator did not answer in time, or its process died each time it was asked."""


class DepthEstimator:
    """The deployment. A replica loads its network once and works on one batch at a time.

    Args:
        settings: the estimator, its device, the batches and deadlines.
        local_files_only: never ask the Hub for weights.

    Raises:
        WorldStereoError: the network cannot be loaded, and replicas are there from the start, so
            that the application must not start. Where they come with the first image, that
            image is answered with the reason instead.
    """

    def __init__(self, settings: DepthSettings, local_files_only: bool = False) -> None:
        self._settings = settings
        self._source: DepthSource | None = None
        self._failure: WorldStereoError | None = None
        self._busy_since: float | None = None
        self._ending = False
        # A queue of its own: serve.batch on the method would share one between all instances.
        self._queue: Callable[[UInt8], Awaitable[_Outcome]] = serve.batch(
            max_batch_size=settings.max_batch_size, batch_wait_timeout_s=settings.batch_wait_s
        )(self._batch)
        try:
            self._source = load_estimator(
                settings.estimator,
                source=settings.source,
                device=settings.device,
                local_files_only=local_files_only,
            )
        except WorldStereoError as error:
            if settings.autoscaling.min_replicas > 0:
                raise
            self._failure = error

    async def depth_of(self, image: UInt8) -> DepthMap:
        """Depth of one image; images that come at the same time are worked on together.

        Args:
            image: [H, W, 3] uint8 RGB.

        Raises:
            MediaError: there is no usable depth for this image.
            GenerationError: the network failed on this image; the replica goes on.
            DepthLost: the device failed; the replica ends, and another one may be asked.
            WorldStereoError: the network could not be loaded; the replica ends, and the next
                one tries again.
        """
        if self._ending and self._failure is None:
            await asyncio.sleep(self._settings.timeout_s)  # until this process has ended
        if self._failure is not None:
            self._give_way(str(self._failure))
            raise self._failure
        outcome = await self._queue(image)
        if isinstance(outcome, DepthLost):
            self._give_way(str(outcome))
        if isinstance(outcome, WorldStereoError):
            raise outcome
        return outcome

    async def check_health(self) -> None:
        """Called by Serve; ends the process when a batch takes too long."""
        spent = 0.0 if self._busy_since is None else time.monotonic() - self._busy_since
        if spent > self._settings.batch_timeout_s:
            lost = DepthLost(f"a batch takes longer than {self._settings.batch_timeout_s:g} s")
            self._give_way(str(lost))
            raise lost

    async def _batch(self, images: list[UInt8]) -> list[_Outcome]:
        self._busy_since = time.monotonic()
        try:
            return await asyncio.to_thread(self._outcomes, images)
        finally:
            self._busy_since = None

    def _outcomes(self, images: list[UInt8]) -> list[_Outcome]:
        """A map or the reason why there is none, for each image."""
        assert self._source is not None
        if self._settings.torch_threads is not None:
            import torch

            # Sums are split over threads, so their rounding depends on the count.
            torch.set_num_threads(self._settings.torch_threads)
        try:
            return list(self._source.depths_of(images))
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told
            if len(images) > 1 and not _device_is_lost(error):
                # One caller's image must not fail another's.
                return [outcome for image in images for outcome in self._outcomes([image])]
            return [_reason(error)] * len(images)
        finally:
            self._free_device_memory()

    def _free_device_memory(self) -> None:
        # Others may have a share of this GPU.
        if self._settings.device == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _give_way(self, reason: str) -> None:
        """End this process in a moment: Serve brings up another where one is needed."""
        if not self._ending:
            self._ending = True
            logger.error("replica ends: %s", reason)
            asyncio.get_running_loop().call_later(_LAST_WORD_S, os._exit, 1)


def depth_deployment(settings: DepthSettings, *, local_files_only: bool = False) -> Application:
    """The deployment of ``DepthEstimator``, bound: to be bound into whoever asks it.

    Args:
        settings: all there is to choose.
        local_files_only: never ask the Hub for weights.

    Returns:
        The application; where it is bound, a handle for ``DepthService`` arrives.
    """
    application: Application = (
        serve.deployment(DepthEstimator)
        .options(
            name=DEPTH_NAME,
            # One batch runs while the next one gathers.
            max_ongoing_requests=2 * settings.max_batch_size,
            ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
            health_check_period_s=settings.health_check_period_s,
            graceful_shutdown_timeout_s=settings.graceful_shutdown_timeout_s,
            autoscaling_config=settings.autoscaling.for_serve(settings.max_batch_size),
        )
        .bind(settings, local_files_only)
    )
    return application


@dataclass(frozen=True)
class DepthService:
    """The ``DepthSource`` that asks the deployment. It can be pickled and sent to an actor.

    It blocks: call it from a thread of its own where an event loop runs.

    Attributes:
        handle: Serve's handle of the deployment.
        timeout_s: longest time for all images of one call, a replica's start included.
        max_attempts: how often an image is asked for when replicas die.
    """

    handle: Any
    timeout_s: float = 900.0
    max_attempts: int = 3

    @classmethod
    def of(cls, handle: Any, settings: DepthSettings) -> DepthService:
        """The service behind a handle, with the deadline and retries of these settings."""
        return cls(handle, settings.timeout_s, settings.max_attempts)

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        """Depth of images, asked for all at once so that replicas get them in batches.

        Args:
            images: each [H, W, 3] uint8 RGB.

        Returns:
            One map an image, in their order.

        Raises:
            MediaError: there is no usable depth for one of the images.
            GenerationError: the network failed on one of them.
            CheckpointError, MissingDependencyError: the network cannot be loaded.
            DepthLost: no answer by the deadline, or the replica died at each attempt.
        """
        deadline = time.monotonic() + self.timeout_s
        responses = [self.handle.depth_of.remote(image) for image in images]
        try:
            for index, image in enumerate(images):
                responses[index] = self._answered(responses[index], image, deadline)
        except BaseException:
            for response in responses:
                if not isinstance(response, DepthMap):
                    response.cancel()
            raise
        return responses

    def _answered(self, response: Any, image: UInt8, deadline: float) -> DepthMap:
        """The answer to ``response``, or to the first repetition of it that has one."""
        for attempt in range(1, self.max_attempts + 1):
            try:
                answer: DepthMap = response.result(timeout_s=max(deadline - time.monotonic(), 0.0))
                return answer
            except TimeoutError as error:
                response.cancel()
                raise DepthLost(
                    f"no depth within {self.timeout_s:g} s",
                    where=DEPTH_NAME,
                    fix="raise timeout_s of the depth settings if its replicas are honestly that "
                    "slow or start that late",
                ) from error
            except Exception as error:
                cause = cause_of(error)
                if isinstance(cause, DepthLost) or process_is_gone(error):
                    lost = cause
                elif isinstance(cause, WorldStereoError):
                    raise cause from None
                else:
                    raise
            logger.warning("depth, attempt %d: %s", attempt, first_line(lost))
            if attempt < self.max_attempts:
                # The process that said it is lost has ended by then.
                time.sleep(2 * _LAST_WORD_S)
                response = self.handle.depth_of.remote(image)
        raise DepthLost(
            f"the replica died at each of {self.max_attempts} attempts",
            where=DEPTH_NAME,
            got=first_line(lost),
        )


def _device_is_lost(error: Exception) -> bool:
    """Whether the device has failed, so that nothing runs on it again in this process."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.AcceleratorError)


def _reason(error: Exception) -> WorldStereoError:
    if isinstance(error, WorldStereoError):
        return error
    logger.error("no depth", exc_info=error)
    text = f"{type(error).__name__}: {first_line(error)}"
    if _device_is_lost(error):
        return DepthLost("the device failed", where=DEPTH_NAME, got=text)
    return GenerationError("the depth could not be estimated", where=DEPTH_NAME, got=text)
