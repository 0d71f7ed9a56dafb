"""The single-view layout: image.png, prompt.json, camera.json, and a depth map of the image.

Owns this layout. The clip's render is made later, from the image and its depth.
"""

from __future__ import annotations

from pathlib import Path

from worldstereo.depth.provided import check_depth_size, read_depth
from worldstereo.errors import CameraError, LayoutError, MediaError
from worldstereo.formats.cameras import read_cameras
from worldstereo.formats.prompts import read_prompt
from worldstereo.formats.renders import StartImage, check_aspect, read_start_image
from worldstereo.formats.scene_files import SceneFiles
from worldstereo.types import TrajectoryInput

VIEW, TRAJECTORY = "renders", "traj0"
IMAGE, CAMERAS, PROMPT = "image.png", "camera.json", "prompt.json"
DEPTHS = ("depth.npy", "depth.exr", "depth.png")


def read_single_view(
    files: SceneFiles, *, nframe: int, depth: Path | None, needs_depth: bool = True
) -> tuple[StartImage, list[TrajectoryInput]]:
    """Read and check a single-view folder.

    Args:
        files: the scene folder.
        nframe: keyframes of a clip.
        depth: depth map of the image; None: the folder's own depth.npy, .exr or .png.
        needs_depth: refuse a folder without one; else the trajectory's depth is None then.

    Returns:
        The start image and the one trajectory.

    Raises:
        LayoutError, CameraError, MediaError, PromptError: naming the file and what was found.
    """
    start = read_start_image(files, IMAGE)
    cameras = read_cameras(files, CAMERAS, image_size=start.size, nframe=nframe)
    check_aspect((cameras.height, cameras.width), CAMERAS, start.size, IMAGE, CameraError)
    trajectory = TrajectoryInput(
        view=VIEW,
        name=TRAJECTORY,
        cameras=cameras,
        prompt=read_prompt(files, [PROMPT]),
        start_image=start.path,
        depth=_checked_depth(files, depth, start, needs_depth),
    )
    return start, [trajectory]


def _checked_depth(
    files: SceneFiles, depth: Path | None, start: StartImage, needed: bool
) -> Path | None:
    if depth is None:
        own = [name for name in DEPTHS if files.has_file(name)]
        if len(own) > 1:
            raise LayoutError(
                "more than one depth map",
                where=own[0],
                got=", ".join(own),
                allowed="one of them",
                fix="remove the others",
            )
        if not own and not needed:
            return None
        if not own:
            raise LayoutError(
                "a single-view scene needs a depth map of its image",
                where=DEPTHS[0],
                got="no depth file in the folder, none given",
                allowed=f"{', '.join(DEPTHS)} in the folder, or the argument depth",
                fix="give one with --depth, or put it beside image.png",
            )
        files.has_file("depth.json")  # the unit of depth.png: refused where it is a link outside
        depth, name = files.root / own[0], own[0]
    else:
        name = depth.name
        if not depth.is_file():
            raise MediaError(
                "the depth map is missing",
                where=str(depth),
                got="no such file",
                allowed="a .npy, .exr or 16-bit .png file",
            )
    check_depth_size(read_depth(depth, name), *start.size, name)
    return depth
