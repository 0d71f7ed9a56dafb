"""Make the demo scene: ``python -m examples.make_demo_scene [--single-view] [FOLDER]``.

A picture of a small room with exact depth, lifted to points and rendered along four paths, in
the published reconstruction layout: image.png, prompt.json and renders/<trajectory>/ with
render.mp4, render_mask.mp4 and camera.json. With ``--single-view`` the same room in the
single-view layout: image.png, prompt.json, camera.json and its depth.npy. The same command
gives the same files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from examples.demo_room import photograph
from worldstereo.formats.images import write_png
from worldstereo.formats.video import write_video
from worldstereo.geometry.camera_path import CameraPath, StartPose
from worldstereo.geometry.lift import SOBEL_THRESHOLD, lift_depth
from worldstereo.geometry.render import render_points
from worldstereo.geometry.trajectories import ellipse, orbit
from worldstereo.types import Float32, UInt8

FOLDER = Path(__file__).parent / "demo_scene"
SIZE = (256, 384)
FRAMES = 21
FIELD_OF_VIEW_DEGREES = 68.0
# Depth edges are told by the slope from pixel to pixel, and so are made for this width: in a
# picture of half the width a floor is twice as steep.
USUAL_WIDTH = 768
# Larger than usual, since a disk of the usual share of so few pixels leaves gaps between points.
RADIUS_NDC = 0.012
# What the paths circle around: the things on the table.
PIVOT_DISTANCE = 3.1
PROMPT = (
    "A small bright living room with striped wallpaper and a wooden plank floor. A wooden table "
    "stands on a red and sand-coloured rug; on it are a green ball and two stacked boxes. "
    "A striped beach ball lies on the floor, a shelf with colourful books stands at the left wall, "
    "a blue armchair in the right corner. A window shows a blue sky over green hills, a framed "
    "landscape hangs beside it."
)


def intrinsics_of(size: tuple[int, int]) -> Float32:
    """[3, 3] in pixels of ``size``: the demo camera's field of view is that of the width."""
    height, width = size
    focal = width / (2 * np.tan(np.radians(FIELD_OF_VIEW_DEGREES) / 2))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=np.float32)


def demo_paths(frames: int = FRAMES) -> dict[str, CameraPath]:
    """Shorter versions of the published reconstruction paths: the room has walls."""
    start = StartPose(np.eye(4), PIVOT_DISTANCE)
    return {
        "traj_eloop": ellipse(start, 0.15, 0.12, frames),
        "traj_up": orbit(start, 0, 18, frames),
        "traj_right": orbit(start, 24, 0, frames),
        "traj_left": orbit(start, -24, 0, frames),
    }


def render_path(
    image: UInt8, depth: Float32, intrinsics: Float32, path: CameraPath
) -> tuple[UInt8, UInt8]:
    """Render and hole mask [F, height, width, 3] uint8; frame 0 is the image, without holes."""
    height, width = image.shape[:2]
    colors = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
    single = torch.from_numpy(intrinsics)
    depths = torch.from_numpy(depth)
    points, point_colors = lift_depth(
        colors,
        depths,
        depths > 0,
        single,
        torch.eye(4),
        sobel_threshold=SOBEL_THRESHOLD ** (USUAL_WIDTH / width),
    )
    rendered = render_points(
        points,
        point_colors,
        torch.from_numpy(path.camera_from_world),
        torch.from_numpy(path.intrinsics(intrinsics)),
        height,
        width,
        radius_ndc=RADIUS_NDC,
    )
    video = ((rendered.rgb + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    holes = (rendered.hole_mask * 255).byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    video[0] = image
    holes = np.ascontiguousarray(holes)
    holes[0] = 0
    return video, holes


def write_picture(folder: Path, size: tuple[int, int]) -> tuple[UInt8, Float32, Float32]:
    """Take the picture and write image.png and prompt.json; image, depth and intrinsics."""
    intrinsics = intrinsics_of(size)
    image, depth = photograph(size, intrinsics)
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / "image.png", image)
    (folder / "prompt.json").write_text(json.dumps({"prompt": PROMPT}, indent=2) + "\n")
    return image, depth, intrinsics


def write_cameras(file: Path, path: CameraPath, intrinsics: Float32, size: tuple[int, int]) -> None:
    """camera.json of a path, for pictures of ``size`` (height, width)."""
    content = {
        "extrinsic": path.camera_from_world.tolist(),
        "intrinsic": path.intrinsics(intrinsics).tolist(),
        "width": size[1],
        "height": size[0],
    }
    file.write_text(json.dumps(content) + "\n")


def make_demo_scene(folder: Path, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> Path:
    """Write the scene in the reconstruction layout; files that are there are replaced.

    Args:
        folder: where to.
        size: (height, width) of its picture and videos, even.
        frames: of each video.
    """
    image, depth, intrinsics = write_picture(folder, size)
    for name, path in demo_paths(frames).items():
        target = folder / "renders" / name
        target.mkdir(parents=True, exist_ok=True)
        video, holes = render_path(image, depth, intrinsics, path)
        write_video(target / "render.mp4", video, crf=20)
        write_video(target / "render_mask.mp4", holes, crf=14)
        write_cameras(target / "camera.json", path, intrinsics, size)
    return folder


def make_demo_view(folder: Path, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> Path:
    """Write the room in the single-view layout, with its exact depth; arguments as above."""
    _, depth, intrinsics = write_picture(folder, size)
    write_cameras(folder / "camera.json", demo_paths(frames)["traj_right"], intrinsics, size)
    np.save(folder / "depth.npy", depth)
    return folder


def main() -> None:
    """Read the command line and write the scene."""
    parser = argparse.ArgumentParser(prog="python -m examples.make_demo_scene", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--single-view", action="store_true", help="the single-view layout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make = make_demo_view if arguments.single_view else make_demo_scene
    print(make(arguments.folder))


if __name__ == "__main__":
    main()
