"""The cameras of a panorama scene: its 27 start frames, and those of its three views' paths.

Owns the rule behind the published scenes' ``pano_bank/cameras.json``, where the views look, and
how a path of several moves is paced. World axes and signs are those of
geometry/equirectangular.py: Z-up, front -X, longitudes to the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worldstereo.builder.parameters import PANORAMA_VIEWS
from worldstereo.builder.specs import Chain, TrajectorySpec, cameras_of
from worldstereo.geometry.camera_path import StartPose, join, step_lengths
from worldstereo.geometry.equirectangular import directions
from worldstereo.types import Cameras, Float32, concatenate_cameras

Float64 = NDArray[np.float64]

# Size of the published start frames, and their fields of view in degrees.
BANK_HEIGHT, BANK_WIDTH = 480, 832
FIELD_OF_VIEW_X, FIELD_OF_VIEW_Y = 120.0, 90.0
# The bank looks in nine directions, at the horizon and as much as 1 in 2 above and below it
# (26.57 degrees).
BANK_LONGITUDES = 9
BANK_SLOPES = (0.0, 0.5, -0.5)
# Points at which a move's length is measured.
DENSE = 80


def bank_cameras() -> Cameras:
    """The 27 cameras of the start frames 0000 to 0026, at 480 x 832 pixels.

    First the front at the horizon, above and below it; then the other eight longitudes, each
    40 degrees further to the right, at the horizon, then above, then below.
    """
    turns = 2 * math.pi * np.arange(BANK_LONGITUDES) / BANK_LONGITUDES
    front = [level_camera(0.0, slope) for slope in BANK_SLOPES]
    others = [level_camera(float(turn), slope) for slope in BANK_SLOPES for turn in turns[1:]]
    return concatenate_cameras([*front, *others])


def polar_cameras() -> Cameras:
    """Two cameras that look straight up and down, their image's bottom resp. top to the front.

    The bank leaves out what lies within 18 degrees of the poles; depth is estimated there too,
    so that the ceiling and the floor are whole where a raised camera looks down on them.
    """
    right = np.array([0.0, 1.0, 0.0])
    return concatenate_cameras([_camera(right, np.array([0.0, 0.0, z])) for z in (1.0, -1.0)])


def view_camera(view: int) -> Cameras:
    """The start camera of a view (N = 1): 0 looks to the front, the others further to the right."""
    return level_camera(2 * math.pi * view / len(PANORAMA_VIEWS), 0.0)


def level_camera(longitude: float, slope: float) -> Cameras:
    """A camera without roll (N = 1) at the origin with the bank's size and field of view.

    Args:
        longitude: radians to the right of the front.
        slope: rise of its optical axis over its way along the horizon.
    """
    forward = directions(math.atan(slope), longitude)
    right = directions(0.0, longitude + math.pi / 2)
    return _camera(right, forward)


def _camera(right: Float64, forward: Float64) -> Cameras:
    matrix = np.eye(4)
    matrix[:3, :3] = right, np.cross(forward, right), forward
    return Cameras(matrix[None].astype(np.float32), _intrinsics()[None], BANK_HEIGHT, BANK_WIDTH)


def _intrinsics() -> Float32:
    focal_x = BANK_WIDTH / 2 / math.tan(math.radians(FIELD_OF_VIEW_X / 2))
    focal_y = BANK_HEIGHT / 2 / math.tan(math.radians(FIELD_OF_VIEW_Y / 2))
    return np.array(
        [[focal_x, 0, BANK_WIDTH / 2], [0, focal_y, BANK_HEIGHT / 2], [0, 0, 1]],
        dtype=np.float32,
    )


def view_cameras(spec: TrajectorySpec, start: StartPose, camera: Cameras, frames: int) -> Cameras:
    """The cameras of one of a view's trajectories.

    A chain's frames are split between its moves in proportion to their lengths
    (``camera_path.step_lengths``), each at an even pace of its own, so that a frame stands where
    one move ends: as in the published scenes, where 45 degrees up and 60 to the side take 9 and
    11 of 20 steps.

    Args:
        spec: in the coordinates of the start camera.
        start: where that stands, and the pivot distance.
        camera: the start camera (N = 1).
        frames: >= 2.

    Raises:
        ParameterError: the path reaches the pivot that it looks at.
    """
    size = camera.height, camera.width
    if not isinstance(spec, Chain) or frames <= len(spec.segments):
        return cameras_of(spec, start, camera.intrinsics[0], *size, frames)
    pose, moves = start, []
    for segment in spec.segments:
        moves.append(segment.path(pose, DENSE + 1, start))
        pose = moves[-1].end(start.pivot_distance)
    lengths = [float(step_lengths(move, start.pivot_distance).sum()) for move in moves]
    pose, parts = start, []
    for segment, steps in zip(spec.segments, split_steps(frames - 1, lengths), strict=True):
        parts.append(segment.path(pose, steps + 1, start))
        pose = parts[-1].end(start.pivot_distance)
    path = join(parts)
    # Adding 0 turns -0 into 0, which files state otherwise.
    matrices = path.camera_from_world + np.float32(0)
    return Cameras(matrices, path.intrinsics(camera.intrinsics[0]), *size)


def split_steps(steps: int, lengths: Sequence[float]) -> list[int]:
    """Split a number of steps in proportion to lengths; each part has one at least.

    Args:
        steps: >= the number of parts.
        lengths: of the parts, >= 0.
    """
    total = sum(lengths)
    ends, end, along = [], 0, 0.0
    for index, length in enumerate(lengths):
        along += length
        left = len(lengths) - 1 - index
        asked = round(steps * along / total) if total > 0 else 0
        end = min(max(asked, end + 1), steps - left)
        ends.append(end)
    ends[-1] = steps
    return [int(part) for part in np.diff([0, *ends])]
