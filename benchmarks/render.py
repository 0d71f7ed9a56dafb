"""How long our point renderer takes, and that it is linear in the number of points.

Renders 21 frames of 480 x 768 along an orbit, from a synthetic depth map that is lifted to about
350,000 points and from even selections of them. Medians of 3 runs after one that is not counted.
On a CPU also one frame of the two sizes that PyTorch3D's CPU rasteriser was timed at.

Run ``python -m benchmarks.render``; the result is benchmarks/results/render_<device>.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.environment import write_result
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.lift import lift_depth
from worldstereo.geometry.render import POINTS_PER_PIXEL, RADIUS_NDC, render_points
from worldstereo.geometry.trajectories import orbit

HEIGHT, WIDTH, FRAMES = 480, 768, 21
# Seconds of PyTorch3D's CPU rasteriser for one frame, recorded on another machine of 2 cores.
PYTORCH3D_SECONDS = {(120, 192, 22_000): 2.1, (240, 384, 91_000): 26.0}
POINTS = 350_000
COUNTS = (50_000, 100_000, 200_000, POINTS)
WANTED_SECONDS = {"cpu": 20.0, "cuda": 0.1}
# Time per point may grow by this much from the fewest points to the most: a quadratic way's
# would be seven times as high.
WANTED_GROWTH = 1.25
WARM_UP_RUNS = 1


def synthetic_scene() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points [P, 3], colours [P, 3], camera_from_world [21, 4, 4] and intrinsics [21, 3, 3]."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    depth = 4 + torch.sin(x / 90) + torch.cos(y / 70) - 1.5 * (torch.hypot(x - 300, y - 250) < 90)
    # Holes, as estimators leave them.
    valid = (x % 96 - 48) ** 2 + (y % 96 - 48) ** 2 > 10**2
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, HEIGHT, WIDTH, generator=generator) * 2 - 1
    focal = 0.9 * WIDTH
    intrinsics = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    points, colors = lift_depth(image, depth, valid, intrinsics, torch.eye(4))
    path = orbit(StartPose(np.eye(4), float(depth.median())), 20, 10, FRAMES)
    cameras = torch.from_numpy(path.camera_from_world)
    return points, colors, cameras, intrinsics.expand(FRAMES, 3, 3)


def seconds(
    scene: tuple[Tensor, ...], counts: Sequence[int], device: torch.device, repeats: int
) -> dict[int, list[float]]:
    """Seconds of rendering all frames from so many points spread over the list, every repeat.

    The counts take turns, so that what else the machine does meets all of them alike.
    """
    points, colors, cameras, intrinsics = (part.to(device) for part in scene)
    times: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(WARM_UP_RUNS + repeats):
        for count in counts:
            chosen = torch.linspace(0, len(points) - 1, count, device=device).long()
            some, their_colors = points[chosen], colors[chosen]
            start = time.perf_counter()
            render_points(some, their_colors, cameras, intrinsics, HEIGHT, WIDTH)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[count].append(time.perf_counter() - start)
    return {count: every[WARM_UP_RUNS:] for count, every in times.items()}


def beside_pytorch3d(repeats: int) -> list[dict[str, float]]:
    """Seconds of one frame on the CPU at the sizes that PyTorch3D was timed at."""
    points, colors, cameras, intrinsics = synthetic_scene()
    found = []
    for (height, width, count), recorded in PYTORCH3D_SECONDS.items():
        chosen = torch.linspace(0, len(points) - 1, count).long()
        scale = torch.tensor([[width / WIDTH], [height / HEIGHT], [1.0]])
        times = []
        for _ in range(WARM_UP_RUNS + repeats):
            start = time.perf_counter()
            render_points(
                points[chosen], colors[chosen], cameras[-1:], intrinsics[-1:] * scale, height, width
            )
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times[WARM_UP_RUNS:])
        size = {"height": height, "width": width, "points": count}
        found.append(size | {"seconds": seconds, "pytorch3d_recorded_seconds": recorded})
    return found


def main() -> int:
    """Measure, print, write the result; 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each count")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    wanted = WANTED_SECONDS[device.type]
    scene = synthetic_scene()
    counts = [min(count, len(scene[0])) for count in COUNTS]
    times = seconds(scene, counts, device, arguments.repeats)
    measured = {count: statistics.median(every) for count, every in times.items()}
    slope, fixed = np.polyfit(list(measured), list(measured.values()), 1)
    fewest, most = counts[0], counts[-1]
    growth = (measured[most] / most) / (measured[fewest] / fewest)
    result = {
        "claim": f"{FRAMES} frames of {HEIGHT}x{WIDTH} from {most} points in <= "
        f"{wanted:g} s, time linear in points",
        "device": str(device),
        "frames": FRAMES,
        "height": HEIGHT,
        "width": WIDTH,
        "radius_ndc": RADIUS_NDC,
        "points_per_pixel": POINTS_PER_PIXEL,
        "repeats": arguments.repeats,
        "warm_up_runs": WARM_UP_RUNS,
        "median_seconds_by_points": measured,
        "fastest_seconds_by_points": {count: min(every) for count, every in times.items()},
        "seconds_per_frame": measured[most] / FRAMES,
        "fixed_seconds": float(fixed),
        "seconds_per_million_points": float(slope) * 1e6,
        "time_ratio_of_most_to_fewest": measured[most] / measured[fewest],
        "points_ratio_of_most_to_fewest": most / fewest,
        "time_per_point_growth": growth,
    }
    for name, value in result.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if device.type == "cpu":
        result["one_frame_beside_pytorch3d"] = beside_pytorch3d(arguments.repeats)
        print(result["one_frame_beside_pytorch3d"])
    if device.type == "cuda":
        result["gpu"] = torch.cuda.get_device_name(device)
    write_result(f"render_{device.type}", result)
    reached = measured[most] <= wanted and growth <= WANTED_GROWTH
    return 0 if reached and not math.isnan(growth) else 1


if __name__ == "__main__":
    sys.exit(main())
