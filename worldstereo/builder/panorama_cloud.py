"""From a panorama with distances to coloured points in all directions.

Owns where points are set. What a view shows at its start is lifted from the view's own pixels, as
densely as it is rendered; everything else from an even grid over the sphere, which is as dense as
the border of a view needs. Far distances are contracted and edges left out as in
geometry/lift.py, on the sphere's own median, so that views and grid agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldstereo.builder.panorama_depth import PanoramaDistances
from worldstereo.errors import MediaError
from worldstereo.formats.images import resize_bicubic
from worldstereo.geometry.equirectangular import pixel_directions, view_directions, view_pixels
from worldstereo.geometry.lift import CONTRACT, TOO_FEW_POINTS, contract_depth, depth_edges
from worldstereo.geometry.views import lifting_size
from worldstereo.types import Bool, Cameras, Float32, PointCloud, UInt8

Float64 = NDArray[np.float64]

# Rows of the grid over the sphere. At the corner of a 120 x 90 degree view a radian is 5 focal
# lengths wide, a focal length half the shorter side: rows lie 5 pi / rows of the half side apart,
# a disk's diameter (2 x 0.008) at most.
GRID_ROWS = 1024
# Paths keep away from the points of every fourth row, every fourth of these: distances are
# measured in fractions of the pivot distance, not in points.
OBSTACLE_STEP = 4


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a panorama shows in all directions, as points on a grid that is even on the sphere.

    Attributes:
        cloud: points around the origin and their colours.
        towards: [P, 3] float64, the points' unit directions.
        obstacles: [Q, 3] float32, points on edges among them, but one in sixteen: what paths
            keep away from.
        limit: distance beyond which the far field is contracted.
        covered: share of the sphere that has a distance.
    """

    cloud: PointCloud
    towards: Float64
    obstacles: Float32
    limit: float
    covered: float


def lift_surroundings(
    panorama: UInt8, source: PanoramaDistances, rows: int = GRID_ROWS
) -> Surroundings:
    """Lift a panorama on a grid over the sphere, with fewer columns towards the poles.

    Args:
        panorama: [H, 2 H, 3].
        source: distances in all directions.
        rows: of the grid.

    Raises:
        MediaError: so few directions have a distance that nothing could be rendered.
    """
    towards = pixel_directions(rows, 2 * rows)
    distance = source.distances(towards)
    even = _even_on_sphere(rows)
    valid = distance > 0
    share = float((valid & even).sum() / even.sum())
    if (valid & even).sum() <= TOO_FEW_POINTS:
        raise MediaError(
            "too few points to render from",
            where="panorama depth",
            got=f"{share:.2%} of the sphere has a distance",
            allowed="distances in most directions",
        )
    limit = CONTRACT * _lower_median(distance[valid & even])
    distance = _contract(distance, limit)
    # One more column on either side: the grid closes at the seam.
    closed = np.concatenate([distance[:, -1:], distance, distance[:, :1]], axis=1)
    usable = even & valid & ~_edges(closed)[:, 1:-1]
    colors = resize_bicubic(panorama, (rows, 2 * rows))[usable]
    kept = towards[usable]
    points = (kept * distance[usable][:, None]).astype(np.float32)
    solid = (even & valid)[::OBSTACLE_STEP]
    obstacles = (towards[::OBSTACLE_STEP] * distance[::OBSTACLE_STEP, :, None])[solid]
    obstacles = obstacles[::OBSTACLE_STEP]
    return Surroundings(
        PointCloud(points, colors), kept, obstacles.astype(np.float32), limit, share
    )


@dataclass(frozen=True, eq=False)
class ViewCloud:
    """What a view is rendered from.

    Attributes:
        cloud: the view's own points, then those of all other directions.
        pivot_distance: lower median of the view's depths along z, before contraction.
    """

    cloud: PointCloud
    pivot_distance: float

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Points [P, 3] float32 and colours [P, 3] float32 in [-1, 1]."""
        colors = torch.from_numpy(self.cloud.colors).float() / 127.5 - 1
        return torch.from_numpy(self.cloud.points), colors


def lift_view_and_surroundings(
    start: UInt8, camera: Cameras, source: PanoramaDistances, surroundings: Surroundings
) -> ViewCloud:
    """The points of a view, from its own pixels where it looks and from the grid elsewhere.

    Args:
        start: the view's start image; the points are its pixels, or finer (``lifting_size``).
        camera: the start camera (N = 1) at the size that will be rendered.
        source: distances in all directions.
        surroundings: the grid.

    Raises:
        MediaError: the view has no depth at all: there is nothing to move around.
    """
    size = lifting_size(start.shape[:2], (camera.height, camera.width))
    towards, cosine = view_directions(camera.resized(*size))
    distance = source.distances(towards)
    valid = distance > 0
    if valid.sum() <= TOO_FEW_POINTS:
        raise MediaError(
            "a view has no depth to move around in",
            where="panorama depth",
            got=f"{float(valid.mean()):.2%} of the view's pixels have a distance",
            allowed="a distance for a good part of the view",
            fix="turn the panorama, so that the front and a third of a turn to either side show "
            "more than sky",
        )
    pivot = _lower_median((distance * cosine)[valid].astype(np.float32))
    distance = _contract(distance, surroundings.limit)
    usable = valid & ~_edges((distance * cosine).astype(np.float32))
    points = (towards[usable] * distance[usable][:, None]).astype(np.float32)
    _, _, seen = view_pixels(surroundings.towards, camera)
    others = surroundings.cloud[~seen]
    colors = resize_bicubic(start, size)[usable]
    cloud = PointCloud(
        np.concatenate([points, others.points]), np.concatenate([colors, others.colors])
    )
    return ViewCloud(cloud, pivot)


def _even_on_sphere(rows: int) -> Bool:
    """[rows, 2 rows]: of each row as many columns as its circle is long, evenly spaced."""
    columns = 2 * rows
    even = np.zeros((rows, columns), dtype=np.bool_)
    for row in range(rows):
        count = math.ceil(columns * math.sin(math.pi * (row + 0.5) / rows))
        even[row, (np.arange(count) * columns) // count] = True
    return even


def _lower_median(values: Float32) -> float:
    return float(torch.from_numpy(np.ascontiguousarray(values)).median())


def _contract(distance: Float32, limit: float) -> Float32:
    """``contract_depth`` with one limit for all of the panorama's maps."""
    values = torch.from_numpy(distance)
    positive = values[values > 0]
    return np.asarray(contract_depth(values, limit / float(positive.median())).numpy())


def _edges(depth: Float32) -> Bool:
    """``depth_edges`` where what has no depth counts as lying behind everything else.

    With their depth of 0 invalid pixels would hide all other edges, and a panorama with a sky
    has them in most views.
    """
    behind = np.where(depth > 0, depth, depth.max())
    return np.asarray(depth_edges(torch.from_numpy(behind)).numpy())
