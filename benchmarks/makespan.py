"""A scene of 33 trajectories on several replicas, against the exact schedule of its dependencies.

``python -m benchmarks.makespan``: the whole service on an embedded cluster of this machine, with an
engine that waits ``CLIP_S`` for each clip in the place of a model. The schedule is list scheduling
in canonical order: in each round every replica takes the first clip whose dependencies are there.
Claim: the makespan is within 5 % of rounds x the time of a clip.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldstereo_client import Client

from actors.engine import EngineSpec
from benchmarks.environment import write_result
from cluster.hardware import MachineGpus
from cluster.local import LocalCluster
from configs.settings import AppArgs, GeneratorSettings, ModelSettings, OrchestratorSettings
from deployments.allotment import allot
from deployments.app import build_application, model_settings, required_resources
from tests import scenes
from tests.deployments.fake_engine import fake_frames
from worldstereo.types import Clip, Progress, UInt8

CLIP_S, STEPS = 4.0, 8
REPLICAS = (2, 4)
VIEWS = {
    **{f"view{i}": ("traj2", "traj0", "traj1") for i in range(6)},
    **{f"target_door_{i}": ("traj0", "traj1") for i in range(3)},
    **{f"reconstruct_{i}": ("traj0", "traj1") for i in range(3)},
    **{f"wonder_{i}": ("traj0",) for i in range(3)},
}


class WaitingEngine:
    """Every clip takes the same time, whatever else the machine does."""

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        """As ``actors.engine.ClipEngine``."""
        tell = on_stage or (lambda progress: None)
        began = time.monotonic()
        frames = fake_frames(clip)
        for step in range(1, STEPS + 1):
            time.sleep(max(0.0, began + step * CLIP_S / STEPS - time.monotonic()))
            tell(Progress("denoise", step, STEPS))
        return frames


def load(spec: EngineSpec, mesh: object) -> WaitingEngine:
    return WaitingEngine()


def rounds(depends_on: Mapping[str, Sequence[str]], replicas: int) -> int:
    """Rounds of list scheduling; ``depends_on`` is in canonical order."""
    done: set[str] = set()
    count = 0
    while len(done) < len(depends_on):
        ready = [
            name for name, needs in depends_on.items() if name not in done and done >= {*needs}
        ]
        done |= set(ready[:replicas])
        count += 1
    return count


def measure(scene: Path, replicas: int, data: Path) -> dict[str, Any]:
    args = AppArgs(
        model=ModelSettings(
            source="worldstereo-tiny",
            image_features="worldstereo-tiny/dinov2",
            torch_threads=None,
            worker_num_cpus=0.1,
            engine="benchmarks.makespan:load",
        ),
        data_dir=data,
        local_files_only=True,
        generator=GeneratorSettings(replicas=replicas),
        orchestrator=OrchestratorSettings(),
    )
    allotments = allot(args, model_settings(args), MachineGpus())
    need = required_resources(args, allotments)
    with LocalCluster(num_cpus=need.num_cpus, num_gpus=0, port=0) as cluster:
        cluster.deploy(build_application(args, allotments))
        with Client(cluster.url) as client:
            job = client.scenes.submit(scene, outputs=["transforms"])
            denoising = [event.time for event in job.events() if event.stage == "denoise"]
            clips = job.status().trajectories
    count = rounds({clip.id: clip.depends_on for clip in clips}, replicas)
    makespan = max(denoising) - min(denoising) + CLIP_S / STEPS  # from the first clip's start
    return {
        "trajectories": len(clips),
        "rounds": count,
        "makespan_s": makespan,
        "over_schedule": makespan / (count * CLIP_S),
        "overhead_per_round_s": makespan / count - CLIP_S,
        "median_stage_s": {
            stage: statistics.median(clip.stage_seconds[stage] for clip in clips)
            for stage in ("retrieve", "commit")
        },
    }


def main() -> None:
    found: dict[str, Any] = {"clip_s": CLIP_S}
    with tempfile.TemporaryDirectory() as folder:
        scene = scenes.make_panorama(Path(folder) / "city", VIEWS)
        for replicas in REPLICAS:
            row = measure(scene, replicas, Path(folder) / f"data{replicas}")
            found[f"{replicas} replicas"] = row
            print(replicas, row, flush=True)
    print(write_result("makespan", found))


if __name__ == "__main__":
    main()
