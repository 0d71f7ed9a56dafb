"""The asynchronous client does what the synchronous one does."""

from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path

import pytest
from worldstereo_client import AsyncClient, AsyncSceneJob, Client, SceneJob, errors
from worldstereo_client.scenes import AsyncScenes, Scenes
from worldstereo_client.schemas import SceneStatus

from tests.client.conftest import QUICK
from tests.client.stub_scenes import completed_script, queued_script, result_files
from tests.client.stub_server import Stub


async def test_a_scene_from_folder_to_files(
    async_client: AsyncClient, stub: Stub, scene_folder: Path
) -> None:
    job = await async_client.scenes.submit(scene_folder, seed=7)
    assert [event async for event in job.events()] == completed_script()
    assert (await job.wait()).status is SceneStatus.COMPLETED
    output = scene_folder.parent / "out"
    paths = await job.download(output)
    assert {p.relative_to(output).as_posix(): p.read_bytes() for p in paths} == result_files()
    assert stub.scenes[job.id].parameters.seed == 7
    assert (await async_client.scenes.job(job.id)).name == "kitchen"


async def test_both_clients_send_the_same_bytes(
    async_client: AsyncClient, client: Client, stub: Stub, scene_folder: Path
) -> None:
    first = client.scenes.submit(scene_folder, idempotency_key="mine")
    second = await async_client.scenes.submit(scene_folder, idempotency_key="mine")
    assert first.id == second.id
    sent = stub.seen("POST", "/v1/scenes")
    assert sent[0] == sent[1]


async def test_failures_on_the_way(
    async_client: AsyncClient, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    stub.tick_s = 0.02
    stub.fail_next("POST", "/v1/scenes", cut_after=10)
    stub.fail_next("POST", "/v1/scenes", status=429, error="QueueFull")
    job = await async_client.scenes.submit(scene_folder)
    assert len(stub.scenes) == 1
    stub.fail_next("GET", "/events", cut_after=200)
    stub.fail_next("GET", "/events", status=503)
    stub.fail_next("GET", "/events", cut_after=0)
    assert [event async for event in job.events()] == completed_script()
    stub.fail_next("GET", "traj_up/video.mp4", cut_after=70_000)
    stub.fail_next("GET", "traj_right/video.mp4", flip=77)
    await job.download(tmp_path / "out")
    for name, content in result_files().items():
        assert (tmp_path / "out" / name).read_bytes() == content
    assert "range" in stub.seen("GET", "traj_up/video.mp4")[1]


async def test_wrong_bytes_that_stay_are_an_error(
    async_client: AsyncClient, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    job = await async_client.scenes.submit(scene_folder)
    stub.fail_next("GET", "traj_up/video.mp4", times=2, flip=1234)
    with pytest.raises(errors.IntegrityError):
        await job.download(tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


async def test_waiting_ends_with_the_deadline(
    async_client: AsyncClient, stub: Stub, scene_folder: Path
) -> None:
    stub.script = queued_script
    job = await async_client.scenes.submit(scene_folder)
    start = time.monotonic()
    with pytest.raises(errors.WaitTimeout):
        await job.wait(timeout_s=0.3)
    assert time.monotonic() - start < 15
    await job.cancel()
    with pytest.raises(errors.GenerationCancelled):
        await job.wait()


async def test_waiting_can_be_cancelled(
    async_client: AsyncClient, stub: Stub, scene_folder: Path
) -> None:
    stub.script = queued_script
    job = await async_client.scenes.submit(scene_folder)
    waiting = asyncio.create_task(job.wait())
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_errors_lists_models_and_health(
    async_client: AsyncClient, stub: Stub, scene_folder: Path
) -> None:
    with pytest.raises(errors.SceneNotFound):
        await async_client.scenes.get("nope")
    ids = [(await async_client.scenes.submit(scene_folder)).id for _ in range(3)]
    assert [scene.id async for scene in async_client.scenes.list()] == ids[::-1]
    assert (await async_client.models())[0].nframe == 21
    assert (await async_client.health()).status == "ok"
    stub.ready = False
    assert (await async_client.ready()).status == "not_ready"
    async with AsyncClient("http://127.0.0.1:9", retries=QUICK) as nobody:
        with pytest.raises(errors.ServerUnreachable):
            await nobody.models()


@pytest.mark.parametrize(
    ("plain", "awaited"), [(Client, AsyncClient), (Scenes, AsyncScenes), (SceneJob, AsyncSceneJob)]
)
def test_both_have_the_same_methods(plain: type, awaited: type) -> None:
    def public(cls: type) -> set[str]:
        names = {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}
        return {"close" if name == "aclose" else name for name in names}

    assert public(plain) == public(awaited)
