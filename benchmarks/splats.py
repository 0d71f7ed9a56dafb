"""Gaussian splats by gsplat on a GPU, against a world whose pictures are known.

Draws a few Gaussians with gsplat and with the tests' slow rasteriser on the CPU, and compares
pictures and gradients. Then makes the result folder of a synthetic scene whose clips are exact
pictures, trains splats from it as the product does, and judges them by the frames that were held
out: by what training reports, and by the written file drawn anew.

Run ``python -m benchmarks.splats``; the result is benchmarks/results/splats_cuda.json.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.environment import write_result
from tests.reconstruction import gsplat_stand_in
from worldstereo.config import SceneParameters
from worldstereo.formats.ply import write_ply
from worldstereo.formats.results import read_trajectory, write_trajectory
from worldstereo.formats.splat_ply import read_splat_ply
from worldstereo.memory.plan import ScenePlan, TrajectoryPlan
from worldstereo.memory.stored_plan import PLAN_FILE
from worldstereo.reconstruction.splat_training import Rasterise
from worldstereo.reconstruction.splats import (
    FIRST_HELD_OUT,
    HELD_OUT_EVERY,
    POINTS,
    SplatParameters,
    SplatReport,
    train_splats,
)
from worldstereo.synthetic.world import SyntheticWorld, make_world
from worldstereo.types import Cameras, concatenate_cameras

SEED, FRAMES, HEIGHT, WIDTH = 3, 21, 240, 384
STEPS, INITIAL_POINTS = 2000, 100_000
# Mean of the frames that were held out, in dB.
WANTED_PSNR = 25.0
# Of the file drawn anew, against what training reported.
WANTED_PSNR_DIFFERENCE = 0.05
# An opacity that one rounds to just above 1/255 and the other to just below counts in one only.
WANTED_PICTURE_DIFFERENCE = 6e-3
WANTED_GRADIENT_DIFFERENCE = 2e-2


def some_gaussians(count: int = 64) -> dict[str, Tensor]:
    """Gaussians before two cameras, as the arguments of a rasteriser by name."""
    rng = torch.Generator().manual_seed(SEED)
    turn = math.radians(15)
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 0] = poses[1, 2, 2] = math.cos(turn)
    poses[1, 0, 2], poses[1, 2, 0] = math.sin(turn), -math.sin(turn)
    poses[1, 0, 3] = -0.6
    return {
        "means": torch.randn(count, 3, generator=rng) * 0.8 + torch.tensor([0.0, 0.0, 4.0]),
        "quats": torch.randn(count, 4, generator=rng),
        "scales": 0.05 + 0.25 * torch.rand(count, 3, generator=rng),
        "opacities": 0.05 + 0.9 * torch.rand(count, generator=rng),
        "colors": torch.randn(count, 16, 3, generator=rng) / 4,
        "poses": poses,
        "intrinsics": torch.tensor([[60.0, 0, 31], [0, 58, 25], [0, 0, 1]]).repeat(2, 1, 1),
    }


def drawn(rasterise: Rasterise, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of ``some_gaussians``, and the gradients of a sum over them."""
    parts = {key: value.to(device) for key, value in some_gaussians().items()}
    learnt = {key: parts[key].requires_grad_() for key in list(parts)[:5]}
    pictures, _, _ = rasterise(*parts.values(), 64, 48, sh_degree=3, packed=False)
    weights = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(SEED))
    (pictures * weights.to(device)).sum().backward()
    gradients = {}
    for key, value in learnt.items():
        assert value.grad is not None, key
        gradients[key] = value.grad.cpu()
    return pictures.detach().cpu(), gradients


def beside_the_stand_in(rasterise: Rasterise, device: str) -> dict[str, Any]:
    """How far a rasteriser's pictures and gradients are from the slow one's."""
    pictures, gradients = drawn(rasterise, device)
    expected, expected_gradients = drawn(gsplat_stand_in.rasterise, "cpu")
    difference = (pictures - expected).abs()
    return {
        "brightest": float(expected.max()),
        "picture_max_difference": float(difference.max()),
        "picture_mean_difference": float(difference.mean()),
        "gradient_relative_difference": {
            key: float((gradients[key] - wanted).norm() / wanted.norm())
            for key, wanted in expected_gradients.items()
        },
    }


def write_result_folder(
    world: SyntheticWorld, folder: Path, size: tuple[int, int], frames: int, device: str
) -> list[str]:
    """A finished scene whose clips are exact pictures: plan, clips and what its cameras see."""
    start = world.start_camera(*size)
    clips: dict[str, Cameras] = {}
    for name, path in world.paths(frames).items():
        intrinsics = path.intrinsics(start.intrinsics[0]).astype(np.float32)
        poses = path.camera_from_world.astype(np.float32)
        clips[f"renders/{name}"] = Cameras(poses, intrinsics, *size)
    for clip_id, cameras in clips.items():
        images = world.render(cameras, device=device).images
        write_trajectory(folder / clip_id, images, cameras, None)
    ends = concatenate_cameras([start, *(cameras[[frames - 1]] for cameras in clips.values())])
    write_ply(folder / POINTS, world.visible_cloud(ends))
    nothing: dict[str, Any] = {
        **dict.fromkeys(("depends_on", "nearest", "references", "ref_index"), ()),
        **dict.fromkeys(("candidate_scores", "adds"), ()),
        **dict.fromkeys(("level", "bank_size"), 0),
        "reduced": False,
    }
    plan = ScenePlan(
        parameters=SceneParameters(),
        nframe=frames,
        start_frames=(),
        trajectories=tuple(
            TrajectoryPlan(id=clip_id, position=position, **nothing)
            for position, clip_id in enumerate(clips)
        ),
    )
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    return list(clips)


def drawn_from_the_file(
    folder: Path, clip_ids: list[str], rasterise: Rasterise, device: str
) -> float:
    """Mean PSNR in dB of the frames that were held out, drawn from splats.ply."""
    splats = read_splat_ply(folder / "splats.ply")
    found = []
    for clip_id in clip_ids:
        clip = read_trajectory(folder / clip_id)
        for index in range(FIRST_HELD_OUT, len(clip.frames), HELD_OUT_EVERY):
            pictures, _, _ = rasterise(
                torch.from_numpy(splats.means).to(device),
                torch.from_numpy(splats.rotations).to(device),
                torch.from_numpy(splats.log_scales).exp().to(device),
                torch.from_numpy(splats.opacity_logits).sigmoid().to(device),
                torch.from_numpy(splats.sh).to(device),
                torch.from_numpy(clip.cameras.camera_from_world[[index]]).to(device),
                torch.from_numpy(clip.cameras.intrinsics[[index]]).to(device),
                clip.cameras.width,
                clip.cameras.height,
                sh_degree=splats.degree,
                packed=False,
            )
            truth = torch.from_numpy(clip.frames[index]).float() / 255
            error = float(((pictures[0].detach().cpu().clamp(0, 1) - truth) ** 2).mean())
            found.append(-10 * math.log10(error))
    return sum(found) / len(found)


def main() -> int:
    """Measure, print, write the result; 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.splats", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--width", type=int, default=WIDTH)
    arguments = parser.parse_args()
    from gsplat import rasterization

    device = arguments.device
    start = time.perf_counter()
    beside = beside_the_stand_in(rasterization, device)
    compile_s = time.perf_counter() - start
    parameters = SplatParameters(steps=arguments.steps, max_initial_points=INITIAL_POINTS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scene"
        size = arguments.height, arguments.width
        clip_ids = write_result_folder(make_world(SEED, "room"), folder, size, FRAMES, device)
        start = time.perf_counter()
        train_splats(folder, parameters, device=device)
        train_s = time.perf_counter() - start
        report = SplatReport.model_validate_json((folder / "splats.json").read_bytes())
        anew = drawn_from_the_file(folder, clip_ids, rasterization, device)
        file_bytes = (folder / "splats.ply").stat().st_size
    assert report.held_out_psnr is not None
    result = {
        "claim": f"held-out PSNR >= {WANTED_PSNR:g} dB after {STEPS} steps at {HEIGHT}x{WIDTH}; "
        f"gsplat's pictures within {WANTED_PICTURE_DIFFERENCE:g} of the slow rasteriser's",
        "gpu": torch.cuda.get_device_name(device),
        "height": arguments.height,
        "width": arguments.width,
        "seed_of_the_world": SEED,
        "report": report.model_dump(),
        "held_out_psnr_of_the_file": anew,
        "splats_bytes": file_bytes,
        "seconds_to_compile_and_compare": compile_s,
        "seconds_to_train": train_s,
        "beside_the_slow_rasteriser": beside,
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    write_result("splats_cuda", result)
    reached = (
        report.held_out_psnr >= WANTED_PSNR
        and abs(anew - report.held_out_psnr) <= WANTED_PSNR_DIFFERENCE
        and beside["picture_max_difference"] <= WANTED_PICTURE_DIFFERENCE
        and max(beside["gradient_relative_difference"].values()) <= WANTED_GRADIENT_DIFFERENCE
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
