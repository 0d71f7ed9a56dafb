"""Gaussian splats of a finished scene: an optional stage that takes gsplat and a GPU.

Owns what is read from a scene's result folder, which frames are held out, the two files that are
written (``splats.ply``, and ``splats.json`` that says how they came about), and finding gsplat.
The optimisation is splat_training.py's. The splats lie in the world axes of the scene's cameras,
as ``points.ply`` does, which they start from. Importing this loads no torch.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worldstereo.errors import LayoutError, MissingDependencyError, ParameterError
from worldstereo.formats.atomic import atomic_write_text
from worldstereo.formats.manifest import to_json
from worldstereo.formats.ply import read_ply
from worldstereo.formats.results import read_trajectory
from worldstereo.formats.splat_ply import write_splat_ply
from worldstereo.types import Bool, Cameras, UInt8, concatenate_cameras

if TYPE_CHECKING:
    from worldstereo.reconstruction.splat_training import Rasterise, Strategy

SPLATS, SPLATS_REPORT = "splats.ply", "splats.json"
# What the fused cloud is called in a result folder.
POINTS = "points.ply"
# Of each clip every eighth frame is held out, beginning with this one: the first is in all clips.
HELD_OUT_EVERY, FIRST_HELD_OUT = 8, 4
GSPLAT = "pip install 'worldstereo-cluster[splats]'"

# Told what is being done, how much of it is done, and of how much.
OnStage = Callable[[str, int, int], None]


class SplatParameters(BaseModel):
    """How splats are trained.

    Attributes:
        steps: of the optimisation, one image each.
        seed: of the order of the images, and of where split Gaussians go.
        sh_degree: highest degree of the colours' spherical harmonics; 0: no view dependence.
        max_initial_points: a larger cloud is thinned evenly to this many.
        max_gaussians: none are added once there are that many; the last round may double them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=7000, ge=1)
    seed: int = Field(default=0, ge=0)
    sh_degree: int = Field(default=3, ge=0, le=3)
    max_initial_points: int = Field(default=300_000, ge=4)
    max_gaussians: int = Field(default=2_000_000, ge=4)


class SplatReport(BaseModel):
    """splats.json: what the splats were trained from, and how well they fit.

    Attributes:
        parameters: how they were trained.
        training_images, held_out_images: how many frames were learnt from, and how many not.
        training_psnr, held_out_psnr: dB, means over the images of 10 log10(1 / MSE) of colours
            clipped to 0..1; null where there is no such image.
        initial_gaussians, gaussians: how many there were at the start and the end.
        sh_degree: of the splats; one more every 1000 steps up to the parameters'.
        scene_extent: the length that learning rates and thresholds are fractions of, in the
            scene's unit.
        versions: of the packages that decide the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    parameters: SplatParameters
    training_images: int
    held_out_images: int
    training_psnr: float | None
    held_out_psnr: float | None
    initial_gaussians: int
    gaussians: int
    sh_degree: int
    scene_extent: float
    versions: dict[str, str]


def train_splats(
    folder: Path,
    parameters: SplatParameters | None = None,
    *,
    device: str = "cuda",
    rasterise: Rasterise | None = None,
    on_stage: OnStage = lambda stage, step, steps: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train splats from a scene's clips, their commanded cameras and the fused cloud.

    The same call starts alike and draws alike, but a GPU adds gradients in the order that its
    threads finish in (atomic additions), so its results agree closely and not to the bit.

    Args:
        folder: the scene's result folder, with its clips, plan.json and points.ply. It need not
            have its manifest yet.
        parameters: how to train; default: all defaults.
        device: ``cuda`` or one GPU by number.
        rasterise: draws Gaussians; default: gsplat, which also adds and removes them. With
            another one their number stays, and any device may do.
        on_stage: is called as the work goes on: ``compile`` (the first time on a machine gsplat
            compiles its kernels, which takes minutes), then ``splats`` with steps.
        stop: is asked before each step.

    Returns:
        splats.ply; splats.json lies beside it.

    Raises:
        MissingDependencyError: gsplat is not installed, or cannot compile its kernels.
        ParameterError: there is no such GPU.
        LayoutError: no plan, no clip or no points.ply; a file of a clip is missing.
        MediaError: a frame or the cloud cannot be read, or the cloud has too few points.
        GenerationError: the optimisation diverged.
        GenerationCancelled: it was stopped; the folder is as it was.
    """
    from worldstereo.reconstruction import splat_training

    parameters = parameters or SplatParameters()
    _require_cloud(folder)
    strategy: Strategy | None = None
    if rasterise is None:
        rasterise, strategy = _gsplat(device, parameters.steps, on_stage)
    images, cameras, held_out = _frames(folder)
    cloud = read_ply(folder / POINTS)
    count = min(len(cloud), parameters.max_initial_points)
    cloud = cloud[np.arange(count) * len(cloud) // max(count, 1)]
    trained = splat_training.train(
        cloud,
        images,
        cameras,
        held_out,
        splat_training.Schedule(
            steps=parameters.steps,
            seed=parameters.seed,
            sh_degree=parameters.sh_degree,
            max_gaussians=parameters.max_gaussians,
        ),
        rasterise,
        strategy,
        device=device,
        on_step=lambda step: on_stage("splats", step, parameters.steps),
        stop=stop,
        name=str(folder / POINTS),
    )
    report = SplatReport(
        parameters=parameters,
        training_images=int((~held_out).sum()),
        held_out_images=int(held_out.sum()),
        training_psnr=trained.training_psnr,
        held_out_psnr=trained.held_out_psnr,
        initial_gaussians=count,
        gaussians=len(trained.splats),
        sh_degree=trained.splats.degree,
        scene_extent=trained.extent,
        versions=_versions(),
    )
    write_splat_ply(
        folder / SPLATS, trained.splats, comments=["axes and unit: those of points.ply"]
    )
    atomic_write_text(folder / SPLATS_REPORT, to_json(report.model_dump()))
    return folder / SPLATS


def _require_cloud(folder: Path) -> None:
    if not (folder / POINTS).is_file():
        raise LayoutError(
            "there is no cloud to start the splats from",
            where=str(folder / POINTS),
            got="no such file",
            fix="ask for the output points first, which fuses the scene's clips",
        )


def _frames(folder: Path) -> tuple[UInt8, Cameras, Bool]:
    """The frames of all committed clips, their cameras, and which of them are held out."""
    from worldstereo.reconstruction.result_clips import read_plan

    images, cameras, held_out = [], [], []
    for planned in read_plan(folder).trajectories:
        place = folder.joinpath(*planned.id.split("/"))
        if place.is_dir():
            clip = read_trajectory(place)
            images.append(clip.frames)
            cameras.append(clip.cameras)
            held_out.append(np.arange(len(clip.frames)) % HELD_OUT_EVERY == FIRST_HELD_OUT)
    if not images:
        raise LayoutError(
            "the result holds no clip", where=str(folder), got="no trajectory was completed"
        )
    return np.concatenate(images), concatenate_cameras(cameras), np.concatenate(held_out)


def _gsplat(device: str, steps: int, on_stage: OnStage) -> tuple[Rasterise, Strategy]:
    """gsplat's rasteriser, compiled and tried, and its way of adding and removing Gaussians."""
    try:
        import gsplat
    except ImportError as error:
        raise MissingDependencyError(
            "Gaussian splats need the package gsplat",
            where="output splats",
            got=str(error),
            fix=f"install it with: {GSPLAT}",
        ) from error
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise ParameterError(
            "Gaussian splats are trained on an NVIDIA GPU",
            where="device",
            got=f"{device}, and torch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA GPUs here",
            allowed="cuda, on a machine with a GPU and a torch that was built for CUDA",
        )
    on_stage("compile", 0, 0)
    try:
        _try_out(gsplat.rasterization, device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    # What torch's compiler and a module without kernels raise.
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            "gsplat has no CUDA kernels and cannot compile them",
            where="output splats",
            got=f"{type(error).__name__}: {str(error).strip()[-400:]}",
            fix="install the CUDA toolkit (nvcc) of the version that torch was built for "
            f"({torch.version.cuda}) and a C++ compiler, or a gsplat wheel built for this torch",
        ) from error
    # The published schedule stops halfway through 30,000 steps.
    return gsplat.rasterization, gsplat.DefaultStrategy(refine_stop_iter=min(15_000, steps // 2))


def _try_out(rasterise: Rasterise, device: str) -> None:
    """Draw one Gaussian."""
    import torch

    one = torch.ones(1, device=device)
    pose = torch.eye(4, device=device)[None]
    rasterise(
        torch.tensor([[0.0, 0.0, 2.0]], device=device),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]], device=device),
        one[:, None].expand(1, 3).contiguous(),
        one,
        torch.zeros(1, 1, 3, device=device),
        pose,
        torch.tensor([[[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]], device=device),
        16,
        16,
        sh_degree=0,
        packed=False,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in ("gsplat", "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
