"""Similarities between two worlds: found from camera centres, or from whole cameras.

Owns ``Similarity`` and how one is found. What is measured after it is said by the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldstereo.errors import CameraError

Float64 = NDArray[np.float64]

# Centres that lie nearer together than this times their distance from the origin do not move:
# what poses in float32 say of a camera that turns on the spot. Rounding in float64 is the least.
STILL, STILL_AT_ORIGIN = 1e-6, 1e-9


@dataclass(frozen=True, eq=False)
class Similarity:
    """target = scale x rotation x source + translation.

    Attributes:
        scale: >= 0; 0 where the source does not move.
        rotation: [3, 3] float64.
        translation: [3] float64, in the target's units.
    """

    scale: float
    rotation: Float64
    translation: Float64

    def __call__(self, points: ArrayLike) -> Float64:
        """Points [P, 3] of the source in the target's world, float64."""
        source = np.asarray(points, dtype=np.float64)
        return np.asarray(self.scale * source @ self.rotation.T + self.translation)


def camera_positions(camera_from_world: ArrayLike) -> Float64:
    """Centres [N, 3] float64 of rigid cameras [N, 4, 4]: -R^T t."""
    matrices = np.asarray(camera_from_world, dtype=np.float64)
    return np.asarray(-np.einsum("nji,nj->ni", matrices[:, :3, :3], matrices[:, :3, 3]))


def moves(centers: Float64) -> bool:
    """Whether centres [N, 3], in the world of their poses, are more than one place."""
    spread = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()
    return bool(spread > max(STILL * float(np.abs(centers).max()), STILL_AT_ORIGIN))


def similarity_from_points(source: ArrayLike, target: ArrayLike) -> Similarity:
    """The similarity that brings the source nearest to the target, in the sum of squares.

    Umeyama 1991, equations 34 to 43. Points on one line are allowed: the rotation about that
    line is then any, and what remains of the distances does not depend on it. (evo refuses
    them, and half of all camera paths are straight.)

    Args:
        source: [N, 3], N >= 1.
        target: [N, 3], row by row the same points.
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    assert x.shape == y.shape == (len(x), 3), (x.shape, y.shape)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    covariance = (y - mean_y).T @ (x - mean_x) / len(x)
    left, values, right = np.linalg.svd(covariance)
    signs = np.ones(3)
    signs[2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    rotation = (left * signs) @ right
    variance = float(((x - mean_x) ** 2).sum() / len(x))
    scale = float((values * signs).sum() / variance) if moves(x) else 0.0
    return Similarity(scale, rotation, mean_y - scale * rotation @ mean_x)


def similarity_from_cameras(source: ArrayLike, target: ArrayLike) -> Similarity:
    """The similarity between two worlds in which the same cameras are known.

    The rotation is the chordal mean of the cameras' own (so that cameras on a line suffice),
    scale and translation then bring the centres nearest in the sum of squares.

    Args:
        source: camera_from_world [N, 4, 4] in the source's world.
        target: the same cameras in the target's world.

    Raises:
        CameraError: the cameras stand in one place in one of the worlds: there is no scale.
    """
    x, y = camera_positions(source), camera_positions(target)
    if not (moves(x) and moves(y)):
        raise CameraError(
            "cameras that stand in one place give no scale",
            where="alignment",
            got=f"{len(x)} cameras with one centre",
            allowed="cameras with at least two centres",
            fix="align with another trajectory, or not at all",
        )
    rotations = np.einsum(
        "nji,njk->ik",
        np.asarray(target, dtype=np.float64)[:, :3, :3],
        np.asarray(source, dtype=np.float64)[:, :3, :3],
    )
    left, _, right = np.linalg.svd(rotations)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    from_mean = (x - x.mean(axis=0)) @ rotation.T
    scale = float((from_mean * (y - y.mean(axis=0))).sum() / (from_mean**2).sum())
    if scale <= 0:
        raise CameraError(
            "the cameras of the two worlds do not move alike",
            where="alignment",
            got=f"a scale of {scale:.6g}",
            allowed="the same cameras, in the same order, in both",
        )
    return Similarity(scale, rotation, y.mean(axis=0) - scale * rotation @ x.mean(axis=0))
