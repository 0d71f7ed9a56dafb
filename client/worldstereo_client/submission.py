"""What a submit sends: the request's parameters, and the files it opens.

Owns telling a scene from an image that a scene is built from. The bytes of a scene's archive come
from ``archive``, the request from ``calls``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from worldstereo_client import calls
from worldstereo_client.archive import PNG, is_image, open_archive, scene_name
from worldstereo_client.errors import LayoutError, ParameterError
from worldstereo_client.schemas import SceneRequest, TrajectorySpec

Part = tuple[str, IO[bytes]]


def submit_request(
    scene: Path,
    *,
    prompt: str | None = None,
    trajectories: Sequence[TrajectorySpec] = (),
    panorama: bool = False,
    field_of_view: float | None = None,
    clearance: float | None = None,
    **parameters: Any,
) -> SceneRequest:
    """The parameters of a submit; a folder gives the scene its name.

    Args:
        scene: a scene folder, an archive or an image.
        prompt, trajectories, panorama, field_of_view, clearance: of an image alone.
        parameters: further fields of ``SceneRequest``; None leaves the server's default.

    Raises:
        LayoutError: a prompt, and no image that it could be of.
        ParameterError: an image without a prompt, a scene with one, or a bad value.
    """
    if parameters.get("name") is None and scene.is_dir():
        parameters["name"] = scene_name(scene)
    build = calls.build_request(
        prompt=prompt,
        trajectories=tuple(trajectories),
        kind="panorama" if panorama else None,
        field_of_view=field_of_view,
        clearance=clearance,
    )
    if build is not None and not scene.is_dir() and not is_image(scene):
        raise LayoutError(
            "not an image to build a scene from" if scene.exists() else "no such image",
            where=str(scene),
            got=f"a file that ends in {scene.suffix!r}" if scene.exists() else "nothing there",
            allowed="a PNG, JPEG or WebP image; or a scene, without a prompt",
        )
    if (build is not None) != is_image(scene):
        raise ParameterError(
            "a prompt is needed to build a scene from an image"
            if build is None
            else "only an image can be built from: a scene folder has its own prompt and cameras",
            where="prompt" if build is None else str(scene),
            got="none" if build is None else ", ".join(sorted(build.model_fields_set)),
            fix="say what the image shows" if build is None else "leave these arguments out",
        )
    return calls.scene_request(build=build, **parameters)


def open_parts(stack: ExitStack, scene: Path, depth: str | Path | None) -> dict[str, Part]:
    """Open the file parts of a submit, by their names in the form; ``stack`` closes them.

    Raises:
        LayoutError: the scene is no folder, archive or image.
        ParameterError: there is no such depth file.
    """
    parts: dict[str, Part] = {}
    if is_image(scene):
        parts["image"] = (scene.name, stack.enter_context(scene.open("rb")))
    else:
        parts["scene"] = stack.enter_context(open_archive(scene))
    if depth is None:
        return parts
    depth = Path(depth)
    if not depth.is_file():
        raise ParameterError("no such depth file", where="depth", got=str(depth))
    parts["depth"] = (depth.name, stack.enter_context(depth.open("rb")))
    unit = depth.with_suffix(".json")
    if parts["depth"][1].read(len(PNG)) == PNG and unit.is_file():
        # A PNG's unit is in a file of its own.
        parts["depth_unit"] = (unit.name, stack.enter_context(unit.open("rb")))
    return parts
