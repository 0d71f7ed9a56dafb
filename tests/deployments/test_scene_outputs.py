"""What the result holds beside its clips: made after them, told meanwhile, stopped on request."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from ray.exceptions import ActorDiedError
from worldstereo_client.schemas import Event, GpuOutput, SceneRequest, SceneStatus

from actors.memory_bank import SceneStage
from deployments import scene_outputs
from deployments.records import NewScene
from deployments.scene_context import OnStage
from deployments.store import Store
from tests.deployments.doubles import FakeMemory, FakeReplicas
from tests.deployments.test_scene_job import BROKEN, PLAN, job_of
from worldstereo.errors import GenerationCancelled, GenerationError

pytestmark = pytest.mark.virtual_time

Made = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_outputs, "STAGE_POLL_S", 0.01)


def new_scene(store: Store, outputs: tuple[str, ...]) -> None:
    request = SceneRequest(outputs=outputs)
    store.add_scene(NewScene("one", "s", request, tuple(PLAN)), max_queued=9)
    store.advance_scene("one", SceneStatus.IN_PROGRESS)


def scene_events(store: Store) -> list[Event]:
    return [event for event in store.events("one", 0) if event.trajectory is None]


async def test_outputs_are_made_of_the_committed_clips_and_told(store: Store) -> None:
    new_scene(store, ("points", "glb"))
    memory = FakeMemory(PLAN)

    async def made() -> None:
        for done in range(3):
            memory.told = SceneStage("points", done, 3)
            await asyncio.sleep(0.05)
        memory.told = SceneStage("export")
        await asyncio.sleep(0.05)

    memory._reconstructing = made
    await job_of(store, FakeReplicas(2), memory).run()
    assert memory.outputs == ["points", "glb"]
    told = [(event.stage, event.step, event.steps) for event in scene_events(store)]
    stages = [item for item in told if item[0] in ("points", "export")]
    assert stages == [("points", 0, 3), ("points", 1, 3), ("points", 2, 3), ("export", 0, 0)]
    events = store.events("one", 0)
    last_clip = max(event.id for event in events if event.trajectory is not None)
    first_output = min(event.id for event in events if event.stage == "points")
    assert last_clip < first_output
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert store.scene("one").status is SceneStatus.COMPLETED


async def test_no_outputs_are_made_when_none_are_wanted(store: Store) -> None:
    new_scene(store, ())
    memory = FakeMemory(PLAN)
    await job_of(store, FakeReplicas(2), memory).run()
    assert memory.outputs == []
    assert store.scene("one").status is SceneStatus.COMPLETED


async def test_an_output_that_cannot_be_made_fails_the_scene_and_keeps_its_clips(
    store: Store,
) -> None:
    new_scene(store, ("points",))

    async def fails() -> None:
        raise GenerationError("no depth for this clip", where="v/a")

    memory = FakeMemory(PLAN, reconstructing=fails)
    await job_of(store, FakeReplicas(2), memory).run()
    record = store.scene("one")
    assert record.status is SceneStatus.FAILED
    assert record.error is not None
    assert (record.error.what, record.error.where) == ("no depth for this clip", "v/a")
    assert {str(item.status) for item in record.trajectories} == {"completed"}
    assert memory.states == dict.fromkeys(PLAN, "completed"), "the manifest is written all the same"


async def test_outputs_are_made_of_what_there_is_when_a_clip_failed(store: Store) -> None:
    new_scene(store, ("colmap",))
    memory = FakeMemory(PLAN)
    await job_of(store, FakeReplicas(2, {"v/b": [BROKEN]}), memory).run()
    assert memory.outputs == ["colmap"]
    record = store.scene("one")
    assert record.status is SceneStatus.FAILED
    assert record.error is not None
    assert "v/b" in (record.error.got or "")


async def test_outputs_that_take_too_long_fail_the_scene(store: Store) -> None:
    new_scene(store, ("points",))

    async def hangs() -> None:
        await asyncio.sleep(60)

    memory = FakeMemory(PLAN, reconstructing=hangs)
    await job_of(store, FakeReplicas(2), memory, outputs_timeout_s=0.1).run()
    error = store.scene("one").error
    assert error is not None
    assert (error.what, error.got) == ("the outputs took too long", "more than 0.1 s")
    assert memory.stopped.is_set()  # its one thread is needed for the manifest


async def test_outputs_that_do_not_stop_fail_the_scene_all_the_same(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(FakeMemory):
        async def stop(self) -> None:
            if self.outputs:
                raise ActorDiedError

    async def hangs() -> None:
        await asyncio.sleep(60)

    new_scene(store, ("points",))
    memory = Deaf(PLAN, reconstructing=hangs)
    await job_of(store, FakeReplicas(2), memory, outputs_timeout_s=0.1).run()
    assert store.scene("one").status is SceneStatus.FAILED
    assert memory.states == dict.fromkeys(PLAN, "completed")
    assert "do not stop: The actor died" in caplog.text


async def test_a_bank_that_still_works_for_a_lost_orchestrator_is_stopped(store: Store) -> None:
    new_scene(store, ())
    memory = FakeMemory(PLAN, opening=lambda: calls.append(memory.stopped.is_set()))
    calls: list[bool] = []
    await job_of(store, FakeReplicas(2), memory).run()
    assert calls == [True]


async def test_a_cancel_stops_the_outputs(store: Store) -> None:
    new_scene(store, ("points",))
    memory = FakeMemory(PLAN)
    making = asyncio.Event()

    async def until_stopped() -> None:
        making.set()
        await memory.stopped.wait()
        raise GenerationCancelled("cancelled while the outputs were made")

    memory._reconstructing = until_stopped
    job = job_of(store, FakeReplicas(2), memory)
    task = asyncio.create_task(job.run())
    await asyncio.wait_for(making.wait(), 5)
    store.advance_scene("one", SceneStatus.CANCELLING)
    job.cancel()
    await asyncio.wait_for(task, 5)
    record = store.scene("one")
    assert (record.status, record.error) == (SceneStatus.CANCELLED, None)
    assert memory.states == dict.fromkeys(PLAN, "completed")


async def test_a_bank_that_dies_for_good_leaves_the_scene_to_be_taken_up_again(
    store: Store,
) -> None:
    new_scene(store, ("points",))

    async def dies() -> None:
        raise ActorDiedError

    with pytest.raises(ActorDiedError):
        await job_of(store, FakeReplicas(2), FakeMemory(PLAN, reconstructing=dies)).run()
    assert store.scene("one").status is SceneStatus.IN_PROGRESS


async def test_an_output_on_a_gpu_comes_after_what_it_needs(store: Store) -> None:
    new_scene(store, ("splats", "colmap"))
    memory = FakeMemory(PLAN)
    made: list[str] = []

    async def make(scene_id: str, output: GpuOutput, on_stage: OnStage) -> None:
        made.append(f"{scene_id} {output}")
        assert sorted(memory.outputs) == ["colmap", "points"]
        on_stage("train", 3, 7)
        await asyncio.sleep(0.05)

    await job_of(store, FakeReplicas(2), memory, make=make).run()
    assert made == ["one splats"]
    told = [(event.stage, event.step, event.steps) for event in scene_events(store)]
    assert ("train", 3, 7) in told
    assert store.scene("one").status is SceneStatus.COMPLETED


async def test_a_cancel_stops_an_output_on_a_gpu(store: Store) -> None:
    new_scene(store, ("worldmirror_results",))
    begun, ended = asyncio.Event(), asyncio.Event()

    async def make(scene_id: str, output: GpuOutput, on_stage: OnStage) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    job = job_of(store, FakeReplicas(2), FakeMemory(PLAN), make=make)
    task = asyncio.create_task(job.run())
    await asyncio.wait_for(begun.wait(), 5)
    store.advance_scene("one", SceneStatus.CANCELLING)
    job.cancel()
    await asyncio.wait_for(task, 5)
    assert ended.is_set()
    assert store.scene("one").status is SceneStatus.CANCELLED
