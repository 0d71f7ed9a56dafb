"""Where a camera path starts, what it is, and how it is paced.

Owns the values that the presets of trajectories.py take and give, and resampling to an even
pace. Plain numpy and scipy: paths are made before there is a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

from worldstereo.errors import CameraError, ParameterError
from worldstereo.types import Float32

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StartPose:
    """Where paths start.

    Args:
        camera_from_world: [4, 4] OpenCV.
        pivot_distance: d > 0, in scene units.

    Raises:
        CameraError: the matrix is no finite rigid one, or d is not positive and finite.
    """

    camera_from_world: ArrayLike
    pivot_distance: float

    def __post_init__(self) -> None:
        matrix = np.asarray(self.camera_from_world, dtype=np.float64)
        usable = matrix.shape == (4, 4) and bool(np.isfinite(matrix).all())
        if not usable or np.linalg.det(matrix[:3, :3]) < 0.5:
            raise CameraError(
                "the pose is no camera",
                where="camera_from_world",
                got=str(matrix.tolist()),
                allowed="a finite rigid 4x4 matrix",
            )
        if not (np.isfinite(self.pivot_distance) and self.pivot_distance > 0):
            raise CameraError(
                "the pivot must lie in front of the camera",
                where="pivot_distance",
                got=str(self.pivot_distance),
                allowed="a finite number > 0",
            )

    @property
    def rotation(self) -> Rotation:
        """R0, world from camera."""
        matrix = np.asarray(self.camera_from_world, dtype=np.float64)
        return Rotation.from_matrix(matrix[:3, :3]).inv()

    @property
    def center(self) -> Float64:
        """C0 [3], in world coordinates."""
        matrix = np.asarray(self.camera_from_world, dtype=np.float64)
        return np.asarray(-self.rotation.apply(matrix[:3, 3]))

    @property
    def pivot(self) -> Float64:
        """P = C0 + d z0 [3], in world coordinates."""
        return np.asarray(self.center + self.rotation.apply([0.0, 0.0, self.pivot_distance]))


@dataclass(frozen=True, eq=False)
class CameraPath:
    """Poses and zoom of N frames.

    Attributes:
        rotation: N rotations, world from camera.
        centers: [N, 3] float64 camera centres in world coordinates.
        focal_scale: [N] float64, focal lengths as multiples of the start image's.
    """

    rotation: Rotation
    centers: Float64
    focal_scale: Float64

    def __len__(self) -> int:
        return len(self.centers)

    def __getitem__(self, frames: slice | NDArray[np.bool_]) -> CameraPath:
        return CameraPath(self.rotation[frames], self.centers[frames], self.focal_scale[frames])

    @property
    def camera_from_world(self) -> Float32:
        """[N, 4, 4] float32, OpenCV."""
        inverse = self.rotation.inv()
        matrices = np.zeros((len(self), 4, 4), dtype=np.float32)
        matrices[:, :3, :3] = inverse.as_matrix()
        matrices[:, :3, 3] = -inverse.apply(self.centers)
        matrices[:, 3, 3] = 1
        return matrices

    def intrinsics(self, start: ArrayLike) -> Float32:
        """Intrinsics [N, 3, 3] float32 in the pixels of the start image's, ``start`` [3, 3]."""
        matrices = np.repeat(np.asarray(start, dtype=np.float64)[None], len(self), axis=0)
        matrices[:, :2, :2] *= self.focal_scale[:, None, None]
        return matrices.astype(np.float32)

    def end(self, pivot_distance: float) -> StartPose:
        """The last pose, for a path that goes on from there."""
        matrix = np.eye(4)
        inverse = self.rotation[-1].inv()
        matrix[:3, :3] = inverse.as_matrix()
        matrix[:3, 3] = -inverse.apply(self.centers[-1])
        return StartPose(matrix, pivot_distance)


def even_steps(frames: int) -> Float64:
    """s of each frame: [frames] from 0 to 1; ParameterError below two frames."""
    if frames < 2:
        raise ParameterError(
            "a path needs a start and an end", where="frames", got=str(frames), allowed=">= 2"
        )
    return np.linspace(0.0, 1.0, frames)


def join(paths: list[CameraPath]) -> CameraPath:
    """Paths one after the other; each later one starts at the last frame of the one before.

    Its first frame is therefore left out, and its focal lengths are multiples of that frame's.
    """
    parts = [paths[0]]
    for path in paths[1:]:
        scale = path.focal_scale * parts[-1].focal_scale[-1]
        parts.append(CameraPath(path.rotation, path.centers, scale)[1:])
    return CameraPath(
        Rotation.concatenate([part.rotation for part in parts]),
        np.concatenate([part.centers for part in parts]),
        np.concatenate([part.focal_scale for part in parts]),
    )


def step_lengths(path: CameraPath, pivot_distance: float) -> Float64:
    """How long the N - 1 steps of a path are, in scene units.

    The distance that the centre moves; where the camera turns or zooms by more than it moves,
    the way that this shifts the pivot in view: the largest of |C' - C|, d x angle in radians
    and d x |log of the focal lengths' ratio|.
    """
    moved = np.linalg.norm(np.diff(path.centers, axis=0), axis=-1)
    turned = pivot_distance * (path.rotation[:-1].inv() * path.rotation[1:]).magnitude()
    zoomed = pivot_distance * np.abs(np.diff(np.log(path.focal_scale)))
    return np.asarray(np.maximum(np.maximum(moved, turned), zoomed))


def resample(path: CameraPath, frames: int, pivot_distance: float) -> CameraPath:
    """The same path in another number of frames at an even pace (``step_lengths``).

    Args:
        path: sampled densely; between its frames centres are interpolated linearly, rotations
            spherically, focal lengths in their logarithm.
        frames: >= 2.
        pivot_distance: d in scene units.
    """
    steps = even_steps(frames)
    lengths = step_lengths(path, pivot_distance)
    moving = np.concatenate([[True], lengths > 1e-9 * pivot_distance])
    if moving.sum() == 1:
        still = np.ones(frames)
        start = path[:1]
        return CameraPath(
            Rotation.concatenate([start.rotation] * frames),
            still[:, None] * start.centers,
            still * start.focal_scale,
        )
    # Steps of no length are left out: the interpolators need increasing positions.
    along = np.concatenate([[0.0], np.cumsum(lengths)])[moving]
    path, at = path[moving], steps * along[-1]
    return CameraPath(
        Slerp(along, path.rotation)(at),
        np.stack([np.interp(at, along, axis) for axis in path.centers.T], axis=-1),
        np.exp(np.interp(at, along, np.log(path.focal_scale))),
    )
