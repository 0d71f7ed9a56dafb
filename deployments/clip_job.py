"""One clip until it is committed, has failed, or is cancelled: attempts, deadlines, cancellation.

Owns what happens between the orchestrator and a generator replica about one trajectory, and what
of it is told to the store. When a clip may start, and where its replica runs, are others'.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from worldstereo_client.schemas import SceneRequest, TrajectoryStatus

from actors.failures import first_line
from actors.messages import (
    Advanced,
    ClipRequest,
    Committed,
    Failed,
    Message,
    Paused,
    Started,
    Stopped,
    WorkerLost,
)
from actors.model_worker import Worker
from configs.settings import OrchestratorSettings
from deployments.fair_slots import FairSlots
from deployments.http_errors import problem_of
from deployments.outage import patiently
from deployments.store import Store
from worldstereo.errors import GenerationError, WorldStereoError

# A clip that no replica took for this long is offered again, in case the offer was lost.
OFFER_AGAIN_S = 600.0

# A running clip without news is told of again when the last time is this long ago, so that
# whoever watches hears of it at least every 5 s.
TELL_AGAIN_S = 2.5

# How often in a row that may happen before it counts as an attempt.
_MAX_REFUSALS = 8

Outcome = Literal["committed", "failed", "cancelled"]
Last = Committed | Failed | Stopped
T = TypeVar("T")


class Stream(Protocol):
    """The messages of one attempt, as a generator replica sends them."""

    def __aiter__(self) -> AsyncIterator[Message]:
        """The messages, in order."""
        ...

    def cancel(self) -> None:
        """Give the attempt up, whether a replica has taken it or not."""
        ...


@dataclass(frozen=True)
class ClipContext:
    """What all clips of a scene share.

    Attributes:
        scene_id: of the scene.
        request: its parameters.
        owner: who sent it, among whom turns are shared.
        priority: of the scene.
        bank: actor handle of its memory.
        epoch: of this orchestrator.
        store: where everything is told, as the holder of the scene's lease.
        slots: for clips in flight.
        settings: limits and deadlines.
        dispatch: offers an attempt to the generator's replicas.
    """

    scene_id: str
    request: SceneRequest
    owner: str
    priority: int
    bank: Any
    epoch: str
    store: Store
    slots: FairSlots
    settings: OrchestratorSettings
    dispatch: Callable[[ClipRequest], Stream]


class _Cancelled(Exception):
    """Cancellation was asked for while no replica had the clip."""


class ClipJob:
    """Brings one trajectory, which is queued in the store, to an end.

    Args:
        context: of its scene.
        trajectory_id: what to generate.
        urgency: the highest goes first among the scene's waiting clips.
    """

    def __init__(self, context: ClipContext, trajectory_id: str, urgency: int) -> None:
        self._context = context
        self._trajectory_id = trajectory_id
        self._urgency = urgency
        self._cancelled = asyncio.Event()
        self._number = -1  # of the last attempt; the store knows of earlier ones
        self._refusals = 0  # offers in a row that ended before a replica took the clip
        self._reasons: list[str] = []  # why attempts were lost with their replica
        self._last_sign = Advanced("retrieve")
        self._waits_for: WorldStereoError | None = None
        self._told_at = 0.0

    def cancel(self) -> None:
        """Stop at the next denoising step; ``run`` ends when the replica says it has stopped."""
        self._cancelled.set()

    async def run(self) -> Outcome:
        """Try until the clip is committed, has failed for good, or is cancelled."""
        try:
            return await self._attempts()
        except _Cancelled:
            await self._advance(TrajectoryStatus.CANCELLED)
            return "cancelled"

    async def _attempts(self) -> Outcome:
        settings = self._context.settings
        while True:
            last = await self._in_turn()
            if last is None:
                continue
            self._number += 1
            if isinstance(last, Committed):
                await self._advance(
                    TrajectoryStatus.COMPLETED, stage_seconds=dict(last.stage_seconds)
                )
                return "committed"
            if isinstance(last, Stopped):
                if self._cancelled.is_set():
                    raise _Cancelled
                last = Failed(WorkerLost("its replica stopped it unasked"), retry=True)
            if not last.retry:
                await self._advance(TrajectoryStatus.FAILED, last.error)
                return "failed"
            self._reasons.append(str(last.error))
            if len(self._reasons) >= settings.max_attempts:
                await self._advance(
                    TrajectoryStatus.FAILED, _poison(self._trajectory_id, self._reasons)
                )
                return "failed"
            await self._back_to_the_queue(last.error)
            delay_s = settings.retry_delay_s * 2 ** (len(self._reasons) - 1)
            await self._unless_cancelled(asyncio.sleep(delay_s))

    async def _in_turn(self) -> Last | None:
        """One attempt, when a slot is free; None when no replica took it."""
        slots, scene_id = self._context.slots, self._context.scene_id
        await self._unless_cancelled(
            slots.acquire(
                scene_id,
                self._urgency,
                group=self._context.owner,
                priority=self._context.priority,
            )
        )
        try:
            if self._number < 0:
                await self._read_history()
            return await self._attempt(self._number + 1, uuid.uuid4().hex)
        finally:
            slots.release(scene_id)

    async def _read_history(self) -> None:
        """Go on from the attempts that an earlier orchestrator made."""
        store = self._context.store
        past = await patiently(store.attempts, self._context.scene_id, self._trajectory_id)
        self._number = max((number for number, _, _ in past), default=0)
        self._reasons = [reason for _, outcome, reason in past if outcome == "lost"]

    async def _attempt(self, number: int, attempt_id: str) -> Last | None:
        context = self._context
        stream = context.dispatch(
            ClipRequest(
                attempt_id=attempt_id,
                epoch=context.epoch,
                trajectory_id=self._trajectory_id,
                bank=context.bank,
                num_inference_steps=context.request.num_inference_steps,
                guidance_scale=context.request.guidance_scale,
            )
        )
        inbox = _Inbox(stream, self._cancelled)
        last: Last | None = None
        try:
            last = await self._follow(inbox, number, attempt_id)
        finally:
            inbox.close()
            if last is None:  # nobody waits for it any more
                stream.cancel()
        if inbox.worker is not None and last is not None:
            await self._end_attempt(attempt_id, last)
        return last

    async def _follow(self, inbox: _Inbox, number: int, attempt_id: str) -> Last | None:
        """Tell the store what the replica says, until its last word."""
        store, scene_id = self._context.store, self._context.scene_id
        silence_s = self._context.settings.beat_timeout_s
        while True:
            started = inbox.worker is not None
            try:
                message = await inbox.next(silence_s if started else OFFER_AGAIN_S, attempt_id)
            except TimeoutError:
                if not started:
                    return None
                inbox.stream.cancel()
                silent = WorkerLost(f"no sign of the clip for {silence_s:g} s", where="its replica")
                return Failed(silent, retry=True)
            if isinstance(message, Failed) and not started:
                return await self._refused(message)
            if isinstance(message, Started):
                self._refusals = 0
                await patiently(
                    store.start_attempt, scene_id, self._trajectory_id, attempt_id, number
                )
            elif isinstance(message, Advanced):
                self._waits_for = None
                await self._tell(message)
            elif isinstance(message, Paused):
                self._waits_for = message.error
                await self._tell(self._last_sign)
            elif isinstance(message, Last):
                return message
            elif _now() - self._told_at > TELL_AGAIN_S:
                await self._tell(self._last_sign)

    async def _refused(self, failure: Failed) -> Failed | None:
        """A replica that ended before it took the clip: not the clip's fault, up to a point."""
        self._refusals += 1
        if self._refusals > _MAX_REFUSALS:
            return failure
        delay_s = self._context.settings.retry_delay_s * 2 ** min(self._refusals, 6)
        await self._unless_cancelled(asyncio.sleep(delay_s))
        return None

    async def _tell(self, sign: Advanced) -> None:
        self._last_sign, self._told_at = sign, _now()
        waits_for = self._waits_for
        await patiently(
            self._context.store.record_progress,
            self._context.scene_id,
            self._trajectory_id,
            sign.stage,
            sign.step,
            sign.steps,
            None if waits_for is None else problem_of(waits_for, self._trajectory_id),
        )

    async def _end_attempt(self, attempt_id: str, last: Last) -> None:
        if isinstance(last, Failed):
            outcome, reason = "lost" if last.retry else "failed", str(last.error)
        else:
            outcome, reason = "committed" if isinstance(last, Committed) else "cancelled", None
        await patiently(self._context.store.end_attempt, attempt_id, outcome, reason)

    async def _back_to_the_queue(self, error: WorldStereoError) -> None:
        record = await patiently(self._context.store.scene, self._context.scene_id)
        now = {item.id: item.status for item in record.trajectories}[self._trajectory_id]
        if now is TrajectoryStatus.IN_PROGRESS:
            await self._advance(TrajectoryStatus.QUEUED, error)

    async def _advance(
        self,
        to: TrajectoryStatus,
        error: WorldStereoError | None = None,
        stage_seconds: dict[str, float] | None = None,
    ) -> None:
        problem = problem_of(error, self._trajectory_id) if error is not None else None
        await patiently(
            self._context.store.advance_trajectory,
            self._context.scene_id,
            self._trajectory_id,
            to,
            problem,
            stage_seconds,
        )

    async def _unless_cancelled(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait({task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _Cancelled
        finally:
            cancelled.cancel()
            task.cancel()


class _Inbox:
    """One attempt's messages, and the way to stop it.

    ``worker`` is None until a replica has taken the clip.
    """

    def __init__(self, stream: Stream, cancelled: asyncio.Event) -> None:
        self.worker: Worker | None = None
        self.stream = stream
        self._messages = aiter(stream)
        self._pending: asyncio.Future[Message] | None = None
        self._cancelled = asyncio.ensure_future(cancelled.wait())
        self._stopping = False

    async def next(self, silence_s: float, attempt_id: str) -> Message:
        """The next message; a replica that died, or was never heard, gives ``Failed``.

        Raises:
            TimeoutError: there was none for ``silence_s`` seconds.
        """
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._read())
        waiting: set[asyncio.Future[Any]] = {self._pending}
        if not self._stopping:
            waiting.add(self._cancelled)
        done, _ = await asyncio.wait(
            waiting, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED
        )
        if self._pending in done:
            message, self._pending = self._pending.result(), None
            if isinstance(message, Started):
                self.worker = Worker(message.worker)
            return message
        if not done:
            raise TimeoutError
        self._stopping = True
        if self.worker is None:
            self.stream.cancel()
            return Stopped()
        self.worker.cancel(attempt_id)
        return await self.next(silence_s, attempt_id)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._cancelled.cancel()
        if self._pending is not None:
            self._pending.cancel()

    async def _read(self) -> Message:
        try:
            return await anext(self._messages)
        except StopAsyncIteration:
            return Failed(WorkerLost("its replica stopped without a last word"), retry=True)
        except Exception as error:  # noqa: BLE001 - whatever ends the stream, the clip is lost
            return Failed(WorkerLost("its replica failed", got=first_line(error)), retry=True)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _poison(trajectory_id: str, reasons: list[str]) -> GenerationError:
    return GenerationError(
        f"given up after {len(reasons)} attempts",
        where=trajectory_id,
        got="; ".join(f"{number}: {reason}" for number, reason in enumerate(reasons, 1)),
    )
