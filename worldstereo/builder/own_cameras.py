"""A trajectory out of cameras from elsewhere, for a source image of ours.

Owns the scale from the cameras' unit to the scene's, the check that their first camera is the
one that took the source image, thinning to a clip's frames, and moving the path so that its
first camera is the source camera exactly. Files are read in formats/foreign_cameras.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.cameras import check_extrinsics, check_intrinsics
from worldstereo.formats.clips import thin
from worldstereo.formats.named_cameras import NamedCameras, Unit
from worldstereo.types import Cameras

Float64 = NDArray[np.float64]

# How far the first camera may be from the source camera; more is another view.
ROTATION_TOLERANCE_DEGREES = 1.0
TRANSLATION_TOLERANCE = 0.02
FOCAL_TOLERANCE = 0.05
PRINCIPAL_TOLERANCE = 0.02
# What the aspect ratios of the cameras' images and of the source image may differ by.
ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class StartOffset:
    """How far the first camera of a list is from the camera of the source image.

    Attributes:
        name: of the first camera.
        rotation_degrees: angle between the two.
        translation: distance of the two centres, in pivot distances (median depths).
        focal_ratio: its focal length / the source's, both in pixels of the source image; of x
            and y the one farther from 1.
        principal_offset: distance of the principal points, in fractions of the source image's
            longer side.
        aspect_ratio: width / height of its images / the source image's.
    """

    name: str
    rotation_degrees: float
    translation: float
    focal_ratio: float
    principal_offset: float
    aspect_ratio: float

    @property
    def problems(self) -> tuple[str, ...]:
        """What is beyond the tolerances of this module, in words with numbers."""
        focal = max(self.focal_ratio, 1 / self.focal_ratio) - 1
        aspect = max(self.aspect_ratio, 1 / self.aspect_ratio) - 1
        found = (
            (
                self.rotation_degrees > ROTATION_TOLERANCE_DEGREES,
                f"it is turned by {self.rotation_degrees:.2f} degrees",
            ),
            (
                self.translation > TRANSLATION_TOLERANCE,
                f"it stands {self.translation:.3f} median depths away",
            ),
            (focal > FOCAL_TOLERANCE, f"its focal length is {self.focal_ratio:.3f} times as long"),
            (
                self.principal_offset > PRINCIPAL_TOLERANCE,
                f"its principal point is off by {self.principal_offset:.3f} of the image",
            ),
            (
                aspect > ASPECT_TOLERANCE,
                f"its image's aspect ratio is {self.aspect_ratio:.3f} times the source's",
            ),
        )
        return tuple(text for beyond, text in found if beyond)


def scene_units(
    cameras: NamedCameras,
    pivot_distance: float,
    *,
    unit: Unit | None = None,
    scale: float = 1.0,
    metric: bool = False,
) -> float:
    """Scene units in one unit of the cameras' translations.

    Args:
        cameras: their own unit counts where ``unit`` is None.
        pivot_distance: median depth of the source image, in scene units.
        unit: metric: the scene must be in metres; median_depth: multiples of
            ``pivot_distance``; scene: the scene's own unit.
        scale: a further factor: ``scale`` x unit for each unit in the file.
        metric: whether the scene's unit is the metre.

    Raises:
        CameraError: neither says a unit, or they are metres and the scene's depth is not.
        ParameterError: the scale or the distance is not positive and finite.
    """
    for name, value in (("scale", scale), ("pivot_distance", pivot_distance)):
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(
                f"{name} is out of range", where=name, got=str(value), allowed="a number > 0"
            )
    unit = cameras.unit if unit is None else unit
    if unit is None:
        raise CameraError(
            "nothing says what the cameras' translations are in",
            where="unit",
            got="a file without a unit",
            allowed="metric, median_depth (multiples of the image's median depth) or scene",
            fix="state the unit, and a scale where the reconstruction's is arbitrary",
        )
    if unit == "metric" and not metric:
        raise CameraError(
            "the cameras are in metres, the scene's depth is not",
            where="unit",
            got="metric",
            allowed="median_depth or scene, for depth without a unit",
            fix="use metric depth, or state another unit and a scale",
        )
    return scale * (pivot_distance if unit == "median_depth" else 1.0)


def check_start(
    cameras: NamedCameras,
    source: Cameras,
    pivot_distance: float,
    *,
    scale: float = 1.0,
    matching: str | ArrayLike | None = None,
) -> StartOffset:
    """Measure how far the first camera is from the camera of the source image.

    Args:
        cameras: N >= 1.
        source: the camera of the source image (N = 1), in the scene's world.
        pivot_distance: median depth of the source image, in scene units.
        scale: scene units in one unit of ``cameras`` (``scene_units``).
        matching: where the source image is among the cameras: the name of one that took it, or
            a pose [4, 4], camera_from_world in their world and unit. None: their world is the
            scene's.

    Raises:
        ParameterError: no camera has this name, or the pose is no matrix.
    """
    assert len(source) == 1, len(source)
    pose = _scaled(cameras, scale)[0]
    if matching is None:
        expected = source.camera_from_world[0].astype(np.float64)
    elif isinstance(matching, str):
        expected = _scaled(cameras, scale)[cameras.index(matching)]
    else:
        expected = _matched_pose(matching, scale)
    relative = pose @ np.linalg.inv(expected)
    cosine = (np.trace(relative[:3, :3]) - 1) / 2
    sine = np.linalg.norm(relative[:3, :3] - relative[:3, :3].T) / math.sqrt(8)
    height, width = source.height, source.width
    first = cameras.cameras[:1].resized(height, width).intrinsics[0].astype(np.float64)
    own = source.intrinsics[0].astype(np.float64)
    ratios = [first[0, 0] / own[0, 0], first[1, 1] / own[1, 1]]
    return StartOffset(
        name=cameras.names[0],
        rotation_degrees=math.degrees(math.atan2(sine, cosine)),
        translation=float(np.linalg.norm(_center(pose) - _center(expected))) / pivot_distance,
        focal_ratio=float(max(ratios, key=lambda ratio: abs(math.log(ratio)))),
        principal_offset=float(np.linalg.norm(first[:2, 2] - own[:2, 2])) / max(height, width),
        aspect_ratio=cameras.cameras.width / cameras.cameras.height * height / width,
    )


def own_trajectory(
    cameras: NamedCameras,
    *,
    source: Cameras,
    pivot_distance: float,
    unit: Unit | None = None,
    scale: float = 1.0,
    metric: bool = False,
    matching: str | ArrayLike | None = None,
    rebase: bool = False,
    frames: int = 21,
) -> Cameras:
    """The trajectory of cameras from elsewhere, starting at the source camera.

    The list is thinned to ``frames`` as published camera files are (evenly, both ends kept),
    scaled to scene units, and moved as a whole so that its first camera is the source camera;
    focal lengths and principal points change along it as they do in the list, from the source's
    on. Where the first camera is not the source camera already (``check_start``), this would be
    another path than the one meant: that is refused unless ``rebase`` asks for it.

    Args:
        cameras: N >= ``frames``.
        source: the camera of the source image (N = 1), in the scene's world.
        pivot_distance: median depth of the source image, in scene units.
        unit, scale, metric: see ``scene_units``.
        matching: see ``check_start``.
        rebase: take the first camera for the source camera, wherever it is.
        frames: of a clip.

    Returns:
        ``frames`` cameras in the scene's world, intrinsics at the source's size; the first one
        equals ``source``.

    Raises:
        CameraError: too few cameras; no usable unit; the first camera is not the source camera;
            a place or a focal length that leaves what is sane.
        ParameterError: a scale, distance or matching that cannot be.
    """
    factor = scene_units(cameras, pivot_distance, unit=unit, scale=scale, metric=metric)
    if len(cameras) < frames:
        raise CameraError(
            "too few cameras for a clip",
            where="cameras",
            got=f"{len(cameras)} cameras",
            allowed=f"{frames} or more",
            fix="give more cameras, or use them as key frames of a trajectory",
        )
    check = check_start(cameras, source, pivot_distance, scale=factor, matching=matching)
    if check.problems and not rebase:
        raise _other_start(check)
    chosen = thin(len(cameras), frames)
    poses = _scaled(cameras, factor)[chosen]
    moved = poses @ np.linalg.inv(poses[0]) @ source.camera_from_world[0].astype(np.float64)
    size = (source.height, source.width)
    camera_from_world = check_extrinsics(moved, "the scaled trajectory")
    lenses = _continued(cameras.cameras[chosen], source)
    intrinsics = check_intrinsics(lenses, size, "the trajectory's intrinsics")
    camera_from_world[0], intrinsics[0] = source.camera_from_world[0], source.intrinsics[0]
    return Cameras(camera_from_world, intrinsics, source.height, source.width)


def _other_start(check: StartOffset) -> CameraError:
    return CameraError(
        "the first camera is not the camera of the source image",
        where=f"camera {check.name}",
        got="; ".join(check.problems),
        allowed=f"{ROTATION_TOLERANCE_DEGREES:g} degree, {TRANSLATION_TOLERANCE:g} median "
        f"depths, focal length within {FOCAL_TOLERANCE:.0%}, principal point and aspect "
        f"ratio within {PRINCIPAL_TOLERANCE:.0%}",
        fix="start the list at the source image, say which camera took it (matching), or "
        "take the first camera for the source camera (rebase)",
    )


def _scaled(cameras: NamedCameras, scale: float) -> Float64:
    poses = cameras.cameras.camera_from_world.astype(np.float64)
    poses[:, :3, 3] *= scale
    return poses


def _matched_pose(matching: ArrayLike, scale: float) -> Float64:
    pose = np.array(matching, dtype=np.float64)
    if (
        pose.shape != (4, 4)
        or not np.isfinite(pose).all()
        or not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-3)
    ):
        raise ParameterError(
            "the matching pose is no camera",
            where="matching",
            got=str(pose.tolist())[:200],
            allowed="a rigid 4x4 camera_from_world matrix, or a camera's name",
        )
    pose[:3, 3] *= scale
    return pose


def _center(pose: Float64) -> Float64:
    return np.asarray(np.linalg.inv(pose)[:3, 3], dtype=np.float64)


def _continued(cameras: Cameras, source: Cameras) -> Float64:
    """Intrinsics that start at the source's and change as the cameras' do."""
    lenses = cameras.intrinsics.astype(np.float64)
    own = source.intrinsics[0].astype(np.float64)
    result = np.tile(own, (len(lenses), 1, 1))
    for axis, pixels in ((0, source.width / cameras.width), (1, source.height / cameras.height)):
        result[:, axis, axis] *= lenses[:, axis, axis] / lenses[0, axis, axis]
        result[:, axis, 2] += (lenses[:, axis, 2] - lenses[0, axis, 2]) * pixels
    return result
