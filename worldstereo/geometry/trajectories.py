"""Camera paths by name.

Owns the presets' formulas (spec "Trajectories"). Whether a path runs into the scene, and how
much of each frame it leaves uncovered, is for others to judge.

The start pose has the camera's axes x0 (right), y0 (down), z0 (forward) in the world and the
centre C0; R0 = [x0 y0 z0]. Its pivot P = C0 + d z0 lies at the pivot distance d, usually the
median depth of the start image. s runs evenly from 0 to 1 over the frames, and frame 0 is the
start pose. Lengths are fractions of d unless ``unit="scene"``; angles are in degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation, Slerp

from worldstereo.errors import CameraError, ParameterError
from worldstereo.geometry.camera_path import (
    CameraPath,
    Float64,
    StartPose,
    even_steps,
    join,
    resample,
)

# What a length is a fraction of: the pivot distance, or the scene's own unit.
LengthUnit = Literal["pivot", "scene"]
# A part of a chain: given where it starts and its number of frames, a preset's path.
Segment = Callable[[StartPose, int], CameraPath]

# Frames of a published clip.
FRAMES = 21
# What is resampled to an even pace is sampled this many times as densely first.
OVERSAMPLING = 8
# Samples of all of a path's keyframes, roughly; fewer between two of them where there are many.
MOST_SAMPLES = 1 << 17


def dolly(
    start: StartPose, amount: float, frames: int = FRAMES, *, unit: LengthUnit = "pivot"
) -> CameraPath:
    """Move forward: C = C0 + a d s z0; a negative ``amount`` a moves back."""
    return _translate(start, (0, 0, amount), frames, unit)


def truck(
    start: StartPose, amount: float, frames: int = FRAMES, *, unit: LengthUnit = "pivot"
) -> CameraPath:
    """Move right: C = C0 + a d s x0; a negative ``amount`` a moves left."""
    return _translate(start, (amount, 0, 0), frames, unit)


def pedestal(
    start: StartPose, amount: float, frames: int = FRAMES, *, unit: LengthUnit = "pivot"
) -> CameraPath:
    """Move up: C = C0 - a d s y0; a negative ``amount`` a moves down."""
    return _translate(start, (0, -amount, 0), frames, unit)


def pan(start: StartPose, degrees: float, frames: int = FRAMES) -> CameraPath:
    """Turn in place: R = R0 Ry(psi s); ``degrees`` psi > 0 looks right."""
    return _turn(start, "y", degrees, frames)


def tilt(start: StartPose, degrees: float, frames: int = FRAMES) -> CameraPath:
    """Turn in place: R = R0 Rx(t s); ``degrees`` t > 0 looks up."""
    return _turn(start, "x", degrees, frames)


def roll(start: StartPose, degrees: float, frames: int = FRAMES) -> CameraPath:
    """Turn about the optical axis: R = R0 Rz(r s); ``degrees`` r > 0 turns clockwise."""
    return _turn(start, "z", degrees, frames)


def orbit(
    start: StartPose,
    azimuth: float,
    elevation: float = 0.0,
    frames: int = FRAMES,
    *,
    up: ArrayLike | None = None,
) -> CameraPath:
    """Circle around the pivot, always looking at it.

    R = R0 Ry(-az s) Rx(-el s), C = P - d R z: az > 0 moves the camera right, el > 0 up.

    Args:
        start: start pose and pivot distance.
        azimuth: az in degrees.
        elevation: el in degrees.
        frames: number of frames.
        up: [3] the world's upward direction, which the azimuth turns about instead of the
            camera's own (-y0). The published reconstruction scenes, whose start pose is
            pitched, orbit about the vertical. Where the camera is level both are the same.

    Raises:
        ParameterError: fewer than two frames; ``up`` is no direction.
    """
    s = even_steps(frames)
    axis = start.rotation.apply([0.0, -1.0, 0.0]) if up is None else _direction(up)
    turns = Rotation.from_rotvec(np.radians(azimuth * s)[:, None] * axis)
    rotation = turns * start.rotation * _rotations("x", -elevation * s)
    centers = start.pivot - rotation.apply([0.0, 0.0, start.pivot_distance])
    return CameraPath(rotation, centers, np.ones(frames))


def ellipse(
    start: StartPose,
    radius_x: float,
    radius_y: float,
    frames: int = FRAMES,
    *,
    unit: LengthUnit = "pivot",
) -> CameraPath:
    """One closed loop that rises above the start pose, always looking at the pivot.

    C = C0 + R0 (rx d sin a, ry d (cos a - 1), 0), a = 2 pi s: the last frame is the start pose.
    """
    a = 2 * np.pi * even_steps(frames)
    offsets = np.stack([radius_x * np.sin(a), radius_y * (np.cos(a) - 1), 0 * a], axis=-1)
    return _look_at_pivot(start, offsets, unit)


def spiral(
    start: StartPose,
    radius_x: float,
    radius_y: float,
    advance: float,
    turns: float = 2.0,
    frames: int = FRAMES,
    *,
    unit: LengthUnit = "pivot",
) -> CameraPath:
    """The ellipse several times over while moving forward, always looking at the pivot.

    C = C0 + R0 (rx d sin a, ry d (cos a - 1), advance d s), a = 2 pi turns s.

    Raises:
        ParameterError: ``advance`` reaches the pivot.
    """
    s = even_steps(frames)
    a = 2 * np.pi * turns * s
    offsets = np.stack([radius_x * np.sin(a), radius_y * (np.cos(a) - 1), advance * s], axis=-1)
    return _look_at_pivot(start, offsets, unit)


def figure8(
    start: StartPose,
    radius_x: float,
    radius_y: float,
    frames: int = FRAMES,
    *,
    unit: LengthUnit = "pivot",
) -> CameraPath:
    """A lying eight through the start pose, closed, always looking at the pivot.

    C = C0 + R0 (rx d sin a, ry d sin 2a, 0), a = 2 pi s (a lemniscate of Gerono).
    """
    a = 2 * np.pi * even_steps(frames)
    offsets = np.stack([radius_x * np.sin(a), radius_y * np.sin(2 * a), 0 * a], axis=-1)
    return _look_at_pivot(start, offsets, unit)


def zoom(start: StartPose, factor: float, frames: int = FRAMES) -> CameraPath:
    """Stand still while the focal length changes: f = f0 k^s; ``factor`` k > 1 zooms in.

    Raises:
        ParameterError: k is not positive.
    """
    if not factor > 0:
        raise ParameterError(
            "a focal length stays positive", where="factor", got=str(factor), allowed="k > 0"
        )
    still = _turn(start, "x", 0.0, frames)
    return CameraPath(still.rotation, still.centers, factor ** even_steps(frames))


def dolly_zoom(start: StartPose, amount: float, frames: int = FRAMES) -> CameraPath:
    """Move back while zooming in, so that the pivot plane keeps its size.

    C = C0 - a d s z0 with f = f0 (1 + a s); ``amount`` a < 0 moves forward and zooms out.

    Raises:
        ParameterError: a <= -1, which reaches the pivot.
    """
    if not amount > -1:
        raise ParameterError(
            "the camera would reach the pivot", where="amount", got=str(amount), allowed="a > -1"
        )
    moved = dolly(start, -amount, frames)
    return CameraPath(moved.rotation, moved.centers, 1 + amount * even_steps(frames))


def keyframes(start: StartPose, poses: ArrayLike, frames: int = FRAMES) -> CameraPath:
    """From the start pose through given poses, at an even pace (see ``chain``).

    Centres follow a centripetal Catmull-Rom spline, whose knots lie apart by the square roots
    of the distances (Yuksel et al. 2011); rotations are interpolated spherically between knots.

    Args:
        start: start pose and pivot distance.
        poses: camera_from_world [M, 4, 4], M >= 1, in the same world.
        frames: number of frames.

    Raises:
        CameraError: the poses are no finite rigid 4x4 matrices.
        ParameterError: fewer than two frames.
    """
    matrices = np.asarray(poses, dtype=np.float64)
    if matrices.ndim != 3 or len(matrices) == 0:
        raise CameraError(
            "poses of an unusable shape",
            where="poses",
            got=str(list(matrices.shape)),
            allowed="[M, 4, 4] with at least one pose",
        )
    stops = [start, *(StartPose(matrix, start.pivot_distance) for matrix in matrices)]
    centers = np.stack([stop.center for stop in stops])
    rotation = Rotation.concatenate([stop.rotation for stop in stops])
    steps = np.sqrt(np.linalg.norm(np.diff(centers, axis=0), axis=-1))
    # Poses at one place need knots of their own: the camera turns between them.
    steps = np.maximum(steps, 1e-3 * (steps.max() or 1.0))
    knots = np.concatenate([[0.0], np.cumsum(steps)])
    spline = CubicHermiteSpline(knots, centers, _catmull_rom_tangents(steps, centers))
    samples = min(OVERSAMPLING * frames, max(OVERSAMPLING, MOST_SAMPLES // len(steps)))
    inside = np.arange(samples) / samples
    dense = np.append((knots[:-1, None] + steps[:, None] * inside).ravel(), knots[-1])
    path = CameraPath(Slerp(knots, rotation)(dense), spline(dense), np.ones(len(dense)))
    return resample(path, frames, start.pivot_distance)


def chain(start: StartPose, segments: Sequence[Segment], frames: int = FRAMES) -> CameraPath:
    """Several moves, each starting where the one before ended, at an even pace over the frames.

    The pace is even in arc length; where the camera turns or zooms more than it moves, in the
    way that this shifts the pivot in view (``camera_path.step_lengths``).

    Args:
        start: start pose and pivot distance; the distance stays that of every segment.
        segments: e.g. ``[lambda pose, n: pan(pose, 30, n), lambda pose, n: dolly(pose, 0.2, n)]``.
        frames: number of frames of the whole path.

    Raises:
        ParameterError: no segment; fewer than two frames.
    """
    if not segments:
        raise ParameterError(
            "a chain needs at least one segment", where="segments", got="none", allowed=">= 1"
        )
    paths: list[CameraPath] = []
    pose = start
    for segment in segments:
        paths.append(segment(pose, OVERSAMPLING * frames + 1))
        pose = paths[-1].end(start.pivot_distance)
    return resample(join(paths), frames, start.pivot_distance)


def reconstruction_paths(
    start: StartPose, frames: int = FRAMES, *, up: ArrayLike | None = None
) -> dict[str, CameraPath]:
    """The paths of the published reconstruction scenes, by name and in order; ``up``: orbit's."""
    return {
        "traj_eloop": ellipse(start, 0.3, 0.4, frames),
        "traj_up": orbit(start, 0, 45, frames, up=up),
        "traj_right": orbit(start, 180, 0, frames, up=up),
        "traj_left": orbit(start, -180, 0, frames, up=up),
    }


def _rotations(axis: Literal["x", "y", "z"], degrees: Float64) -> Rotation:
    return Rotation.from_rotvec(np.radians(degrees)[:, None] * np.eye(3)["xyz".index(axis)])


def _direction(up: ArrayLike) -> Float64:
    vector = np.asarray(up, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ParameterError(
            "not a direction", where="up", got=str(vector.tolist()), allowed="[3], finite, not 0"
        )
    return vector / length


def _turn(
    start: StartPose, axis: Literal["x", "y", "z"], degrees: float, frames: int
) -> CameraPath:
    rotation = start.rotation * _rotations(axis, degrees * even_steps(frames))
    return CameraPath(rotation, np.tile(start.center, (frames, 1)), np.ones(frames))


def _translate(
    start: StartPose, move: tuple[float, float, float], frames: int, unit: LengthUnit
) -> CameraPath:
    offsets = even_steps(frames)[:, None] * np.array(move)
    return CameraPath(
        _turn(start, "x", 0.0, frames).rotation, _centers(start, offsets, unit), np.ones(frames)
    )


def _centers(start: StartPose, offsets: Float64, unit: LengthUnit) -> Float64:
    """Camera centres for offsets [N, 3] along the start camera's axes."""
    length = start.pivot_distance if unit == "pivot" else 1.0
    return np.asarray(start.center + start.rotation.apply(length * offsets))


def _look_at_pivot(start: StartPose, offsets: Float64, unit: LengthUnit) -> CameraPath:
    """Cameras at offsets [N, 3] along the start camera's axes, looking at the pivot, y0 down."""
    length = start.pivot_distance if unit == "pivot" else 1.0
    forward = np.array([0.0, 0.0, start.pivot_distance]) - length * offsets
    if (forward[:, 2] <= 0).any():
        raise ParameterError(
            "the path reaches the pivot",
            where="advance",
            got=f"{float(offsets[:, 2].max()):.6g}",
            allowed=f"< {start.pivot_distance / length:.6g}",
        )
    z = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    turns = Rotation.from_matrix(np.stack([x, np.cross(z, x), z], axis=-1))
    return CameraPath(start.rotation * turns, _centers(start, offsets, unit), np.ones(len(offsets)))


def _catmull_rom_tangents(steps: Float64, centers: Float64) -> Float64:
    """Derivatives at knots ``steps`` apart [M]; at both ends those of the first and last chord."""
    steps = steps[:, None]
    chords = np.diff(centers, axis=0) / steps
    inner = (steps[1:] * chords[:-1] + steps[:-1] * chords[1:]) / (steps[:-1] + steps[1:])
    return np.concatenate([chords[:1], inner, chords[-1:]])
