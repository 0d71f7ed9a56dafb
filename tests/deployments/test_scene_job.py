"""Scenes and clips in an orchestrator, with doubles in place of replicas and memory banks."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError
from worldstereo_client.schemas import GpuOutput, SceneRequest, SceneStatus, TrajectoryStatus

from actors.memory_bank import PlannedClip
from actors.messages import Advanced, Beat, Committed, Failed, WorkerLost
from configs.settings import OrchestratorSettings
from deployments import clip_job
from deployments.fair_slots import FairSlots
from deployments.records import NewScene, SceneRecord
from deployments.scene_context import MakeOutput, OnStage, SceneContext
from deployments.scene_job import SceneJob, chain_lengths
from deployments.store import Store
from tests.deployments.doubles import (
    DIES,
    HANGS,
    REFUSES,
    FakeMemory,
    FakeReplicas,
    Script,
    fails_with,
)
from worldstereo.errors import GenerationError, LayoutError

pytestmark = pytest.mark.virtual_time

# b and c need a, d needs b and c, e needs nothing.
PLAN: Mapping[str, tuple[str, ...]] = {
    "v/a": (),
    "v/b": ("v/a",),
    "v/c": ("v/a",),
    "v/d": ("v/b", "v/c"),
    "v/e": (),
}
QUICK = OrchestratorSettings(retry_delay_s=0.01, beat_interval_s=0.05, beat_timeout_s=0.3)
LOST: Script = [Advanced("encode"), Failed(WorkerLost("a worker died"), retry=True)]
BROKEN: Script = [Advanced("encode"), Failed(GenerationError("broke"), retry=False)]


def new_scene(store: Store, scene_id: str = "one") -> SceneRecord:
    store.add_scene(NewScene(scene_id, "s", SceneRequest(), tuple(PLAN)), max_queued=9)
    store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
    return store.scene(scene_id)


async def no_gpu(scene_id: str, output: GpuOutput, on_stage: OnStage) -> None:
    raise AssertionError(f"{output} was not asked for")


def job_of(
    store: Store,
    replicas: FakeReplicas,
    memory: FakeMemory | None = None,
    scene_id: str = "one",
    slots: FairSlots | None = None,
    make: MakeOutput | None = None,
    **changes: Any,
) -> SceneJob:
    bank = memory or FakeMemory(PLAN)

    async def memory_of(record: SceneRecord) -> FakeMemory:
        return bank

    context = SceneContext(
        epoch="epoch",
        store=store,
        settings=QUICK.model_copy(update=changes),
        slots=slots or FairSlots(10),
        dispatch=replicas.dispatch,
        memory=memory_of,
        make=make or no_gpu,
    )
    return SceneJob(context, scene_id)


def states(store: Store) -> dict[str, str]:
    return {item.id: str(item.status) for item in store.scene("one").trajectories}


def history(store: Store, trajectory_id: str) -> list[str | None]:
    return [
        event.status or f"{event.stage} {event.step}"
        for event in store.events("one", 0)
        if event.trajectory == trajectory_id
    ]


async def test_a_scene_runs_in_the_order_of_its_plan(store: Store) -> None:
    new_scene(store)
    replicas, memory = FakeReplicas(3), FakeMemory(PLAN)
    await job_of(store, replicas, memory).run()
    record = store.scene("one")
    assert record.status is SceneStatus.COMPLETED
    assert set(states(store).values()) == {"completed"}
    assert {item.id: tuple(item.depends_on) for item in record.trajectories} == PLAN
    for name, others in PLAN.items():
        for other in others:
            assert replicas.committed.index(other) < replicas.started.index(name)
    assert history(store, "v/a") == [
        "queued",
        "in_progress",
        "retrieve 0",
        "denoise 0",
        "denoise 1",
        "denoise 2",
        "commit 0",
        "completed",
    ]
    assert record.trajectories[0].stage_seconds == {"denoise": 0.5}
    assert memory.states == dict.fromkeys(PLAN, "completed")
    assert memory.closed == 1


async def test_the_longest_chain_goes_first(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(1)
    await job_of(store, replicas, slots=FairSlots(1)).run()
    assert replicas.started[0] == "v/a"
    assert sorted(replicas.started[1:3]) in (["v/b", "v/c"], ["v/b", "v/e"], ["v/c", "v/e"])


async def test_a_lost_clip_is_tried_again(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(1, {"v/a": [LOST, [Advanced("encode"), DIES]]})
    await job_of(store, replicas).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert store.attempts("one", "v/a") == [
        (1, "lost", "a worker died"),
        (2, "lost", "its replica failed; got The actor died unexpectedly."),
        (3, "committed", ""),
    ]
    assert history(store, "v/a").count("queued") == 3


async def test_a_clip_that_kills_every_replica_is_given_up(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(2, {"v/b": [LOST] * 9})
    memory = FakeMemory(PLAN)
    await job_of(store, replicas, memory).run()
    record = store.scene("one")
    assert record.status is SceneStatus.FAILED
    assert record.error is not None
    assert record.error.got == "v/b, v/d"
    assert states(store) == {
        "v/a": "completed",
        "v/b": "failed",
        "v/c": "completed",
        "v/d": "skipped",
        "v/e": "completed",
    }
    poison = record.trajectories[1].error
    assert poison is not None
    assert (poison.error, poison.what) == ("GenerationError", "given up after 3 attempts")
    assert poison.got == "1: a worker died; 2: a worker died; 3: a worker died"
    assert replicas.started.count("v/b") == 3
    assert memory.states["v/d"] == "skipped"


async def test_replicas_that_broke_before_they_took_a_clip_are_no_attempts_of_it(
    store: Store,
) -> None:
    new_scene(store)
    replicas = FakeReplicas(1, {"v/a": [LOST, *[[REFUSES]] * 5]})
    await job_of(store, replicas).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert store.attempts("one", "v/a") == [(1, "lost", "a worker died"), (2, "committed", "")]


async def test_a_clip_that_no_replica_ever_takes_is_given_up(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(1, {"v/a": [[REFUSES]] * 99})
    await job_of(store, replicas).run()
    assert states(store)["v/a"] == "failed"
    assert replicas.started == ["v/e"]


async def test_a_clip_that_cannot_be_generated_is_tried_once(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(2, {"v/a": [BROKEN]})
    await job_of(store, replicas).run()
    assert states(store) == {
        "v/a": "failed",
        "v/b": "skipped",
        "v/c": "skipped",
        "v/d": "skipped",
        "v/e": "completed",
    }
    assert replicas.started.count("v/a") == 1
    error = store.scene("one").trajectories[3].error
    assert error is not None
    assert error.what == "skipped: what it depends on failed"


async def test_a_silent_clip_is_tried_again(store: Store) -> None:
    new_scene(store)
    replicas = FakeReplicas(5, {"v/a": [[Advanced("encode"), HANGS]]})
    await job_of(store, replicas).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    (first, second) = store.attempts("one", "v/a")
    assert first == (1, "lost", "its replica: no sign of the clip for 0.3 s")
    assert second[1] == "committed"
    of_a = [stream for stream in replicas.streams if stream.request.trajectory_id == "v/a"]
    assert [stream.given_up for stream in of_a] == [True, False]


async def test_beats_keep_a_slow_clip_alive_and_are_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_job, "TELL_AGAIN_S", 0.03)
    new_scene(store)
    slow: Script = [Advanced("decode"), *[Beat()] * 12, Committed(first=True)]
    replicas = FakeReplicas(5, {"v/a": [slow]})
    replicas.step_s = 0.05
    await job_of(store, replicas).run()
    assert store.attempts("one", "v/a") == [(1, "committed", "")]
    assert history(store, "v/a").count("decode 0") > 5


async def test_a_clip_that_nobody_takes_is_offered_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_job, "OFFER_AGAIN_S", 0.05)
    new_scene(store)
    replicas = FakeReplicas(1)
    await replicas.free.acquire()
    task = asyncio.create_task(job_of(store, replicas).run())
    await asyncio.sleep(0.3)
    assert states(store)["v/a"] == "queued"
    replicas.free.release()
    await asyncio.wait_for(task, 10)
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert all(len(store.attempts("one", name)) == 1 for name in PLAN)
    offered = [stream for stream in replicas.streams if stream.request.trajectory_id == "v/a"]
    assert len(offered) > 2
    assert all(stream.given_up for stream in offered[:-1])


async def test_a_scene_that_cannot_be_planned_fails_with_the_reason(store: Store) -> None:
    new_scene(store)
    memory = FakeMemory(PLAN, opening=fails_with(LayoutError("no camera.json", where="v/a")))
    await job_of(store, FakeReplicas(1), memory).run()
    record = store.scene("one")
    assert record.status is SceneStatus.FAILED
    assert record.error is not None
    assert (record.error.error, record.error.where) == ("LayoutError", "v/a")
    assert set(states(store).values()) == {"skipped"}
    assert memory.closed == 1


async def test_a_memory_bank_that_dies_while_it_opens_is_opened_again(store: Store) -> None:
    new_scene(store)
    left = [ActorDiedError(), ActorDiedError()]

    def opening() -> None:
        if left:
            raise left.pop()

    await job_of(store, FakeReplicas(1), FakeMemory(PLAN, opening=opening)).run()
    assert store.scene("one").status is SceneStatus.COMPLETED


async def test_a_scene_that_was_left_behind_goes_on(store: Store) -> None:
    """The store as an orchestrator that died may leave it, in all ways at once."""
    new_scene(store)
    for name in ("v/a", "v/b", "v/c", "v/e"):
        store.advance_trajectory("one", name, TrajectoryStatus.QUEUED)
    store.start_attempt("one", "v/a", "first", 1)
    store.advance_trajectory("one", "v/a", TrajectoryStatus.COMPLETED)
    store.start_attempt("one", "v/b", "second", 1)  # committed, but nobody heard of it
    store.start_attempt("one", "v/c", "third", 1)  # still running somewhere
    replicas = FakeReplicas(2)
    memory = FakeMemory(PLAN, committed=frozenset({"v/a", "v/b"}))
    await job_of(store, replicas, memory).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert sorted(replicas.started) == ["v/c", "v/d", "v/e"]
    assert store.attempts("one", "v/b") == [(1, "committed", "")]  # it came to that meanwhile
    assert store.attempts("one", "v/c") == [(1, "abandoned", ""), (2, "committed", "")]
    ids = [event.id for event in store.events("one", 0)]
    assert ids == list(range(1, len(ids) + 1))


async def test_results_that_vanished_fail_the_scene(store: Store) -> None:
    new_scene(store)
    store.advance_trajectory("one", "v/a", TrajectoryStatus.QUEUED)
    store.advance_trajectory("one", "v/a", TrajectoryStatus.COMPLETED)
    await job_of(store, FakeReplicas(1)).run()
    error = store.scene("one").error
    assert error is not None
    assert (error.where, store.scene("one").status) == ("v/a", SceneStatus.FAILED)


async def test_two_scenes_share_the_replicas(store: Store) -> None:
    slots, replicas = FairSlots(1), FakeReplicas(1)
    replicas.step_s = 0.02
    for scene_id in ("one", "two"):
        new_scene(store, scene_id)
    jobs = [job_of(store, replicas, None, scene_id, slots) for scene_id in ("one", "two")]
    await asyncio.gather(*(job.run() for job in jobs))
    ended = {}
    for scene_id in ("one", "two"):
        record = store.scene(scene_id)
        assert record.status is SceneStatus.COMPLETED
        ended[scene_id] = [item.finished_at or 0.0 for item in record.trajectories]
    # Neither waits for the other's end; whose turn it is when both wait is FairSlots' own test.
    assert min(ended["one"]) < max(ended["two"])
    assert min(ended["two"]) < max(ended["one"])


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14),
)
@settings(max_examples=100)
def test_chain_lengths_are_the_longest_path(edges: list[tuple[int, int]]) -> None:
    clips = tuple(
        PlannedClip(str(i), i, tuple(sorted({str(a) for a, b in edges if b == i and a < b})))
        for i in range(8)
    )

    def slow(name: str) -> int:
        return 1 + max((slow(clip.id) for clip in clips if name in clip.depends_on), default=0)

    assert chain_lengths(clips) == {clip.id: slow(clip.id) for clip in clips}
