"""A clip on a generator replica, step by step, with doubles of its workers and memory bank."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.messages import (
    Advanced,
    Beat,
    Committed,
    Failed,
    MemoryBankLost,
    Message,
    Preparation,
    Started,
    Stopped,
    WorkerLost,
)
from actors.outcomes import OutOfStep
from deployments import generator
from deployments.generator import _ClipRun
from tests.deployments.replica_doubles import (
    DEADLINES,
    SIGNS,
    Bank,
    Group,
    replica_of,
    request_of,
)
from worldstereo.errors import GenerationError, MediaError

pytestmark = pytest.mark.virtual_time


def run_of(bank: Bank, group: Any) -> _ClipRun:
    return _ClipRun(request_of(bank), group, asyncio.Lock(), DEADLINES)


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
        (lambda: Group(SIGNS, WorkerLost("rank 1 died")), "rank 1 died"),
        (lambda: Group(SIGNS, hangs=True, error=WorkerLost("rank 1 is silent")), "1 is silent"),
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
    said = [message async for message in replica_of(Group(SIGNS)).generate(request_of(Bank()))]
    assert said[0] == Started("leader")
    assert isinstance(said[-1], Committed)


async def test_a_replica_whose_worker_died_meanwhile_takes_no_clip(exits: list[int]) -> None:
    group = Group(SIGNS, error=WorkerLost("gone"))
    (only,) = [message async for message in replica_of(group).generate(request_of(Bank()))]
    assert isinstance(only, Failed)
    assert only.retry
    await asyncio.sleep(1)
    assert group.ended
    assert exits == [1]


async def test_a_replica_whose_worker_is_silent_ends_when_serve_asks(exits: list[int]) -> None:
    group = Group(SIGNS, error=WorkerLost("rank 1 is silent"))
    with pytest.raises(WorkerLost):
        await replica_of(group).check_health()
    await asyncio.sleep(1)
    assert group.ended
    assert exits == [1]


def test_ranks_on_the_coordinators_node_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {0: "b", 1: "a", 2: "b", 3: "a", 4: "b"}
    monkeypatch.setattr(
        generator, "placement_group_table", lambda group: {"bundles_to_node_id": nodes}
    )
    assert generator._bundles_of_ranks("the group") == [2, 4, 1, 3]  # type: ignore[arg-type]
    assert generator._bundles_of_ranks(None) is None


@pytest.mark.parametrize(
    ("outcome", "retry", "ends"),
    [
        (WorkerLost("rank 1 died"), True, True),
        (OutOfStep(GenerationError("out of memory")), False, True),
        (GenerationError("out of memory"), False, False),
    ],
)
async def test_workers_that_cannot_go_on_end_the_replica(
    outcome: Exception, retry: bool, ends: bool, exits: list[int]
) -> None:
    group = Group(SIGNS, outcome)
    replica = replica_of(group)
    said = [message async for message in replica.generate(request_of(Bank()))]
    last = said[-1]
    assert isinstance(last, Failed)
    assert last.retry == retry
    assert last.error.what in str(outcome)
    await asyncio.sleep(1)
    assert (group.ended, exits) == ((True, [1]) if ends else (False, []))


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
