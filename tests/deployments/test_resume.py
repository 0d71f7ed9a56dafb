"""A failed scene is run again: what failed or was skipped, and nothing else."""

import asyncio
import threading

import httpx
import pytest
from worldstereo_client.schemas import SceneRequest, SceneStatus

from deployments.errors import QueueFull, SceneNotFound, StateConflict
from deployments.event_feed import EventFeed
from deployments.records import NewScene
from deployments.store import Store
from tests.deployments.doubles import FakeMemory, FakeReplicas
from tests.deployments.http_api import FakeOrchestrator, problem_in
from tests.deployments.test_scene_job import BROKEN, LOST, PLAN, job_of, new_scene, states

AGAIN = {"v/b", "v/d"}


async def fail(store: Store) -> None:
    """A scene whose v/b fails for good after two lost attempts, so that v/d is skipped."""
    new_scene(store)
    replicas = FakeReplicas(3, {"v/b": [LOST, LOST, BROKEN]})
    await job_of(store, replicas).run()
    assert store.scene("one").status is SceneStatus.FAILED
    assert {name for name, state in states(store).items() if state != "completed"} == AGAIN


async def test_what_failed_is_generated_again_and_the_rest_stays(store: Store) -> None:
    await fail(store)
    before = store.scene("one")
    store.resume_scene("one", max_queued=1)
    queued = store.scene("one")
    assert (queued.status, queued.error, queued.finished_at) == (SceneStatus.QUEUED, None, None)
    assert {name for name, state in states(store).items() if state == "blocked"} == AGAIN
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    committed = frozenset(set(PLAN) - AGAIN)
    # Three lost attempts would be one too many, if the two of the first run still counted.
    replicas = FakeReplicas(3, {"v/b": [LOST]})
    memory = FakeMemory(PLAN, committed)
    await job_of(store, replicas, memory).run()
    ended = store.scene("one")
    assert ended.status is SceneStatus.COMPLETED
    assert replicas.started == ["v/b", "v/b", "v/d"]
    assert memory.states == dict.fromkeys(PLAN, "completed")
    assert {item.error for item in ended.trajectories} == {None}
    events = store.events("one", 0)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert (events[before.last_event].type, events[before.last_event].status) == ("scene", "queued")
    numbers = [number for number, _, _ in store.attempts("one", "v/b")]
    assert numbers == [1, 2, 3, 4, 5], "attempts keep their numbers, so that none has two meanings"


async def test_a_stream_from_the_first_event_goes_on_past_the_earlier_end(store: Store) -> None:
    await fail(store)
    store.resume_scene("one", max_queued=1)
    feed = EventFeed(store, poll_s=0.01, heartbeat_s=5)
    seen: list[str] = []

    async def listen() -> None:
        async for block in feed.stream("one", 0):
            seen.append(block)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)
    assert not listening.done()
    store.advance_scene("one", SceneStatus.CANCELLING)
    store.advance_scene("one", SceneStatus.CANCELLED)
    await asyncio.wait_for(listening, 5)
    assert len(seen) == store.scene("one").last_event
    assert '"cancelled"' in seen[-1]


async def test_a_stream_of_a_scene_that_is_deleted_ends(store: Store) -> None:
    await fail(store)
    feed = EventFeed(store, poll_s=0.01, heartbeat_s=0.05)
    last = store.scene("one").last_event
    store.resume_scene("one", max_queued=1)
    stream = feed.stream("one", last)
    for state in ("queued", "blocked", "blocked"):
        assert f'"{state}"' in await anext(stream)
    store.advance_scene("one", SceneStatus.CANCELLING)
    store.advance_scene("one", SceneStatus.CANCELLED)
    store.delete_scene("one")
    assert [block async for block in stream] == []


@pytest.mark.parametrize("to", [SceneStatus.QUEUED, SceneStatus.COMPLETED, SceneStatus.CANCELLED])
def test_only_a_failed_scene_is_resumed(to: SceneStatus, store: Store) -> None:
    store.add_scene(NewScene("one", "s", SceneRequest(), ("v/a",)), max_queued=1)
    way = {
        SceneStatus.COMPLETED: (SceneStatus.IN_PROGRESS, SceneStatus.COMPLETED),
        SceneStatus.CANCELLED: (SceneStatus.CANCELLING, SceneStatus.CANCELLED),
    }
    for state in way.get(to, ()):
        store.advance_scene("one", state)
    before = store.events("one", 0)
    with pytest.raises(StateConflict, match=f"{to} -> queued"):
        store.resume_scene("one", max_queued=9)
    assert store.events("one", 0) == before
    with pytest.raises(SceneNotFound):
        store.resume_scene("two", max_queued=9)


async def test_of_many_resumes_at_once_one_counts(store: Store) -> None:
    await fail(store)
    outcomes: list[str] = []

    def resume() -> None:
        try:
            store.resume_scene("one", max_queued=9)
        except StateConflict:
            outcomes.append("conflict")
        else:
            outcomes.append("resumed")

    threads = [threading.Thread(target=resume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["resumed"]
    told = [event.trajectory for event in store.events("one", 0) if event.status == "blocked"]
    assert sorted(str(name) for name in told) == sorted(AGAIN)


async def test_a_full_queue_takes_no_scene_again(store: Store) -> None:
    await fail(store)
    store.add_scene(NewScene("two", "s", SceneRequest(), ("v/a",)), max_queued=1)
    with pytest.raises(QueueFull):
        store.resume_scene("one", max_queued=1)
    assert store.scene("one").status is SceneStatus.FAILED


async def test_over_http(
    http: httpx.AsyncClient, store: Store, orchestrator: FakeOrchestrator
) -> None:
    await fail(store)
    response = await http.post("/v1/scenes/one/resume")
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert orchestrator.woken == 1
    again = problem_in(await http.post("/v1/scenes/one/resume"), 409, "StateConflict")
    assert again.got == "queued -> queued"
    problem_in(await http.post("/v1/scenes/none/resume"), 404, "SceneNotFound")
