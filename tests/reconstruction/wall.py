"""A flat wall at z = ``distance`` in the world, seen by given cameras: exact depths and colours."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from worldstereo.geometry.camera_path import CameraPath
from worldstereo.types import Cameras, Float32, PointCloud, UInt8

HEIGHT, WIDTH, FOCAL = 24, 32, 30.0


def wall_cameras(centers: list[list[float]], yaws: list[float] | None = None) -> Cameras:
    """Cameras at ``centers`` that look along z, turned right by ``yaws`` degrees."""
    yaws = [0.0] * len(centers) if yaws is None else yaws
    rotation = Rotation.from_rotvec(np.radians(yaws)[:, None] * [0, 1, 0])
    path = CameraPath(rotation, np.array(centers, dtype=np.float64), np.ones(len(centers)))
    pinhole = [[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]
    return Cameras(path.camera_from_world, path.intrinsics(pinhole), HEIGHT, WIDTH)


def wall_clip(cameras: Cameras, distance: float = 2.0) -> tuple[UInt8, Float32]:
    """Frames [F, H, W, 3] and depths [F, H, W] of the wall; colours tell the place on it."""
    depths, frames = [], []
    u, v = np.meshgrid(np.arange(cameras.width) + 0.5, np.arange(cameras.height) + 0.5)
    for matrix, pinhole in zip(cameras.camera_from_world, cameras.intrinsics, strict=True):
        world_from_camera = np.linalg.inv(matrix.astype(np.float64))
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(pinhole).T
        rays = rays @ world_from_camera[:3, :3].T
        center = world_from_camera[:3, 3]
        depth = (distance - center[2]) / rays[..., 2]
        points = center + depth[..., None] * rays
        depths.append(np.where(depth > 0, depth, 0))
        frames.append(wall_colors(points))
    return np.stack(frames), np.stack(depths).astype(np.float32)


def wall_colors(points: np.ndarray) -> UInt8:
    """Red and green rise with x and y; blue is constant."""
    red, green = (np.clip(128 + 40 * points[..., axis], 0, 255) for axis in (0, 1))
    return np.stack([red, green, np.full_like(red, 60)], axis=-1).astype(np.uint8)


def wall_cloud(distance: float = 2.0, step: float = 0.05) -> PointCloud:
    """Points on the wall, ``step`` apart, 3 wide and 2 high."""
    x, y = np.meshgrid(np.arange(-1.5, 1.5, step), np.arange(-1.0, 1.0, step))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, distance)], axis=-1)
    return PointCloud(points.astype(np.float32), wall_colors(points))
