"""Which pixel of one picture another camera sees too, decided by exact depth.

Owns the test that both the "holes that a reference sees" and the cross-trajectory consistency
rest on: a pixel's point is projected into the other camera and compared with the depth there.
numpy in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.types import Bool, Cameras, Float32

Float64 = NDArray[np.float64]

# Relative difference of depths up to which they are one surface's.
DEPTH_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class View:
    """One camera and the depth that it sees.

    Attributes:
        camera_from_world: [4, 4].
        intrinsics: [3, 3] in pixels of the depth map, without skew.
        depth: [H, W] along z, 0 where there is none.
    """

    camera_from_world: Float64
    intrinsics: Float64
    depth: Float64

    def points(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Float64:
        """World points [P, 3] of these pixels, at their centres."""
        u, v = columns.astype(np.float64) + 0.5, rows.astype(np.float64) + 0.5
        return self.unproject(u, v, self.depth[rows, columns])

    def unproject(self, u: Float64, v: Float64, z: Float64) -> Float64:
        """World points [P, 3] seen at (u, v) pixels with depth z."""
        k, pose = self.intrinsics, self.camera_from_world
        across, down = (u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z
        local = np.stack([across, down, z], axis=-1) - pose[:3, 3]
        return np.asarray(local @ pose[:3, :3])

    def project(self, points: Float64) -> tuple[Float64, Float64, Float64]:
        """u, v in pixels and z of world points [P, 3]; u, v mean nothing where z <= 0."""
        local = points @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]
        z = local[:, 2]
        k, ahead = self.intrinsics, np.where(z > 0, z, 1.0)
        u = k[0, 0] * local[:, 0] / ahead + k[0, 2]
        v = k[1, 1] * local[:, 1] / ahead + k[1, 2]
        return u, v, z

    def in_picture(self, u: Float64, v: Float64, z: Float64) -> Bool:
        """Which projected points lie in front of the camera and in its picture."""
        height, width = self.depth.shape
        inside: Bool = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        return inside


def views_of(cameras: Cameras, depths: Float32) -> list[View]:
    """Each camera with its depth map, [F, H, W] of the cameras' size."""
    assert depths.shape == (len(cameras), cameras.height, cameras.width), depths.shape
    return [
        View(pose.astype(np.float64), k.astype(np.float64), depth.astype(np.float64))
        for pose, k, depth in zip(
            cameras.camera_from_world, cameras.intrinsics, depths, strict=True
        )
    ]


@dataclass(frozen=True, eq=False)
class Seen:
    """Where points are in a picture.

    Attributes:
        u, v: [P] pixels.
        visible: [P] bool, inside the picture and not behind another surface.
    """

    u: Float64
    v: Float64
    visible: Bool


def seen_by(view: View, points: Float64, *, tolerance: float = DEPTH_TOLERANCE) -> Seen:
    """Which points a camera sees.

    A point is seen where it projects into the picture with z > 0 and its depth is, up to the
    tolerance, the map's: either interpolated there (in 1/z, which is exact on a plane) or that
    of one of the four pixels around it, of which only some may lie on its surface.

    Args:
        view: the camera and its depth map.
        points: [P, 3] in the world.
        tolerance: relative.
    """
    u, v, z = view.project(points)
    inside = view.in_picture(u, v, z)
    visible = np.zeros(len(points), dtype=np.bool_)
    if inside.any():
        inverse = np.divide(1.0, view.depth, out=np.zeros_like(view.depth), where=view.depth > 0)
        corners, weights = corners_at(inverse, u[inside], v[inside])
        here = np.concatenate([corners, (corners * weights).sum(axis=0, keepdims=True)])
        visible[inside] = (np.abs(here * z[inside] - 1) <= tolerance).any(axis=0)
    return Seen(u, v, visible)


def corners_at(values: Float64, u: Float64, v: Float64) -> tuple[Float64, Float64]:
    """The four pixels around places in a map, and their bilinear weights.

    Args:
        values: [H, W, ...].
        u, v: [P] pixels; centres lie at +0.5, places beyond the outermost centres are moved
            to them.

    Returns:
        [4, P, ...] and [4, P].
    """
    height, width = values.shape[:2]
    x = np.clip(u - 0.5, 0, width - 1)
    y = np.clip(v - 0.5, 0, height - 1)
    left = np.minimum(x.astype(np.intp), max(width - 2, 0))
    top = np.minimum(y.astype(np.intp), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    a, b = x - left, y - top
    corners = [values[top, left], values[top, right], values[bottom, left], values[bottom, right]]
    weights = [(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]
    return np.stack(corners), np.stack(weights)


def bilinear(values: Float64, u: Float64, v: Float64) -> Float64:
    """Values [P, C] of a map [H, W, C] at places (u, v) in pixels."""
    corners, weights = corners_at(values, u, v)
    return np.asarray((corners * weights[..., None]).sum(axis=0))


def seen_by_any(
    targets: Sequence[View],
    masks: Bool,
    references: Sequence[View],
    *,
    tolerance: float = DEPTH_TOLERANCE,
) -> Bool:
    """Pixels of some pictures whose surface at least one reference camera sees.

    Args:
        targets: F pictures with their exact depth.
        masks: [F, H, W] bool, the pixels in question, such as the holes of a point render.
        references: R cameras with their exact depth.
        tolerance: relative, of depths.

    Returns:
        [F, H, W] bool: the part of ``masks`` that has a depth and is seen by a reference.
    """
    seen = np.zeros_like(masks)
    for number, target in enumerate(targets):
        rows, columns = np.nonzero(masks[number] & (target.depth > 0))
        points = target.points(rows, columns)
        found = np.zeros(len(points), dtype=np.bool_)
        for reference in references:
            left = np.flatnonzero(~found)
            found[left] = seen_by(reference, points[left], tolerance=tolerance).visible
        seen[number, rows, columns] = found
    return seen
