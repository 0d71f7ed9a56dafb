"""Options of the command line that several commands share, the server's included.

Flags that the published program has keep their names; each has the dashed spelling as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from worldstereo_client.client import DEFAULT_URL
from worldstereo_client.errors import ParameterError
from worldstereo_client.trajectories import read_trajectories

Url = Annotated[str, typer.Option("--url", envvar="WORLDSTEREO_URL", help="Address of the server.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="WORLDSTEREO_API_KEY",
        show_envvar=True,
        help="Key of a server that asks for one; better in the environment than in a history.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
SceneId = Annotated[str, typer.Argument(metavar="SCENE_ID", help="Id of the scene.")]
Input = Annotated[
    Path | None,
    typer.Argument(metavar="INPUT", help="Scene folder or image; the same as --input_path."),
]
InputPath = Annotated[
    Path | None, typer.Option("--input_path", "--input-path", help="Scene folder or image.")
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
Prompt = Annotated[
    str | None, typer.Option("--prompt", help="What an image shows, to build a scene from it.")
]
Trajectories = Annotated[
    list[str] | None,
    typer.Option(
        "--trajectory",
        help="Camera path from an image, e.g. orbit:azimuth=30,name=right, or a .json file; may "
        "be given again. Default: the published four.",
    ),
]
Panorama = Annotated[
    bool, typer.Option("--panorama", help="The image is an equirectangular panorama.")
]
FieldOfView = Annotated[
    float | None,
    typer.Option("--fov", help="Horizontal field of view of an image, in degrees."),
]
Clearance = Annotated[
    float | None,
    typer.Option(
        "--clearance", help="How near a path may come to the points, as a share of their depth."
    ),
]
Outputs = Annotated[
    str | None,
    typer.Option(
        "--outputs",
        help="What the result holds beside its clips, with commas between: points, glb, colmap, "
        "transforms, inria, blender, depth, worldmirror, ... or none. Default: "
        "colmap,transforms.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Denoising steps; default: the variant's published count."),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        help="Classifier-free guidance; 1: none. Default: the model's own scale.",
    ),
]

__all__ = [
    "DEFAULT_URL",
    "AlignNframe",
    "ApiKey",
    "Clearance",
    "Depth",
    "FieldOfView",
    "Guidance",
    "Input",
    "InputPath",
    "Json",
    "OptionalOutput",
    "Output",
    "Outputs",
    "Panorama",
    "Prompt",
    "SceneId",
    "Seed",
    "Steps",
    "TaskType",
    "Trajectories",
    "Url",
    "Variant",
    "image_arguments",
    "one_input",
    "output_names",
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


def image_arguments(
    prompt: str | None,
    trajectories: list[str] | None,
    panorama: bool,
    field_of_view: float | None,
    clearance: float | None,
) -> dict[str, Any]:
    """Arguments of ``client.scenes.submit`` that say how a scene is built from an image.

    Raises:
        ParameterError: a trajectory cannot be read.
    """
    return {
        "prompt": prompt,
        "trajectories": [spec for text in trajectories or () for spec in read_trajectories(text)],
        "panorama": panorama,
        "field_of_view": field_of_view,
        "clearance": clearance,
    }


def output_names(text: str | None) -> tuple[str, ...] | None:
    """The outputs named with commas between; () for ``none``, None where nothing is said."""
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))
