"""How near a camera path comes to the points, and shortening one that comes too near.

Owns the distance, the clearance that is kept, and the search for how far a path may go. The
rule follows WorldNav: 80 centres along the path, and of each the mean distance of the 5 nearest
points. What is behind glass, or was never seen, is not known to be there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from worldstereo.builder.parameters import MINIMUM_EXTENT
from worldstereo.builder.specs import TrajectorySpec, path_of
from worldstereo.errors import ParameterError
from worldstereo.geometry.camera_path import Float64, StartPose
from worldstereo.geometry.projection import unproject_pixels
from worldstereo.types import Cameras, Float32

# Nearest points whose mean distance counts: one stray point is no wall.
NEIGHBOURS = 5
# Centres along a path that are looked at, at least and at most.
DENSE_CENTERS = 80
MOST_CENTERS = 2000
# Pixels of a depth map that are looked at.
MOST_OBSTACLES = 1 << 17
# Of the distance that the start camera itself has, a path may come this share as near.
START_SHARE = 0.5
# The search: factors fall by this ratio until one is free, then the gap is halved so often.
RATIO = 0.9
HALVINGS = 8


@dataclass(frozen=True)
class Shortened:
    """A path that keeps its distance.

    Attributes:
        spec: what is used.
        factor: its extent as a share of what was asked, in (0, 1].
        clearance: the distance that was kept, in scene units.
        smallest_distance: the path's to the points, in scene units.
    """

    spec: TrajectorySpec
    factor: float
    clearance: float
    smallest_distance: float


class Obstacles:
    """Points that paths keep away from.

    Args:
        points: [P, 3] in world coordinates, P >= 1.
    """

    def __init__(self, points: ArrayLike) -> None:
        self._points = np.asarray(points, dtype=np.float64)
        assert self._points.ndim == 2, self._points.shape
        self._tree = KDTree(self._points)

    def distances(self, centers: ArrayLike) -> Float64:
        """Of each centre [N, 3] the mean distance to its 5 nearest points, [N]."""
        count = min(NEIGHBOURS, len(self._points))
        found, _ = self._tree.query(np.asarray(centers, dtype=np.float64), k=count)
        return np.asarray(np.mean(np.reshape(found, (-1, count)), axis=-1), dtype=np.float64)


def obstacle_points(depth: Float32, camera: Cameras) -> Float64:
    """What a depth map shows, as points that paths keep away from.

    All of it, also what is left out where points are rendered: a floor is there although it is
    so steep from pixel to pixel that it counts as an edge.

    Args:
        depth: [h, w] along the camera's z, 0 = invalid.
        camera: the one that took it (N = 1), at any size of the same shape.

    Returns:
        [P, 3] in world coordinates, of evenly spaced pixels, ``MOST_OBSTACLES`` or a few more.
    """
    height, width = depth.shape
    step = math.ceil(math.sqrt(height * width / MOST_OBSTACLES))
    rows, columns = np.nonzero(depth[step // 2 :: step, step // 2 :: step] > 0)
    rows, columns = step * rows + step // 2, step * columns + step // 2
    own = camera.resized(height, width)
    points = unproject_pixels(
        torch.from_numpy(columns + 0.5),
        torch.from_numpy(rows + 0.5),
        torch.from_numpy(depth[rows, columns]),
        torch.from_numpy(own.camera_from_world[0]),
        torch.from_numpy(own.intrinsics[0]),
    )
    return np.asarray(points.numpy())


def shortened(
    spec: TrajectorySpec,
    start: StartPose,
    obstacles: Obstacles,
    clearance: float,
    *,
    frames: int,
    name: str,
    minimum: float = MINIMUM_EXTENT,
) -> Shortened:
    """Scale a path's extent down until it keeps its distance from the points.

    The distance kept is ``clearance``, or half of the start camera's own where that is smaller:
    where the camera stands cannot be changed. Given cameras are never changed. The factor is the
    first that is free among 1, 0.9, 0.81, ..., made larger by bisection.

    Args:
        spec: the path that was asked for.
        start: where it starts, and the pivot distance.
        obstacles: the points.
        clearance: in pivot distances; 0: any path is free.
        frames: keyframes of the path.
        name: how the error calls the trajectory.
        minimum: the least share of the extent that is still the path that was asked for.

    Returns:
        The path, its factor and its distances.

    Raises:
        ParameterError: even ``minimum`` of the path comes too near; the path reaches the pivot.
    """
    own = float(obstacles.distances(start.center[None])[0])
    kept = min(clearance * start.pivot_distance, START_SHARE * own)

    def smallest(factor: float) -> float:
        candidate = spec if factor == 1 else spec.scaled(factor)
        return _smallest_distance(candidate, start, obstacles, kept, frames)

    whole = smallest(1.0)
    if whole >= kept or not spec.scalable:
        return Shortened(spec, 1.0, kept, whole)
    blocked, free = 1.0, RATIO
    while (distance := smallest(free)) < kept:
        if free <= minimum:
            raise _too_near(name, clearance, kept, distance, minimum)
        blocked, free = free, max(RATIO * free, minimum)
    for _ in range(HALVINGS):
        middle = (blocked + free) / 2
        blocked, free = (middle, free) if smallest(middle) < kept else (blocked, middle)
    return Shortened(spec.scaled(free), free, kept, smallest(free))


def _smallest_distance(
    spec: TrajectorySpec, start: StartPose, obstacles: Obstacles, kept: float, frames: int
) -> float:
    """Over centres so dense that a path cannot slip through a wall between two of them."""
    coarse = path_of(spec, start, DENSE_CENTERS + 1).centers
    length = float(np.linalg.norm(np.diff(coarse, axis=0), axis=-1).sum())
    count = DENSE_CENTERS if kept == 0 else int(min(2 * length / kept + 1, MOST_CENTERS))
    if count > DENSE_CENTERS:
        coarse = path_of(spec, start, count + 1).centers
    keyframes = path_of(spec, start, frames).centers
    return float(obstacles.distances(np.concatenate([coarse, keyframes])).min())


def _too_near(
    name: str, clearance: float, kept: float, distance: float, minimum: float
) -> ParameterError:
    return ParameterError(
        "the path runs into the scene",
        where=name,
        got=f"{distance:.3g} from the points after going {minimum:.0%} of the way",
        allowed=f"{kept:.3g} (clearance {clearance:g} of the pivot distance, at most half of the "
        "start camera's own distance)",
        fix="take another path, or a smaller clearance (0 allows any)",
    )
