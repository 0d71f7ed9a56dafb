"""Pinhole projection and its inverse, in pixels.

Owns the two directions between the world and one image. Written as element-wise sums in
float64 instead of matrix products, whose order of summation depends on a library's threads: the
same numbers to the bit in every process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldstereo.geometry.cameras import invert_matrices


def project_points(
    points: Tensor, camera_from_world: Tensor, intrinsics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Project points into an image.

    Args:
        points: [P, 3] in world coordinates.
        camera_from_world: [4, 4].
        intrinsics: [3, 3] in pixels, last row 0 0 1.

    Returns:
        u, v and z, each [P] float64: pixels (centres at +0.5) and depth along the camera's z in
        scene units. Where z <= 0 the point is not in front of the camera and u, v mean nothing.
    """
    in_camera = _transform(camera_from_world[:3].tolist(), points.double().unbind(-1))
    along_x, along_y, _ = _transform(intrinsics.tolist(), in_camera)
    z = in_camera[2]
    return along_x / z, along_y / z, z


def unproject_pixels(
    u: Tensor, v: Tensor, z: Tensor, camera_from_world: Tensor, intrinsics: Tensor
) -> Tensor:
    """Points in the world that are seen at (u, v) with depth z; inverts ``project_points``.

    Args:
        u: [P] in pixels, to the right.
        v: [P] in pixels, down.
        z: [P] depth along the camera's z in scene units.
        camera_from_world: [4, 4].
        intrinsics: [3, 3] in pixels, last row 0 0 1.

    Returns:
        [P, 3] float64 in world coordinates.

    Raises:
        CameraError: a matrix cannot be inverted.
    """
    camera_from_pixel = invert_matrices(intrinsics[None], "intrinsics")[0]
    world_from_camera = invert_matrices(camera_from_world[None])[0]
    u, v, z = u.double(), v.double(), z.double()
    in_camera = _transform(camera_from_pixel.tolist(), (u * z, v * z, z))
    return torch.stack(_transform(world_from_camera[:3].tolist(), in_camera), dim=-1)


def _transform(rows: Sequence[Sequence[float]], axes: Sequence[Tensor]) -> list[Tensor]:
    """Rows [k, 3] or, with a translation, [k, 4] times the vectors whose axes these are."""
    x, y, z = axes
    linear = [row[0] * x + row[1] * y + row[2] * z for row in rows]
    return [
        part + row[3] if len(row) == 4 else part for part, row in zip(linear, rows, strict=True)
    ]
