"""``worldstereo build``: from one image to a scene folder, on this machine, without a cluster.

Owns the command's options and what it prints. The scene is built by worldstereo.builder; what
that imports is imported when the command runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from worldstereo_client import options
from worldstereo_client.schemas import DEFAULT_VARIANT

from deployments.command_errors import engine_errors

if TYPE_CHECKING:
    from worldstereo.builder.parameters import BuildParameters
    from worldstereo.builder.report import BuildReport
    from worldstereo.config import ModelConfig
    from worldstereo.depth.protocol import DepthMap, DepthSource
    from worldstereo.types import UInt8

ImageFile = Annotated[Path, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or WebP image.")]
SceneFolder = Annotated[
    Path, typer.Argument(metavar="SCENE_FOLDER", help="What is built; new, or an empty folder.")
]
Prompt = Annotated[str, typer.Option("--prompt", help="What the image shows.")]
DepthFile = Annotated[
    Path | None,
    typer.Option(
        "--depth",
        help="The image's depth: .npy, .exr, or 16-bit .png with its unit; of a panorama "
        "distances from the camera.",
    ),
]
Metric = Annotated[
    bool, typer.Option("--metric", help="The depth file is in metres, not in a unit of its own.")
]
Estimator = Annotated[
    str | None, typer.Option("--estimator", help="Instead of --depth: moge or depth_pro.")
]
EstimatorSource = Annotated[
    str | None,
    typer.Option(
        "--estimator-source",
        "--estimator_source",
        help="Folder or repository of its weights; default: the published one.",
    ),
]
CamerasFile = Annotated[
    Path | None,
    typer.Option(
        "--cameras",
        help="A trajectory from elsewhere: COLMAP, transforms.json, RealEstate10K, npz or JSON.",
    ),
]
CamerasUnit = Annotated[
    str | None,
    typer.Option(
        "--cameras-unit",
        "--cameras_unit",
        help="Of their translations: metric, median_depth or scene; default: what the file says.",
    ),
]
CamerasScale = Annotated[
    float, typer.Option("--cameras-scale", "--cameras_scale", help="Units in one of the file's.")
]
SourceCamera = Annotated[
    str | None,
    typer.Option(
        "--source-camera",
        "--source_camera",
        help="Name of the camera among them that took the image; the trajectory starts there.",
    ),
]
Rebase = Annotated[
    bool,
    typer.Option("--rebase", help="Take their first camera for the image's, wherever it stands."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="Whose working sizes the scene is built for: worldstereo-tiny (bundled), "
        "worldstereo (published), or a YAML file.",
    ),
]
Preview = Annotated[
    Path | None, typer.Option("--preview", help="Write a video of all trajectories, MP4.")
]
ContactSheet = Annotated[
    Path | None,
    typer.Option("--contact-sheet", "--contact_sheet", help="Write a sheet of frames, PNG."),
]
# Name of the trajectory that --cameras gives.
CAMERAS_NAME = "cameras"


@dataclass(frozen=True)
class ForeignCameras:
    """A file of cameras, and how it is meant."""

    path: Path
    unit: str | None = None
    scale: float = 1.0
    source_camera: str | None = None
    rebase: bool = False


def build(
    image: ImageFile,
    folder: SceneFolder,
    prompt: Prompt,
    trajectory: options.Trajectories = None,
    depth: DepthFile = None,
    metric: Metric = False,
    estimator: Estimator = None,
    estimator_source: EstimatorSource = None,
    panorama: options.Panorama = False,
    fov: options.FieldOfView = None,
    clearance: options.Clearance = None,
    cameras: CamerasFile = None,
    cameras_unit: CamerasUnit = None,
    cameras_scale: CamerasScale = 1.0,
    source_camera: SourceCamera = None,
    rebase: Rebase = False,
    model: Model = "worldstereo-tiny",
    variant: options.Variant = DEFAULT_VARIANT,
    preview: Preview = None,
    contact_sheet: ContactSheet = None,
    as_json: options.Json = False,
) -> None:
    """Build a scene from one image: its depth, camera paths, and what they show of it.

    The folder is in the published layout; ``worldstereo run`` takes it. What was built, and what
    to beware of, is in its build_report.json.
    """

    foreign = None
    if cameras is not None:
        foreign = ForeignCameras(cameras, cameras_unit, cameras_scale, source_camera, rebase)
    with engine_errors():
        _check_depth_choice(depth, estimator)
        config = _model_config(model, variant or DEFAULT_VARIANT)
        parameters = _parameters(
            config,
            prompt=prompt,
            trajectories=_trajectories(trajectory),
            kind="panorama" if panorama else "perspective",
            field_of_view=fov,
            clearance=clearance,
        )
        source = _estimator(estimator, estimator_source)
        report = _build(image, depth, metric, source, parameters, foreign, folder, config)
        _write_pictures(folder, config, preview, contact_sheet)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "report": report.model_dump(mode="json")}))
    else:
        _show(folder, report)


def _check_depth_choice(depth: Path | None, estimator: str | None) -> None:
    from worldstereo.errors import ParameterError

    if (depth is None) == (estimator is None):
        raise ParameterError(
            "the depth comes from a file or from an estimator",
            where="--depth, --estimator",
            got="neither" if depth is None else "both",
            allowed="one of them",
            fix="give the image's depth with --depth, or name an estimator: moge or depth_pro",
        )


def _model_config(model: str, variant: str) -> ModelConfig:
    from configs.loader import load_model
    from deployments.weights import model_config_of
    from worldstereo.config import variant_named

    return model_config_of(load_model(model), variant_named(variant))


def _trajectories(texts: Sequence[str] | None) -> list[dict[str, Any]]:
    from worldstereo_client.trajectories import read_trajectories

    specs = [spec for text in texts or () for spec in read_trajectories(text)]
    return [spec.model_dump(mode="json", exclude_none=True) for spec in specs]


def _parameters(config: ModelConfig, **fields: Any) -> BuildParameters:
    from pydantic import ValidationError

    from worldstereo.builder.parameters import BuildParameters
    from worldstereo.builder.specs import refused

    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return BuildParameters(frames=config.nframe, **given)
    except ValidationError as error:
        raise refused(error, "") from error


def _estimator(name: str | None, source: str | None) -> DepthSource | None:
    from worldstereo.errors import ParameterError

    if name is None:
        if source is not None:
            raise ParameterError(
                "there is no estimator whose weights these are",
                where="--estimator-source",
                got=source,
                fix="name one with --estimator",
            )
        return None
    import torch

    from worldstereo.depth.estimators import load_estimator

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Any name: the loader refuses one that it does not know, and says which it does.
    return load_estimator(name, source=source, device=device)  # type: ignore[arg-type]


def _build(
    image: Path,
    depth: Path | None,
    metric: bool,
    estimator: DepthSource | None,
    parameters: BuildParameters,
    foreign: ForeignCameras | None,
    folder: Path,
    config: ModelConfig,
) -> BuildReport:
    from worldstereo.builder.panorama import build_panorama, read_panorama_depth
    from worldstereo.builder.perspective import build_scene
    from worldstereo.builder.source import read_picture
    from worldstereo.depth.provided import ProvidedDepth
    from worldstereo.errors import ParameterError

    picture = read_picture(image, parameters)
    if parameters.kind == "panorama":
        if foreign is not None:
            raise ParameterError(
                "a panorama's trajectories start in three views",
                where="--cameras",
                got=str(foreign.path),
                allowed="--cameras for one picture, --trajectory for a panorama",
            )
        distances = estimator if depth is None else read_panorama_depth(depth)
        assert distances is not None
        return build_panorama(picture, distances, parameters, folder, scale_map=config.scale_map)
    source = estimator if depth is None else ProvidedDepth(depth, metric)
    assert source is not None
    (found,) = source.depths_of([picture])
    if foreign is not None:
        parameters = with_cameras(parameters, foreign, picture, found)
    return build_scene(picture, found, parameters, folder, scale_map=config.scale_map)


def with_cameras(
    parameters: BuildParameters, foreign: ForeignCameras, picture: UInt8, depth: DepthMap
) -> BuildParameters:
    """Parameters with one more trajectory, or with it alone where none was asked for.

    Args:
        parameters: of the scene.
        foreign: the file of cameras.
        picture: [H, W, 3], the scene's image.
        depth: of it.

    Raises:
        CameraError: the cameras cannot be read, do not start at the image, or have no unit.
        ParameterError: a name or scale that cannot be; a trajectory of the same name.
    """
    import numpy as np
    from pydantic import ValidationError

    from worldstereo.builder.own_cameras import own_trajectory
    from worldstereo.builder.parameters import BuildParameters
    from worldstereo.builder.specs import GivenCameras, refused
    from worldstereo.builder.start_camera import median_depth, start_intrinsics
    from worldstereo.formats.foreign_cameras import read_foreign_cameras
    from worldstereo.types import Cameras

    height, width = picture.shape[:2]
    found = read_foreign_cameras(foreign.path, image_size=(height, width))
    if foreign.source_camera is not None:
        found = found.starting_at(foreign.source_camera)
    intrinsics, _ = start_intrinsics(parameters, depth, (height, width))
    own = own_trajectory(
        found,
        source=Cameras(np.eye(4, dtype=np.float32)[None], intrinsics[None], height, width),
        pivot_distance=median_depth(depth.depth),
        unit=foreign.unit,  # type: ignore[arg-type]
        scale=foreign.scale,
        metric=depth.metric,
        matching=foreign.source_camera,
        rebase=foreign.rebase,
        frames=parameters.frames,
    )
    spec = GivenCameras.of(own, CAMERAS_NAME)
    try:
        return BuildParameters(
            **{**dict(parameters), "trajectories": (*parameters.trajectories, spec)}
        )
    except ValidationError as error:
        raise refused(error, "") from error


def _write_pictures(
    folder: Path, config: ModelConfig, preview: Path | None, sheet: Path | None
) -> None:
    if preview is None and sheet is None:
        return
    from worldstereo.builder.contact_sheet import (
        contact_sheet,
        write_contact_sheet,
        write_preview,
    )
    from worldstereo.formats.scene_folder import read_scene

    scene = read_scene(folder, scale_map=config.scale_map, nframe=config.nframe, align_nframe=1)
    if sheet is not None:
        write_contact_sheet(sheet, contact_sheet(scene, nframe=config.nframe))
    if preview is not None:
        write_preview(preview, scene, nframe=config.nframe)


def _show(folder: Path, report: BuildReport) -> None:
    height, width = report.size
    unit = "m" if report.metric else "units"
    typer.echo(
        f"{folder}: {report.kind}, {len(report.trajectories)} trajectories at {height}x{width}, "
        f"field of view {report.field_of_view:.1f} degrees ({report.intrinsics_from}), "
        f"median depth {report.pivot_distance:.3g} {unit}"
    )
    for found in report.trajectories:
        mean = sum(found.hole_share) / len(found.hole_share)
        typer.echo(f"  {found.id}: holes {mean:.0%}, at most {max(found.hole_share):.0%}")
    complaints = Console(stderr=True)
    for warning in report.warnings:
        complaints.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
