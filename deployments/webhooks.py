"""Tells webhooks of the changes of their scenes: signed, at least once, in order, for a day.

Owns the requests and when to try again. What is still to be told is in the store
(webhook_queue.py), so an orchestrator that starts goes on where another stopped; the addresses
that may be asked are outbound.py's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from worldstereo_client.schemas import SceneStatus, WebhookData, WebhookEvent
from worldstereo_client.webhooks import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

from actors.log_lines import log_ids
from configs.telling import WebhookSettings
from deployments import metrics
from deployments.errors import StoreAway
from deployments.metrics import Recorder
from deployments.outage import patiently
from deployments.outbound import OutboundRules, outbound_client
from deployments.records import scene_urls
from deployments.webhook_queue import DueWebhook, WebhookQueue
from worldstereo.errors import ParameterError

logger = logging.getLogger(__name__)

# A receiver's word that it wants nothing more.
_GONE = 410


@dataclass(frozen=True)
class _Answer:
    """What became of a request: ``error`` None: acknowledged."""

    error: str | None = None
    gone: bool = False


def outbound_rules(settings: WebhookSettings) -> OutboundRules:
    """Where webhooks may be."""
    hosts = frozenset(host.lower() for host in settings.allowed_hosts)
    return OutboundRules(allow_http=settings.allow_http, allowed_hosts=hosts)


class WebhookSender:
    """Sends what is due.

    Args:
        queue: what is to be told.
        settings: secrets, limits and times.
        recorder: counts the requests.
        poll_s: how often the store is asked, seconds; ``wake`` saves waiting.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        queue: WebhookQueue,
        settings: WebhookSettings,
        recorder: Recorder,
        *,
        poll_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._recorder = recorder
        self._poll_s = poll_s
        self._clock = clock
        self._client = outbound_client(outbound_rules(settings), settings.timeout_s)
        self._sending: dict[str, asyncio.Task[None]] = {}  # by scene: one at a time, in order
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at the store now."""
        self._woken.set()

    async def run(self) -> None:
        """Send, until cancelled."""
        try:
            while True:
                self._woken.clear()
                try:
                    await self._look()
                except StoreAway:
                    # It was logged; nothing is lost by looking again.
                    logger.debug("no look for webhooks")
                except Exception:
                    logger.exception("cannot look for webhooks")
                try:
                    async with asyncio.timeout(self._poll_s):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)
            await self._client.aclose()
            self._queue.close()

    async def _look(self) -> None:
        room = self._settings.max_in_flight - len(self._sending)
        if room <= 0:
            return
        busy = list(self._sending)
        for due in await asyncio.to_thread(self._queue.due, self._clock(), room, busy):
            self._sending[due.scene_id] = asyncio.create_task(self._tell(due))

    async def _tell(self, due: DueWebhook) -> None:
        with log_ids(scene=due.scene_id):
            try:
                await self._note(due, await self._send(due))
            except Exception:
                # The row says what it said, and it is told once more.
                logger.exception("cannot note what became of a webhook")
                await asyncio.sleep(self._poll_s)
            finally:
                del self._sending[due.scene_id]
                self._woken.set()

    async def _send(self, due: DueWebhook) -> _Answer:
        message_id, body = f"{due.scene_id}.{due.event.id}", body_of(due)
        timestamp = int(self._clock())
        signatures = [
            sign(message_id, timestamp, body, secret.get_secret_value())
            for secret in self._settings.secrets
        ]
        headers = {
            "content-type": "application/json",
            "user-agent": "worldstereo",
            ID_HEADER: message_id,
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: " ".join(signatures),
        }
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                # Only the status counts: what else the receiver says is not read.
                stream = self._client.stream("POST", due.url, content=body, headers=headers)
                async with stream as response:
                    status = response.status_code
        except (httpx.HTTPError, ParameterError) as error:
            return _Answer(f"{type(error).__name__}: {error}")
        except TimeoutError:
            return _Answer(f"no answer within {self._settings.timeout_s:g} s")
        if 200 <= status < 300:
            return _Answer()
        return _Answer(f"answered {status}", gone=status == _GONE)

    async def _note(self, due: DueWebhook, answer: _Answer) -> None:
        """Keep what became of a request, then tell it.

        While the store is away this waits: the request is not sent again for want of a note.
        """
        queue, now, status = self._queue, self._clock(), due.event.status
        if answer.error is None:
            await patiently(queue.told, due.scene_id, due.event.id, now)
            outcome = "delivered"
            logger.info("webhook told of %s", status)
        elif answer.gone:
            await patiently(queue.stop, due.scene_id)
            outcome = "given_up"
            logger.warning("webhook wants nothing more: it %s", answer.error)
        elif now - due.event.time >= self._settings.give_up_after_s:
            await patiently(queue.told, due.scene_id, due.event.id, now, answer.error)
            outcome = "given_up"
            logger.error("webhook not told of %s: %s", status, answer.error)
        else:
            delay_s = retry_delay_s(self._settings, due.attempts)
            await patiently(queue.failed, due, now + delay_s, answer.error)
            outcome = "failed"
            logger.warning("webhook: %s; tried again in %g s", answer.error, delay_s)
        self._recorder.add(metrics.WEBHOOKS, outcome=outcome)


def retry_delay_s(settings: WebhookSettings, attempts: int) -> float:
    """How long to wait after a failure, when there were ``attempts`` before it."""
    # The power is bounded: a float overflows after a thousand.
    doubled = settings.first_retry_s * 2.0 ** min(attempts, 60)
    return min(doubled, settings.longest_retry_s)


def body_of(due: DueWebhook) -> bytes:
    """The message, the same bytes each time that it is sent."""
    status = SceneStatus(str(due.event.status))
    event = WebhookEvent(
        type=f"scene.{status.value}",
        timestamp=due.event.time,
        data=WebhookData(
            id=due.scene_id,
            name=due.name,
            status=status,
            event=due.event.id,
            error=due.event.error,
            urls=scene_urls(due.scene_id),
        ),
    )
    return event.model_dump_json(exclude_none=True).encode()
