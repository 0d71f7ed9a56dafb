"""Scenes that are cancelled: what runs is stopped, and nothing more is started."""

import asyncio
from collections.abc import Mapping

import pytest
from worldstereo_client.schemas import SceneStatus

from deployments.fair_slots import FairSlots
from deployments.scene_job import SceneJob
from deployments.store import Store
from tests.deployments.doubles import FakeMemory, FakeReplicas, fails_with
from tests.deployments.test_scene_job import PLAN, history, job_of, new_scene, states
from worldstereo.errors import LayoutError

pytestmark = pytest.mark.virtual_time


async def cancel_when(store: Store, job: SceneJob, trajectory: str, sign: str) -> None:
    while sign not in history(store, trajectory):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    store.advance_scene("one", SceneStatus.CANCELLING)
    job.cancel()


@pytest.mark.parametrize("sign", ["queued", "in_progress", "denoise 1"])
async def test_cancel_stops_what_runs_and_starts_nothing(store: Store, sign: str) -> None:
    new_scene(store)
    replicas, memory = FakeReplicas(1), FakeMemory(PLAN)
    replicas.step_s = 0.2
    job = job_of(store, replicas, memory, slots=FairSlots(1))
    task = asyncio.create_task(job.run())
    await cancel_when(store, job, "v/a", sign)
    await asyncio.wait_for(task, 10)
    assert store.scene("one").status is SceneStatus.CANCELLED
    assert set(states(store).values()) == {"cancelled"}
    assert replicas.committed == []
    assert len(replicas.started) <= 1
    assert memory.states == dict.fromkeys(PLAN, "cancelled")
    assert {outcome for _, outcome, _ in store.attempts("one", "v/a")} <= {"cancelled"}


async def test_a_cancel_takes_back_what_no_replica_has_taken(store: Store) -> None:
    new_scene(store)
    replicas, memory = FakeReplicas(1), FakeMemory(PLAN)
    await replicas.free.acquire()  # for good
    job = job_of(store, replicas, memory)
    task = asyncio.create_task(job.run())
    while len(replicas.streams) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    store.advance_scene("one", SceneStatus.CANCELLING)
    job.cancel()
    await asyncio.wait_for(task, 10)
    assert set(states(store).values()) == {"cancelled"}
    assert [stream.given_up for stream in replicas.streams] == [True, True]
    assert store.attempts("one", "v/a") == store.attempts("one", "v/e") == []


async def test_what_was_committed_before_the_cancel_stays(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(2)
    replicas.step_s = 0.1
    job = job_of(store, replicas)
    task = asyncio.create_task(job.run())
    await cancel_when(store, job, "v/b", "in_progress")
    await asyncio.wait_for(task, 5)
    assert store.scene("one").status is SceneStatus.CANCELLED
    assert states(store)["v/a"] == "completed"
    assert states(store)["v/d"] == "cancelled"


async def test_a_cancel_that_comes_at_the_end_still_ends_in_one_state(store: Store) -> None:
    new_scene(store)
    memory = FakeMemory(PLAN)
    job = job_of(store, FakeReplicas(5), memory)

    async def finish(final: Mapping[str, str]) -> None:
        store.advance_scene("one", SceneStatus.CANCELLING)

    memory.finish = finish  # type: ignore[method-assign]
    await job.run()
    assert store.scene("one").status is SceneStatus.CANCELLED


async def test_a_scene_cancelled_before_it_began_opens_no_memory(store: Store) -> None:
    new_scene(store)
    store.advance_scene("one", SceneStatus.CANCELLING)
    memory = FakeMemory(PLAN, opening=fails_with(LayoutError("must not be opened")))
    await job_of(store, FakeReplicas(1), memory).run()
    assert store.scene("one").status is SceneStatus.CANCELLED
    assert set(states(store).values()) == {"cancelled"}


async def test_a_cancel_does_not_wait_until_the_scene_is_built(store: Store) -> None:
    new_scene(store)
    memory = FakeMemory(PLAN)
    memory.building = asyncio.Event()  # never happens
    job = job_of(store, FakeReplicas(1), memory)
    task = asyncio.create_task(job.run())
    await asyncio.sleep(0.05)
    store.advance_scene("one", SceneStatus.CANCELLING)
    job.cancel()
    await asyncio.wait_for(task, 5)
    assert store.scene("one").status is SceneStatus.CANCELLED
    assert set(states(store).values()) == {"cancelled"}
    assert memory.closed == 1
