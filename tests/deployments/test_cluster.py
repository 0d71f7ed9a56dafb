"""The whole service on a real embedded cluster: scenes, faults, cancellation, bits.

One cluster for the module. The fake engine stands for the model, except in the last test.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
import torch
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from worldstereo_client.schemas import Problem, SceneStatus

from actors.memory_bank import BankSpec, SceneBank
from cluster.local import LocalCluster
from cluster.loopback import listeners
from cluster.processes import is_running
from configs.settings import AppArgs, GeneratorSettings, ModelSettings, OrchestratorSettings
from deployments.app import build_app
from deployments.folders import SceneFolders
from tests import scenes
from tests.clusters import running_cluster
from tests.deployments import archive_files as make
from tests.deployments.fake_engine import BREAKS_WHILE
from tests.deployments.served import (
    PATIENCE_S,
    Service,
    check_completed,
    check_order,
    one_by_one,
    statuses,
)
from tests.miniature import miniature
from worldstereo import WorldStereo
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.formats.manifest import verify_manifest
from worldstereo.formats.video import read_video

pytestmark = pytest.mark.cluster

CLIPS = 8
FAKE = ModelSettings(
    source="worldstereo-tiny",
    image_features="worldstereo-tiny/dinov2",
    torch_threads=None,
    worker_num_cpus=0.1,
    engine="tests.deployments.fake_engine:load",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    home = Path.home() / ".ray"
    before = home.exists()
    with running_cluster(num_cpus=4, num_gpus=0) as running:
        yield running
        pids = running.processes
        folder = running.run_folder
    assert pids
    assert [pid for pid in pids if is_running(pid)] == []
    assert not folder.exists()
    assert home.exists() == before
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def deploy(cluster: LocalCluster, data: Path, model: ModelSettings, replicas: int) -> Service:
    args = AppArgs(
        model=model,
        data_dir=data,
        local_files_only=True,
        generator=GeneratorSettings(
            replicas=replicas,
            coordinator_num_cpus=0.01,
            health_check_period_s=1,
            graceful_shutdown_timeout_s=1,
        ),
        orchestrator=OrchestratorSettings(
            num_cpus=0.01, bank_num_cpus=0.01, poll_interval_s=0.5, lease_s=3.0
        ),
    )
    cluster.deploy(build_app(args))
    return Service(cluster, data)


@pytest.fixture(scope="module")
def service(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    deployed = deploy(cluster, tmp_path_factory.mktemp("fake") / "data", FAKE, replicas=3)
    yield deployed
    deployed.close()


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A panorama of eight clips that depend on each other."""
    folder: Path = scenes.make_panorama(tmp_path_factory.mktemp("scenes") / "city")
    return folder


@pytest.fixture(scope="module")
def city_zip(city: Path) -> bytes:
    return make.zip_of_folder(city, "city/")


@pytest.fixture(scope="module")
def truth(
    city: Path, tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return one_by_one(city, tmp_path_factory.mktemp("truth") / "output", tiny_config)


def test_only_this_machine_can_connect(service: Service) -> None:
    pids = service.cluster.processes
    found = listeners(pids)
    assert any(entry.port == service.cluster.port for entry in found)
    assert [entry for entry in found if not entry.loopback] == []
    if shutil.which("ss"):  # and so says another program
        table = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
        ours = [line for line in table.splitlines() if any(f"pid={pid}," in line for pid in pids)]
        assert len(ours) >= len(found)
        for line in ours:
            address = line.split()[3].rpartition(":")[0]
            assert address in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"), line


def test_ray_wants_the_token(service: Service) -> None:
    token = service.cluster.run_folder / "token"
    assert token.stat().st_mode & 0o077 == 0
    assert os.environ["RAY_AUTH_MODE"] == "token"
    bearer = (("authorization", f"Bearer {token.read_text()}"),)
    assert ask_gcs(bearer) == grpc.StatusCode.OK
    assert ask_gcs(None) == grpc.StatusCode.UNAUTHENTICATED


def ask_gcs(metadata: tuple[tuple[str, str], ...] | None) -> grpc.StatusCode:
    """The answer of Ray's control service to a question with these headers."""
    request = gcs_service_pb2.GetAllNodeInfoRequest()
    with grpc.insecure_channel(ray.get_runtime_context().gcs_address) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            stub.GetAllNodeInfo(request, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_the_server_says_what_it_offers(service: Service) -> None:
    assert service.http.get("/healthz").json()["status"] == "ok"
    assert service.http.get("/readyz").json()["status"] == "ok"
    (model,) = service.http.get("/v1/models").json()["models"]
    assert (model["id"], model["ready"]) == ("worldstereo-memory-dmd", True)


def test_a_scene_goes_in_and_videos_come_out(
    service: Service, city_zip: bytes, truth: dict[str, str]
) -> None:
    submitted = service.submit(city_zip)
    events = service.wait(submitted)
    scene = service.scene(submitted)
    assert (scene.status, scene.progress) == (SceneStatus.COMPLETED, 1.0)
    assert len(scene.trajectories) == CLIPS
    check_order(scene, events)
    stages = [event.stage for event in events if event.trajectory == scene.trajectories[0].id]
    assert [stage for stage in dict.fromkeys(stages) if stage] == [
        "retrieve",
        "encode",
        "denoise",
        "decode",
        "commit",
    ]
    assert set(scene.trajectories[0].stage_seconds) == {stage for stage in stages if stage}
    # Several replicas worked at once.
    spans = [(item.started_at or 0, item.finished_at or 0) for item in scene.trajectories]
    assert any(a < b < c for a, c in spans for b, _ in spans if b != a)

    assert service.frames(submitted) == truth
    assert verify_manifest(service.output(submitted))
    kinds = [item.kind for item in service.artefacts(submitted)]
    assert kinds.count("video") == CLIPS
    assert kinds.count("frame") == CLIPS * 21
    assert kinds.count("manifest") == 1


def test_results_are_fetched_in_ranges(service: Service, kitchen_zip: bytes) -> None:
    scene = service.submit(kitchen_zip, name="mine")
    service.wait(scene)
    assert service.scene(scene).name == "mine"
    video = next(item for item in service.artefacts(scene) if item.kind == "video")
    whole = service.http.get(video.url)
    assert len(whole.content) == video.bytes
    half = video.bytes // 2
    rest = service.http.get(video.url, headers={"Range": f"bytes={half}-"})
    assert rest.status_code == 206
    assert whole.content[:half] + rest.content == whole.content
    assert rest.headers["ETag"] == whole.headers["ETag"] == f'"{video.sha256}"'
    assert len(read_video(service.output(scene) / video.name)) == 21


def test_events_are_resumed_without_gap_or_repeat(service: Service, kitchen_zip: bytes) -> None:
    scene = service.submit(kitchen_zip)
    first = []
    for event in service.events(scene):
        first.append(event)
        if event.stage == "denoise":
            break
    rest = list(service.events(scene, after=first[-1].id))
    assert [event.id for event in [*first, *rest]] == list(range(1, rest[-1].id + 1))
    assert rest[-1].status == "completed"
    assert list(service.events(scene, after=rest[-1].id)) == []


@pytest.mark.parametrize(
    ("files", "status", "error"),
    [
        ({"scene": ("scene.zip", b"nothing of the kind")}, 400, "UploadError"),
        ({"scene": ("scene.zip", make.zip_of({"../up": b"x"}))}, 400, "UploadError"),
        ({"scene": ("scene.zip", make.zip_of({"image.png": b"x"}))}, 422, "LayoutError"),
        ({"depth": ("depth.npy", b"x")}, 422, "ValidationError"),
        ({"scene": ("a", b"x"), "parameters": (None, '{"seed": "x"}')}, 422, "ValidationError"),
        ({"scene": ("a", b"x"), "parameters": (None, '{"variant": "x"}')}, 422, "ParameterError"),
    ],
)
def test_bad_uploads_are_refused(
    service: Service, files: dict[str, Any], status: int, error: str
) -> None:
    response = service.http.post("/v1/scenes", files=files)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert Problem.model_validate_json(response.content).error == error


def test_a_cancelled_scene_stops_at_once_and_another_completes(
    service: Service, city_zip: bytes, kitchen_zip: bytes
) -> None:
    long = service.submit(city_zip, num_inference_steps=500)
    step = service.wait_for(long, "denoise 2", count=3)
    other = service.submit(kitchen_zip)
    assert service.http.post(long.urls.cancel).status_code == 202
    events = service.wait(long)
    assert events[-1].status == "cancelled"
    assert step.step is not None
    told = next(event for event in events if event.status == "cancelling")
    for trajectory in service.scene(long).trajectories:
        steps = [event for event in events if event.trajectory == trajectory.id and event.step]
        # A step of 0.4 s, or those of the time that a busy machine takes to tell the worker; that
        # it stops within the step in which it hears of it is tested elsewhere.
        after = [event.step for event in steps if event.id > told.id]
        assert len(after) <= 50, (trajectory.id, after)
    assert set(statuses(service.scene(long)).values()) == {"cancelled"}
    assert service.http.post(long.urls.cancel).json()["status"] == "cancelled"

    assert service.wait(other)[-1].status == "completed"
    assert service.http.post(other.urls.cancel).status_code == 409


def test_a_clip_that_breaks_fails_its_dependents_and_the_scene_is_resumed(
    service: Service, city: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(city, broken)
    caption = broken / "view0" / "traj2" / "traj_caption.json"
    reason = tmp_path / "reason"
    reason.touch()
    caption.write_text(json.dumps({"prompt": f"{BREAKS_WHILE}{reason}"}))
    workers = service.processes("ray::ModelWorker")
    scene = service.submit(make.zip_of_folder(broken, "broken/"))
    events = service.wait(scene)
    ended = service.scene(scene)
    check_order(ended, events)
    assert ended.status is SceneStatus.FAILED
    states = statuses(ended)
    assert states["view0/traj2"] == "failed"
    skipped = {name for name, state in states.items() if state == "skipped"}
    for trajectory in ended.trajectories:
        depends = set(trajectory.depends_on)
        if trajectory.id != "view0/traj2":
            assert (trajectory.id in skipped) == bool(depends & {"view0/traj2", *skipped})
    error = next(item.error for item in ended.trajectories if item.id == "view0/traj2")
    assert error is not None
    assert (error.error, error.got) == ("GenerationError", "RuntimeError: the engine broke")
    assert verify_manifest(service.output(scene))
    assert service.processes("ray::ModelWorker") == workers

    reason.unlink()
    assert service.http.post(f"{scene.urls.self}/resume").status_code == 202
    since = list(service.events(scene, after=events[-1].id))
    assert [event.id for event in since][:1] == [events[-1].id + 1]
    check_completed(service.scene(scene))
    started = {event.trajectory for event in since if event.status == "in_progress"} - {None}
    assert started == {"view0/traj2", *skipped}
    assert verify_manifest(service.output(scene))
    assert service.http.delete(scene.urls.self).status_code == 204
    assert not service.output(scene).parent.exists()


FAULTS = {
    "worker": "ray::ModelWorker",
    "coordinator": "ray::ServeReplica:worldstereo:generator",
    "memory bank": "ray::MemoryBankActor",
    "orchestrator": "ray::ServeReplica:worldstereo:orchestrator",
}


@pytest.mark.parametrize("part", FAULTS)
def test_whatever_dies_the_scene_completes_with_the_same_bits(
    part: str, service: Service, city_zip: bytes, truth: dict[str, str]
) -> None:
    service.wait_until_ready()
    scene = service.submit(city_zip, num_inference_steps=5)  # two seconds a clip, the same bits
    service.wait_for(scene, "denoise 1", count=2)
    victims = service.processes(FAULTS[part])
    assert victims
    for victim in victims:  # all replicas at once, where there are several
        os.kill(victim, signal.SIGKILL)
    events = service.wait(scene)
    ended = service.scene(scene)
    check_completed(ended)
    check_order(ended, events)
    assert service.frames(scene) == truth
    assert verify_manifest(service.output(scene))
    if part in ("worker", "coordinator"):
        assert max(trajectory.attempt for trajectory in ended.trajectories) > 1
        assert [event for event in events if event.status == "queued" and event.error]
    assert not set(victims) & set(service.processes("ray::"))


def test_no_memory_bank_outlives_its_scene(
    service: Service, tiny_config: ModelConfig, city: Path, tmp_path: Path
) -> None:
    name = SceneFolders(service.data).service
    spec = BankSpec(
        name,
        "forgotten",
        city,
        None,
        "auto",
        tmp_path / "output",
        SceneParameters(),
        tiny_config,
        "worldstereo-tiny",
        True,
    )
    SceneBank.get_or_create(spec, num_cpus=0.01)
    (orchestrator,) = service.processes(FAULTS["orchestrator"])
    os.kill(orchestrator, signal.SIGKILL)  # the next one finds a bank of no scene that it knows
    deadline = time.monotonic() + PATIENCE_S
    while SceneBank.scenes(name) or service.processes(FAULTS["memory bank"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_real_model_gives_the_bits_of_one_process_on_three_replicas(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("real")
    views = {"view0": ("traj2", "traj0"), "target_door_0": ("traj0",)}
    city = scenes.make_panorama(folder / "city", views, bank=4)
    model = ModelSettings(
        source=miniature(),
        image_features="worldstereo-tiny/dinov2",
        torch_threads=1,
        worker_num_cpus=0.5,
    )
    service = deploy(cluster, folder / "data", model, replicas=3)
    scene = service.submit(make.zip_of_folder(city, "city/"), num_inference_steps=2)
    events = service.wait(scene)
    ended = service.scene(scene)
    check_completed(ended)
    check_order(ended, events)
    assert len(service.processes("ray::ModelWorker")) == 3
    frames = service.frames(scene)
    service.close()
    assert len(frames) == 3 * 21
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in workers and memory banks
    try:
        engine = WorldStereo.from_pretrained(model.source, subfolder="worldstereo-memory-dmd")
        generate = partial(engine.generate, num_inference_steps=2)
        assert frames == one_by_one(city, folder / "output", engine.config, generate)
    finally:
        torch.set_num_threads(threads)
