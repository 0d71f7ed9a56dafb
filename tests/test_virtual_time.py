"""The clock of tests with the mark ``virtual_time``."""

import asyncio
import time

import pytest

pytestmark = pytest.mark.virtual_time


async def test_waits_cost_no_time() -> None:
    loop = asyncio.get_running_loop()
    real, start = time.monotonic(), loop.time()
    await asyncio.sleep(3600)
    assert loop.time() == pytest.approx(start + 3600)
    assert time.monotonic() - real < 60


async def test_work_takes_no_time() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.timeout(0.01):
        time.sleep(0.05)  # noqa: ASYNC251
        await asyncio.to_thread(time.sleep, 0.05)
        await asyncio.sleep(0)
    assert loop.time() == start


async def test_timers_come_in_their_order_while_threads_work() -> None:
    ended = []

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        ended.append(name)

    async def thread() -> None:
        await asyncio.to_thread(time.sleep, 0.05)
        ended.append("thread")

    await asyncio.gather(after(0.02, "late"), thread(), after(0.01, "early"))
    assert ended == ["thread", "early", "late"]


async def test_a_deadline_ends_what_hangs() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.Event().wait()
