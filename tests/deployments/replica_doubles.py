"""Doubles around a generator replica: a memory bank, a worker group, and who asks for a clip."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from ray.exceptions import ActorDiedError

from actors.messages import (
    Advanced,
    Beat,
    ClipReport,
    ClipRequest,
    Message,
    Preparation,
    WorkerLost,
)
from deployments.generator import Deadlines, Generator
from worldstereo.errors import GenerationCancelled

DEADLINES = Deadlines(
    beat_interval_s=0.05, beat_timeout_s=0.2, retrieve_s=0.3, step_s=0.4, commit_s=0.3
)
SIGNS = [Advanced("encode"), Advanced("denoise", 1, 1), Advanced("decode")]


class Method:
    """A remote method: ``remote`` starts the coroutine."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def options(self, **options: Any) -> "Method":
        return self

    def remote(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class Bank:
    """The actor handle of a memory bank that answers after ``delay_s``."""

    def __init__(
        self,
        *,
        prepared: Exception | Preparation | None = None,
        committed: Exception | bool = True,
        wanted: bool = True,
        delay_s: float = 0.0,
    ) -> None:
        self.frames: list[Any] = []
        self._delay_s = delay_s
        preparation = prepared or Preparation(committed=False)
        self.prepare = Method(lambda trajectory_id, attempt_id: ("clip", self._answer(preparation)))
        self.commit = Method(lambda *arguments: self._commit(committed, *arguments))
        self.wanted = Method(lambda epoch: self._answer(wanted))

    async def _answer(self, answer: Any) -> Any:
        await asyncio.sleep(self._delay_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _commit(
        self, answer: Any, trajectory_id: str, frames: Any, generation: Any, attempt_id: str
    ) -> Any:
        self.frames.append((trajectory_id, frames, generation))
        return self._answer(answer)


class Execution:
    """A clip that runs: what the workers' reports come to."""

    frames = "frames"

    def __init__(self, work: Coroutine[Any, Any, ClipReport]) -> None:
        self._work = asyncio.ensure_future(work)

    async def report(self, *, grace_s: float, answer_s: float) -> ClipReport:
        assert (grace_s, answer_s) == (DEADLINES.grace_s, DEADLINES.beat_timeout_s)
        return await self._work


class Group:
    """A worker group that shows ``signs``, one each ``step_s``, and ends with ``outcome``.

    ``error`` is what becomes of looking after the workers.
    """

    def __init__(
        self,
        signs: list[Advanced],
        outcome: Exception | ClipReport | None = None,
        *,
        step_s: float = 0.0,
        answers: bool = True,
        hangs: bool = False,
        error: WorkerLost | None = None,
    ) -> None:
        self.cancelled: list[str] = []
        self.executed: list[str] = []
        self.leader = SimpleNamespace(actor="leader")
        self.size = 1
        self.ended = False
        self._error = error
        self._signs = signs
        self._outcome = outcome or ClipReport({"denoise": 1.0})
        self._step_s = step_s
        self._answers = answers
        self._hangs = hangs
        self._running: str | None = None
        self._shown: list[Advanced] = []

    def execute(
        self, attempt_id: str, clip: Any, steps: Any, scale: Any, scene_id: str
    ) -> Execution:
        assert clip == "clip"
        if self.ended:
            raise WorkerLost("its workers ended before its turn")
        assert self._running is None, "the workers have another clip"
        self.executed.append(attempt_id)
        self._running, self._shown = attempt_id, []
        return Execution(self._work(attempt_id))

    async def _work(self, attempt_id: str) -> ClipReport:
        try:
            return await self._run(attempt_id)
        finally:
            self._running = None

    async def _run(self, attempt_id: str) -> ClipReport:
        for sign in self._signs:
            await asyncio.sleep(self._step_s)
            if attempt_id in self.cancelled:
                raise GenerationCancelled("stopped")
            self._shown.append(sign)
        while self._hangs:
            await asyncio.sleep(0.01)
            if attempt_id in self.cancelled:
                raise GenerationCancelled("stopped")
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    async def progress(self, attempt_id: str, after: int, wait_s: float) -> list[Advanced]:
        if not self._answers:
            await asyncio.sleep(3600)
        if isinstance(self._outcome, ActorDiedError) and len(self._shown) == len(self._signs):
            raise self._outcome
        if len(self._shown) <= after:
            await asyncio.sleep(min(wait_s, 0.01))
        return self._shown[after:]

    def cancel(self, attempt_id: str) -> None:
        self.cancelled.append(attempt_id)

    async def is_cancelled(self, attempt_id: str) -> bool:
        return attempt_id in self.cancelled

    async def check(self, limit_s: float) -> None:
        if self._error is not None:
            raise self._error

    def shutdown(self) -> None:
        self.ended = True


def replica_of(group: Group) -> Generator:
    replica = object.__new__(Generator)
    replica._group, replica._deadlines, replica._ending = group, DEADLINES, False  # type: ignore[assignment]
    replica._turn = asyncio.Lock()
    return replica


def request_of(bank: Bank, attempt_id: str = "attempt") -> ClipRequest:
    return ClipRequest(attempt_id, "epoch", "renders/a", bank, num_inference_steps=1)


class Caller:
    """Who asks a replica for a clip, and what it has heard so far."""

    def __init__(self, replica: Generator, bank: Bank, attempt_id: str) -> None:
        self.said: list[tuple[float, Message]] = []
        self._messages = replica.generate(request_of(bank, attempt_id))
        self.task = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        async for message in self._messages:
            self.said.append((asyncio.get_running_loop().time(), message))

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.said if message != Beat()]

    async def until(self, message: Message) -> None:
        async with asyncio.timeout(5):
            while message not in self.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
