"""``worldstereo export``: a finished scene's results in the formats of other programs.

Owns the command's options and what it prints. The files are written into the result folder, and
its manifest lists them. Needs no cluster; what it imports is imported when it runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from worldstereo_client import options

from deployments.command_errors import engine_errors

if TYPE_CHECKING:
    from worldstereo.memory.plan import ScenePlan
    from worldstereo.reconstruction.bundle import Output
    from worldstereo.reconstruction.result_clips import StartFrame

# Made of the frames and cameras of the results alone.
DEFAULT_FORMATS = ("colmap", "transforms", "inria", "blender")

ResultFolder = Annotated[
    Path, typer.Argument(metavar="RESULT_FOLDER", help="A scene's results: OUTPUT/<scene>.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        help="points, glb, colmap, transforms, inria, blender, depth or worldmirror; may be "
        "given several times. Default: colmap, transforms, inria and blender, and glb where "
        "the folder has points.ply.",
    ),
]
Scene = Annotated[
    Path | None,
    typer.Option(
        "--scene", help="The scene folder that went in: its start frames are exported too."
    ),
]
Metric = Annotated[
    bool,
    typer.Option(
        "--metric",
        help="The scene's unit of length is the metre; known of scenes built from metric depth.",
    ),
]


def export(
    folder: ResultFolder,
    formats: Formats = None,
    scene: Scene = None,
    metric: Metric = False,
    as_json: options.Json = False,
) -> None:
    """Write a finished scene's cameras and points as COLMAP, nerfstudio, GLB, Blender, ... files.

    They lie in the result folder, beside the clips whose frames they refer to.
    """

    with engine_errors():
        files = export_results(folder, formats, scene, metric=metric)
    names = [path.relative_to(folder).as_posix() for path in files]
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "files": names}))
    else:
        for name in _shown(names):
            typer.echo(name)
        typer.echo(f"{len(names)} files in {folder}")


def export_results(
    folder: Path, formats: Sequence[str] | None, scene: Path | None, *, metric: bool
) -> list[Path]:
    """Write the formats into a finished result folder and list them in its manifest.

    Args:
        folder: the scene's result folder.
        formats: what to write; None: what the folder has all for.
        scene: the scene folder that went in, for its start frames; None: those that an earlier
            export left in the result folder, if any.
        metric: whether the scene's unit is the metre; it is in any case where the results' build
            report says so.

    Returns:
        The files.

    Raises:
        ParameterError: an unknown format, or one that needs points or depth that there are not.
        LayoutError: the folder is no finished result.
        MediaError: a frame, the points or a depth map cannot be read.
    """
    from worldstereo.formats.manifest import read_manifest
    from worldstereo.formats.ply import read_ply
    from worldstereo.reconstruction.bundle import POINTS, add_to_manifest, write_bundle
    from worldstereo.reconstruction.result_clips import (
        read_plan,
        read_result_clips,
        read_start_frames,
    )
    from worldstereo.reconstruction.stage import built_in_metres

    manifest, _ = read_manifest(folder)
    plan = read_plan(folder)
    has_points = (folder / POINTS).is_file()
    wanted = _outputs(formats, has_points)
    cloud = read_ply(folder / POINTS) if has_points else None
    clips = read_result_clips(folder)
    size = (clips[0].cameras.height, clips[0].cameras.width)
    written = write_bundle(
        folder,
        wanted,
        clips,
        cloud=cloud,
        start_frames=read_start_frames(folder) if scene is None else _given(scene, plan, size),
        metric=metric or built_in_metres(folder),
        up="z" if manifest.get("layout") == "panorama" else "-y",
        scene_name=manifest.get("name"),
        model_type=plan.parameters.variant,
    )
    add_to_manifest(folder, written)
    return written


def _outputs(formats: Sequence[str] | None, has_points: bool) -> list[Output]:
    """The outputs that were asked for, once the folder can give them."""
    from worldstereo.errors import ParameterError
    from worldstereo.reconstruction.bundle import NEEDS_POINTS, OUTPUTS, POINTS

    names = list(formats or (*DEFAULT_FORMATS, *(("glb",) if has_points else ())))
    for name in names:
        if name not in OUTPUTS:
            raise ParameterError(
                "unknown format", where="--format", got=repr(name), allowed=", ".join(OUTPUTS)
            )
        if name in NEEDS_POINTS and not has_points:
            raise ParameterError(
                "the results hold no points",
                where=f"--format {name}",
                got=f"no {POINTS} in the folder",
                allowed=", ".join(output for output in OUTPUTS if output not in NEEDS_POINTS),
                fix="points need the depth of the clips, which is estimated where they are "
                "generated: submit the scene with points among its outputs",
            )
    return [output for output in OUTPUTS if output in names]


def _given(scene: Path, plan: ScenePlan, size: tuple[int, int]) -> list[StartFrame]:
    """The start frames of the scene folder that the results were made from."""
    from worldstereo.errors import ParameterError
    from worldstereo.formats.scene_folder import read_scene
    from worldstereo.reconstruction.result_clips import start_frames_of

    given = read_scene(
        scene,
        scale_map=[size],
        nframe=plan.nframe,
        align_nframe=plan.parameters.align_nframe,
        needs_depth=False,
    )
    ids = [trajectory.id for trajectory in given.trajectories]
    planned = [trajectory.id for trajectory in plan.trajectories]
    if ids != planned:
        raise ParameterError(
            "the results are of another scene",
            where=f"--scene {scene}",
            got=f"trajectories {', '.join(ids[:5])}",
            allowed=f"those of the results: {', '.join(planned[:5])}",
        )
    return start_frames_of(given)


def _shown(names: Sequence[str]) -> list[str]:
    """The files as lines: those of a folder that holds more than a few in one line."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    lines = []
    for folder, inside in folders.items():
        lines += [f"{folder}/ ({len(inside)} files)"] if len(inside) > 5 and folder else inside
    return lines
