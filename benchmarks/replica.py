"""A replica of two ranks behind Serve: a real clip over HTTP, then one whose rank is killed.

``python -m benchmarks.replica --source FOLDER`` on a machine with two GPUs; FOLDER is what
full_size_checkpoint.py wrote. The whole service runs on an embedded cluster: ingress,
orchestrator, memory bank, one generator whose weights and tokens are shared by two ranks (ulysses
2, fsdp, not compiled). The same clip is generated twice, the first time with rank 1 killed (-9)
in its second step; both must have the same frames.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from worldstereo_client import Client, SceneJob

from benchmarks.environment import write_result
from cluster.hardware import MachineGpus
from cluster.local import LocalCluster
from cluster.processes import is_running
from configs.settings import AppArgs, GeneratorSettings, ModelSettings, OrchestratorSettings
from deployments.allotment import allot
from deployments.app import build_application, model_settings, required_resources
from worldstereo.parallel.layout import ParallelLayout

EXAMPLE = Path(__file__).parent.parent / "examples" / "demo_scene"
LAYOUT = ParallelLayout(ulysses=2, fsdp=True)


def one_clip(folder: Path) -> Path:
    """The example scene with its first trajectory alone."""
    scene = folder / "scene"
    shutil.copytree(EXAMPLE, scene)
    _, *others = sorted((scene / "renders").iterdir())
    for other in others:
        shutil.rmtree(other)
    return scene


def settings(source: str, device: str, data: Path) -> AppArgs:
    return AppArgs(
        model=ModelSettings(
            source=source,
            image_features="worldstereo-tiny/dinov2",
            device="cuda" if device == "cuda" else "cpu",
            precision="bfloat16" if device == "cuda" else "float32",
            torch_threads=None if device == "cuda" else 1,
            worker_num_cpus=1 if device == "cuda" else 0.5,
            worker_num_gpus=1 if device == "cuda" else 0,
            parallel=LAYOUT,
            start_timeout_s=300,
            step_timeout_s=60,
        ),
        data_dir=data,
        local_files_only=True,
        generator=GeneratorSettings(replicas=1, health_check_period_s=1),
        orchestrator=OrchestratorSettings(poll_interval_s=0.2),
    )


def workers(cluster: LocalCluster) -> list[int]:
    """Ids of the rank processes, as they were started."""
    found = []
    for pid in cluster.processes:
        title = Path(f"/proc/{pid}/cmdline")
        if title.exists() and "ray::ModelWorker" in title.read_text():
            found.append(pid)
    return sorted(found)


def frames_of(job: SceneJob) -> dict[str, str]:
    return {item.name: item.sha256 for item in job.artefacts() if item.kind == "frame"}


def gpu_memory_mib() -> list[int]:
    """In use on each GPU, by the driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=True)
    return [int(line) for line in answer.stdout.split()]


def undisturbed(client: Client, scene: Path) -> tuple[dict[str, Any], dict[str, str]]:
    began = time.perf_counter()
    job = client.scenes.submit(scene, outputs=["transforms"])
    job.wait()
    total = time.perf_counter() - began
    (clip,) = job.status().trajectories
    row = {"scene_s": total, "stage_s": clip.stage_seconds, "gpu_memory_mib": gpu_memory_mib()}
    return row, frames_of(job)


def killed(
    client: Client, scene: Path, cluster: LocalCluster
) -> tuple[dict[str, Any], dict[str, str]]:
    """Kill the second rank in the clip's second step."""
    job = client.scenes.submit(scene, outputs=["transforms"])
    row: dict[str, Any] = {}
    victims: list[int] = []
    at = 0.0
    for event in job.events():
        now = time.perf_counter()
        if not victims and event.stage == "denoise" and event.step == 1:
            victims = workers(cluster)
            at = time.perf_counter()
            os.kill(victims[-1], signal.SIGKILL)
        elif victims and "told_s" not in row and event.status == "queued":
            row["told_s"] = now - at
            row["reason"] = event.error.detail if event.error else None
        elif "told_s" in row and "generates_again_s" not in row and event.stage == "denoise":
            row["generates_again_s"] = now - at
    row["scene_completed_s"] = time.perf_counter() - at
    row["attempts"] = [clip.attempt for clip in job.status().trajectories]
    row["old_workers_left"] = [pid for pid in victims if is_running(pid)]
    return row, frames_of(job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = one_clip(Path(folder))
        args = settings(arguments.source, arguments.device, Path(folder) / "data")
        allotments = allot(args, model_settings(args), MachineGpus())
        need = required_resources(args, allotments)
        gpus = int(need.num_gpus)
        name = "replica" if gpus else "replica_cpu"
        began = time.perf_counter()
        with LocalCluster(num_cpus=need.num_cpus, num_gpus=gpus, port=0) as cluster:
            started = time.perf_counter()
            cluster.deploy(build_application(args, allotments))
            ready = time.perf_counter()
            found: dict[str, Any] = {
                "layout": str(LAYOUT),
                "cluster_start_s": started - began,
                "ready_s": ready - started,
            }
            print(json.dumps(found), flush=True)
            with Client(cluster.url) as client:
                found["rank_killed"], frames = killed(client, scene, cluster)
                print(json.dumps(found["rank_killed"]), flush=True)
                write_result(name, found)  # what is there, should the rest fail
                found["undisturbed"], expected = undisturbed(client, scene)
                print(json.dumps(found["undisturbed"]), flush=True)
            found["frames"] = len(frames)
            found["same_frames"] = frames == expected
            assert found["same_frames"], "the frames differ"
            pids = cluster.processes
    found["processes_left"] = [pid for pid in pids if is_running(pid)]
    print(write_result(name, found).read_text())


if __name__ == "__main__":
    main()
