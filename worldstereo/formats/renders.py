"""What the layouts have in common: start images, and trajectory folders with their renders.

Owns the checks that tie one trajectory's files together: cameras, render, mask and start image
must show the same instants in the same picture shape; the names that ids are made of; and views
that were rejected before generation. Which folders there are is the layouts'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worldstereo.errors import CameraError, InputError, LayoutError, MediaError
from worldstereo.formats.cameras import read_cameras
from worldstereo.formats.canonical import id_part
from worldstereo.formats.images import read_image
from worldstereo.formats.prompts import read_prompt
from worldstereo.formats.scene_files import SceneFiles, describe_json
from worldstereo.formats.video import video_info
from worldstereo.types import Cameras, TrajectoryInput

RENDER, RENDER_MASK, CAMERAS, CAPTION = (
    "render.mp4",
    "render_mask.mp4",
    "camera.json",
    "traj_caption.json",
)
VALID_ANALYSIS = "valid_analysis.json"
# Names beside a result's views and trajectories: ids made of them would mean two things.
RESERVED_NAMES = ("pano_bank", "plan.json", "manifest.json")
# Bytes: names become file names with a temporary suffix, of which 255 bytes are allowed.
MAX_NAME_BYTES = 200
# Relative difference of two aspect ratios that rounding to whole pixels may make.
ASPECT_TOLERANCE = 0.05


@dataclass(frozen=True)
class StartImage:
    """A start image that was decoded: its file, its name in the scene, (height, width)."""

    path: Path
    name: str
    size: tuple[int, int]


def read_start_image(files: SceneFiles, name: str) -> StartImage:
    """Decode a start image to see that it can be; LayoutError or MediaError otherwise."""
    path = files.file(name, "the start image")
    height, width = read_image(path, name, files.limits).shape[:2]
    return StartImage(path, name, (height, width))


def check_aspect(
    size: tuple[int, int],
    of: str,
    expected: tuple[int, int],
    expected_of: str,
    error: type[InputError] = MediaError,
) -> None:
    """Refuse two pictures of one view whose shapes differ: one of them would be squeezed.

    Args:
        size: (height, width) that is looked at, of the file ``of``.
        expected: (height, width) that it must be similar to, of ``expected_of``.
        error: class of the error.
    """
    ratio = (size[0] * expected[1]) / (size[1] * expected[0])
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        raise error(
            "the aspect ratio does not fit",
            where=of,
            got=f"{size[1]}x{size[0]} pixels",
            allowed=f"the shape of {expected_of}: {expected[1]}x{expected[0]} pixels",
        )


def trajectory_folders(files: SceneFiles, folder: str) -> list[str]:
    """Names of the folders in ``folder`` that hold a camera file or a render, sorted."""
    return [
        name
        for name in files.folders(folder)
        if any(files.has_file(f"{folder}/{name}/{file}") for file in (CAMERAS, RENDER, RENDER_MASK))
    ]


def view_folders(files: SceneFiles, folder: str) -> list[str]:
    """Names of the folders in ``folder`` that hold trajectories, sorted."""
    return [name for name in files.folders(folder) if trajectory_folders(files, f"{folder}/{name}")]


def check_number(trajectories: int, files: SceneFiles, where: str) -> None:
    """Refuse a scene of too many trajectories before anything of them is decoded."""
    if trajectories > files.limits.max_trajectories:
        raise LayoutError(
            "the scene has too many trajectories",
            where=where,
            got=str(trajectories),
            allowed=f"up to {files.limits.max_trajectories}",
        )


def read_rendered_trajectory(
    files: SceneFiles,
    folder: str,
    *,
    view: str,
    start: StartImage,
    starts_after: str | None,
    prompts: Sequence[str],
    nframe: int,
) -> TrajectoryInput:
    """Read and check one trajectory folder with render.mp4, render_mask.mp4 and camera.json.

    Args:
        files: the scene folder.
        folder: the trajectory's folder inside it.
        view: the view's name in ids.
        start: the start image of its view.
        starts_after: id of the trajectory whose last frame it starts from instead.
        prompts: where its prompt may be, beside its own caption file, in order of preference.
        nframe: keyframes of a clip.

    Raises:
        LayoutError, CameraError, MediaError, PromptError: naming the file and what was found.
    """
    render = files.file(f"{folder}/{RENDER}", "the render")
    mask = files.file(f"{folder}/{RENDER_MASK}", "the hole mask")
    camera_file = f"{folder}/{CAMERAS}"
    frames, size = _check_videos(files, folder, nframe)
    cameras = read_cameras(files, camera_file, image_size=start.size, nframe=nframe)
    stated = (cameras.height, cameras.width)
    check_aspect(stated, camera_file, size, f"{folder}/{RENDER}", CameraError)
    check_aspect(size, f"{folder}/{RENDER}", start.size, start.name)
    _check_counts(cameras, frames, nframe, folder)
    return TrajectoryInput(
        view=view,
        name=id_part(folder.rsplit("/", 1)[-1]),
        cameras=cameras,
        prompt=read_prompt(files, [f"{folder}/{CAPTION}", *prompts]),
        start_image=start.path if starts_after is None else None,
        starts_after=starts_after,
        render=render,
        render_mask=mask,
        render_frames=frames,
    )


def _check_videos(files: SceneFiles, folder: str, nframe: int) -> tuple[int, tuple[int, int]]:
    """Decode render and mask to their ends; their number of frames and (height, width)."""
    names = [f"{folder}/{RENDER}", f"{folder}/{RENDER_MASK}"]
    render, mask = (video_info(files.root / name, name, files.limits) for name in names)
    if render.frames < nframe:
        raise MediaError(
            "the render is too short",
            where=names[0],
            got=f"{render.frames} frames",
            allowed=f"at least {nframe} frames, the keyframes of a clip",
        )
    if mask.frames != render.frames:
        raise MediaError(
            "the hole mask does not fit its render",
            where=names[1],
            got=f"{mask.frames} frames",
            allowed=f"{render.frames} frames, as {names[0]}",
        )
    if (mask.height, mask.width) != (render.height, render.width):
        raise MediaError(
            "the hole mask does not fit its render",
            where=names[1],
            got=f"{mask.width}x{mask.height} pixels",
            allowed=f"{render.width}x{render.height} pixels, as {names[0]}",
        )
    return render.frames, (render.height, render.width)


def _check_counts(cameras: Cameras, frames: int, nframe: int, folder: str) -> None:
    """Cameras and frames must show the same instants once both are thinned to ``nframe``.

    Equal numbers do; so do ``nframe`` of one and a whole multiple of its steps of the other
    (81 cameras for 21 frames: every 4th).
    """
    few, many = sorted((len(cameras), frames))
    thinned = few == nframe and (many - 1) % (few - 1) == 0
    if len(cameras) != frames and not thinned:
        raise CameraError(
            "the number of cameras does not fit the rendered frames",
            where=f"{folder}/{CAMERAS}",
            got=f"{len(cameras)} cameras for the {frames} frames of {folder}/{RENDER}",
            allowed=f"a camera for each frame, or {nframe} of one kind and "
            f"{nframe - 1} x k + 1 of the other",
        )


def rejected_view(files: SceneFiles, view: str) -> str | None:
    """Why a view is left out: its ``valid_analysis.json`` says anything but ``"valid": "yes"``.

    Returns:
        None to keep the view.

    Raises:
        LayoutError: the file is no JSON object.
    """
    name = f"{view}/{VALID_ANALYSIS}"
    if not files.has_file(name):
        return None
    content = files.read_object(name, LayoutError)
    if content.get("valid") == "yes":
        return None
    said = f"valid = {describe_json(content['valid'])}" if "valid" in content else "no field valid"
    return f"{VALID_ANALYSIS} says {said}"


def check_name(name: str, where: str) -> None:
    """Refuse a file's or folder's name that no id, file or address can be made of."""
    if not name.isprintable() or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise LayoutError(
            "a name cannot be used",
            where=where,
            got=f"{name[:40]!a}, {len(name)} characters",
            allowed=f"printable characters, up to {MAX_NAME_BYTES} bytes in UTF-8",
            fix="rename it",
        )


def unique_ids(folders: Sequence[str], where: str) -> dict[str, str]:
    """Names in ids -> folder names; LayoutError when two would be one, or one cannot be used."""
    names: dict[str, str] = {}
    for folder in folders:
        check_name(folder, where)
        name = id_part(folder)
        if name in RESERVED_NAMES:
            raise LayoutError(
                "a view or trajectory has the name of something else",
                where=where,
                got=folder,
                allowed=f"any name but {', '.join(RESERVED_NAMES)}",
                fix="rename it",
            )
        if name in names:
            raise LayoutError(
                "two folders have one name, since hyphens count as underscores",
                where=where,
                got=f"{names[name]} and {folder}",
                allowed="names that differ in more than that",
                fix="rename one of them",
            )
        names[name] = folder
    return names
