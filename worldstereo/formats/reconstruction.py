"""One start image with rendered trajectories: the reconstruction layout, and the README's
``perspective`` form of it.

Owns these two. Published examples: ``image.png``, ``prompt.json``, ``renders/<traj>/...``;
README: ``start_frame.png``, ``render_results/<view>/<traj>/...``. Trajectories of other than the
published names may come in an order of their own, which an ``order.json`` beside them lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from worldstereo.errors import LayoutError
from worldstereo.formats.canonical import listed_order, reconstruction_order
from worldstereo.formats.renders import (
    CAPTION,
    StartImage,
    check_number,
    read_rendered_trajectory,
    read_start_image,
    rejected_view,
    trajectory_folders,
    unique_ids,
    view_folders,
)
from worldstereo.formats.scene_files import SceneFiles, describe_json
from worldstereo.types import TrajectoryInput

IMAGE, PROMPT, RENDERS, START_FRAME = "image.png", "prompt.json", "renders", "start_frame.png"
# A JSON list of the names of the folders that it lies beside.
ORDER = "order.json"


def read_reconstruction(
    files: SceneFiles, *, nframe: int
) -> tuple[StartImage, list[TrajectoryInput], dict[str, str]]:
    """Read and check a folder with ``image.png`` and ``renders``.

    Returns:
        The start image, the trajectories in canonical order, and no skipped views.

    Raises:
        LayoutError, CameraError, MediaError, PromptError: naming the file and what was found.
    """
    start = read_start_image(files, IMAGE)
    trajectories = _read_view(files, RENDERS, RENDERS, start, [PROMPT], nframe)
    if not trajectories:
        raise LayoutError(
            "the scene holds no trajectory",
            where=RENDERS,
            got=", ".join(f"{name}/" for name in files.folders(RENDERS)) or "no folders",
            allowed="folders with render.mp4, render_mask.mp4 and camera.json",
        )
    return start, trajectories, {}


def read_perspective(
    files: SceneFiles, views_in: str, *, nframe: int
) -> tuple[StartImage, list[TrajectoryInput], dict[str, str]]:
    """Read and check a README folder whose scene_type is ``perspective``.

    Args:
        files: the scene folder.
        views_in: the folder of the views inside it.
        nframe: keyframes of a clip.

    Returns:
        The start image, the trajectories by view and canonical order, skipped views.

    Raises:
        LayoutError, CameraError, MediaError, PromptError: naming the file and what was found.
    """
    old_name = files.has_file(IMAGE) and not files.has_file(START_FRAME)
    start = read_start_image(files, IMAGE if old_name else START_FRAME)
    trajectories: list[TrajectoryInput] = []
    skipped: dict[str, str] = {}
    for view, folder in sorted(unique_ids(view_folders(files, views_in), views_in).items()):
        path = f"{views_in}/{folder}".removeprefix("./")
        if (reason := rejected_view(files, path)) is not None:
            skipped[view] = reason
            continue
        own = f"{path}/{START_FRAME}"
        view_start = read_start_image(files, own) if files.has_file(own) else start
        prompts = [f"{path}/{CAPTION}", f"{path}/{PROMPT}", PROMPT, CAPTION]
        trajectories += _read_view(files, path, view, view_start, prompts, nframe)
    if not trajectories:
        raise LayoutError(
            "the scene holds no trajectory",
            where=files.root.name if views_in == "." else views_in,
            got=f"{len(skipped)} skipped views, no other" if skipped else "no view with renders",
            allowed="<view>/<trajectory> with render.mp4, render_mask.mp4 and camera.json",
        )
    return start, trajectories, skipped


def _read_view(
    files: SceneFiles, folder: str, view: str, start: StartImage, prompts: list[str], nframe: int
) -> list[TrajectoryInput]:
    names = unique_ids(trajectory_folders(files, folder), folder)
    check_number(len(names), files, folder)
    return [
        read_rendered_trajectory(
            files,
            f"{folder}/{names[name]}",
            view=view,
            start=start,
            starts_after=None,
            prompts=prompts,
            nframe=nframe,
        )
        for name in _order(files, folder, names)
    ]


def _order(files: SceneFiles, folder: str, names: Collection[str]) -> Iterator[str]:
    """The ids of a folder's trajectories in the order of its ``order.json``, or by their names."""
    name = f"{folder}/{ORDER}"
    if not files.has_file(name):
        return reconstruction_order(names)
    listed = files.read_json(name, LayoutError)
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise LayoutError(
            "the order is no list of names",
            where=name,
            got=describe_json(listed),
            allowed='a JSON list of folder names, such as ["left", "right"]',
        )
    order = listed_order(listed, names)
    if order is None:
        raise LayoutError(
            "the order does not list each trajectory once",
            where=name,
            got=", ".join(listed)[:200] or "an empty list",
            allowed=f"exactly the folders of {folder}: {', '.join(sorted(names))}"[:400],
            fix="correct it, or remove it: the order is then that of the names",
        )
    return iter(order)
