"""What the service costs beside the clips: HTTP, scenes a minute, a long queue, many watchers.

``python -m benchmarks.service``: the whole service on an embedded cluster of this machine, with an
engine that needs no time, driven from a second process over loopback. Keys of a load are those of
the serving benchmarks of other diffusion servers; latencies are in milliseconds.

The time that orchestration adds to a clip is what passes between the end of one clip and the start
of the next that depends on it, plus what of the clip no stage accounts for.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from worldstereo_client.schemas import SceneRequest

from actors.engine import EngineSpec
from benchmarks.environment import write_result
from cluster.hardware import MachineGpus
from cluster.local import LocalCluster
from configs.settings import AppArgs, GeneratorSettings, ModelSettings, OrchestratorSettings
from deployments.allotment import allot
from deployments.app import build_application, model_settings, required_resources
from deployments.records import NewScene
from deployments.store import Store
from deployments.tables import sqlite_url
from tests import scenes
from tests.deployments.archive_files import zip_of_folder
from tests.deployments.fake_engine import fake_frames
from worldstereo.types import Clip, Progress, UInt8

REQUESTS = 200
SCENES, CONCURRENCY = 40, 4
ACTIVE = 4
QUEUED = 10_000
WATCHERS = 1_000
# A scene that asks for this many steps keeps its replica busy, the queue waiting.
SLOW_STEPS, SLOW_STEP_S = 200, 1.0


class InstantEngine:
    """Frames at once, or one step after the other where many are asked for."""

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        """As ``actors.engine.ClipEngine``."""
        if num_inference_steps == SLOW_STEPS and on_stage is not None:
            for step in range(SLOW_STEPS):
                time.sleep(SLOW_STEP_S)
                on_stage(Progress("denoise", step + 1, SLOW_STEPS))
        return fake_frames(clip)


def load(spec: EngineSpec, mesh: object) -> InstantEngine:
    return InstantEngine()


def latencies(seconds: list[float]) -> dict[str, float]:
    """Of requests, in milliseconds."""
    ordered = sorted(1000 * value for value in seconds)
    return {
        "latency_mean": statistics.mean(ordered),
        "latency_median": statistics.median(ordered),
        "latency_p50": statistics.median(ordered),
        "latency_p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Driver:
    """The second process: requests from outside, one client for all of them.

    Args:
        url: of the service.
        archive: a small scene, zipped.
    """

    def __init__(self, url: str, archive: bytes) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._url, self._archive = url, archive

    def submit(self, **parameters: Any) -> dict[str, Any]:
        """The scene as it was accepted."""
        files = {"scene": ("s.zip", self._archive), "parameters": (None, json.dumps(parameters))}
        answer = self._http.post("/v1/scenes", files=files)
        answer.raise_for_status()
        scene: dict[str, Any] = answer.json()
        return scene

    def wait(self, scene: dict[str, Any]) -> dict[str, Any]:
        """The scene when it has completed."""
        with self._http.stream("GET", scene["urls"]["events"]) as events:
            for _ in events.iter_lines():
                pass
        ended: dict[str, Any] = self._http.get(scene["urls"]["self"]).json()
        assert ended["status"] == "completed", ended
        return ended

    def routes(self, done: dict[str, Any]) -> dict[str, Any]:
        """Latency of each route, one request after the other."""
        artefacts = self._http.get(done["urls"]["artefacts"]).json()["artefacts"]
        frame = next(item for item in artefacts if item["kind"] == "frame")
        paths = {
            "GET /healthz": "/healthz",
            "GET /v1/models": "/v1/models",
            "GET /v1/scenes": "/v1/scenes",
            "GET /v1/scenes/{id}": done["urls"]["self"],
            "GET /v1/scenes/{id}/artefacts": done["urls"]["artefacts"],
            "GET /v1/scenes/{id}/artefacts/{name}": frame["url"],
        }
        found: dict[str, Any] = {}
        for route, path in paths.items():

            def ask(path: str = path) -> None:
                self._http.get(path).raise_for_status()

            ask()
            found[route] = latencies([timed(ask) for _ in range(REQUESTS)])
        return found

    def throughput(self) -> dict[str, Any]:
        """Scenes that are sent one after the other by a few senders, until the last has ended."""

        def one(_: int) -> float:
            driver = Driver(self._url, self._archive)
            return timed(lambda: driver.wait(driver.submit(outputs=[])))

        began = time.perf_counter()
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            seconds = list(pool.map(one, range(SCENES)))
        duration = time.perf_counter() - began
        return {
            "duration": duration,
            "completed_requests": len(seconds),
            "failed_requests": SCENES - len(seconds),
            "throughput_qps": SCENES / duration,
            "scenes_per_minute": 60 * SCENES / duration,
            **latencies(seconds),
        }

    def watched(self, scene: dict[str, Any]) -> dict[str, Any]:
        """How late watchers hear of a step of a scene that runs, all of them at once."""
        return asyncio.run(self._watch(scene))

    async def _watch(self, scene: dict[str, Any]) -> dict[str, Any]:
        late: list[float] = []
        heard = 0

        async def watch(http: httpx.AsyncClient) -> None:
            nonlocal heard
            began = time.time()
            async with http.stream("GET", scene["urls"]["events"]) as events:
                async for line in events.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if event["time"] > began + 20 and event.get("stage") == "denoise":
                        late.append(time.time() - event["time"])
                        heard += 1
                        return

        limits = httpx.Limits(max_connections=WATCHERS)
        async with httpx.AsyncClient(base_url=self._url, timeout=120, limits=limits) as http:
            await asyncio.gather(*(watch(http) for _ in range(WATCHERS)))
        return {"watchers": heard, **latencies(late)}


def _serve_driver(connection: Any, url: str, archive: bytes) -> None:
    driver = Driver(url, archive)
    while (call := connection.recv()) is not None:
        name, arguments = call
        try:
            connection.send((True, getattr(driver, name)(**arguments)))
        except Exception as error:
            connection.send((False, repr(error)))
            raise


@contextmanager
def second_process(url: str, archive: bytes) -> Iterator[Callable[..., Any]]:
    """Calls a ``Driver`` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_driver, args=(there, url, archive))
    process.start()

    def call(name: str, **arguments: Any) -> Any:
        here.send((name, arguments))
        worked, result = here.recv()
        assert worked, result
        return result

    try:
        yield call
    finally:
        here.send(None)
        process.join()


def added_by_orchestration(scene: dict[str, Any]) -> list[float]:
    """Milliseconds a clip, of a scene whose clips wait for each other."""
    clips = sorted(scene["trajectories"], key=lambda clip: clip["started_at"])
    added = [
        clip["finished_at"] - clip["started_at"] - sum(clip["stage_seconds"].values())
        for clip in clips
    ]
    for index, (before, after) in enumerate(itertools.pairwise(clips)):
        added[index + 1] += after["started_at"] - before["finished_at"]
    return [1000 * seconds for seconds in added]


def memory_mb(cluster: LocalCluster) -> dict[str, float]:
    """Resident megabytes of ingress and orchestrator."""
    found = {}
    for pid in cluster.processes:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        for part in ("ingress", "orchestrator"):
            if title.startswith(f"ray::ServeReplica:worldstereo:{part}"):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                found[part] = pages * 4096 / 1e6
    return found


def fill_queue(store: Store, count: int) -> float:
    """Seconds to store this many scenes that wait."""
    request = SceneRequest()
    began = time.perf_counter()
    for number in range(count):
        scene = NewScene(f"queued{number}", "queued", request, ("renders/a",))
        store.add_scene(scene, max_queued=count)
    return time.perf_counter() - began


def measure(cluster: LocalCluster, store: Store, call: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    done = call("wait", scene=call("submit", outputs=[]))
    found["routes"] = call("routes", done=done)
    found["throughput"] = call("throughput")
    chains = [call("wait", scene=call("submit", outputs=[])) for _ in range(5)]
    added = [value for scene in chains for value in added_by_orchestration(scene)]
    found["added_per_trajectory_ms"] = {
        "median": statistics.median(added),
        "max": max(added),
        "trajectories": len(added),
    }
    print(json.dumps(found, indent=2), flush=True)
    found["memory_mb"] = {"before": memory_mb(cluster)}
    # As many as may be in progress, so that the rest waits.
    slow, *_ = [call("submit", outputs=[], num_inference_steps=SLOW_STEPS) for _ in range(ACTIVE)]
    found["queue"] = {"scenes": QUEUED, "filled_s": fill_queue(store, QUEUED)}
    found["memory_mb"]["queue"] = memory_mb(cluster)
    assert store.queued() == QUEUED, store.queued()
    found["queue"]["routes"] = call("routes", done=done)
    found["watchers"] = call("watched", scene=slow)
    found["memory_mb"]["watchers"] = memory_mb(cluster)
    found["peak_memory_mb_max"] = max(
        value for parts in found["memory_mb"].values() for value in parts.values()
    )
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        archive = zip_of_folder(scenes.make_reconstruction(Path(folder) / "kitchen"))
        args = AppArgs(
            model=ModelSettings(
                source="worldstereo-tiny",
                image_features="worldstereo-tiny/dinov2",
                worker_num_cpus=0.1,
                engine="benchmarks.service:load",
            ),
            data_dir=data,
            local_files_only=True,
            generator=GeneratorSettings(replicas=1),
            orchestrator=OrchestratorSettings(max_active_scenes=ACTIVE),
        )
        allotments = allot(args, model_settings(args), MachineGpus())
        need = required_resources(args, allotments)
        with LocalCluster(num_cpus=need.num_cpus, num_gpus=0, port=0) as cluster:
            cluster.deploy(build_application(args, allotments))
            store = Store(sqlite_url(data / "store.sqlite"))
            with second_process(cluster.url, archive) as call:
                found = measure(cluster, store, call)
            store.close()
    print(json.dumps(found, indent=2))
    print(write_result("service", found))


if __name__ == "__main__":
    main()
