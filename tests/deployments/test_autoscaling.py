"""The Serve part of the Kubernetes manifest on nodes that come and go with the clips that wait.

Ray's autoscaler starts and ends real raylets on this machine; the fake engine stands for the model.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from worldstereo_client.schemas import Event, Scene

from cluster.loopback import listeners
from configs.settings import AppArgs, AutoscalingSettings
from tests import scenes
from tests.autoscaled import autoscaled_head
from tests.deployments import archive_files as make
from tests.deployments.fake_engine import WAITS_WHILE
from tests.deployments.served import Service, check_completed, check_order
from tests.multi_node import ROOT, MultiNode, multi_node
from worldstereo.formats.manifest import verify_manifest

pytestmark = pytest.mark.cluster

GENERATOR = "generator-worldstereo-memory-dmd"
REPLICA = f"ray::ServeReplica:worldstereo:{GENERATOR}"
NODE_TYPES = {
    "cpu": {"resources": {"CPU": 2, "service": 1}, "min_workers": 1, "max_workers": 1},
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "min_workers": 0, "max_workers": 3},
}
# Serve hears of the load every second, not every ten.
PUSHED_SOON = {
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MultiNode]:
    folder = tmp_path_factory.mktemp("autoscaler")
    head = autoscaled_head(folder, NODE_TYPES, idle_timeout_s=3)
    head["environment"] = head["environment"] | PUSHED_SOON
    with multi_node(**head) as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("nodes") / "data"
    return folder


def config_for(cluster: MultiNode, data: Path, **deployment: Any) -> dict[str, Any]:
    """The manifest's Serve configuration, fitted to this machine and to a test's patience.

    Replaced: the address, one HTTP proxy instead of one a node, since all nodes are one host here;
    the model; the database, by a file in ``data``; keys; shares of CPUs; and, as Serve lets it be,
    options of the generator's ``deployment``.
    """
    manifest = yaml.safe_load((ROOT / "cluster" / "manifests" / "rayservice.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config["proxy_location"] = "HeadOnly"
    config["http_options"] = {"host": "127.0.0.1", "port": cluster.port}
    (application,) = config["applications"]
    args = application["args"]
    args |= {
        "data_dir": str(data),
        "database_url": None,
        "auth": {"required": False},
        "model": {
            "source": "worldstereo-tiny",
            "image_features": "worldstereo-tiny/dinov2",
            "torch_threads": None,
            "worker_num_cpus": 0.1,
            "worker_num_gpus": 1,
            "step_timeout_s": 300,  # a clip may be held while nodes start
            "engine": "tests.deployments.fake_engine:load",
        },
        "orchestrator": {"num_cpus": 0.01, "bank_num_cpus": 0.01, "poll_interval_s": 0.5},
    }
    args["generator"] |= {"coordinator_num_cpus": 0.01, "health_check_period_s": 1}
    args["generator"]["autoscaling"]["max_replicas"] = 3
    args["ingress"]["num_cpus"] = 0.01
    AppArgs.model_validate(args)
    application["deployments"] = [{"name": GENERATOR, **deployment}]
    return config


def scale(least: int, most: int) -> dict[str, object]:
    """The project's own options of scaling, with no time for second thoughts."""
    settings = AutoscalingSettings(
        min_replicas=least, max_replicas=most, upscale_delay_s=0, downscale_delay_s=2
    )
    soon = {"look_back_period_s": 1.5, "metrics_interval_s": 0.5}
    return settings.for_serve(target_ongoing_requests=1) | soon


@contextmanager
def watched(cluster: MultiNode) -> Iterator[list[tuple[int, int]]]:
    """Replicas, and nodes that have one, whenever their numbers change during the block."""
    seen: list[tuple[int, int]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            replicas = set(cluster.titled(REPLICA))
            of_nodes = [replicas & set(cluster.below(raylet)) for raylet in cluster.raylets]
            found = (len(replicas), sum(bool(own) for own in of_nodes))
            if not seen or seen[-1] != found:
                seen.append(found)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def check_committed_once(scene: Scene, events: list[Event]) -> None:
    check_completed(scene)
    check_order(scene, events)
    for trajectory in scene.trajectories:
        ends = [e for e in events if e.trajectory == trajectory.id and e.status == "completed"]
        assert len(ends) == 1


def test_replicas_and_nodes_follow_the_clips_of_a_scene_from_none_to_none(
    cluster: MultiNode, data: Path, tmp_path: Path
) -> None:
    cluster.deploy_config(config_for(cluster, data, autoscaling_config=scale(0, 3)))
    assert cluster.titled(REPLICA) == []
    assert len(cluster.raylets) == 2  # the head, which runs nothing of ours, and the CPU's node
    assert [entry for entry in listeners(cluster.processes) if not entry.loopback] == []
    service = Service(cluster, data)
    service.wait_until_ready()  # a scene would be taken, though there is no replica
    # Four clips depend on no other; all wait until three nodes are there.
    held = tmp_path / "held"
    held.touch()
    city = scenes.make_panorama(tmp_path / "city")
    for caption in city.rglob("traj_caption.json"):
        caption.write_text(json.dumps({"prompt": f"{WAITS_WHILE}{held}"}))
    archive = make.zip_of_folder(city, "city/")
    with watched(cluster) as seen:
        submitted = service.submit(archive, num_inference_steps=5)  # two seconds a clip
        cluster.wait_until(lambda: (3, 3) in seen, "three replicas, each on a node of its own")
        held.unlink()
        events = service.wait(submitted)
        scene = service.scene(submitted)
        check_committed_once(scene, events)
        assert verify_manifest(service.output(submitted))
        # Replicas went while clips ran; none was cut off.
        assert [trajectory.attempt for trajectory in scene.trajectories] == [1] * 8
        cluster.wait_until(lambda: cluster.titled(REPLICA) == [], "no replica is left")
        cluster.wait_until(lambda: len(cluster.raylets) == 2, "the GPUs' nodes have gone")
    replicas = [count for count, _ in seen]
    assert (replicas[0], max(replicas), replicas[-1]) == (0, 3, 0)
    service.close()


@pytest.mark.parametrize(
    ("grace_s", "attempts"),
    [
        # With enough time it ends its clip; without, the clip is made again by the other.
        pytest.param(60.0, [1, 1], marks=pytest.mark.recovery(by_default=False)),
        pytest.param(0.1, [1, 2], marks=pytest.mark.recovery(by_default=False)),
    ],
)
def test_a_replica_that_is_stopped_while_it_generates_loses_no_clip(
    cluster: MultiNode, data: Path, tmp_path: Path, grace_s: float, attempts: list[int]
) -> None:
    service = Service(cluster, data)
    kitchen = scenes.make_reconstruction(tmp_path / "kitchen", ("traj_up",))
    archive = make.zip_of_folder(kitchen, "kitchen/")
    options: dict[str, Any] = {"graceful_shutdown_timeout_s": grace_s}
    two, one = options | {"autoscaling_config": scale(2, 2)}, scale(1, 1)
    cluster.deploy_config(config_for(cluster, data, **two))
    cluster.wait_until(lambda: cluster.running(GENERATOR) == 2, "both replicas run")
    pair = [service.submit(archive, num_inference_steps=25) for _ in range(2)]  # ten seconds
    for scene in pair:
        service.wait_for(scene, "denoise 1")
    cluster.deploy_config(config_for(cluster, data, **options, autoscaling_config=one))
    frames = []
    for submitted in pair:
        events = service.wait(submitted)
        check_committed_once(service.scene(submitted), events)
        frames.append(service.frames(submitted))
    assert sorted(service.scene(scene).trajectories[0].attempt for scene in pair) == attempts
    cluster.wait_until(lambda: len(cluster.titled(REPLICA)) == 1, "one replica is left")
    assert frames[0] == frames[1]
    service.close()
