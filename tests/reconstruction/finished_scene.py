"""A finished scene whose geometry is known: a wall at z = 4 and clips that look at it.

Every point lies on the wall, and every depth is that of the wall, so what a camera of any format
sees can be computed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.formats.clouds import SIZE, cameras
from worldstereo.formats.results import write_trajectory
from worldstereo.reconstruction.result_clips import BundleClip, StartFrame
from worldstereo.types import Cameras, Float32, PointCloud, UInt8

WALL = 4.0
FRAMES = 5
IDS = ("renders/traj_up", "renders/traj_left")


def clips() -> list[BundleClip]:
    """Two clips of five frames: up and to the left."""
    paths = [cameras(FRAMES, yaw=8, pitch=6), cameras(FRAMES, yaw=-12, pitch=0)]
    return [
        BundleClip(name, noise(seed, len(path)), path, depths_of(path))
        for seed, (name, path) in enumerate(zip(IDS, paths, strict=True))
    ]


def wall(columns: int = 12, rows: int = 9) -> PointCloud:
    """Points of the wall in a grid, each of another colour."""
    x, y = np.meshgrid(np.linspace(-1.5, 1.5, columns), np.linspace(-1.1, 1.1, rows))
    points = np.stack([x, y, np.full_like(x, WALL)], axis=-1).reshape(-1, 3).astype(np.float32)
    colors = np.arange(points.size).reshape(points.shape).astype(np.uint8)
    return PointCloud(points, colors)


def start_frames() -> list[StartFrame]:
    """One start image, taken by camera 0 of the clips, stored at twice their size."""
    height, width = SIZE
    image = np.repeat(np.repeat(noise(9, 1)[0], 2, axis=0), 2, axis=1)
    camera = cameras(FRAMES)[[0]].resized(2 * height, 2 * width)
    return [("renders/pano_bank/image.png", image, camera)]


def write_clips(folder: Path) -> list[BundleClip]:
    """Commit the clips into a result folder."""
    made = clips()
    for clip in made:
        write_trajectory(folder / clip.id, clip.frames, clip.cameras, None)
    return made


def noise(seed: int, count: int) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def depths_of(views: Cameras) -> Float32:
    """The wall's depth along z at every pixel centre."""
    u, v = np.meshgrid(np.arange(views.width) + 0.5, np.arange(views.height) + 0.5)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    depths = []
    for pose, lens in zip(views.camera_from_world, views.intrinsics, strict=True):
        world_from_camera = np.linalg.inv(pose.astype(np.float64))
        rays = pixels @ np.linalg.inv(lens.astype(np.float64)).T @ world_from_camera[:3, :3].T
        depths.append((WALL - world_from_camera[2, 3]) / rays[..., 2])
    return np.stack(depths).astype(np.float32)
