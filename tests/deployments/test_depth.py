"""The depth deployment: a replica by itself, the caller's side, and both on a real cluster."""

import asyncio
import os
import pickle
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, RayTaskError

from cluster.local import APPLICATION, LocalCluster
from configs.settings import AppArgs, DepthAutoscalingSettings, DepthSettings
from deployments import depth
from deployments.depth import (
    DEPTH_NAME,
    DepthEstimator,
    DepthLost,
    DepthService,
    depth_deployment,
)
from tests.clusters import running_cluster
from tests.depth import tiny_depth_pro
from worldstereo.depth.depth_pro import DepthPro
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import CheckpointError, GenerationError, MediaError

SETTINGS = DepthSettings(max_batch_size=4, batch_wait_s=0.05, timeout_s=20)
NO_DEPTH, BREAKS, KILLS = 255, 254, 253


def image(value: int = 0, height: int = 4, width: int = 6):
    return np.full((height, width, 3), value, dtype=np.uint8)


class Values:
    """A source whose depth is the image's value; some values stand for failures."""

    def __init__(self) -> None:
        self.batches = []
        self.began, self.go = threading.Event(), threading.Event()
        self.go.set()

    def depths_of(self, images):
        self.batches.append([int(one[0, 0, 0]) for one in images])
        self.began.set()
        assert self.go.wait(10)
        for value in self.batches[-1]:
            if value == NO_DEPTH:
                raise MediaError("no depth", where="the image")
            if value == BREAKS:
                raise RuntimeError("cannot reshape")
            if value == KILLS:
                raise torch.AcceleratorError("an illegal memory access was encountered")
        return [DepthMap(one[..., 0].astype(np.float32), True) for one in images]


@pytest.fixture
def values(monkeypatch):
    # The one thing that Serve's batching asks of the replica that it runs in.
    deployment = SimpleNamespace(max_ongoing_requests=2 * SETTINGS.max_batch_size)
    context = SimpleNamespace(_deployment_config=deployment)
    monkeypatch.setattr(ray.serve, "get_replica_context", lambda: context)
    source = Values()
    monkeypatch.setattr(depth, "load_estimator", lambda *_, **__: source)
    return source


@pytest.fixture
def exits(monkeypatch):
    """What the process would have ended with."""
    codes = []
    monkeypatch.setattr(depth.os, "_exit", codes.append)
    monkeypatch.setattr(depth, "_LAST_WORD_S", 0.01)
    return codes


async def test_images_that_come_together_are_one_batch(values):
    replica = DepthEstimator(SETTINGS)
    found = await asyncio.gather(*(replica.depth_of(image(value)) for value in range(1, 7)))
    assert [one.depth[0, 0] for one in found] == [1, 2, 3, 4, 5, 6]
    assert values.batches == [[1, 2, 3, 4], [5, 6]]
    await replica.check_health()


async def test_replicas_of_one_process_share_no_batch(values):
    replicas = DepthEstimator(SETTINGS), DepthEstimator(SETTINGS)
    await asyncio.gather(*(replica.depth_of(image(1)) for replica in replicas))
    assert values.batches == [[1], [1]]


async def test_an_image_fails_alone(values, exits):
    replica = DepthEstimator(SETTINGS)
    asked = [replica.depth_of(image(value)) for value in (1, NO_DEPTH, BREAKS, 2)]
    first, none, broken, last = await asyncio.gather(*asked, return_exceptions=True)
    assert (first.depth[0, 0], last.depth[0, 0]) == (1, 2)
    assert isinstance(none, MediaError)
    assert isinstance(broken, GenerationError)
    assert "RuntimeError: cannot reshape" in str(broken)
    await asyncio.sleep(0.05)
    assert exits == []


async def test_a_lost_device_ends_the_process(values, exits):
    replica = DepthEstimator(SETTINGS)
    asked = [replica.depth_of(image(value)) for value in (1, KILLS)]
    lost = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in lost] == [DepthLost, DepthLost]
    await asyncio.sleep(0.05)
    assert exits == [1]
    assert values.batches == [[1, KILLS]]
    with pytest.raises(TimeoutError):  # whoever comes now waits for the process to be gone
        await asyncio.wait_for(replica.depth_of(image(1)), 0.05)


async def test_a_stuck_batch_ends_the_process(values, exits):
    replica = DepthEstimator(SETTINGS.model_copy(update={"batch_timeout_s": 0.05}))
    values.go.clear()
    asked = asyncio.ensure_future(replica.depth_of(image(1)))
    await replica.check_health()
    assert await asyncio.to_thread(values.began.wait, 10)
    await asyncio.sleep(0.1)
    with pytest.raises(DepthLost, match=r"longer than 0\.05 s"):
        await replica.check_health()
    await asyncio.sleep(0.05)
    assert exits == [1]
    values.go.set()
    await asked


async def test_a_network_that_cannot_be_loaded_is_told_to_whoever_needs_it(tmp_path, exits):
    missing = SETTINGS.model_copy(update={"source": str(tmp_path)})
    replica = DepthEstimator(missing, local_files_only=True)
    with pytest.raises(CheckpointError, match="hf download apple/DepthPro-hf"):
        await replica.depth_of(image())
    await asyncio.sleep(0.05)
    assert exits == [1]  # the next replica tries again
    scale = DepthAutoscalingSettings(min_replicas=1)
    with pytest.raises(CheckpointError):
        DepthEstimator(missing.model_copy(update={"autoscaling": scale}), local_files_only=True)


class Response:
    def __init__(self, answer) -> None:
        self.answer = answer
        self.cancelled = False
        self.waits = []

    def result(self, *, timeout_s):
        self.waits.append(timeout_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Serve's handle, as far as the service uses it: ``handle.depth_of.remote(image)``."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.responses = []
        self.asked = []

    @property
    def depth_of(self):
        return self

    def remote(self, one):
        self.asked.append(int(one[0, 0, 0]))
        self.responses.append(Response(self.answers.pop(0)))
        return self.responses[-1]


def remotely(error: Exception) -> RayTaskError:
    """An error as it comes from another process, of a class made from two."""
    found: RayTaskError = RayTaskError("depth_of", "traceback", error).as_instanceof_cause()
    return found


MAPS = [DepthMap(np.full((2, 2), value, dtype=np.float32), True) for value in (1, 2, 3)]


def test_the_service_asks_for_all_images_at_once():
    handle = Handle(*MAPS)
    assert DepthService(handle).depths_of([image(1), image(2), image(3)]) == MAPS
    assert handle.asked == [1, 2, 3]
    assert not any(response.cancelled for response in handle.responses)
    assert DepthService(Handle()).depths_of([]) == []


def test_an_error_of_the_replica_is_raised_as_itself_and_the_rest_is_cancelled():
    handle = Handle(MAPS[0], remotely(MediaError("no depth", where="the image")), MAPS[2])
    with pytest.raises(MediaError, match="the image: no depth") as caught:
        DepthService(handle).depths_of([image(1), image(2), image(3)])
    assert type(caught.value) is MediaError
    assert handle.responses[2].cancelled
    assert handle.asked == [1, 2, 3]


@pytest.mark.parametrize("loss", [ActorDiedError(), remotely(DepthLost("the device failed"))])
def test_an_image_whose_replica_dies_is_asked_for_again(loss, monkeypatch):
    monkeypatch.setattr(depth, "_LAST_WORD_S", 0.0)
    handle = Handle(MAPS[0], loss, MAPS[1])
    assert DepthService(handle).depths_of([image(1), image(2)]) == MAPS[:2]
    assert handle.asked == [1, 2, 2]


def test_attempts_are_bounded(monkeypatch):
    monkeypatch.setattr(depth, "_LAST_WORD_S", 0.0)
    handle = Handle(*[ActorDiedError()] * 5)
    with pytest.raises(DepthLost, match="died at each of 2 attempts"):
        DepthService(handle, max_attempts=2).depths_of([image(1)])
    assert handle.asked == [1, 1]


def test_all_images_share_one_deadline():
    handle = Handle(MAPS[0], TimeoutError(), MAPS[2])
    with pytest.raises(DepthLost, match="no depth within 5 s"):
        DepthService(handle, timeout_s=5).depths_of([image(1), image(2), image(3)])
    waits = [wait for response in handle.responses for wait in response.waits]
    assert sorted(waits, reverse=True) == waits
    assert 0 < waits[-1] <= waits[0] <= 5
    assert handle.responses[1].cancelled
    assert handle.responses[2].cancelled


def test_the_service_takes_its_limits_from_the_settings_and_can_be_sent():
    service = DepthService.of("handle", DepthSettings(timeout_s=12, max_attempts=5))
    assert pickle.loads(pickle.dumps(service)) == DepthService("handle", 12, 5)


def test_the_deployment_follows_the_settings():
    settings = DepthSettings(
        device="cuda",
        num_gpus=0.25,
        max_batch_size=5,
        autoscaling=DepthAutoscalingSettings(max_replicas=3),
    )
    deployment = depth_deployment(settings)._bound_deployment
    assert deployment.name == DEPTH_NAME
    assert deployment.ray_actor_options == {"num_cpus": 0.5, "num_gpus": 0.25}
    scale = deployment._deployment_config.autoscaling_config
    assert (scale.min_replicas, scale.max_replicas, scale.target_ongoing_requests) == (0, 3, 5)
    assert deployment.max_ongoing_requests == 10


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"device": "cuda"}, "cuda needs a share"),
        ({"num_gpus": 0.5}, "cpu none"),
        ({"estimator": "midas"}, "moge"),
        ({"autoscaling": {"min_replicas": 2}}, "min_replicas 2 is above max_replicas 1"),
        ({"batch": 4}, "batch"),
    ],
)
def test_settings_that_cannot_be(fields, problem):
    assert AppArgs().depth is None
    with pytest.raises(ValidationError, match=problem):
        AppArgs.model_validate({"depth": fields})


@ray.remote(num_cpus=0)
class Caller:
    """An ordinary actor, which is where scenes ask for depth.

    A handle that was used in the test's own process would leave a thread there that outlives the
    cluster.
    """

    def depths_of(self, service: DepthService, images) -> list[DepthMap]:
        return service.depths_of(images)


def replicas(cluster: LocalCluster) -> list[int]:
    title = f"ray::ServeReplica:{APPLICATION}:{DEPTH_NAME}"
    found = []
    for pid in cluster.processes:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        found += [pid] if words.startswith(title) else []
    return found


@pytest.mark.cluster
def test_a_real_network_on_a_cluster_from_zero_replicas_and_after_a_death(tmp_path):
    weights = tiny_depth_pro.save(tmp_path / "tiny")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((40, 60), (30, 20))]
    settings = DepthSettings(source=str(weights), num_cpus=0.1, timeout_s=120)
    truth = DepthPro.from_pretrained(weights).depths_of(images)
    with running_cluster(num_cpus=2, num_gpus=0) as cluster:
        cluster.deploy(depth_deployment(settings, local_files_only=True))
        assert replicas(cluster) == []
        handle = ray.serve.get_deployment_handle(DEPTH_NAME, APPLICATION)
        service = DepthService.of(handle, settings)
        caller = Caller.remote()
        check(ray.get(caller.depths_of.remote(service, images)), truth)
        (replica,) = replicas(cluster)
        os.kill(replica, signal.SIGKILL)
        check(ray.get(caller.depths_of.remote(service, images)), truth)
        assert replicas(cluster) != [replica]


def check(found: list[DepthMap], expected: list[DepthMap]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_array_equal(one.intrinsics, other.intrinsics)
        assert one.metric
