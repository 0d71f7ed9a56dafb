"""A box-shaped room with a box in it, ray cast: pictures and exact depth for known cameras.

OpenCV axes, y down. The room spans ``ROOM``, the box inside it ``CRATE``; every face wears smooth
random patterns of several sizes, finer than the stereo windows and coarser than a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.geometry.camera_path import CameraPath, StartPose
from worldstereo.types import Cameras, Float32, PointCloud, UInt8

Float64 = NDArray[np.float64]

ROOM = np.array([[-2.6, -1.3, -1.0], [2.6, 1.2, 4.8]])
CRATE = np.array([[-0.5, 0.2, 2.1], [0.4, 1.2, 2.9]])
# Where the camera at the origin looks: the crate's front.
PIVOT = 2.1
LATTICE = 64
OCTAVES = ((4.0, 0.5), (9.0, 0.3), (19.0, 0.2))
# A second ray per axis and pixel: edges are smooth as in a photo.
SAMPLES = 2


@dataclass(frozen=True, eq=False)
class Views:
    """Pictures [F, H, W, 3] uint8 and their depths [F, H, W] along z."""

    images: UInt8
    depths: Float32


def pinhole_cameras(path: CameraPath, height: int, width: int, focal: float = 0.8) -> Cameras:
    """Cameras of a path; ``focal`` in image widths, before the path's zoom."""
    start = [[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1]]
    return Cameras(path.camera_from_world, path.intrinsics(start), height, width)


def start_pose() -> StartPose:
    """The camera at the origin, looking along z."""
    return StartPose(np.eye(4), PIVOT)


def take(cameras: Cameras) -> Views:
    """Pictures of the room; depths are those of the pixels' centres."""
    images, depths = [], []
    offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES
    for index in range(len(cameras)):
        colors = [_cast(cameras, index, dx, dy)[1] for dy in offsets for dx in offsets]
        images.append(np.rint(255 * np.mean(colors, axis=0)).astype(np.uint8))
        depths.append(_cast(cameras, index, 0.5, 0.5)[0].astype(np.float32))
    return Views(np.stack(images), np.stack(depths))


def cloud_of(cameras: Cameras, views: Views, index: int = 0) -> PointCloud:
    """Every pixel of one picture as a point."""
    depth = views.depths[index].astype(np.float64)
    origin, ray = _rays(cameras, index, 0.5, 0.5)
    points = origin + depth[..., None] * ray
    return PointCloud(
        points.reshape(-1, 3).astype(np.float32), views.images[index].reshape(-1, 3).copy()
    )


def distance_to_surface(points: Float32) -> Float64:
    """Distance [P] of points from the nearest surface of the room or of the crate."""
    points = points.astype(np.float64)
    return np.minimum(_distance_to_box(points, ROOM), _distance_to_box(points, CRATE))


def _distance_to_box(points: Float64, box: Float64) -> Float64:
    beyond = np.maximum(np.maximum(box[0] - points, points - box[1]), 0)
    outside = np.linalg.norm(beyond, axis=-1)
    inside = np.minimum(points - box[0], box[1] - points).min(axis=-1)
    return np.where(outside > 0, outside, np.abs(inside))


def _rays(cameras: Cameras, index: int, dx: float, dy: float) -> tuple[Float64, Float64]:
    """The camera's centre, and each pixel's ray [H, W, 3] of length 1 along z."""
    u, v = np.meshgrid(np.arange(cameras.width) + dx, np.arange(cameras.height) + dy)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    world_from_camera = np.linalg.inv(cameras.camera_from_world[index].astype(np.float64))
    in_camera = pixels @ np.linalg.inv(cameras.intrinsics[index].astype(np.float64)).T
    return world_from_camera[:3, 3], in_camera @ world_from_camera[:3, :3].T


def _cast(cameras: Cameras, index: int, dx: float, dy: float) -> tuple[Float64, Float64]:
    origin, ray = _rays(cameras, index, dx, dy)
    safe = np.where(np.abs(ray) < 1e-12, 1e-12, ray)
    room = ((ROOM - origin)[:, None, None] / safe).max(axis=0)
    depth, axis = room.min(axis=-1), room.argmin(axis=-1)
    crate = (CRATE - origin)[:, None, None] / safe
    enter, leave = crate.min(axis=0), crate.max(axis=0).min(axis=-1)
    hit = (enter.max(axis=-1) > 0) & (enter.max(axis=-1) < leave)
    depth = np.where(hit, enter.max(axis=-1), depth)
    axis = np.where(hit, enter.argmax(axis=-1), axis)
    points = origin + depth[..., None] * ray
    face = axis + 3 * hit
    side = np.take_along_axis(ray, axis[..., None], axis=-1)[..., 0] > 0
    return depth, _pattern(points, axis, face * 2 + side)


def _pattern(points: Float64, axis: NDArray[np.intp], face: NDArray[np.intp]) -> Float64:
    """Colours [H, W, 3] in 0..1 of surface points, from the two coordinates along the face."""
    first = np.where(axis == 0, points[..., 1], points[..., 0])
    second = np.where(axis == 2, points[..., 1], points[..., 2])
    lattice = np.random.default_rng(5).uniform(size=(16, LATTICE, LATTICE, 3))
    color = np.zeros((*axis.shape, 3))
    for frequency, weight in OCTAVES:
        x, y = first * frequency + 7 * face, second * frequency + 3 * face
        cell_x, cell_y = np.floor(x).astype(int), np.floor(y).astype(int)
        dx, dy = (x - cell_x)[..., None], (y - cell_y)[..., None]
        corner = [
            lattice[face, (cell_y + j) % LATTICE, (cell_x + i) % LATTICE]
            for j in (0, 1)
            for i in (0, 1)
        ]
        upper, lower = (
            corner[0] + dx * (corner[1] - corner[0]),
            corner[2] + dx * (corner[3] - corner[2]),
        )
        color += weight * (upper + dy * (lower - upper))
    return np.clip(0.5 + 1.2 * (color - 0.5), 0, 1)
