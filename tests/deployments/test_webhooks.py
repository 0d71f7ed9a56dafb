"""Webhooks against a real receiver on this machine: signed, in order, at least once, bounded."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pydantic
import pytest
from pydantic import SecretStr
from worldstereo_client.schemas import SceneRequest, SceneStatus
from worldstereo_client.webhooks import verify

from configs.telling import WebhookSettings
from deployments import tables
from deployments.errors import StoreAway
from deployments.metrics import Metric, NoRecorder
from deployments.offers import Offers
from deployments.outbound import OutboundRules
from deployments.records import NewScene
from deployments.store import Store
from deployments.tables import sqlite_url
from deployments.webhook_queue import DueWebhook, WebhookQueue
from deployments.webhooks import WebhookSender, retry_delay_s
from tests.deployments.test_outage import Locked
from tests.receiver import Received, Receiver, receiving
from worldstereo.errors import ParameterError

SECRETS = tuple("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
SETTINGS = WebhookSettings(
    secrets=tuple(map(SecretStr, SECRETS)),
    allow_http=True,
    allowed_hosts=("127.0.0.1",),
    first_retry_s=0.05,
)


class Counted(NoRecorder):
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def add(self, counter: Metric, value: float = 1, **labels: str) -> None:
        assert counter.name == "worldstereo_webhook_requests_total"
        self.outcomes.append(labels["outcome"])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "data" / "store.sqlite")


@asynccontextmanager
async def sending(
    url: str,
    settings: WebhookSettings = SETTINGS,
    clock: Callable[[], float] | None = None,
    queue: WebhookQueue | None = None,
) -> AsyncIterator[Counted]:
    """A sender in an orchestrator that ends with the block."""
    counted = Counted()
    options = {} if clock is None else {"clock": clock}
    queue = queue or WebhookQueue(url)
    sender = WebhookSender(queue, settings, counted, poll_s=0.02, **options)
    task = asyncio.create_task(sender.run())
    try:
        yield counted
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def add_scene(store: Store, url: str | None, scene_id: str = "one") -> None:
    request = SceneRequest(webhook_url=url)
    store.add_scene(NewScene(scene_id, "kitchen", request, ("v/a",)), max_queued=99)


async def until(condition: Callable[[], bool], patience_s: float = 60.0) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def types(receiver: Receiver) -> list[str]:
    return [verify(m.body, m.headers, SECRETS[0]).type for m in receiver.received]


def ids(receiver: Receiver) -> list[str]:
    return [header(message, "webhook-id") for message in receiver.received]


def header(message: Received, name: str) -> str:
    return {key.lower(): value for key, value in message.headers.items()}[name]


async def test_changes_are_told_in_order_and_nothing_else(store: Store, url: str) -> None:
    with receiving() as receiver:
        add_scene(store, f"{receiver.url}/hook?token=1")
        add_scene(store, None, "without")
        store.advance_scene("one", SceneStatus.IN_PROGRESS)
        for step in range(600):  # more than one page of events between two changes
            store.record_scene_progress("one", "build", step, 600)
        async with sending(url) as counted:
            await until(lambda: len(receiver.received) == 2)
            store.advance_scene("one", SceneStatus.COMPLETED)
            await until(lambda: counted.outcomes == ["delivered"] * 3)
            await asyncio.sleep(0.2)
        assert types(receiver) == ["scene.queued", "scene.in_progress", "scene.completed"]
        assert {message.path for message in receiver.received} == {"/hook?token=1"}
        event = verify(receiver.received[-1].body, receiver.received[-1].headers, SECRETS[1])
        assert (event.data.id, event.data.name) == ("one", "kitchen")
        assert event.data.urls.self == "/v1/scenes/one"
        assert event.data.event == store.scene("one").last_event


async def test_failures_are_tried_again_also_by_the_next_orchestrator(
    store: Store, url: str
) -> None:
    """Twice it fails, then the process ends; the next one tells it, and all that came after."""
    answers = {1: 500, 2: 503}
    with receiving(lambda number: answers.get(number, 200)) as receiver:
        add_scene(store, receiver.url)
        async with sending(url) as counted:
            await until(lambda: counted.outcomes == ["failed", "failed"])
        seen = len(receiver.received)
        assert seen == 2
        store.advance_scene("one", SceneStatus.IN_PROGRESS)
        store.advance_scene("one", SceneStatus.CANCELLING)
        async with sending(url) as counted:
            await until(lambda: counted.outcomes == ["delivered"] * 3)
        assert ids(receiver) == ["one.1", "one.1", "one.1", "one.2", "one.3"]
        assert types(receiver)[2:] == ["scene.queued", "scene.in_progress", "scene.cancelling"]
        assert len({message.body for message in receiver.received[:3]}) == 1
        async with sending(url) as counted:  # all is told
            await asyncio.sleep(0.2)
            assert counted.outcomes == []


async def test_one_that_was_killed_before_it_could_note_tells_again(store: Store, url: str) -> None:
    with receiving() as receiver:
        add_scene(store, receiver.url)
        queue = WebhookQueue(url)
        (due,) = queue.due(2e9, 9)
        assert queue.due(2e9, 9, ["one"]) == []
        async with sending(url) as counted:
            await until(lambda: counted.outcomes == ["delivered"])
        queue.failed(due, 0.0, "an answer that came late")  # of the killed one: changes nothing
        assert queue.due(2e9, 9) == []
        queue.close()


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [(200, ["delivered"]), (410, ["given_up"]), (500, ["failed", "delivered"])],
)
async def test_while_the_store_takes_no_writes_the_note_is_repeated_and_not_the_request(
    store: Store,
    url: str,
    tmp_path: Path,
    answer: int,
    outcomes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tables, "_BUSY_TIMEOUT_S", 0.05)
    with receiving(lambda number: answer if number == 1 else 200) as receiver:
        add_scene(store, receiver.url)
        away = Locked(tmp_path / "data")
        away.begin()
        try:
            async with sending(url) as counted:
                await until(lambda: len(receiver.received) == 1)
                await asyncio.sleep(1)  # many looks at the store
                assert (len(receiver.received), counted.outcomes) == (1, [])
                away.end()
                await until(lambda: counted.outcomes == outcomes)
        finally:
            away.close()
        assert len(receiver.received) == len(outcomes)
    assert caplog.text.count("the store is away") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_store_that_cannot_be_asked_is_asked_again(
    store: Store, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(WebhookQueue):
        looks = 0

        def due(self, now: float, limit: int, but: Collection[str] = ()) -> list[DueWebhook]:
            self.looks += 1
            if self.looks <= 3:
                raise StoreAway("the store does not answer")
            return super().due(now, limit, but)

    with receiving() as receiver:
        add_scene(store, receiver.url)
        async with sending(url, queue=Away(url)) as counted:
            await until(lambda: counted.outcomes == ["delivered"])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_receiver_that_is_silent_holds_up_no_other(store: Store, url: str) -> None:
    with receiving(lambda number: None) as silent, receiving() as receiver:
        add_scene(store, silent.url, "silent")
        add_scene(store, receiver.url, "other")
        impatient = SETTINGS.model_copy(update={"timeout_s": 0.5})
        async with sending(url, impatient) as counted:
            await until(lambda: len(receiver.received) == 1)
            await until(lambda: "failed" in counted.outcomes)
        assert sorted(set(counted.outcomes)) == ["delivered", "failed"]


async def test_a_change_is_given_up_after_a_day_and_the_next_one_told(
    store: Store, url: str
) -> None:
    with receiving(lambda number: 500 if number == 1 else 200) as receiver:
        add_scene(store, receiver.url)
        store.advance_scene("one", SceneStatus.IN_PROGRESS)
        created = store.scene("one").created_at
        async with sending(url, clock=lambda: created + 86_401) as counted:
            await until(lambda: counted.outcomes == ["given_up", "delivered"])
        assert ids(receiver) == ["one.1", "one.2"]


async def test_a_receiver_that_is_gone_is_told_nothing_more(store: Store, url: str) -> None:
    with receiving(lambda number: 410) as receiver:
        add_scene(store, receiver.url)
        store.advance_scene("one", SceneStatus.IN_PROGRESS)
        async with sending(url) as counted:
            await until(lambda: counted.outcomes == ["given_up"])
            store.advance_scene("one", SceneStatus.COMPLETED)
            await asyncio.sleep(0.2)
        assert ids(receiver) == ["one.1"]


async def test_redirects_and_private_addresses_are_failures(store: Store, url: str) -> None:
    with receiving(lambda number: 307) as receiver:
        add_scene(store, receiver.url)
        async with sending(url) as counted:
            await until(lambda: "failed" in counted.outcomes)
        assert "/elsewhere" not in [message.path for message in receiver.received]
        strict = SETTINGS.model_copy(update={"allowed_hosts": ()})
        seen = len(receiver.received)
        async with sending(url, strict) as counted:
            await until(lambda: "failed" in counted.outcomes)
        assert len(receiver.received) == seen


def test_delays_double_up_to_the_longest() -> None:
    settings = WebhookSettings(secrets=SETTINGS.secrets)
    delays = [retry_delay_s(settings, attempts) for attempts in (0, 1, 2, 9, 10, 5000)]
    assert delays == [5, 10, 20, 2560, 3600, 3600]


@pytest.mark.parametrize("secret", ["", "whsec_", "short", "whsec_!!!!", "whsec_" + "QQ==" * 3])
def test_weak_secrets_are_refused_and_never_shown(secret: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="24 to 64 bytes"):
        WebhookSettings(secrets=(SecretStr(secret),))
    assert SECRETS[0] not in repr(SETTINGS)


@pytest.mark.parametrize(
    ("rules", "url", "told"),
    [
        (None, "https://example.com/hook", "sends no webhooks"),
        (OutboundRules(), "http://example.com/hook", "must not connect"),
        (OutboundRules(), "https://169.254.169.254/latest", "must not connect"),
    ],
)
def test_webhooks_that_cannot_be_told_are_refused_when_sent(
    rules: OutboundRules | None, url: str, told: str
) -> None:
    offers = Offers(outputs=("points",), webhooks=rules)
    offers.check_webhook(None)
    with pytest.raises(ParameterError, match=told):
        offers.check_webhook(url)
    if rules is not None:
        offers.check_webhook("https://example.com/hook")


async def test_a_scene_with_a_refused_webhook_is_not_stored(
    http: httpx.AsyncClient, kitchen_zip: bytes, store: Store
) -> None:
    files = {
        "scene": ("scene.zip", kitchen_zip),
        "parameters": (None, '{"webhook_url": "https://example.com"}'),
    }
    answer = await http.post("/v1/scenes", files=files)
    assert (answer.status_code, answer.json()["where"]) == (422, "webhook_url")
    assert store.queued() == 0
