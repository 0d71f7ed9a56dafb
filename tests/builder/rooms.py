"""Small pictures with exact depth to build scenes from."""

from __future__ import annotations

import numpy as np

from tests.scenes import picture
from worldstereo.depth.protocol import DepthMap
from worldstereo.types import Float32, UInt8

SIZE = (96, 144)
# Working sizes of a model that this picture fits exactly.
SCALE_MAP = ((64, 64), (64, 96))


def wall(distance: float = 2.0, size: tuple[int, int] = SIZE) -> tuple[UInt8, Float32]:
    """A picture of a wall that stands across the view, and its depth."""
    return picture(3, size), np.full(size, distance, dtype=np.float32)


def slanted(size: tuple[int, int] = SIZE) -> tuple[UInt8, Float32]:
    """A picture of a wall that comes nearer to the right, from 4 to 2."""
    height, width = size
    row = 1 / np.linspace(1 / 4, 1 / 2, width, dtype=np.float32)
    return picture(5, size), np.tile(row, (height, 1))


def lens(degrees: float = 60.0, size: tuple[int, int] = SIZE) -> Float32:
    """[3, 3] intrinsics of a horizontal field of view."""
    height, width = size
    focal = width / 2 / np.tan(np.radians(degrees) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=np.float32)


def depth_map(depth: Float32, *, intrinsics: Float32 | None = None) -> DepthMap:
    return DepthMap(depth, metric=True, intrinsics=intrinsics)
