"""How long planning a scene takes, beside loops of single-target scorings.

Plans the recorded scene of 33 trajectories (tests/golden/retrieval) as the engine does, and by
scoring one target after the other, on one thread:

- ``loop_of_targets``: each target against all frames that the memory holds by then, which is
  vectorised over the memory but repeats its frusta for every target;
- ``loop_of_targets_frusta_kept``: the same with every frustum computed once, so that only the
  scores themselves are taken one target at a time.

All of them find the same frames, which is checked in every repetition.

Run ``python -m benchmarks.planning``; the result is benchmarks/results/planning.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.environment import write_result
from tests.golden.check_retrieval import OWN_FOLDER, GoldenScene
from worldstereo.memory.plan import clip_cameras, keyframe_indices, plan_scene
from worldstereo.memory.retrieval import continuity, frusta, join_frusta, score
from worldstereo.types import TrajectoryInput, concatenate_cameras

WANTED_RATIO = 20.0
REPEATS = 5

Found = list[list[str]]


def batched(scene: GoldenScene) -> Found:
    """The engine's plan: the frame found for each target of each trajectory."""
    plan = plan_scene(scene.input, scene.parameters, scene.nframe)
    return [list(trajectory.nearest) for trajectory in plan.trajectories]


def loop_of_targets(scene: GoldenScene, *, keep_frusta: bool = False) -> Found:
    """One target after the other against the memory as it is then."""
    ids = [frame.id for frame in scene.input.start_frames]
    cameras = concatenate_cameras([frame.camera for frame in scene.input.start_frames])
    kept = frusta(cameras)
    found = []
    for trajectory in scene.input.trajectories:
        bonus = _bonus(trajectory, ids)
        nearest = []
        targets = frusta(trajectory.cameras)
        for target in range(1, len(trajectory.cameras)):
            one = targets[[target]] if keep_frusta else frusta(trajectory.cameras[[target]])
            scores = score(one, kept if keep_frusta else frusta(cameras))[0].numpy()
            if target in bonus:
                scores[bonus[target]] += np.float32(1)
            nearest.append(ids[int(scores.argmax())])
        found.append(nearest)
        clip = clip_cameras(trajectory, scene.nframe)
        indices = keyframe_indices(len(clip), scene.parameters.align_nframe)
        ids += [f"{trajectory.id}/{index:04d}" for index in indices]
        cameras = concatenate_cameras([cameras, clip[list(indices)]])
        kept = join_frusta([kept, frusta(clip[list(indices)])])
    return found


def _bonus(trajectory: TrajectoryInput, ids: list[str]) -> dict[int, int]:
    owners = [frame_id.rpartition("/")[0] for frame_id in ids]
    return continuity(trajectory.view, trajectory.name, owners, len(trajectory.cameras))


def seconds(run: Callable[[], Found], expected: Found) -> float:
    """Median seconds of ``run`` over the repetitions, after one that is not counted."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - start)
        assert found == expected, "the ways of planning disagree"
    return statistics.median(times[1:])


def main() -> int:
    """Measure, print, write the result; 1 where the claim does not hold."""
    torch.set_num_threads(1)
    scene = GoldenScene(OWN_FOLDER / "retrieval")
    expected = [row["nearest"] for row in scene.content["rows"]]
    planned = seconds(lambda: batched(scene), expected)
    loops = {
        "loop_of_targets": seconds(lambda: loop_of_targets(scene), expected),
        "loop_of_targets_frusta_kept": seconds(
            lambda: loop_of_targets(scene, keep_frusta=True), expected
        ),
    }
    result = {
        "claim": f"planning is >= {WANTED_RATIO:g}x faster than a loop of single-target scorings",
        "trajectories": len(scene.input.trajectories),
        "targets": sum(len(row) for row in expected),
        "bank_frames": len(scene.bank),
        "threads": 1,
        "repeats": REPEATS,
        "warm_up_runs": 1,
        "batched_seconds": planned,
        **{f"{name}_seconds": value for name, value in loops.items()},
        **{f"{name}_ratio": value / planned for name, value in loops.items()},
    }
    for name, value in result.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    write_result("planning", result)
    return 0 if result["loop_of_targets_ratio"] >= WANTED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
