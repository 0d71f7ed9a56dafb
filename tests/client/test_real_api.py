"""The client against the server's own API, store and files; only the cluster behind it is absent.

What the cluster would do to a scene, the tests do to the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from typer.testing import CliRunner
from worldstereo_client import AsyncClient, Client, RetryPolicy, errors
from worldstereo_client.cli import build_app
from worldstereo_client.schemas import Output, SceneStatus, TrajectoryStatus

from configs.settings import UploadLimits
from deployments.event_feed import EventFeed
from deployments.folders import SceneFolders
from deployments.offers import Offers
from deployments.store import Store
from deployments.submission import Submitter
from deployments.tables import sqlite_url
from tests.client.conftest import QUICK
from tests.client.stub_server import serving
from tests.formats.bad_scenes import CASES, BadScene
from tests.scenes import make_reconstruction
from worldstereo.config import ModelConfig, Variant
from worldstereo.formats.manifest import write_manifest
from worldstereo.formats.results import write_trajectory
from worldstereo.models.source import bundled_folder, read_model_config
from worldstereo.types import Cameras

if TYPE_CHECKING:
    from deployments.api import Backend

VARIANT: Variant = "worldstereo-memory-dmd"
TRAJECTORIES = ("renders/traj_up", "renders/traj_right")


class AlwaysReady:
    async def ready(self) -> dict[str, bool]:
        return {VARIANT: True}


@dataclass
class Server:
    url: str
    store: Store
    folders: SceneFolders

    def generate(self, scene_id: str, pause_s: float = 0.0) -> None:
        """Do to a scene what the cluster does."""
        output = self.folders.scene(scene_id).output
        self.store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
        for name in TRAJECTORIES:
            for status in (TrajectoryStatus.QUEUED, TrajectoryStatus.IN_PROGRESS):
                time.sleep(pause_s)
                self.store.advance_trajectory(scene_id, name, status)
            frames = np.zeros((2, 32, 48, 3), dtype=np.uint8)
            identity = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
            write_trajectory(
                output / name, frames, Cameras(identity, identity[:, :3, :3], 32, 48), ()
            )
            time.sleep(pause_s)
            self.store.advance_trajectory(scene_id, name, TrajectoryStatus.COMPLETED)
        write_manifest(output, {})
        self.store.advance_scene(scene_id, SceneStatus.COMPLETED)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    from deployments.api import Backend, create_api

    folders = SceneFolders(tmp_path / "data")
    folders.root.mkdir()
    store = Store(sqlite_url(folders.root / "store.sqlite"))
    config: ModelConfig = read_model_config(bundled_folder("worldstereo-tiny") / VARIANT)
    configs = {VARIANT: config}
    offers = Offers(outputs=get_args(Output))

    async def wake() -> None:
        """Nobody is behind the store."""

    backend: Backend = Backend(
        store=store,
        folders=folders,
        submitter=Submitter(
            store, folders, configs, UploadLimits(), offers, max_queued_scenes=3, max_validations=2
        ),
        feed=EventFeed(store, poll_s=0.01, heartbeat_s=0.05),
        readiness=AlwaysReady(),
        wake=wake,
        source="worldstereo-tiny",
        configs=configs,
        offers=offers,
    )
    with serving(create_api(backend)) as url:
        yield Server(url, store, folders)
    store.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, retries=QUICK) as client:
        yield client


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return make_reconstruction(tmp_path / "room", ("traj_up", "traj_right"), size=(32, 48))


def test_a_scenes_life(server: Server, client: Client, room: Path, tmp_path: Path) -> None:
    job = client.scenes.submit(room, seed=7, align_nframe=4)
    assert job.name == "room"
    scene = job.status()
    assert (scene.status, scene.queue_position) == ("queued", 0)
    assert (scene.parameters.seed, scene.parameters.align_nframe) == (7, 4)
    assert [item.id for item in scene.trajectories] == list(TRAJECTORIES)
    generating = threading.Thread(target=server.generate, args=(job.id, 0.02))
    generating.start()
    seen = list(job.events())
    generating.join()
    assert [event.id for event in seen] == list(range(1, len(seen) + 1))
    assert list(job.events(after=seen[2].id)) == seen[3:]
    assert list(job.events(after=seen[-1].id)) == []
    assert job.wait().progress == 1.0
    files = job.download(tmp_path / "out")
    assert files[-1] == tmp_path / "out" / "manifest.json"
    assert len(files) == 2 * (2 + 3) + 1
    assert len(job.cameras(TRAJECTORIES[0])) == 2
    assert [row.id for row in client.scenes.list(page_size=1)] == [job.id]
    with pytest.raises(errors.StateConflict):
        job.cancel()


def test_an_interrupted_download_is_resumed(
    server: Server, client: Client, room: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(room)
    server.generate(job.id)
    (video, *_) = [item for item in job.artefacts() if item.kind == "video"]
    target = tmp_path / "out" / video.name
    target.parent.mkdir(parents=True)
    content = job.read(video.name)
    partial = target.with_name(f".{target.name}.{video.sha256[:16]}.partial")
    partial.write_bytes(content[:100])
    job.download(tmp_path / "out", kinds={"video"})
    assert target.read_bytes() == content
    assert not partial.exists()


def test_the_key_is_the_same_however_the_scene_is_sent(client: Client, room: Path) -> None:
    first = client.scenes.submit(room, idempotency_key="mine")
    (room / "image.png").touch()
    assert client.scenes.submit(room, idempotency_key="mine").id == first.id
    with pytest.raises(errors.IdempotencyConflict):
        client.scenes.submit(room, idempotency_key="mine", seed=2)


def test_a_cancelled_scene(server: Server, client: Client, room: Path) -> None:
    job = client.scenes.submit(room)
    assert job.cancel().status is SceneStatus.CANCELLING
    assert job.cancel().status is SceneStatus.CANCELLING
    server.store.advance_scene(job.id, SceneStatus.CANCELLED)
    with pytest.raises(errors.GenerationCancelled):
        job.wait()


def test_a_failed_scene_is_resumed(server: Server, client: Client, room: Path) -> None:
    job = client.scenes.submit(room)
    first, second = TRAJECTORIES
    server.store.advance_scene(job.id, SceneStatus.IN_PROGRESS)
    for status in (TrajectoryStatus.QUEUED, TrajectoryStatus.FAILED):
        server.store.advance_trajectory(job.id, first, status)
    server.store.advance_trajectory(job.id, second, TrajectoryStatus.SKIPPED)
    with pytest.raises(errors.StateConflict):
        job.resume()
    server.store.advance_scene(job.id, SceneStatus.FAILED)
    with pytest.raises(errors.GenerationError):
        job.wait()
    assert job.resume().status is SceneStatus.QUEUED
    with pytest.raises(errors.StateConflict):
        job.resume()
    generating = threading.Thread(target=server.generate, args=(job.id, 0.02))
    generating.start()
    seen = list(job.events())  # from the first on: the earlier end does not end it
    generating.join()
    assert [event.id for event in seen] == list(range(1, len(seen) + 1))
    assert [event.status for event in seen if event.type == "scene"][2:] == [
        "failed",
        "queued",
        "in_progress",
        "completed",
    ]
    assert job.wait().progress == 1.0


def test_a_scene_is_deleted(server: Server, client: Client, room: Path) -> None:
    job = client.scenes.submit(room)
    with pytest.raises(errors.StateConflict, match="cancel it first"):
        job.delete()
    server.generate(job.id)
    job.delete()
    with pytest.raises(errors.SceneNotFound):
        job.status()
    assert not server.folders.scene(job.id).root.exists()
    assert list(client.scenes.list()) == []


def test_a_scene_comes_as_one_zip(
    server: Server, client: Client, room: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(room)
    server.generate(job.id)
    path = job.archive(tmp_path / "zips" / "room.zip")
    files = {item.name: item for item in job.artefacts()}
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == set(files)
        for name, item in files.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == item.sha256
    assert list(path.parent.iterdir()) == [path]
    job.delete()
    with pytest.raises(errors.SceneNotFound):
        job.archive(tmp_path / "none.zip")
    assert not (tmp_path / "none.zip").exists()


async def test_the_asynchronous_client_does_the_same(
    server: Server, client: Client, room: Path, tmp_path: Path
) -> None:
    scene_id = client.scenes.submit(room).id
    server.store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
    server.store.advance_scene(scene_id, SceneStatus.FAILED)
    async with AsyncClient(server.url, retries=QUICK) as other:
        job = await other.scenes.job(scene_id)
        assert (await job.resume()).status is SceneStatus.QUEUED
        await asyncio.to_thread(server.generate, scene_id)
        path = await job.archive(tmp_path / "room.zip")
        with zipfile.ZipFile(path) as archive:
            assert "manifest.json" in archive.namelist()
        await job.delete()
        with pytest.raises(errors.SceneNotFound):
            await job.status()


def test_the_command_line_resumes_and_deletes(server: Server, client: Client, room: Path) -> None:
    def worldstereo(*arguments: str) -> tuple[int, str]:
        ran = CliRunner().invoke(build_app(), [*arguments, "--url", server.url])
        return ran.exit_code, ran.output

    scene_id = client.scenes.submit(room).id
    code, said = worldstereo("delete", scene_id)
    assert (code, "cancel it first" in said) == (2, True)
    server.store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
    server.store.advance_scene(scene_id, SceneStatus.FAILED)
    assert worldstereo("resume", scene_id) == (0, f"{scene_id} queued\n")
    code, said = worldstereo("resume", scene_id, "--wait")
    assert (code, "queued -> queued" in said) == (2, True)
    server.store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
    server.store.advance_scene(scene_id, SceneStatus.FAILED)

    def generate_when_queued() -> None:
        while server.store.scene(scene_id).status is not SceneStatus.QUEUED:
            time.sleep(0.01)
        server.generate(scene_id)

    generating = threading.Thread(target=generate_when_queued)
    generating.start()
    code, said = worldstereo("resume", scene_id, "--wait", "--json")
    generating.join()
    assert (code, json.loads(said)["status"]) == (0, "completed")
    assert worldstereo("delete", scene_id) == (0, f"{scene_id} deleted\n")
    code, said = worldstereo("delete", scene_id, "--json")
    assert (code, "no such scene" in said) == (2, True)


def test_a_full_queue(server: Server, client: Client, room: Path) -> None:
    for _ in range(3):
        client.scenes.submit(room)
    impatient = RetryPolicy(longest_retry_after_s=1)
    with Client(server.url, retries=impatient) as other, pytest.raises(errors.QueueFull):
        other.scenes.submit(room)


def test_what_the_server_says_about_itself(client: Client) -> None:
    (model,) = client.models()
    assert (model.id, model.source, model.ready) == (VARIANT, "worldstereo-tiny", True)
    assert client.health().status == client.ready().status == "ok"


def test_unknown_things(client: Client, room: Path) -> None:
    with pytest.raises(errors.SceneNotFound):
        client.scenes.get("nope")
    with pytest.raises(errors.ArtefactNotFound):
        client.scenes.submit(room).read("nothing.png")
    with pytest.raises(errors.ParameterError, match="does not offer the variant"):
        client.scenes.submit(room, variant="worldstereo-camera")


# Archives hold files: an empty folder is lost on the way, and another rule refuses the scene.
UPLOADABLE = [bad for bad in CASES if bad.uploadable and bad.name != "no_trajectory"]


@pytest.mark.parametrize("bad", UPLOADABLE, ids=lambda bad: bad.name)
def test_a_bad_scene_raises_the_engines_error(
    client: Client, bad: BadScene, tmp_path: Path
) -> None:
    arguments = {k: tmp_path / v if isinstance(v, Path) else v for k, v in bad.arguments.items()}
    with pytest.raises(errors.InputError) as caught:
        client.scenes.submit(bad.build(tmp_path), **arguments)
    if caught.value.problem is not None:
        assert type(caught.value).__name__ == bad.error.__name__
        assert caught.value.status == 422
        for part in bad.mentions:
            assert part in str(caught.value)
