"""One key makes one scene, and a clip that finishes twice is there once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from worldstereo_client.schemas import SceneStatus

from actors.messages import Advanced, Committed
from deployments.fair_slots import FairSlots
from deployments.folders import SceneFolders
from deployments.store import Store
from tests.deployments.doubles import HANGS, FakeReplicas, Script
from tests.deployments.test_scene_job import PLAN, history, job_of, new_scene
from tests.memory.folders import (
    FRAMES,
    SIZE,
    TRAJECTORIES,
    generated,
    open_run,
    write_reconstruction,
)
from worldstereo.formats.results import read_trajectory


@pytest.fixture
def store(each_store: Store) -> Store:
    """Every test here runs on each database."""
    return each_store


async def test_100_posts_at_once_with_one_key_make_one_scene(
    http: httpx.AsyncClient, store: Store, folders: SceneFolders, kitchen_zip: bytes
) -> None:
    async def post() -> httpx.Response:
        return await http.post(
            "/v1/scenes",
            files={"scene": ("kitchen.zip", kitchen_zip)},
            headers={"Idempotency-Key": "one-key"},
        )

    answers = await asyncio.gather(*(post() for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    (scene_id,) = {answer.json()["id"] for answer in answers}
    assert [record.id for record in store.page(None, None, 10)[0]] == [scene_id]
    assert [event.id for event in store.events(scene_id, after=0)] == [1]
    assert [path.name for path in (folders.root / "scenes").iterdir()] == [scene_id]
    assert list((folders.root / "uploads").iterdir()) == []


@pytest.mark.virtual_time
async def test_a_clip_that_finishes_twice_ends_once(store: Store) -> None:
    """A silent replica is given up; it commits all the same, before or after the second one."""
    new_scene(store)
    silent: Script = [Advanced("denoise", 1, 2), HANGS]
    late: Script = [Advanced("commit"), Committed(first=False, stage_seconds={"commit": 0.1})]
    replicas = FakeReplicas(5, {"v/a": [silent, late]})
    await job_of(store, replicas, slots=FairSlots(10)).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert [outcome for _, outcome, _ in store.attempts("one", "v/a")] == ["lost", "committed"]
    assert history(store, "v/a").count("completed") == 1
    told = [event.trajectory for event in store.events("one", 0) if event.status == "completed"]
    assert sorted(told, key=str) == sorted([*PLAN, None], key=str)


@pytest.mark.parametrize("turn", range(3))
def test_a_clip_that_two_memories_commit_at_once_is_one_of_the_two(
    tmp_path: Path, turn: int
) -> None:
    """As after a take-over, where the first memory bank still lives somewhere."""
    folder = write_reconstruction(tmp_path / "hall")
    runs = [open_run(folder, tmp_path / "out") for _ in range(2)]
    clips = [np.full((FRAMES, *SIZE, 3), value, np.uint8) for value in (60, 200)]
    name = TRAJECTORIES[0]
    with ThreadPoolExecutor(2) as threads:
        wrote = list(threads.map(lambda run, frames: run.commit(name, frames, {}), runs, clips))
    assert sorted(wrote) == [False, True]
    stored = read_trajectory(runs[0].folder(name)).frames
    np.testing.assert_array_equal(stored, clips[wrote.index(True)])
    # Both remember what is on disk: the next clip is generated from the same.
    assert runs[0].committed == runs[1].committed == {name}
    again = [run.prepare(TRAJECTORIES[1]) for run in runs]
    np.testing.assert_array_equal(generated(again[0]), generated(again[1]))
