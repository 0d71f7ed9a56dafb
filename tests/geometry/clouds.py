"""Random point clouds, and the renderer's definition pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.geometry.strategies import rigid
from worldstereo.geometry.render import PointRender

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """Arguments of a renderer. Depths are multiples of 1/4 in camera 0: many ties."""

    points: Tensor
    colors: Tensor
    camera_from_world: Tensor
    intrinsics: Tensor
    height: int
    width: int


def random_cloud(seed: int, count: int, height: int, width: int) -> Cloud:
    """Points before, behind and beside two cameras; the second one is turned and moved."""
    random = np.random.default_rng(seed)
    z = random.integers(-4, 17, count) / 4
    x = random.uniform(-1, 1, count) * np.abs(z)
    y = random.uniform(-1, 1, count) * np.abs(z) * height / width
    cameras = [np.eye(4), rigid([0.1, -0.2, 0.3], [0.2, -0.1, 0.3])]
    pinhole = np.array([[0.7 * width, 0, 0.45 * width], [0, 0.8 * width, 0.55 * height], [0, 0, 1]])
    return Cloud(
        torch.from_numpy(np.stack([x, y, z], axis=-1)).float(),
        torch.from_numpy(random.uniform(-1, 1, (count, 3))).float(),
        torch.from_numpy(np.stack(cameras)).float(),
        torch.from_numpy(np.stack([pinhole, 1.1 * pinhole * [[1], [1], [1 / 1.1]]])).float(),
        height,
        width,
    )


@dataclass
class SlowPixel:
    """What one pixel shows, and how near to a disk's rim its centre lies (in radii squared)."""

    rgb: Float64
    nearest_z: float
    rim: float


def slow_pixel(
    cloud: Cloud, frame: int, row: int, column: int, radius_ndc: float, points_per_pixel: int
) -> SlowPixel:
    """The specification for one pixel of one frame."""
    camera = cloud.camera_from_world[frame].double().numpy()
    intrinsics = cloud.intrinsics[frame].double().numpy()
    half = min(cloud.height, cloud.width) / 2
    hits, rim = [], np.inf
    for index, point in enumerate(cloud.points.double().numpy()):
        in_camera = camera[:3, :3] @ point + camera[:3, 3]
        z = np.float32(in_camera[2])
        if z <= 0:
            continue
        u, v, _ = intrinsics @ in_camera / in_camera[2]
        squared = ((column + 0.5 - u) ** 2 + (row + 0.5 - v) ** 2) / (radius_ndc * half) ** 2
        rim = min(rim, abs(squared - 1))
        if squared < 1:
            hits.append((z, index, 1 - squared))
    rgb, transmittance = np.zeros(3), 1.0
    for _, index, weight in sorted(hits)[:points_per_pixel]:
        rgb += transmittance * weight * cloud.colors[index].double().numpy()
        transmittance *= 1 - weight
    return SlowPixel(rgb, float(min(hits)[0]) if hits else -1.0, float(rim))


def assert_is_slow_render(
    actual: PointRender, cloud: Cloud, radius_ndc: float, points_per_pixel: int
) -> int:
    """Compare every pixel to 1e-5 and return how many of them are covered.

    Pixels that lie on a rim up to rounding belong to the disk or not; these are not compared.
    """
    frames = len(cloud.camera_from_world)
    assert actual.rgb.shape == (frames, 3, cloud.height, cloud.width)
    assert (
        actual.hole_mask.shape == actual.nearest_z.shape == (frames, 1, cloud.height, cloud.width)
    )
    covered = 0
    for frame in range(frames):
        for row in range(cloud.height):
            for column in range(cloud.width):
                expected = slow_pixel(cloud, frame, row, column, radius_ndc, points_per_pixel)
                if expected.rim < 1e-4:
                    continue
                where = (frame, slice(None), row, column)
                np.testing.assert_allclose(actual.rgb[where], expected.rgb, atol=1e-5)
                np.testing.assert_allclose(actual.nearest_z[where], expected.nearest_z, rtol=1e-6)
                assert bool(actual.hole_mask[where] == (expected.nearest_z < 0))
                covered += expected.nearest_z > 0
    return covered
