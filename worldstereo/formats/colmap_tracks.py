"""Which frames see which points: the observations of a COLMAP model.

Owns the visibility of points against depth maps, or against the points themselves. Pure numpy;
nothing here knows COLMAP's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.types import Bool, Cameras, Float32, PointCloud

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
    # Twice over the frames: what each sees, as bits, then the places of what is kept. All
    # sightings of a large scene at once are gigabytes.
    bits, count = [], np.zeros(len(cloud), dtype=np.int64)
    for index in range(len(cameras)):
        depth = None if depths is None else depths[index]
        seen = _seen(cloud, cameras, index, depth, tolerance, cell)
        bits.append(np.packbits(seen))
        count += seen
    points, frames, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty((0, 2))]
    rank = np.zeros(len(cloud), dtype=np.int64)
    for index, packed in enumerate(bits):
        sighted = np.flatnonzero(np.unpackbits(packed, count=len(cloud)))
        kept = sighted[_spread(rank[sighted], count[sighted], max_views)]
        rank[sighted] += 1
        points.append(kept)
        frames.append(np.full(len(kept), index, dtype=np.int64))
        places.append(_projected(cloud.points[kept], cameras, index)[0])
    every, of_frame = np.concatenate(points), np.concatenate(frames)
    order = np.lexsort((of_frame, every))
    return Observations(every[order], of_frame[order], np.concatenate(places)[order])


def _seen(
    cloud: PointCloud,
    cameras: Cameras,
    index: int,
    depth: Float32 | None,
    tolerance: float,
    cell: int,
) -> Bool:
    """Which points [P] one frame sees."""
    xy, z = _projected(cloud.points, cameras, index)
    inside = (z > NEAR) & (xy >= 0).all(axis=1) & (xy < [cameras.width, cameras.height]).all(1)
    candidates = np.flatnonzero(inside)
    xy, z = xy[candidates], z[candidates]
    if depth is None:
        visible = z <= _nearest(xy, z, cameras, cell) * (1 + tolerance)
    else:
        surface = _sampled(depth, xy, cameras)
        visible = (surface > 0) & (np.abs(z - surface) <= tolerance * z)
    inside[candidates] = visible
    return inside


def _projected(points: Float32, cameras: Cameras, index: int) -> tuple[Float64, Float64]:
    """Pixels [P, 2] and depths [P] of points [P, 3]; infinite pixels behind the camera."""
    pose = cameras.camera_from_world[index].astype(np.float64)
    lens = cameras.intrinsics[index].astype(np.float64)
    local = points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
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


def _spread(rank: Indices, count: Indices, most: int) -> Bool:
    """Which sightings stay: of ``count`` of a point, this one the ``rank``-th, at most ``most``."""
    # Of k views those at which floor(rank m / k) steps: exactly m of them.
    stepped: Bool = (rank * most // count) != ((rank - 1) * most // count)
    return np.asarray((count <= most) | stepped)
