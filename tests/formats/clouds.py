"""A small cloud and cameras that see it, for the formats of points and cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.scenes import path
from worldstereo.types import Cameras, Float32, PointCloud

Float64 = NDArray[np.float64]

SIZE = (48, 64)


def cloud(count: int = 50, seed: int = 0) -> PointCloud:
    """Points in front of the cameras of ``cameras``."""
    random = np.random.default_rng(seed)
    points = random.uniform((-1, -1, 2), (1, 1, 5), (count, 3)).astype(np.float32)
    return PointCloud(points, random.integers(0, 256, (count, 3), dtype=np.uint8))


def cameras(count: int = 4, *, yaw: float = 20.0, pitch: float = -10.0) -> Cameras:
    """Cameras that turn and move, with a principal point off the centre and fx other than fy."""
    height, width = SIZE
    matrix = [[50.0, 0, width / 2 + 2.5], [0, 55.0, height / 2 - 1.25], [0, 0, 1]]
    intrinsics = np.tile(np.array(matrix, dtype=np.float32), (count, 1, 1))
    return Cameras(path(count, yaw=yaw, pitch=pitch), intrinsics, height, width)


def pixels(points: Float32, views: Cameras) -> Float64:
    """[N, P, 2]: where each camera sees each point, by the definition, in float64."""
    world = np.concatenate([points, np.ones((len(points), 1))], axis=1).astype(np.float64)
    seen = views.camera_from_world.astype(np.float64)[:, :3] @ world.T
    along = views.intrinsics.astype(np.float64) @ seen
    assert (seen[:, 2] > 0).all()
    return (along[:, :2] / along[:, 2:]).transpose(0, 2, 1)
