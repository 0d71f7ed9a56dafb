"""A clip on a generator replica, step by step, with doubles of its workers and memory bank."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.messages import (
    Advanced,
    Beat,
    ClipReport,
    ClipRequest,
    Committed,
    Failed,
    MemoryBankLost,
    Message,
    Preparation,
    Started,
    Stopped,
    WorkerLost,
)
from actors.worker_group import Execution
from deployments import generator
from deployments.generator import Deadlines, Generator, _ClipRun
from worldstereo.errors import GenerationCancelled, GenerationError, MediaError

pytestmark = pytest.mark.virtual_time

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
        self.prepare = Method(lambda trajectory_id: ("clip", self._answer(preparation)))
        self.commit = Method(lambda *arguments: self._commit(committed, *arguments))
        self.wanted = Method(lambda epoch: self._answer(wanted))

    async def _answer(self, answer: Any) -> Any:
        await asyncio.sleep(self._delay_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _commit(self, answer: Any, trajectory_id: str, frames: Any, generation: Any) -> Any:
        self.frames.append((trajectory_id, frames, generation))
        return self._answer(answer)


class Group:
    """A worker group that shows ``signs``, one each ``step_s``, and ends with ``outcome``."""

    def __init__(
        self,
        signs: list[Advanced],
        outcome: Exception | ClipReport | None = None,
        *,
        step_s: float = 0.0,
        answers: bool = True,
        hangs: bool = False,
    ) -> None:
        self.cancelled: list[str] = []
        self._signs = signs
        self._outcome = outcome or ClipReport({"denoise": 1.0})
        self._step_s = step_s
        self._answers = answers
        self._hangs = hangs
        self._shown: list[Advanced] = []

    def execute(self, attempt_id: str, clip: Any, steps: Any, scale: Any) -> Execution:
        assert clip == "clip"
        return Execution("frames", (asyncio.ensure_future(self._work(attempt_id)),))

    async def _work(self, attempt_id: str) -> ClipReport:
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


class Answering(Group):
    """A worker group that answers a ping, or fails it with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(SIGNS)
        self.leader = SimpleNamespace(actor="leader")
        self.ended = False
        self._error = error

    async def ping(self) -> None:
        if self._error is not None:
            raise self._error

    def shutdown(self) -> None:
        self.ended = True


def replica_of(group: Answering) -> Generator:
    replica = object.__new__(Generator)
    replica._group, replica._deadlines, replica._ending = group, DEADLINES, False  # type: ignore[assignment]
    return replica


def run_of(bank: Bank, group: Any) -> _ClipRun:
    request = ClipRequest("attempt", "epoch", "renders/a", bank, num_inference_steps=1)
    return _ClipRun(request, group, DEADLINES)


async def messages(bank: Bank, group: Any) -> list[Message]:
    run = run_of(bank, group)
    try:
        async with asyncio.timeout(5):
            return [message async for message in run.messages()]
    finally:
        await run.stop()


async def test_a_clip_goes_through_all_stages() -> None:
    bank = Bank()
    said = await messages(bank, Group(SIGNS))
    assert said[:-1] == [Advanced("retrieve"), *SIGNS, Advanced("commit")]
    last = said[-1]
    assert isinstance(last, Committed)
    assert last.first
    assert set(last.stage_seconds) == {"retrieve", "denoise", "commit"}
    generation = {"num_inference_steps": 1, "guidance_scale": None}
    assert bank.frames == [("renders/a", "frames", generation)]


async def test_a_committed_clip_is_not_generated_again() -> None:
    bank = Bank(prepared=Preparation(committed=True))
    said = await messages(bank, None)
    assert said == [Advanced("retrieve"), Committed(first=False)]


async def test_slow_stages_beat() -> None:
    said = await messages(Bank(delay_s=0.2), Group(SIGNS, step_s=0.15))
    assert [message for message in said if message != Beat()] == [
        Advanced("retrieve"),
        *SIGNS,
        Advanced("commit"),
        said[-1],
    ]
    stages = [said.index(Advanced("retrieve")), said.index(Advanced("commit"))]
    for stage in stages:
        assert said[stage + 1 : stage + 3] == [Beat(), Beat()]
    assert said[said.index(SIGNS[0]) + 1] == Beat()


async def test_errors_of_the_clip_are_final() -> None:
    for bank, group in (
        (Bank(prepared=MediaError("broken")), None),
        (Bank(), Group(SIGNS, GenerationError("broken"))),
        (Bank(committed=GenerationError("broken")), Group(SIGNS)),
    ):
        last = (await messages(bank, group))[-1]
        assert isinstance(last, Failed)
        assert (last.error.what, last.retry) == ("broken", False)


async def test_foreign_errors_get_a_name_and_disks_a_second_chance() -> None:
    last = (await messages(Bank(committed=ValueError("odd")), Group(SIGNS)))[-1]
    assert isinstance(last, Failed)
    assert (type(last.error), last.error.got) == (GenerationError, "ValueError: odd")
    assert not last.retry
    last = (await messages(Bank(committed=OSError("no space left")), Group(SIGNS)))[-1]
    assert isinstance(last, Failed)
    assert last.retry


async def test_a_bank_that_is_gone_or_silent_is_tried_again() -> None:
    for bank in (
        Bank(prepared=ActorDiedError()),
        Bank(committed=ActorDiedError()),
        Bank(delay_s=2.0),
    ):
        last = (await messages(bank, Group(SIGNS)))[-1]
        assert isinstance(last, Failed)
        assert isinstance(last.error, MemoryBankLost)
        assert last.retry


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (lambda: Group(SIGNS, ActorDiedError()), "a worker died"),
        (lambda: Group(SIGNS, hangs=True), "no progress for 0.4 s"),
        (lambda: Group(SIGNS, answers=False), "did not answer for 0.25 s"),
    ],
)
async def test_a_lost_worker_ends_the_replica(group: Callable[[], Group], reason: str) -> None:
    with pytest.raises(WorkerLost, match=reason):
        await messages(Bank(), group())


async def test_a_cancelled_clip_says_that_it_stopped() -> None:
    group = Group(SIGNS, hangs=True)
    run = run_of(Bank(), group)
    said = []
    async for message in run.messages():
        said.append(message)
        if message == SIGNS[-1]:
            group.cancel("attempt")
    await run.stop()
    assert said[-1] == Stopped()


async def test_a_clip_of_an_earlier_orchestrator_is_stopped() -> None:
    group = Group(SIGNS, hangs=True)
    assert (await messages(Bank(wanted=False), group))[-1] == Stopped()
    assert group.cancelled == ["attempt"]


async def test_a_replica_takes_a_clip_when_its_workers_answer() -> None:
    request = ClipRequest("attempt", "epoch", "renders/a", Bank(), num_inference_steps=1)
    said = [message async for message in replica_of(Answering()).generate(request)]
    assert said[0] == Started("leader")
    assert isinstance(said[-1], Committed)


@pytest.mark.parametrize("error", [ActorDiedError(), TimeoutError()])
async def test_a_replica_whose_worker_died_meanwhile_takes_no_clip(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(generator.os, "_exit", exits.append)
    group = Answering(error)
    request = ClipRequest("attempt", "epoch", "renders/a", Bank(), num_inference_steps=1)
    (only,) = [message async for message in replica_of(group).generate(request)]
    assert isinstance(only, Failed)
    assert only.retry
    await asyncio.sleep(1)
    assert group.ended
    assert exits == [1]


async def test_when_the_caller_goes_the_workers_stop() -> None:
    group = Group(SIGNS, hangs=True)
    run = run_of(Bank(), group)

    async def consume() -> None:
        try:
            async for _ in run.messages():
                await asyncio.sleep(0)
        finally:
            await run.stop()

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert group.cancelled == ["attempt"]
