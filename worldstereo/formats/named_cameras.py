"""Cameras with names, as files from elsewhere hold them, and what all their readers check.

Owns the value that the readers return, the rules that every camera of every format must keep,
and typed access to JSON. Which fields a format has is left to its own module.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.cameras import MAX_SIDE, check_extrinsics, check_intrinsics
from worldstereo.formats.limits import Limits
from worldstereo.formats.scene_files import SceneFiles, describe_json
from worldstereo.types import Cameras

Float64 = NDArray[np.float64]

# Larger numbers are taken for infinite: nothing computed from smaller ones overflows 64 bits.
LARGEST = float(np.finfo(np.float32).max)

# What lengths are in: metres, multiples of the source image's median depth, the scene's own unit.
Unit = Literal["metric", "median_depth", "scene"]


@dataclass(frozen=True, eq=False)
class NamedCameras:
    """Cameras as a file lists them.

    Attributes:
        names: of each camera: an image's path, a timestamp, or its number; all different.
        cameras: N cameras of one image size, in the file's own world.
        unit: of the translations; None when the file does not say.
    """

    names: tuple[str, ...]
    cameras: Cameras
    unit: Unit | None = None

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.cameras), (len(self.names), len(self.cameras))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def metric(self) -> bool | None:
        """Whether translations are in metres; None when the file does not say."""
        return None if self.unit is None else self.unit == "metric"

    def index(self, name: str) -> int:
        """Where the camera of this name is.

        Raises:
            ParameterError: there is none.
        """
        if name not in self.names:
            shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
            raise ParameterError(
                "no camera has this name", where="name", got=repr(name), allowed=shown
            )
        return self.names.index(name)

    def starting_at(self, name: str) -> NamedCameras:
        """The camera of this name and those after it; ParameterError when there is none."""
        first = self.index(name)
        return NamedCameras(self.names[first:], self.cameras[first:], self.unit)


def numbered(count: int) -> tuple[str, ...]:
    """Names for cameras that have none: 0000, 0001, ..."""
    return tuple(f"{index:04d}" for index in range(count))


def named_cameras(
    names: Sequence[str],
    camera_from_world: Float64,
    intrinsics: Float64,
    size: tuple[int, int],
    *,
    poses: str,
    focal: str,
    limits: Limits,
    unit: Unit | None = None,
) -> NamedCameras:
    """Check cameras of any format and put them together.

    Args:
        names: N names.
        camera_from_world: [N, 4, 4] OpenCV.
        intrinsics: [N, 3, 3] in pixels of ``size``.
        size: (height, width).
        poses: file and field that errors about poses name; the camera's position is appended.
        focal: the same for intrinsics.
        limits: upper bounds.
        unit: of the translations.

    Raises:
        CameraError: none or too many, names empty or twice, an impossible image size, a matrix
            that is not finite or not rigid, impossible intrinsics.
    """
    check_count(len(names), poses, limits)
    taken: set[str] = set()
    for index, name in enumerate(names):
        if not name or name in taken:
            raise CameraError(
                "a camera's name is empty or is another one's too",
                where=f"{poses}[{index}]",
                got=repr(name)[:200],
                allowed="names that are all different",
            )
        taken.add(name)
    height, width = size
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise CameraError(
            "the image size is out of range",
            where=focal,
            got=f"width {width}, height {height}",
            allowed=f"1 to {MAX_SIDE} pixels",
        )
    checked = check_extrinsics(camera_from_world, poses)
    with np.errstate(over="ignore"):  # of focal lengths that are next to nothing
        lenses = check_intrinsics(intrinsics, size, focal)
    return NamedCameras(tuple(names), Cameras(checked, lenses, height, width), unit)


def check_count(count: int, where: str, limits: Limits) -> None:
    """Refuse no cameras, and more than are allowed: CameraError."""
    if not 1 <= count <= limits.max_cameras:
        raise CameraError(
            "the number of cameras is out of range",
            where=where,
            got=f"{count} cameras",
            allowed=f"1 to {limits.max_cameras}",
        )


def one_size(sizes: Sequence[tuple[int, int]], where: str) -> tuple[int, int]:
    """The (height, width) that all cameras share; CameraError when they do not."""
    different = sorted(set(sizes))
    if len(different) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in different[:4])
        raise CameraError(
            "the cameras are of several image sizes",
            where=where,
            got=f"{shown}{', ...' if len(different) > 4 else ''} (width x height)",
            allowed="one size for all cameras",
            fix="resize or crop the images to one size, or give the cameras of one size only",
        )
    return different[0]


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float64:
    """[3, 3] intrinsics of a camera without skew."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def inverted(poses: Float64, where: str) -> Float64:
    """The inverses of poses [N, 4, 4]; CameraError for one that has none or is not finite."""
    for index, pose in enumerate(poses):
        if not np.isfinite(pose).all() or abs(np.linalg.det(pose)) < 1e-9:
            raise CameraError(
                "the matrix cannot be inverted",
                where=f"{where}[{index}]",
                got=str(pose.tolist()),
                allowed="a finite rigid 4x4 matrix",
            )
    return np.asarray(np.linalg.inv(poses), dtype=np.float64)


def camera_file(path: Path, limits: Limits) -> tuple[SceneFiles, str]:
    """A camera file to be read: its folder, and its name there, which is what errors call it.

    Raises:
        CameraError: it is missing, no regular file, may not be read, or is larger than
            ``limits.max_json_bytes``.
    """
    real = Path(os.path.realpath(path))  # Path.resolve raises where links run in a circle
    files = SceneFiles(real.parent, limits)
    size = files.file(real.name, "the camera file", CameraError).stat().st_size
    if size > limits.max_json_bytes:
        raise CameraError(
            "the file is too large",
            where=real.name,
            got=f"{size} bytes",
            allowed=f"up to {limits.max_json_bytes} bytes",
        )
    return files, real.name


def read_json_object(path: Path, limits: Limits) -> tuple[dict[str, Any], str]:
    """The object that a JSON file holds, and the file's name for errors (CameraError)."""
    files, name = camera_file(path, limits)
    return files.read_object(name, CameraError), name


def json_number(content: Mapping[str, Any], field: str, where: str) -> float:
    """A number of a JSON object; CameraError when it is missing, no number or not finite."""
    value: Any = content.get(field)
    number = _single(value) if type(value) in (int, float) else math.nan
    if not math.isfinite(number):
        raise CameraError(
            f"{field} is no finite number",
            where=f"{where}: {field}",
            got=describe_json(value) if field in content else "no such field",
            allowed="a finite number of 32-bit range",
        )
    return number


def _single(value: float) -> float:
    """The number, or infinity where 32 bits do not hold it."""
    return float(value) if abs(value) <= LARGEST else math.inf


def json_side(content: Mapping[str, Any], field: str, where: str) -> int:
    """A number of pixels in a JSON object; CameraError when it is no image side."""
    value = json_number(content, field, where)
    if value % 1 or not 1 <= value <= MAX_SIDE:
        raise CameraError(
            f"{field} is no image side",
            where=f"{where}: {field}",
            got=f"{value:g}",
            allowed=f"whole pixels, 1 to {MAX_SIDE}",
        )
    return int(value)


def json_pose(value: object, where: str) -> Float64:
    """[4, 4] from JSON rows 4x4, or 3x4 whose last row is 0 0 0 1; CameraError otherwise."""
    rows = value if isinstance(value, list) else []
    if len(rows) == 3:
        rows = [*rows, [0, 0, 0, 1]]
    regular = len(rows) == 4 and all(isinstance(row, list) and len(row) == 4 for row in rows)
    if not regular or any(type(number) not in (int, float) for row in rows for number in row):
        raise CameraError(
            "a matrix of numbers is needed",
            where=where,
            got="no such field" if value is None else repr(value)[:200],
            allowed="4 or 3 rows of 4 numbers",
        )
    numbers = np.array([[_single(number) for number in row] for row in rows])
    if not np.isfinite(numbers).all():
        raise CameraError(
            "a number is not finite",
            where=where,
            got=repr(value)[:200],
            allowed="finite numbers of 32-bit range",
        )
    return numbers
