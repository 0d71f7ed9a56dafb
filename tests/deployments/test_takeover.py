"""Two orchestrators on one store: one takes over what the other leaves, both never run a scene."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worldstereo_client.schemas import SceneStatus

from configs.settings import OrchestratorSettings
from deployments import orchestrator
from deployments.errors import StoreAway
from deployments.orchestrator import Orchestrator
from deployments.store import Store
from tests.deployments.doubles import FakeReplicas
from tests.deployments.orchestrators import (
    Cluster,
    Orchestrators,
    check_told_once,
    kill,
    on_the_loops_clock,
    submit,
)
from worldstereo.config import ModelConfig

pytestmark = pytest.mark.virtual_time

LEASE_S = 3.0
SETTINGS = OrchestratorSettings(lease_s=LEASE_S, poll_interval_s=0.2, max_active_scenes=2)


class Stage:
    """A store, what runs on it, and how long things take in the loop's time."""

    def __init__(self, url: str, folder: Path, config: ModelConfig, step_s: float) -> None:
        self.replicas = FakeReplicas(4)
        self.replicas.step_s = step_s
        self.cluster = Cluster(self.replicas)
        self.orchestrators = Orchestrators(url, folder, self.cluster, SETTINGS, config)
        self.store: Store

    async def until_started(self, count: int) -> None:
        while len(self.replicas.started) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def until_ended(self, scene_id: str) -> None:
        async with asyncio.timeout(120):
            while not self.store.scene(scene_id).status.terminal:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@pytest.fixture
async def stage(
    new_database: Callable[[], str],
    tmp_path: Path,
    tiny_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    url = new_database()
    stage = Stage(url, tmp_path, tiny_config, step_s=0.5)
    monkeypatch.setattr(orchestrator, "SceneBank", stage.cluster)
    stage.store = on_the_loops_clock(monkeypatch)(url)
    yield stage
    await stage.orchestrators.close()
    stage.store.close()


def cut_off(served: Orchestrator) -> Callable[[], None]:
    """Let an orchestrator not reach the store, while others can; the answer ends that."""

    def away(*_: Any, **__: Any) -> Any:
        raise StoreAway("cut off")

    store: Any = served._store
    store._writes = store._reads = away

    def end() -> None:
        del store._writes, store._reads

    return end


async def test_what_a_dead_one_left_is_taken_over_when_its_lease_runs_out(stage: Stage) -> None:
    submit(stage.store, "one")
    loop = asyncio.get_running_loop()
    async with stage.orchestrators.started() as first:
        await stage.until_started(3)  # v/a is committed, v/b runs
        async with stage.orchestrators.started() as second:
            await kill(first)
            killed_at = loop.time()
            while len(stage.cluster.opened["one"]) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert LEASE_S * 0.5 < loop.time() - killed_at < LEASE_S * 1.2
            await stage.until_ended("one")
            assert stage.cluster.opened["one"] == [first._epoch, second._epoch]
    assert stage.store.scene("one").status is SceneStatus.COMPLETED
    check_told_once(stage.store, "one")
    assert stage.replicas.started.count("v/a") == 1  # committed: not generated again
    assert stage.store.attempts("one", "v/b") == [(1, "abandoned", ""), (2, "committed", "")]


async def test_one_that_was_cut_off_drops_its_scene_and_writes_nothing(stage: Stage) -> None:
    submit(stage.store, "one")
    loop = asyncio.get_running_loop()
    async with stage.orchestrators.started() as first:
        await stage.until_started(1)
        bring_back = cut_off(first)
        async with stage.orchestrators.started() as second:
            while len(stage.cluster.opened["one"]) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert set(first._tasks) == {"one"}  # it cannot know yet
            its_own = [s for s in stage.replicas.streams if s.request.epoch == first._epoch]
            bring_back()  # in the middle of the other's work
            back_at = loop.time()
            while first._tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            # It finds out by its next write, which waits 2 s between two tries, or by renewing.
            assert loop.time() - back_at <= 2
            assert all(stream.given_up or stream.committed for stream in its_own)
            await stage.until_ended("one")
            assert stage.cluster.opened["one"] == [first._epoch, second._epoch]
    assert stage.store.scene("one").status is SceneStatus.COMPLETED
    check_told_once(stage.store, "one")


async def test_two_that_work_side_by_side_share_the_scenes(stage: Stage) -> None:
    names = [f"scene{number}" for number in range(5)]
    for name in names:
        submit(stage.store, name)
    async with stage.orchestrators.started() as first, stage.orchestrators.started() as second:
        for name in names:
            await stage.until_ended(name)
        ran = {name: stage.cluster.opened[name] for name in names}
    assert all(len(epochs) == 1 for epochs in ran.values())
    assert {epochs[0] for epochs in ran.values()} == {first._epoch, second._epoch}
    for name in names:
        assert stage.store.scene(name).status is SceneStatus.COMPLETED
        check_told_once(stage.store, name)
    assert len(stage.replicas.committed) == len(names) * 3


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.9, 1.4, 2.4, 2.9, 3.1, 4.0, 5.5, 6.5, 9.0])
async def test_a_cancel_at_any_moment_ends_in_one_state(stage: Stage, moment: float) -> None:
    """Queued, starting, denoising, committing, between two clips, done."""
    async with stage.orchestrators.started() as served:
        submit(stage.store, "one")
        await served.wake()
        await asyncio.sleep(moment)
        status = stage.store.scene("one").status
        if not status.terminal:
            stage.store.advance_scene("one", SceneStatus.CANCELLING)
            await served.wake()
        asked_at = asyncio.get_running_loop().time()
        await stage.until_ended("one")
        took_s = asyncio.get_running_loop().time() - asked_at
        expected = status if status.terminal else SceneStatus.CANCELLED
        assert stage.store.scene("one").status is expected
        assert took_s <= 2 * stage.replicas.step_s  # a step, and looking at the store
        count = len(stage.replicas.started)
        await asyncio.sleep(10)
        assert len(stage.replicas.started) == count
        assert not served._tasks
    check_told_once(stage.store, "one")
