"""Which frames see which points: the observations of a COLMAP model.

Owns the visibility of points against depth maps, or against the points themselves. Pure numpy;
nothing here knows COLMAP's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.types import Cameras, Float32, PointCloud

Float64 = NDArray[np.float64]
Indices = NDArray[np.int64]

# Nearer than this a point is not in front of the camera.
NEAR = 1e-6


@dataclass(frozen=True, eq=False)
class Observations:
    """M sightings of points in frames, sorted by point, then by frame.

    Args:
        points: [M] int64, index of the point in its cloud.
        frames: [M] int64, index of the camera.
        xy: [M, 2] float64, where it is seen: pixels of the cameras' size, centres at +0.5.
    """

    points: Indices
    frames: Indices
    xy: Float64

    def __post_init__(self) -> None:
        n = len(self.points)
        assert self.frames.shape == (n,), self.frames.shape
        assert self.xy.shape == (n, 2), self.xy.shape

    def __len__(self) -> int:
        return len(self.points)


def observations(
    cloud: PointCloud,
    cameras: Cameras,
    depths: Sequence[Float32 | None] | Float32 | None = None,
    *,
    tolerance: float = 0.02,
    cell: int = 4,
    max_views: int = 8,
) -> Observations:
    """Find the frames that see each point.

    A point is seen where it projects into the image and lies no further than ``tolerance`` x its
    depth from the surface there: the frame's depth map at that pixel, or, without one, the
    nearest point of the cloud in the same cell of ``cell`` x ``cell`` pixels.

    Args:
        cloud: P points in the cameras' world.
        cameras: N cameras.
        depths: N maps [h, w] along z, 0 = unknown, of the images at any size; an entry, or all,
            may be None. Where a map has no depth, no point is seen.
        tolerance: fraction of the point's depth.
        cell: pixels; larger ones hide more of what shines through gaps between near points.
        max_views: a point seen by more frames keeps this many, evenly spread over them.

    Returns:
        The observations; points that no frame sees have none.
    """
    assert depths is None or len(depths) == len(cameras), (len(depths), len(cameras))
    points, frames, places = [], [], []
    for index in range(len(cameras)):
        depth = None if depths is None else depths[index]
        xy, z = _projected(cloud, cameras, index)
        inside = (z > NEAR) & (xy >= 0).all(axis=1) & (xy < [cameras.width, cameras.height]).all(1)
        candidates = np.flatnonzero(inside)
        xy, z = xy[candidates], z[candidates]
        if depth is None:
            seen = z <= _nearest(xy, z, cameras, cell) * (1 + tolerance)
        else:
            surface = _sampled(depth, xy, cameras)
            seen = (surface > 0) & (np.abs(z - surface) <= tolerance * z)
        points.append(candidates[seen])
        frames.append(np.full(int(seen.sum()), index, dtype=np.int64))
        places.append(xy[seen])
    if not points:
        return Observations(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)))
    found = Observations(np.concatenate(points), np.concatenate(frames), np.concatenate(places))
    return _thinned(found, max_views)


def _projected(cloud: PointCloud, cameras: Cameras, index: int) -> tuple[Float64, Float64]:
    """Pixels [P, 2] and depths [P] of all points; infinite pixels behind the camera."""
    pose = cameras.camera_from_world[index].astype(np.float64)
    lens = cameras.intrinsics[index].astype(np.float64)
    local = cloud.points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    z = local[:, 2]
    front = z > NEAR
    xy = np.full((len(z), 2), np.inf)
    xy[front] = local[front, :2] / z[front, None] * np.diag(lens)[:2] + lens[:2, 2]
    return xy, z


def _nearest(xy: Float64, z: Float64, cameras: Cameras, cell: int) -> Float64:
    """For each point the smallest depth in its cell."""
    columns = -(-cameras.width // cell)
    place = (xy // cell).astype(np.int64)
    key = place[:, 1] * columns + place[:, 0]
    buffer = np.full(columns * -(-cameras.height // cell), np.inf)
    np.minimum.at(buffer, key, z)
    nearest: Float64 = buffer[key]
    return nearest


def _sampled(depth: Float32, xy: Float64, cameras: Cameras) -> Float64:
    """The map's depth at the pixel that each place lies in; depths are never averaged."""
    height, width = depth.shape
    column = (xy[:, 0] * (width / cameras.width)).astype(np.int64).clip(0, width - 1)
    row = (xy[:, 1] * (height / cameras.height)).astype(np.int64).clip(0, height - 1)
    sampled: Float64 = depth[row, column].astype(np.float64)
    return sampled


def _thinned(found: Observations, max_views: int) -> Observations:
    """Sorted by point and frame, at most ``max_views`` of each point, evenly spread."""
    order = np.lexsort((found.frames, found.points))
    points = found.points[order]
    _, first, count = np.unique(points, return_index=True, return_counts=True)
    rank = np.arange(len(points)) - np.repeat(first, count)
    count = np.repeat(count, count)
    # Of k views those at which floor(rank m / k) steps: exactly m of them.
    kept = (count <= max_views) | (rank * max_views // count != (rank - 1) * max_views // count)
    order = order[kept]
    return Observations(found.points[order], found.frames[order], found.xy[order])
