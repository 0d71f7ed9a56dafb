"""The reconstructor on a real cluster, with a program that stands for HY-World 2.0."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import ray

from cluster.local import APPLICATION, LocalCluster
from configs.settings import ReconstructorSettings
from deployments.reconstructor import (
    RECONSTRUCTOR_NAME,
    ReconstructorService,
    reconstructor_deployment,
)
from tests.clusters import running_cluster
from worldstereo.reconstruction.worldmirror_run import WorldMirrorSettings

pytestmark = pytest.mark.cluster

PROGRAM = """
import os, pathlib, sys, time
results = pathlib.Path(sys.argv[sys.argv.index("--strict_output_path") + 1])
here = pathlib.Path.cwd()
(here / f"pid-{len(list(here.glob('pid-*')))}").write_text(str(os.getpid()))
print("1/2", flush=True)
while not (here / "go").exists():
    time.sleep(0.02)
results.mkdir()
(results / "points.ply").touch()
(results / "camera_params.json").touch()
"""


def write_hy_world(folder: Path) -> WorldMirrorSettings:
    """A checkout that stands for HY-World 2.0, started without torchrun, on no GPU."""
    pipeline = folder / "hyworld2" / "worldrecon" / "pipeline.py"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(PROGRAM)
    launcher = folder / "launch"
    launcher.write_text(
        f'#!/bin/sh\nshift 5\nexec {sys.executable} -S hyworld2/worldrecon/pipeline.py "$@"\n'
    )
    launcher.chmod(0o755)
    return WorldMirrorSettings(path=folder, python=str(launcher), licence_accepted=True)


def write_data(folder: Path) -> Path:
    """A result folder with one image for WorldMirror."""
    data = folder / "world_mirror_data" / "worldstereo-memory-dmd"
    (data / "images").mkdir(parents=True)
    (data / "images" / "pano-0.png").touch()
    cameras = '{"extrinsics": [{"camera_id": "pano-0"}], "intrinsics": [{"camera_id": "pano-0"}]}'
    (data / "cameras.json").write_text(cameras)
    return data / "results"


def pid_of(checkout: Path, run: int) -> int:
    """The process of a run, once it has begun."""
    deadline = time.monotonic() + 60
    while not (text := read(checkout / f"pid-{run}")):
        assert time.monotonic() < deadline, f"run {run} does not begin"
        time.sleep(0.05)
    return int(text)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_until_gone(pid: int) -> None:
    """Returns when no such process runs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = read(Path(f"/proc/{pid}/stat"))
        if not status or status.rpartition(")")[2].split()[0] in "ZX":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


@ray.remote(num_cpus=0)
class Caller:
    """An asynchronous actor, as the orchestrator is; a handle in the test's own process would
    leave a thread there that outlives the cluster.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stages: list[tuple[str, int, int]] = []

    async def begin(self, name: str, settings: ReconstructorSettings, folder: Path) -> None:
        handle = ray.serve.get_deployment_handle(RECONSTRUCTOR_NAME, APPLICATION)
        making = ReconstructorService.of(handle, settings).make(
            folder, "worldmirror_results", lambda *sign: self._stages.append(sign)
        )
        self._tasks[name] = asyncio.ensure_future(making)

    async def cancel(self, name: str) -> list[tuple[str, int, int]]:
        self._tasks[name].cancel()
        return self._stages

    async def end(self, name: str) -> None:
        await self._tasks[name]


def replicas(cluster: LocalCluster) -> list[int]:
    title = f"ray::ServeReplica:{APPLICATION}:{RECONSTRUCTOR_NAME}"
    words = {pid: Path(f"/proc/{pid}/cmdline") for pid in cluster.processes}
    return [pid for pid, path in words.items() if read(path).startswith(title)]


def test_on_a_cluster_cancelled_killed_and_made(tmp_path):
    hy_world, results = write_hy_world(tmp_path / "hy"), write_data(tmp_path / "hall")
    settings = ReconstructorSettings(
        worldmirror=hy_world, num_cpus=0.1, retry_delay_s=0.1, health_check_period_s=0.5
    )

    folder = tmp_path / "hall"
    with running_cluster(num_cpus=2, num_gpus=1) as cluster:
        cluster.deploy(reconstructor_deployment(settings))
        assert replicas(cluster) == []
        caller = Caller.remote()
        ray.get(caller.begin.remote("first", settings, folder))
        pid = pid_of(hy_world.path, 0)
        stages = ray.get(caller.cancel.remote("first"))
        wait_until_gone(pid)  # its caller gave it up
        ray.get(caller.begin.remote("again", settings, folder))
        pid = pid_of(hy_world.path, 1)
        (replica,) = replicas(cluster)
        os.kill(replica, signal.SIGKILL)
        pid_of(hy_world.path, 2)  # another replica has it
        wait_until_gone(pid)  # and has ended what the killed one left
        (hy_world.path / "go").touch()
        ray.get(caller.end.remote("again"), timeout=60)
    assert stages[0] == ("wait", 0, 0)
    assert (results / "points.ply").is_file()
