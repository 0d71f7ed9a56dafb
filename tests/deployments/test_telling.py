"""The loops that an orchestrator runs beside its scenes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from worldstereo_client.schemas import SceneRequest

from actors.memory_bank import BankSize
from deployments import metrics, telling
from deployments.errors import StoreAway
from deployments.metrics import Metric, NoRecorder
from deployments.records import NewScene
from deployments.store import Store
from deployments.telemetry import Telemetry
from deployments.telling import Tellers, Telling
from tests.deployments.doubles import FakeMemory

pytestmark = pytest.mark.virtual_time


class Gauges(NoRecorder):
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def set(self, gauge: Metric, value: float, **labels: str) -> None:
        self.values[" ".join((gauge.name, *labels.values()))] = value


class GoneMemory(FakeMemory):
    async def size(self) -> BankSize:
        raise RuntimeError("The actor died.")


class BusyMemory(FakeMemory):
    async def size(self) -> BankSize:
        await asyncio.sleep(3600)
        raise AssertionError


def tellers(store: Any, gauges: Gauges, *memories: FakeMemory) -> Tellers:
    telemetry = Telemetry(gauges)
    return Tellers(Telling(gpus={}), telemetry, store, "", 1.0, lambda: memories)


async def stop(told: Tellers) -> None:
    for task in told._tasks:
        task.cancel()
    await asyncio.gather(*told._tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_gauges_follow_the_store_and_the_banks_that_answer(store: Store) -> None:
    gauges = Gauges()
    told = tellers(store, gauges, FakeMemory({}), GoneMemory({}), BusyMemory({}), FakeMemory({}))
    told.start()
    await until(lambda: metrics.BANKS.name in gauges.values)
    assert gauges.values[metrics.QUEUE_SCENES.name] == 0
    assert gauges.values[metrics.BANKS.name] == 2
    assert gauges.values[metrics.BANK_BYTES.name] == 400
    store.add_scene(NewScene("one", "s", SceneRequest(), ("v/a",)), max_queued=9)
    await until(lambda: gauges.values[metrics.QUEUE_SCENES.name] == 1)
    told.check()
    await stop(told)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (OSError("nonsense"), 2),
        (StoreAway("the store does not answer"), 0),  # the store has logged it
    ],
)
async def test_a_store_that_could_not_be_asked_is_asked_again(
    store: Store, error: Exception, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Away:
        calls = 0

        def load(self, now: float) -> object:
            self.calls += 1
            if self.calls < 3:
                raise error
            return store.load(now)

    gauges = Gauges()
    told = tellers(Away(), gauges)
    told.start()
    await until(lambda: bool(gauges.values))
    assert caplog.text.count("cannot tell how much there is to do") == logged
    assert caplog.text.count("Traceback") == logged
    await stop(told)


async def test_a_loop_that_has_ended_is_a_bad_sign_of_health(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "GAUGES_EVERY_S", "never")  # sleeping raises
    told = tellers(store, Gauges())
    told.start()
    told.check()
    await asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="has ended"):
        told.check()
    await stop(told)
