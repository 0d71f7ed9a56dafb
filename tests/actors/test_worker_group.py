"""A worker group by itself, with doubles of its workers; real processes are in test_on_ray.py."""

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.messages import ENGINE_FAILED, ClipReport, WorkerLost, WorkerState
from actors.outcomes import OutOfStep
from actors.worker_group import Execution, GroupSpec, WorkerGroup
from tests.actors.engines import TWO_RANKS, spec_of
from worldstereo.errors import GenerationCancelled, GenerationError, ParameterError

pytestmark = pytest.mark.virtual_time

GRACE_S, ANSWER_S = 3.0, 10.0
REPORT = ClipReport({"denoise": 1.0})
NO_MEMORY = GenerationError("the device ran out of memory")
BROKE = GenerationError(ENGINE_FAILED, got="ZeroDivisionError")
NEVER = 1e6


class Rank:
    """A worker whose clip ends after ``after_s`` seconds.

    ``answers`` and ``meets``: whether it answers a ping, and finds the others after a failure.
    """

    def __init__(
        self,
        outcome: ClipReport | Exception = REPORT,
        after_s: float = 0.0,
        *,
        answers: bool = True,
        meets: bool = True,
    ) -> None:
        self._outcome = outcome
        self._after_s = after_s
        self._answers = answers
        self._meets = meets

    async def report(self) -> ClipReport:
        await asyncio.sleep(self._after_s)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    async def frames(self) -> str:
        await self.report()
        return "frames"

    async def ping(self) -> WorkerState:
        if isinstance(self._outcome, ActorDiedError):
            raise self._outcome
        await asyncio.sleep(0 if self._answers else NEVER)
        return WorkerState(1, None, 0)

    async def meet(self) -> None:
        await asyncio.sleep(0 if self._meets else NEVER)


async def report_of(*ranks: Any) -> ClipReport:
    def answer(rank: Rank) -> tuple[Awaitable[str], Awaitable[ClipReport]]:
        return asyncio.ensure_future(rank.frames()), asyncio.ensure_future(rank.report())

    async with asyncio.timeout(1000):
        execution = Execution(ranks, [answer(rank) for rank in ranks])
        return await execution.report(grace_s=GRACE_S, answer_s=ANSWER_S)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_the_report_is_there_when_the_last_rank_has_finished() -> None:
    assert await report_of(Rank(after_s=1), Rank(after_s=50)) is REPORT
    assert now() == pytest.approx(50)


async def test_a_peer_that_complains_first_is_not_the_one_to_blame() -> None:
    closed = GenerationError(ENGINE_FAILED, got="RuntimeError: Connection closed by peer")
    with pytest.raises(WorkerLost, match="rank 1: a worker died"):
        await report_of(Rank(closed), Rank(ActorDiedError(), after_s=1))
    assert now() == pytest.approx(1)


async def test_a_failure_is_judged_after_a_grace_at_the_latest() -> None:
    with pytest.raises(OutOfStep) as broken:
        await report_of(Rank(NO_MEMORY), Rank(after_s=NEVER))
    assert broken.value.error is NO_MEMORY
    with pytest.raises(WorkerLost, match="rank 1: still at work"):
        await report_of(Rank(BROKE), Rank(after_s=NEVER))
    assert now() == pytest.approx(2 * GRACE_S)


async def test_a_rank_that_does_not_answer_after_a_failure_is_gone() -> None:
    with pytest.raises(WorkerLost, match="rank 0: a worker died; got no answer for 10 s"):
        await report_of(Rank(after_s=NEVER, answers=False), Rank(NO_MEMORY))
    assert now() == pytest.approx(GRACE_S + ANSWER_S)


@pytest.mark.parametrize("failure", [NO_MEMORY, BROKE, GenerationCancelled("stopped")])
async def test_ranks_that_failed_alike_and_meet_go_on(failure: Exception) -> None:
    with pytest.raises(type(failure)) as error:
        await report_of(Rank(failure), Rank(failure, after_s=1))
    assert error.value is failure


async def test_ranks_that_failed_alike_but_do_not_meet_are_out_of_step() -> None:
    with pytest.raises(WorkerLost, match="out of step"):
        await report_of(Rank(BROKE), Rank(BROKE, meets=False))
    with pytest.raises(OutOfStep) as broken:
        await report_of(Rank(NO_MEMORY), Rank(NO_MEMORY, meets=False))
    assert broken.value.error is NO_MEMORY


async def test_one_rank_meets_nobody() -> None:
    with pytest.raises(GenerationError, match=ENGINE_FAILED):
        await report_of(Rank(BROKE, meets=False))
    with pytest.raises(WorkerLost):
        await report_of(Rank(ActorDiedError()))


async def test_all_workers_are_asked_for_a_sign_of_life_at_once() -> None:
    ranks: list[Any] = [Rank(), Rank(answers=False), Rank(answers=False)]
    with pytest.raises(WorkerLost, match="rank 1: a worker died; got no answer for 5 s"):
        await WorkerGroup(ranks).check(5)
    assert now() == pytest.approx(5)
    await WorkerGroup(ranks[:1]).check(5)


async def test_after_shutdown_nobody_is_asked() -> None:
    said: list[Any] = []
    worker: Any = SimpleNamespace(cancel=said.append, kill=lambda: said.append("killed"))
    group = WorkerGroup([worker])
    group.cancel("first")
    group.shutdown()
    group.cancel("second")
    assert said == ["first", "killed"]
    assert not await group.is_cancelled("second")
    with pytest.raises(WorkerLost):
        group.execute("third", "clip", None, None)


async def test_a_group_that_was_shut_down_is_a_lost_one() -> None:
    """A clip may still ask it for progress when something else has ended it."""
    group = WorkerGroup([])
    with pytest.raises(WorkerLost, match="have ended"):
        await group.progress("attempt", 0, 0.1)
    with pytest.raises(WorkerLost, match="have ended"):
        _ = group.leader


async def test_there_are_as_many_workers_as_ranks() -> None:
    spec = GroupSpec(spec_of("meeting", TWO_RANKS), 3, 0.1, 0, 10)
    with pytest.raises(ParameterError, match="as many processes"):
        await WorkerGroup.create(spec, None)
