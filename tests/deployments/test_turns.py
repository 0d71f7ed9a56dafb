"""Two clips at one replica: one has the workers, the other is prepared, waits or is committed."""

import asyncio
from itertools import pairwise

import pytest

from actors.messages import Advanced, Beat, Committed, Failed, Started, Stopped, WorkerLost
from tests.deployments.replica_doubles import DEADLINES, SIGNS, Bank, Caller, Group, replica_of

pytestmark = pytest.mark.virtual_time


async def test_while_one_clip_runs_another_is_prepared() -> None:
    group = Group(SIGNS, step_s=0.1)
    replica = replica_of(group)
    slow, quick = Caller(replica, Bank(delay_s=0.2), "slow"), Caller(replica, Bank(), "quick")
    await asyncio.gather(slow.task, quick.task)
    # Who is prepared first has the first turn.
    assert group.executed == ["quick", "slow"]
    for caller in (slow, quick):
        assert caller.messages[0] == Started("leader")
        assert isinstance(caller.messages[-1], Committed)
    # Prepared within 0.2 s of the 0.3 s that the other took, and begun when that one had ended.
    begun = next(at for at, message in slow.said if message == SIGNS[0])
    assert begun == pytest.approx(quick.said[-1][0] + 0.1, abs=0.05)


async def test_a_commit_leaves_the_workers_to_the_next_clip() -> None:
    group = Group(SIGNS, step_s=0.1)
    replica = replica_of(group)
    first = Caller(replica, Bank(delay_s=0.25), "one")
    await first.until(SIGNS[0])
    second = Caller(replica, Bank(), "two")
    await asyncio.gather(first.task, second.task)
    committing = next(at for at, message in first.said if message == Advanced("commit"))
    started = next(at for at, message in second.said if message == SIGNS[0])
    assert committing < started < first.said[-1][0]


async def test_a_clip_that_waits_for_its_turn_beats() -> None:
    group = Group(SIGNS, step_s=0.3)
    replica = replica_of(group)
    first = Caller(replica, Bank(), "one")
    await first.until(Advanced("retrieve"))
    second = Caller(replica, Bank(), "two")
    await asyncio.gather(first.task, second.task)
    waited = [said for said in second.said if said[0] <= first.said[-1][0]]
    assert waited[-1][0] - waited[0][0] > 0.5
    assert {message for _, message in waited[2:]} == {Beat()}
    gaps = [b - a for (a, _), (b, _) in pairwise(waited)]
    assert max(gaps) < 2 * DEADLINES.beat_interval_s
    assert group.executed == ["one", "two"]
    assert group.cancelled == []


@pytest.mark.parametrize("how", ["superseded", "cancelled", "given up"])
async def test_a_clip_that_waits_is_stopped_and_the_running_one_is_not(how: str) -> None:
    group = Group(SIGNS, step_s=0.3)
    replica = replica_of(group)
    first = Caller(replica, Bank(), "one")
    await first.until(SIGNS[0])
    second = Caller(replica, Bank(wanted=how != "superseded"), "two")
    await second.until(Advanced("retrieve"))
    if how == "cancelled":
        group.cancel("two")  # as the orchestrator does, at the leader
    if how == "given up":
        second.task.cancel()
    start = asyncio.get_running_loop().time()
    await asyncio.wait({second.task})
    assert asyncio.get_running_loop().time() - start < 3 * DEADLINES.beat_interval_s
    assert not first.task.done()
    if how != "given up":
        assert second.messages[-1] == Stopped()
    await first.task
    assert isinstance(first.messages[-1], Committed)
    assert group.executed == ["one"]
    third = Caller(replica, Bank(), "three")
    await third.task
    assert isinstance(third.messages[-1], Committed)


async def test_a_clip_whose_workers_ended_before_its_turn_is_tried_again(exits: list[int]) -> None:
    group = Group(SIGNS, WorkerLost("rank 1 died"), step_s=0.1)
    replica = replica_of(group)
    first = Caller(replica, Bank(), "one")
    await first.until(SIGNS[0])
    second = Caller(replica, Bank(), "two")
    await asyncio.gather(first.task, second.task)
    for caller in (first, second):
        last = caller.messages[-1]
        assert isinstance(last, Failed)
        assert last.retry
    assert group.executed == ["one"]
    await asyncio.sleep(1)
    assert exits == [1]


async def test_workers_are_free_again_only_when_a_given_up_clip_has_stopped() -> None:
    group = Group(SIGNS, hangs=True)
    replica = replica_of(group)
    first = Caller(replica, Bank(), "one")
    await first.until(SIGNS[-1])
    group._hangs = False  # of the next one
    group._step_s = 0.1
    second = Caller(replica, Bank(), "two")
    first.task.cancel()
    await asyncio.wait({first.task})
    await second.task
    assert isinstance(second.messages[-1], Committed)


async def test_a_given_up_clip_that_does_not_stop_ends_the_replica(
    exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(SIGNS, hangs=True)
    monkeypatch.setattr(group, "cancel", lambda attempt_id: None)
    caller = Caller(replica_of(group), Bank(), "one")
    await caller.until(SIGNS[-1])
    caller.task.cancel()
    await asyncio.wait({caller.task})
    assert group.ended
    await asyncio.sleep(1)
    assert exits == [1]
