"""Options of the command line that several commands share, the server's included.

Flags that the published program has keep their names; each has the dashed spelling as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldstereo_client.client import DEFAULT_URL
from worldstereo_client.errors import ParameterError

Url = Annotated[str, typer.Option("--url", envvar="WORLDSTEREO_URL", help="Address of the server.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
SceneId = Annotated[str, typer.Argument(metavar="SCENE_ID", help="Id of the scene.")]
Input = Annotated[
    Path | None,
    typer.Argument(metavar="INPUT", help="Scene folder; the same as --input_path."),
]
InputPath = Annotated[
    Path | None, typer.Option("--input_path", "--input-path", help="Scene folder.")
]
Output = Annotated[
    Path,
    typer.Option(
        "--output_path",
        "--output-path",
        "--output",
        "-o",
        help="Results go to OUTPUT/<scene>/<view>/<trajectory>.",
    ),
]
OptionalOutput = Annotated[
    Path | None,
    typer.Option(
        "--output_path",
        "--output-path",
        "--output",
        "-o",
        help="Wait, then fetch the results to OUTPUT/<scene>/<view>/<trajectory>.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        "--model_type",
        "--model-type",
        "--variant",
        help="worldstereo-camera, worldstereo-memory or worldstereo-memory-dmd (the default).",
    ),
]
TaskType = Annotated[
    str | None,
    typer.Option(
        "--task_type",
        "--task-type",
        help="Layout the scene must have: panorama, reconstruction, single_view; default any.",
    ),
]
AlignNframe = Annotated[
    int,
    typer.Option(
        "--align_nframe", "--align-nframe", help="Frames of each clip that enter the memory."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the scene's noise.")]
Depth = Annotated[
    Path | None,
    typer.Option("--depth", help="Depth map of the image of a scene without renders."),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Denoising steps; default: the variant's published count."),
]

__all__ = [
    "DEFAULT_URL",
    "AlignNframe",
    "Depth",
    "Input",
    "InputPath",
    "Json",
    "OptionalOutput",
    "Output",
    "SceneId",
    "Seed",
    "Steps",
    "TaskType",
    "Url",
    "Variant",
    "one_input",
]


def one_input(argument: Path | None, option: Path | None) -> Path:
    """The input that was named, as an argument or by ``--input_path``.

    Raises:
        ParameterError: neither or both were given.
    """
    given = [path for path in (argument, option) if path is not None]
    if len(given) != 1:
        raise ParameterError(
            "name one scene folder",
            where="input_path",
            got=" and ".join(map(str, given)) or "none",
            fix="for example --input_path scenes/kitchen",
        )
    return given[0]
