"""What the orchestrator runs beside its scenes so that others hear of them: gauges and webhooks.

Owns these two loops. What is told while a clip runs is telemetry.py's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from actors.failures import cause_of, first_line
from actors.log_lines import LogOptions
from actors.memory_bank import BankSize
from configs.telling import TracingSettings, WebhookSettings
from deployments.errors import StoreAway
from deployments.metrics import NoRecorder, RayRecorder
from deployments.scene_context import Memory
from deployments.store import Store
from deployments.telemetry import Telemetry
from deployments.tracing import open_trace
from deployments.webhook_queue import WebhookQueue
from deployments.webhooks import WebhookSender

logger = logging.getLogger(__name__)

# Ray's agents collect every 10 s.
GAUGES_EVERY_S = 5.0
# A bank that does not answer by then is busy, or gone: it is left out.
_SIZE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Telling:
    """What is told, and to whom.

    Attributes:
        gpus: of one replica by variant; None: no metrics are recorded.
        logging: of the orchestrator and of memory banks; None leaves it as it is.
        tracing: None: no traces.
        webhooks: None: there are none.
    """

    gpus: Mapping[str, float] | None = None
    logging: LogOptions | None = None
    tracing: TracingSettings | None = None
    webhooks: WebhookSettings | None = None

    def telemetry(self) -> Telemetry:
        """Where the jobs tell; ParameterError where OpenTelemetry is wanted and missing."""
        recorder = NoRecorder() if self.gpus is None else RayRecorder()
        return Telemetry(recorder, open_trace(self.tracing), self.gpus or {})


@dataclass
class Tellers:
    """The running loops; made in the event loop that they run in.

    Args:
        telling: what is told.
        telemetry: where to.
        store: of all scenes.
        database_url: of the same store.
        poll_s: how often webhooks are looked for.
        memories: the memory banks that are open now.
    """

    telling: Telling
    telemetry: Telemetry
    store: Store
    database_url: str
    poll_s: float
    memories: Callable[[], Iterable[Memory]]
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _sender: WebhookSender | None = None

    def start(self) -> None:
        """Begin what the settings ask for."""
        loop = asyncio.get_running_loop()
        if self.telling.gpus is not None:
            self._tasks.append(loop.create_task(self._gauges()))
        if self.telling.webhooks is not None:
            self._sender = WebhookSender(
                WebhookQueue(self.database_url, self.store.outage),
                self.telling.webhooks,
                self.telemetry.recorder,
                poll_s=self.poll_s,
            )
            self._tasks.append(loop.create_task(self._sender.run()))

    def wake(self) -> None:
        """There is news in the store."""
        if self._sender is not None:
            self._sender.wake()

    def check(self) -> None:
        """Raise when one of the loops has ended."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError("a loop of the orchestrator has ended") from task.exception()

    async def _gauges(self) -> None:
        while True:
            try:
                load = await asyncio.to_thread(self.store.load, time.time())
                sizes = await asyncio.gather(*map(_size, self.memories()))
                self.telemetry.load(load, [size for size in sizes if size is not None])
            except StoreAway:
                # The store has logged it.
                logger.debug("no look at how much there is to do")
            except Exception:
                logger.exception("cannot tell how much there is to do")
            await asyncio.sleep(GAUGES_EVERY_S)


async def _size(memory: Memory) -> BankSize | None:
    answer: Awaitable[BankSize] = memory.size()
    try:
        async with asyncio.timeout(_SIZE_TIMEOUT_S):
            return await answer
    except Exception as error:  # noqa: BLE001 - an actor that is gone; its scene's job sees to it
        logger.info("a memory bank does not tell its size: %s", first_line(cause_of(error)))
        return None
