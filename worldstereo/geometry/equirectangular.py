"""Equirectangular panoramas: pixels and directions, and pinhole views cut out of them.

Owns the convention. The world is Z-up and the panorama's camera stands at its origin; the
image's centre looks along -X, its columns turn to the right, so that +Y lies a quarter of the
width right of the centre, and its rows run from the zenith (+Z) to the nadir. With longitude
l in [-pi, pi) to the right of the centre and latitude p in [-pi/2, pi/2] above the horizon::

    direction = (-cos p cos l, cos p sin l, sin p)
    u = W (1/2 + l / 2 pi),  v = H (1/2 - p / pi)      pixel centres at +0.5

The published panorama scenes have these axes: their views, which turn to the right from -X over
+Y, show each other's pictures in the overlaps (a test compares them). Directions are computed in
float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from worldstereo.errors import MediaError
from worldstereo.formats.images import resize_bicubic
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.types import Bool, Cameras, Float32, UInt8

Float64 = NDArray[np.float64]

# A panorama is at most this many times as fine as a view's centre; what is finer is made smaller
# first. Four times is what the middle of the sides of a 120 degree view can show.
FINEST = 4
# Pixels around the panorama that bicubic sampling reaches for.
_MARGIN = 2
# Rows of the smallest panorama that is worth cutting views out of.
MIN_ROWS = 64


def check_panorama_image(image: UInt8, limits: Limits = DEFAULT_LIMITS) -> None:
    """Refuse what is no full equirectangular panorama.

    Args:
        image: [H, W, 3] uint8.
        limits: bounds on the number of pixels.

    Raises:
        MediaError: not RGB uint8, not twice as wide as high, too small or too large.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise MediaError(
            "no RGB image",
            where="panorama",
            got=f"{list(image.shape)} {image.dtype}",
            allowed="[height, width, 3] uint8",
        )
    height, width = image.shape[:2]
    if width != 2 * height:
        raise MediaError(
            "an equirectangular panorama is twice as wide as it is high",
            where="panorama",
            got=f"{width}x{height} pixels",
            allowed="360 x 180 degrees in a 2:1 image",
            fix="fill up or crop the image to the full sphere",
        )
    if height < MIN_ROWS or height * width > limits.max_image_pixels:
        raise MediaError(
            "the panorama's size is out of range",
            where="panorama",
            got=f"{width}x{height} pixels",
            allowed=f"at least {MIN_ROWS} rows, up to {limits.max_image_pixels} pixels",
        )


def pixel_directions(height: int, width: int) -> Float64:
    """Unit directions [height, width, 3] through the centres of a panorama's pixels."""
    latitude = np.pi * (0.5 - (np.arange(height) + 0.5) / height)
    longitude = 2 * np.pi * ((np.arange(width) + 0.5) / width - 0.5)
    return directions(latitude[:, None], longitude[None, :])


def directions(latitude: ArrayLike, longitude: ArrayLike) -> Float64:
    """Unit directions [..., 3] of angles in radians, which are broadcast against each other."""
    latitude = np.asarray(latitude, dtype=np.float64)
    longitude = np.asarray(longitude, dtype=np.float64)
    level = np.cos(latitude)
    parts = (-level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude))
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


def panorama_pixels(towards: Float64, height: int, width: int) -> tuple[Float64, Float64]:
    """Where directions lie in a panorama; inverts ``pixel_directions``.

    Args:
        towards: [..., 3] of any length > 0.
        height: rows of the panorama.
        width: its columns.

    Returns:
        u in [0, width] and v in [0, height], each [...], pixel centres at +0.5.
    """
    x, y, z = np.moveaxis(np.asarray(towards, dtype=np.float64), -1, 0)
    longitude = np.arctan2(y, -x)
    latitude = np.arctan2(z, np.hypot(x, y))
    return width * (0.5 + longitude / (2 * np.pi)), height * (0.5 - latitude / np.pi)


def view_directions(camera: Cameras) -> tuple[Float64, Float64]:
    """The rays of a camera's pixels.

    Args:
        camera: N = 1.

    Returns:
        Unit directions [height, width, 3] in the world through the pixels' centres, and the
        cosine [height, width] of their angle to the optical axis: depth along z = distance x
        cosine.
    """
    rotation, (fx, skew, cx), (fy, cy) = _pinhole(camera)
    y = ((np.arange(camera.height) + 0.5 - cy) / fy)[:, None]
    x = (np.arange(camera.width)[None, :] + 0.5 - cx - skew * y) / fx
    cosine = 1 / np.sqrt(x * x + y * y + 1)
    # Element by element: matrix products sum in an order that depends on the library's threads.
    axes = [rotation[0, i] * x + rotation[1, i] * y + rotation[2, i] for i in range(3)]
    return np.stack(axes, axis=-1) * cosine[..., None], cosine


def view_pixels(towards: Float64, camera: Cameras) -> tuple[NDArray[np.intp], Float64, Bool]:
    """Which pixel of a pinhole view sees a direction; all cameras share the panorama's centre.

    Args:
        towards: [M, 3] unit directions in the world.
        camera: N = 1; its place is ignored.

    Returns:
        Row-major pixel index [M] (0 where it is not seen), the cosine [M] of the angle to the
        optical axis, and [M] whether the view sees it.
    """
    rotation, (fx, skew, cx), (fy, cy) = _pinhole(camera)
    along = np.asarray(towards, dtype=np.float64).T
    x, y, z = (row[0] * along[0] + row[1] * along[1] + row[2] * along[2] for row in rotation)
    ahead = np.where(z > 1e-9, z, np.inf)
    column = np.floor((fx * x + skew * y) / ahead + cx)
    row = np.floor(fy * y / ahead + cy)
    seen = (z > 1e-9) & (column >= 0) & (column < camera.width)
    seen &= (row >= 0) & (row < camera.height)
    index = np.where(seen, row * camera.width + column, 0).astype(np.intp)
    return index, z, seen


def _pinhole(camera: Cameras) -> tuple[Float64, Float64, Float64]:
    """Rotation [3, 3] camera from world, (fx, skew, cx) and (fy, cy) of one camera."""
    matrix = camera.intrinsics[0].astype(np.float64)
    return camera.camera_from_world[0, :3, :3].astype(np.float64), matrix[0], matrix[1, 1:]


def sample_nearest(values: Float32, towards: Float64) -> Float32:
    """For each direction the pixel of a panorama that it lies in; nothing is averaged.

    Args:
        values: [H, W] of a panorama, distances for example.
        towards: [..., 3] directions.

    Returns:
        [...] float32.
    """
    height, width = values.shape
    u, v = panorama_pixels(towards, height, width)
    rows = np.clip(np.floor(v).astype(np.intp), 0, height - 1)
    return np.asarray(values[rows, np.floor(u).astype(np.intp) % width], dtype=np.float32)


def cut_views(panorama: UInt8, cameras: Cameras) -> UInt8:
    """Cut pinhole views out of a panorama.

    Bicubic, across the seam and over the poles. A panorama that is finer than a view is sampled
    n x n times a pixel and averaged, n by the view's centre, where its pixels are largest.

    Args:
        panorama: [H, 2H, 3].
        cameras: N cameras; their place is ignored.

    Returns:
        [N, height, width, 3] uint8.

    Raises:
        MediaError: the image is no panorama.
    """
    check_panorama_image(panorama)
    focal = float(cameras.intrinsics[:, 0, 0].max())
    rows = min(len(panorama), math.ceil(math.pi * FINEST * focal))
    source = _with_margin(resize_bicubic(panorama, (rows, 2 * rows)))
    smallest = float(cameras.intrinsics[:, [0, 1], [0, 1]].min())
    samples = max(1, math.ceil(rows / (math.pi * smallest) - 0.01))
    fine = cameras.resized(samples * cameras.height, samples * cameras.width)
    views = np.empty((len(cameras), cameras.height, cameras.width, 3), dtype=np.uint8)
    for view, index in zip(views, range(len(cameras)), strict=True):
        towards, _ = view_directions(fine[[index]])
        sampled = _sample_bicubic(source, towards, rows)
        averaged = functional.avg_pool2d(sampled, samples)
        view[:] = averaged.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return views


def _with_margin(panorama: UInt8) -> Tensor:
    """[3, H + 2 m, W + 2 m] float32: wrapped at the seam, continued over the poles.

    Beyond a pole the rows come back on the other side, half a turn away.
    """
    m = _MARGIN
    image = torch.tensor(panorama).permute(2, 0, 1).float()
    half = image.shape[2] // 2
    above = image[:, :m].flip(1).roll(half, 2)
    below = image[:, -m:].flip(1).roll(half, 2)
    image = torch.cat([above, image, below], dim=1)
    return torch.cat([image[:, :, -m:], image, image[:, :, :m]], dim=2)


def _sample_bicubic(source: Tensor, towards: Float64, rows: int) -> Tensor:
    """[3, h, w] of a panorama of ``rows`` rows, with its margin, in the directions [h, w, 3]."""
    u, v = panorama_pixels(towards, rows, 2 * rows)
    height, width = source.shape[1:]
    # What is rounded to float32 is the position in the image, 1e-3 pixels at worst.
    x = torch.from_numpy(2 * (u + _MARGIN) / width - 1).float()
    y = torch.from_numpy(2 * (v + _MARGIN) / height - 1).float()
    grid = torch.stack([x, y], dim=-1)[None]
    return functional.grid_sample(source[None], grid, mode="bicubic", align_corners=False)[0]
