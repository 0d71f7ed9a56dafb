"""WorldMirror's reconstruction of a finished scene, where HY-World 2.0 is installed.

Owns the published command, what must be there before it starts, and which of the files it leaves
are results. HY-World 2.0 is not part of this project: a checkout of it, and a Python that has what
it needs, are named in the settings. Its licence is its own, and excludes some regions: nothing is
run until the settings say that it was accepted. The folder that it reads is the bundle's
(``world_mirror_data/<model_type>``). Importing this loads no torch.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from worldstereo.errors import (
    GenerationCancelled,
    GenerationError,
    LayoutError,
    MissingDependencyError,
    ParameterError,
)
from worldstereo.reconstruction.foreign_program import ProgramEnd, run_program

REPOSITORY = "https://github.com/Tencent-Hunyuan/HY-World-2.0"
LICENCE_NOTICE = (
    "HY-World 2.0 is not part of this program and comes under Tencent's community licence for "
    "it, not an open-source one. As this project reads it: it must not be used in the European "
    "Union, the United Kingdom or South Korea; more than a million monthly active users need a "
    "separate licence from Tencent; what it makes must not be used to improve other AI models; "
    "and a hosted service has to name the model and its provider. The licence itself decides, "
    f"not this summary: {REPOSITORY}"
)

PIPELINE = Path("hyworld2", "worldrecon", "pipeline.py")
DATA, RESULTS = "world_mirror_data", "results"
IMAGES, CAMERAS = "images", "cameras.json"
STAGE = "worldmirror"
# What a run that went well has left, and what else of its files is kept.
NEEDED = ("points.ply", "camera_params.json")
KEPT = (*NEEDED, "gaussians.ply", "**/*.npy", "**/*.png", "sparse/0/*")
# Lines of its log that an error tells.
TOLD_LINES = 8
_SUFFIXES = (".png", ".jpg", ".jpeg")
_STEP = re.compile(r"(?<![\d./])(\d{1,7})\s*(?:/|of)\s*(\d{1,7})(?![\d./])")

# Told what is being done, how much of it is done, and of how much.
OnStage = Callable[[str, int, int], None]


class WorldMirrorSettings(BaseModel):
    """Where HY-World 2.0 is, and how its reconstruction is run.

    Attributes:
        path: the checkout, which holds hyworld2/worldrecon/pipeline.py.
        python: interpreter of the environment that it was installed in.
        gpus: processes, one GPU each; a scene needs at least as many images.
        licence_accepted: that its licence (``LICENCE_NOTICE``) was read and is kept to.
        target_size: longest side, in pixels, that it brings images to.
        confidence_percentile: share of the least certain points, in percent, that it drops.
        gaussians: also predict Gaussians, as ``gaussians.ply``.
        colmap: also write a COLMAP model, as ``sparse/0``.
        timeout_s: longest time of a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    python: str = "python"
    gpus: int = Field(default=1, ge=1)
    licence_accepted: bool = False
    target_size: int = Field(default=832, ge=14)
    confidence_percentile: float = Field(default=15.0, ge=0, lt=100)
    gaussians: bool = False
    colmap: bool = False
    timeout_s: float = Field(default=3600.0, gt=0)


def worldmirror_command(data: Path, settings: WorldMirrorSettings) -> list[str]:
    """The published command for a folder that the bundle wrote.

    ``torchrun`` is started as the module that it is, of the settings' Python.

    Args:
        data: ``<result>/world_mirror_data/<model_type>``.
        settings: of the run.
    """
    options = ["--use_fsdp", "--enable_bf16", "--no_save_normal"]
    if not settings.gaussians:
        options += ["--no_save_gs"]
    options += ["--no_sky_mask", "--apply_edge_mask", "--apply_confidence_mask"]
    options += ["--confidence_percentile", str(settings.confidence_percentile)]
    options += ["--compress_pts", "--no_interactive"]
    if settings.colmap:
        options += ["--save_colmap"]
    if not settings.gaussians:
        options += ["--disable_heads", "gs", "points"]
    return [
        *(settings.python, "-m", "torch.distributed.run", f"--nproc_per_node={settings.gpus}"),
        *("-m", "hyworld2.worldrecon.pipeline"),
        *("--input_path", str(data / IMAGES)),
        *("--prior_cam_path", str(data / CAMERAS)),
        *("--strict_output_path", str(data / RESULTS)),
        *("--target_size", str(settings.target_size)),
        *options,
    ]


def check_licence(settings: WorldMirrorSettings) -> None:
    """Refuse to go on before the licence was accepted; the ParameterError tells what it says."""
    if not settings.licence_accepted:
        raise ParameterError(
            "WorldMirror's licence was not accepted",
            where="worldmirror.licence_accepted",
            got="false",
            allowed="true, once the licence was read and fits your use",
            fix=LICENCE_NOTICE,
        )


def check_installation(settings: WorldMirrorSettings) -> None:
    """Refuse settings that cannot run on this machine.

    Raises:
        ParameterError: the licence was not accepted.
        MissingDependencyError: there is no checkout of HY-World 2.0, or no such interpreter.
    """
    check_licence(settings)
    if not (settings.path / PIPELINE).is_file():
        raise MissingDependencyError(
            "HY-World 2.0 is not installed there",
            where="worldmirror.path",
            got=f"{settings.path}, without {PIPELINE.as_posix()}",
            fix=f"get it with: git clone {REPOSITORY}; then install it as its README says, in an "
            "environment of its own, whose interpreter worldmirror.python names",
        )
    if shutil.which(settings.python) is None:
        raise MissingDependencyError(
            "there is no such Python interpreter",
            where="worldmirror.python",
            got=settings.python,
            fix="name the interpreter of the environment that HY-World 2.0 was installed in",
        )


def run_worldmirror(
    folder: Path,
    settings: WorldMirrorSettings,
    *,
    model_type: str | None = None,
    on_stage: OnStage = lambda stage, step, steps: None,
    on_line: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Reconstruct a scene with WorldMirror, from its frames and the cameras that took them.

    What an earlier run left is removed first, and what one leaves that does not end well.

    Args:
        folder: the scene's result folder, with the output ``worldmirror`` of the bundle.
        settings: where it is and how it is run.
        model_type: the variant whose folder is read; default: the only one there is.
        on_stage: is told ``worldmirror`` and, where a line of the log counts something
            (``3/24``), how far it is.
        on_line: is told each line of the log.
        stop: is asked every tenth of a second; within a second all processes have ended.

    Returns:
        The files of the results: points.ply, camera_params.json, depth as .npy and .png, and
        gaussians.ply and sparse/0 where they were asked for.

    Raises:
        ParameterError, MissingDependencyError: as ``check_installation``.
        LayoutError: the bundle's folder is missing, its cameras do not cover its images, or
            there are fewer images than GPUs.
        GenerationError: it failed, took too long, or left no result; with the end of its log.
        GenerationCancelled: it was stopped.
    """
    check_installation(settings)
    data = _data_folder(folder, model_type)
    _check_images(data, settings.gpus)
    results = data / RESULTS
    shutil.rmtree(results, ignore_errors=True)
    on_stage(STAGE, 0, 0)

    def tell(line: str) -> None:
        on_line(line)
        step, steps = progress_of(line)
        if steps:
            on_stage(STAGE, step, steps)

    complete = False
    try:
        end = run_program(
            # It works in another folder.
            worldmirror_command(data.resolve(), settings),
            work=str(data.resolve()),
            folder=settings.path,
            # torchrun's own way to a free port; the published command takes a fixed one.
            environment={"PET_STANDALONE": "1", "PYTHONUNBUFFERED": "1"},
            timeout_s=settings.timeout_s,
            on_line=tell,
            stop=stop,
        )
        _check_end(end, data, settings)
        complete = True
    except OSError as error:
        raise GenerationError(
            "WorldMirror could not be started", where=settings.python, got=str(error)
        ) from error
    finally:
        if not complete:
            shutil.rmtree(results, ignore_errors=True)
    return _files(results)


def progress_of(line: str) -> tuple[int, int]:
    """Step and steps that a line of a log tells, the last pair in it; zeros where it does not."""
    found = (0, 0)
    for match in _STEP.finditer(line):
        step, steps = int(match[1]), int(match[2])
        if 0 <= step <= steps and steps > 0:
            found = step, steps
    return found


def _data_folder(folder: Path, model_type: str | None) -> Path:
    place = folder / DATA
    there = sorted(path.name for path in place.glob("*") if (path / CAMERAS).is_file())
    wanted = [name for name in there if model_type in (None, name)]
    if len(wanted) == 1:
        return place / wanted[0]
    if wanted:
        raise LayoutError(
            "there are several reconstructions to choose from",
            where=str(place),
            got=", ".join(wanted),
            fix="say which by its model_type",
        )
    raise LayoutError(
        "there is nothing for WorldMirror to read",
        where=str(place),
        got=", ".join(there) or "no folder with cameras.json",
        fix="ask for the output worldmirror first",
    )


def _check_images(data: Path, gpus: int) -> None:
    """Cameras that do not cover every image would be ignored without a word."""
    found = data / IMAGES
    images = {path.stem for path in found.glob("*") if path.suffix.lower() in _SUFFIXES}
    path = data / CAMERAS
    try:
        content = json.loads(path.read_bytes())
        known = [
            {str(entry["camera_id"]) for entry in content[name]}
            for name in ("extrinsics", "intrinsics")
        ]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise LayoutError(
            "the prior cameras cannot be read",
            where=str(path),
            got=f"{type(problem).__name__}: {problem}",
            fix="have the output worldmirror written again",
        ) from problem
    lacking = sorted(images - (known[0] & known[1]))
    if lacking:
        raise LayoutError(
            "the prior cameras do not cover every image, so that WorldMirror would ignore them",
            where=str(path),
            got=f"no camera for {', '.join(lacking[:3])}" + (", ..." if lacking[3:] else ""),
            fix="have the output worldmirror written again",
        )
    if len(images) < gpus:
        raise LayoutError(
            "WorldMirror needs at least as many images as GPUs",
            where=str(found),
            got=f"{len(images)} images for {gpus} GPUs",
            fix="set worldmirror.gpus to no more than that",
        )


def _check_end(end: ProgramEnd, data: Path, settings: WorldMirrorSettings) -> None:
    if end.how == "stopped":
        raise GenerationCancelled("WorldMirror's run was stopped")
    log = " | ".join(end.last_lines[-TOLD_LINES:]) or "nothing"
    if end.how == "late":
        raise GenerationError(
            f"WorldMirror took longer than {settings.timeout_s:g} s",
            where=str(data),
            got=f"the end of its log: {log}",
            fix="raise worldmirror.timeout_s if it is honestly that slow",
        )
    if end.status != 0:
        raise GenerationError(
            "WorldMirror failed",
            where=str(data),
            got=f"exit status {end.status}; the end of its log: {log}",
            fix="its memory grows with the images: more GPUs, a smaller target_size or a lower "
            "align_nframe take less of each"
            if any("out of memory" in line.lower() for line in end.last_lines)
            else None,
        )
    missing = [name for name in NEEDED if not (data / RESULTS / name).is_file()]
    if missing:
        raise GenerationError(
            "WorldMirror ended well but left no result",
            where=str(data / RESULTS),
            got=f"no {', '.join(missing)}; the end of its log: {log}",
        )


def _files(results: Path) -> list[Path]:
    found = {
        path
        for pattern in KEPT
        for path in results.glob(pattern)
        if path.is_file() and not path.is_symlink()
    }
    return sorted(found)
