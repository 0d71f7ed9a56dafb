"""An event loop whose clock moves only when nothing else can: waits cost no time, and none is late.

For tests of what happens when: on a busy machine a wall clock runs on while a disk or the scheduler
holds the code up, and a test that expects one thing before another fails by itself. Here the clock
stands still while there is anything to do, a thread's work included, and jumps to the next timer
when there is not. Not for code whose threads wait for the loop's clock: both would wait for ever.
"""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    """Where the loop would sleep, its clock is moved instead."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.loop.in_threads:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.loop.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop of tests with the mark ``virtual_time``."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.in_threads = 0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        self.in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        # Where it is cancelled the thread goes on, and nobody waits for it.
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: asyncio.Future[Any]) -> None:
        self.in_threads -= 1
