"""Synthetic worlds as scene folders in the published layouts.

Owns which of a world's pictures go into which file. The writing itself is that of the scene
builder, the renders are made as for every other image with depth.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from worldstereo.builder.layout import MASK_CRF, RENDER_CRF, new_scene_folder, write_json
from worldstereo.formats.images import write_png
from worldstereo.formats.reconstruction import IMAGE, PROMPT, RENDERS
from worldstereo.formats.renders import CAMERAS, RENDER, RENDER_MASK
from worldstereo.formats.video import write_video
from worldstereo.geometry.camera_path import CameraPath
from worldstereo.geometry.trajectories import FRAMES
from worldstereo.geometry.views import lift_view, render_cloud
from worldstereo.synthetic.world import SyntheticWorld
from worldstereo.types import Bool, Cameras, Float32, UInt8

DEPTH = "depth.npy"
# The start view is lifted to points at a whole multiple of its size with at least so many pixels
# along its shorter side: in a smaller picture floors are so steep that they count as depth edges,
# and points lie farther apart than they are wide.
LIFTED_SIDE = 250


def path_cameras(world: SyntheticWorld, path: CameraPath, size: tuple[int, int]) -> Cameras:
    """The cameras of a path for images of ``size`` (height, width)."""
    start = world.start_camera(*size)
    return Cameras(path.camera_from_world, path.intrinsics(start.intrinsics[0]), *size)


def render_paths(
    world: SyntheticWorld, size: tuple[int, int], frames: int = FRAMES, *, device: str = "cpu"
) -> tuple[UInt8, Float32, dict[str, tuple[UInt8, Bool, Cameras]]]:
    """The start view, and what its points show along every path.

    Args:
        world: whose start view is lifted with its exact depth.
        size: (height, width) of all pictures.
        frames: of each path.
        device: where to compute, e.g. ``cuda``.

    Returns:
        The start image [H, W, 3], its exact depth [H, W], and for each path by name its render
        [F, H, W, 3], holes [F, H, W] and cameras; frame 0 is the start image without holes.
    """
    start = world.start_camera(*size)
    views = world.render(start, device=device)
    times = math.ceil(LIFTED_SIDE / min(size))
    lifted = views
    if times > 1:
        larger = start.resized(times * size[0], times * size[1])
        lifted = world.render(larger, device=device)
    points, colors = lift_view(lifted.images[0], lifted.depths[0], start)
    renders = {}
    for name, path in world.paths(frames).items():
        cameras = path_cameras(world, path, size)
        video, holes = render_cloud(points.to(device), colors.to(device), cameras[1:])
        seen = np.zeros((1, *size), dtype=np.bool_)
        renders[name] = (
            np.concatenate([views.images, video]),
            np.concatenate([seen, holes]),
            cameras,
        )
    return views.images[0], views.depths[0], renders


def write_synthetic_scene(
    world: SyntheticWorld,
    folder: Path,
    size: tuple[int, int],
    *,
    frames: int = FRAMES,
    depth: bool = True,
    rate_factors: tuple[int, int] = (RENDER_CRF, MASK_CRF),
) -> Path:
    """Write a world as a scene in the reconstruction layout; the folder appears by one rename.

    It holds ``image.png``, ``prompt.json``, ``renders/<path>/{render.mp4, render_mask.mp4,
    camera.json}`` and, for whoever wants it, the exact ``depth.npy`` of the image in metres.
    The same world and size give the same bytes.

    Args:
        world: from ``make_world``.
        folder: of the scene; new, or empty.
        size: (height, width) of its picture and videos, even numbers.
        frames: of each video.
        depth: whether ``depth.npy`` is written.
        rate_factors: x264's of the renders and of the masks; larger ones make smaller files.

    Returns:
        The folder.

    Raises:
        ParameterError: the folder exists, or cannot be made.
    """
    image, exact, renders = render_paths(world, size, frames)
    with new_scene_folder(folder) as building:
        _write_start(building, world, image, exact if depth else None)
        for name, (video, holes, cameras) in renders.items():
            target = building / RENDERS / name
            target.mkdir(parents=True)
            white = np.repeat(holes[..., None], 3, axis=-1).astype(np.uint8) * 255
            write_video(target / RENDER, video, crf=rate_factors[0])
            write_video(target / RENDER_MASK, white, crf=rate_factors[1])
            _write_cameras(target / CAMERAS, cameras)
    return folder


def write_synthetic_view(
    world: SyntheticWorld,
    folder: Path,
    size: tuple[int, int],
    *,
    path: str = "traj_right",
    frames: int = FRAMES,
) -> Path:
    """Write a world in the single-view layout: image, prompt, exact depth and one path's cameras.

    Arguments and errors as of ``write_synthetic_scene``; ``path`` is the name of the path.
    """
    start = world.start_camera(*size)
    views = world.render(start)
    cameras = path_cameras(world, world.paths(frames)[path], size)
    with new_scene_folder(folder) as building:
        _write_start(building, world, views.images[0], views.depths[0])
        _write_cameras(building / CAMERAS, cameras)
    return folder


def _write_start(folder: Path, world: SyntheticWorld, image: UInt8, depth: Float32 | None) -> None:
    write_png(folder / IMAGE, image)
    write_json(folder / PROMPT, {"prompt": world.caption})
    if depth is not None:
        np.save(folder / DEPTH, depth)


def _write_cameras(file: Path, cameras: Cameras) -> None:
    write_json(
        file,
        {
            "extrinsic": cameras.camera_from_world.tolist(),
            "intrinsic": cameras.intrinsics.tolist(),
            "height": cameras.height,
            "width": cameras.width,
        },
    )
