"""A box room with a block in it, exact in colour and distance along any ray.

The textures are smooth: a picture taken at pixel centres is nearly free of aliasing, so that
resampled and rendered pictures can be compared with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldstereo.geometry.equirectangular import pixel_directions, view_directions
from worldstereo.types import Bool, Cameras, Float32, UInt8

Float64 = NDArray[np.float64]

ROOM = (np.array([-4.0, -2.6, -1.5]), np.array([3.2, 3.0, 1.6]))
BLOCK = (np.array([-2.6, 0.9, -1.5]), np.array([-1.8, 1.7, 0.1]))
# Of walls with lower and higher x, y, z.
TINTS = np.array(
    [[0.9, 0.5, 0.4], [0.4, 0.6, 0.9], [0.5, 0.9, 0.5], [0.9, 0.9, 0.4], [0.6, 0.5, 0.4], [0.9] * 3]
)


def trace(origin: Float64, towards: Float64) -> tuple[Float64, Float64]:
    """Colour [..., 3] in 0..255 and distance [...] along unit directions [..., 3]."""
    towards = np.where(np.abs(towards) < 1e-12, 1e-12, towards)
    distance, side = _cross(origin, towards, *ROOM, leaving=True)
    near, face = _cross(origin, towards, *BLOCK, leaving=False)
    struck = (near > 0) & (near < _cross(origin, towards, *BLOCK, leaving=True)[0])
    distance = np.where(struck, near, distance)
    at = origin + towards * distance[..., None]
    tint = TINTS[np.where(struck, (face + 3) % 6, side)]
    waves = [np.sin(rate * (at @ way)) for rate, way in zip((5, 6, 7), _WAYS, strict=True)]
    return 255 * tint * (0.6 + 0.13 * sum(waves)[..., None]), distance


_WAYS = np.array([[1, 0.4, 0.3], [0.2, 1, -0.5], [-0.4, 0.3, 1]])


def _cross(
    origin: Float64, towards: Float64, low: Float64, high: Float64, *, leaving: bool
) -> tuple[Float64, NDArray[np.intp]]:
    """Distance and side (2 axis + 1 where it is the higher) of entering or leaving a box."""
    lower, higher = (low - origin) / towards, (high - origin) / towards
    times = np.maximum(lower, higher) if leaving else np.minimum(lower, higher)
    axis = times.argmin(-1) if leaving else times.argmax(-1)
    distance = np.take_along_axis(times, axis[..., None], -1)[..., 0]
    ahead = np.take_along_axis(towards, axis[..., None], -1)[..., 0] > 0
    return distance, 2 * axis + (ahead == leaving)


def panorama(rows: int) -> tuple[UInt8, Float32]:
    """[rows, 2 rows, 3] seen from the origin, and its distances [rows, 2 rows]."""
    colors, distance = trace(np.zeros(3), pixel_directions(rows, 2 * rows))
    return colors.round().astype(np.uint8), distance.astype(np.float32)


def views(cameras: Cameras) -> tuple[UInt8, Float32]:
    """What cameras see: images [N, h, w, 3] and depths along z [N, h, w]."""
    images, depths = [], []
    for index in range(len(cameras)):
        towards, cosine = view_directions(cameras[[index]])
        matrix = cameras.camera_from_world[index].astype(np.float64)
        colors, distance = trace(-matrix[:3, :3].T @ matrix[:3, 3], towards)
        images.append(colors.round().astype(np.uint8))
        depths.append((distance * cosine).astype(np.float32))
    return np.stack(images), np.stack(depths)


def shows_block(camera: Cameras) -> Bool:
    """[h, w] where the block is what a camera (N = 1) sees."""
    matrix = camera.camera_from_world[0].astype(np.float64)
    origin, towards = -matrix[:3, :3].T @ matrix[:3, 3], view_directions(camera)[0]
    near, _ = _cross(origin, towards, *BLOCK, leaving=False)
    return np.asarray((near > 0) & (near < _cross(origin, towards, *BLOCK, leaving=True)[0]))


def psnr_db(first: UInt8, second: UInt8) -> float:
    """Peak signal-to-noise ratio of pictures of one shape, in decibels."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))
