"""camera.json in: counts, shapes, finite and rigid matrices, sane intrinsics.

Owns what a camera file may say. ``extrinsic`` is N x 4x4 ``camera_from_world`` with OpenCV axes,
``intrinsic`` N x 3x3 in pixels of ``width`` x ``height``, or of the start image where the file
does not say. All other fields are ignored: the words of ``motion_list`` contradict the matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldstereo.errors import CameraError
from worldstereo.formats.scene_files import SceneFiles, describe_json
from worldstereo.types import Bool, Cameras, Float32

ROTATION_TOLERANCE = 1e-3
MAX_TRANSLATION = 1e6
FIELD_OF_VIEW_DEGREES = (1.0, 170.0)
MAX_FOCAL_RATIO = 4.0
MAX_SIDE = 65_536

Float64 = NDArray[np.float64]


def read_cameras(
    files: SceneFiles, name: str, *, image_size: tuple[int, int], nframe: int
) -> Cameras:
    """Read and check a camera.json.

    Args:
        files: the scene folder.
        name: path of the file inside it.
        image_size: (height, width) that intrinsics are stated for when the file does not say.
        nframe: keyframes of a clip: the least number of cameras.

    Returns:
        All N >= nframe cameras, as given.

    Raises:
        LayoutError: the file is missing.
        CameraError: naming file, field and frame.
    """
    files.file(name, "the camera file")
    content = files.read_object(name, CameraError)
    height, width = _stated_size(content, name) or image_size
    for field in ("extrinsic", "intrinsic"):
        if field not in content:
            raise CameraError(
                f"the field {field} is missing",
                where=name,
                got=f"the fields {', '.join(sorted(map(str, content)))[:200] or 'none'}",
                allowed="extrinsic (N x 4x4) and intrinsic (N x 3x3)",
            )
    extrinsic = _matrices(content["extrinsic"], 4, f"{name}: extrinsic")
    intrinsic = _matrices(content["intrinsic"], 3, f"{name}: intrinsic")
    if len(extrinsic) != len(intrinsic):
        raise CameraError(
            "extrinsic and intrinsic do not agree in number",
            where=name,
            got=f"{len(extrinsic)} extrinsic and {len(intrinsic)} intrinsic matrices",
            allowed="one of each for every camera",
        )
    if not nframe <= len(extrinsic) <= files.limits.max_cameras:
        raise CameraError(
            "the number of cameras is out of range",
            where=name,
            got=f"{len(extrinsic)} cameras",
            allowed=f"{nframe} (the keyframes of a clip) to {files.limits.max_cameras}",
        )
    return Cameras(
        check_extrinsics(extrinsic, f"{name}: extrinsic"),
        check_intrinsics(intrinsic, (height, width), f"{name}: intrinsic"),
        height,
        width,
    )


def read_camera_table(
    files: SceneFiles, name: str, image_sizes: dict[str, tuple[int, int]]
) -> dict[str, Cameras]:
    """Read the cameras.json of a pano_bank: an object of image name -> {extrinsic, intrinsic}.

    Args:
        files: the scene folder.
        name: path of the file inside it.
        image_sizes: (height, width) of each image; the names must be those of the file.

    Returns:
        One camera (N = 1) for each image, sorted by name.

    Raises:
        CameraError: naming file, image and field.
    """
    content = files.read_object(name, CameraError)
    cameras = {}
    for image in sorted(content):
        where = f"{name}: {image}"
        entry = content[image]
        if not isinstance(entry, dict) or not {"extrinsic", "intrinsic"} <= set(entry):
            raise CameraError(
                "an entry must hold extrinsic and intrinsic",
                where=where,
                got=describe_json(entry),
                allowed='{"extrinsic": 4x4, "intrinsic": 3x3}',
            )
        height, width = _stated_size(entry, where) or image_sizes[image]
        extrinsic = _matrices([entry["extrinsic"]], 4, f"{where}: extrinsic")
        intrinsic = _matrices([entry["intrinsic"]], 3, f"{where}: intrinsic")
        cameras[image] = Cameras(
            check_extrinsics(extrinsic, f"{where}: extrinsic"),
            check_intrinsics(intrinsic, (height, width), f"{where}: intrinsic"),
            height,
            width,
        )
    return cameras


def _stated_size(content: dict[str, Any], where: str) -> tuple[int, int] | None:
    if "height" not in content and "width" not in content:
        return None
    size = []
    for field in ("height", "width"):
        value: Any = content.get(field)
        if type(value) not in (int, float) or value % 1 or not 1 <= value <= MAX_SIDE:
            raise CameraError(
                f"{field} is no image side",
                where=f"{where}: {field}",
                got=describe_json(value) if field in content else "no such field",
                allowed=f"height and width together, whole pixels, 1 to {MAX_SIDE}",
            )
        size.append(int(value))
    return size[0], size[1]


def _matrices(value: object, side: int, where: str) -> Float64:
    """[N, side, side] from nested JSON lists of numbers, each checked for its shape and type."""
    if not isinstance(value, list):
        raise CameraError(
            "a list of matrices is needed",
            where=where,
            got=describe_json(value),
            allowed=f"N x {side}x{side} numbers",
        )
    for frame, matrix in enumerate(value):
        if not _is_matrix(matrix, side):
            raise CameraError(
                f"a matrix is not {side}x{side} numbers",
                where=f"{where}[{frame}]",
                got=_describe_matrix(matrix),
                allowed=f"{side} rows of {side} numbers",
            )
    try:
        return np.array(value, dtype=np.float64).reshape(len(value), side, side)
    except OverflowError as problem:
        raise CameraError(
            "a number is too large", where=where, got=str(problem), allowed="finite numbers"
        ) from problem


def _is_matrix(matrix: object, side: int) -> bool:
    return (
        isinstance(matrix, list)
        and len(matrix) == side
        and all(isinstance(row, list) and len(row) == side for row in matrix)
        and all(type(number) in (int, float) for row in matrix for number in row)
    )


def _describe_matrix(matrix: object) -> str:
    if not isinstance(matrix, list) or not all(isinstance(row, list) for row in matrix):
        return describe_json(matrix)
    widths = sorted({len(row) for row in matrix})
    for row in matrix:
        for number in row:
            if type(number) not in (int, float):
                return f"{describe_json(number)} among the numbers"
    return f"{len(matrix)} rows of {' or '.join(map(str, widths)) or '0'}"


def check_extrinsics(camera_from_world: Float64, where: str) -> Float32:
    """Check that matrices are finite and rigid.

    Args:
        camera_from_world: [N, 4, 4].
        where: how errors call them; the frame's number is appended.

    Returns:
        The same as float32.

    Raises:
        CameraError: for the first frame that is non-finite, whose rotation part is further than
            1e-3 from orthonormal or mirrors, or whose last row is not 0 0 0 1.
    """
    _check_finite(camera_from_world, where)
    rotation = camera_from_world[:, :3, :3]
    gram = rotation @ rotation.transpose(0, 2, 1)
    skew = np.abs(gram - np.eye(3)).max(axis=(1, 2), initial=0)
    _fail_at(
        skew > ROTATION_TOLERANCE,
        "the rotation part is not orthonormal",
        where,
        lambda frame: f"max |R R^T - I| = {skew[frame]:.3g}",
        f"up to {ROTATION_TOLERANCE:g}: a rigid world-to-camera matrix without scale",
    )
    determinant = np.linalg.det(rotation)
    _fail_at(
        determinant < 0,
        "the rotation part is a reflection",
        where,
        lambda frame: f"determinant {determinant[frame]:.3f}",
        "determinant +1 (OpenCV axes: x right, y down, z forward)",
    )
    _fail_at(
        np.abs(camera_from_world[:, 3] - [0, 0, 0, 1]).max(axis=1, initial=0) > 1e-6,
        "the last row is not 0 0 0 1",
        where,
        lambda frame: str(camera_from_world[frame, 3].tolist()),
        "[0, 0, 0, 1]",
    )
    reach = np.abs(camera_from_world[:, :3, 3]).max(axis=1, initial=0)
    _fail_at(
        reach > MAX_TRANSLATION,
        "the translation is out of range",
        where,
        lambda frame: f"{reach[frame]:.3g}",
        f"up to {MAX_TRANSLATION:g}",
    )
    return camera_from_world.astype(np.float32)


def check_intrinsics(intrinsics: Float64, size: tuple[int, int], where: str) -> Float32:
    """Check pinhole matrices against the image size that they are stated for.

    Args:
        intrinsics: [N, 3, 3] in pixels.
        size: (height, width) of the image.
        where: how errors call them; the frame's number is appended.

    Returns:
        The same as float32.

    Raises:
        CameraError: for the first frame that is non-finite, is no pinhole matrix, or has a focal
            length, field of view or principal point that cannot be.
    """
    height, width = size
    _check_finite(intrinsics, where)
    fx, fy = intrinsics[:, 0, 0], intrinsics[:, 1, 1]
    cx, cy = intrinsics[:, 0, 2], intrinsics[:, 1, 2]
    _fail_at(
        (fx <= 0) | (fy <= 0),
        "a focal length is not positive",
        where,
        lambda frame: f"fx {fx[frame]:g}, fy {fy[frame]:g}",
        "positive focal lengths in pixels",
    )
    off = np.stack([intrinsics[:, 0, 1] / fx, intrinsics[:, 1, 0] / fy], axis=1)
    last_row = np.abs(intrinsics[:, 2] - [0, 0, 1])
    _fail_at(
        (np.abs(off).max(axis=1, initial=0) > 1e-3) | (last_row.max(axis=1, initial=0) > 1e-6),
        "the matrix is no pinhole camera",
        where,
        lambda frame: str(intrinsics[frame].tolist()),
        "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]",
    )
    _check_field_of_view(fx, fy, size, where)
    _fail_at(
        (cx < 0) | (cx > width) | (cy < 0) | (cy > height),
        "the principal point lies outside the image",
        where,
        lambda frame: f"({cx[frame]:g}, {cy[frame]:g}) in {width}x{height} pixels",
        "a point of the image",
        fix="state the image size of the intrinsics as width and height in the file",
    )
    return intrinsics.astype(np.float32)


def _check_field_of_view(fx: Float64, fy: Float64, size: tuple[int, int], where: str) -> None:
    height, width = size
    narrow, wide = FIELD_OF_VIEW_DEGREES
    angles = np.degrees(2 * np.arctan(np.stack([width / (2 * fx), height / (2 * fy)], axis=1)))
    ratio = np.maximum(fx / fy, fy / fx)
    _fail_at(
        (angles.min(axis=1, initial=math.inf) < narrow)
        | (angles.max(axis=1, initial=0) > wide)
        | (ratio > MAX_FOCAL_RATIO),
        "the focal lengths do not fit the image",
        where,
        lambda frame: (
            f"fx {fx[frame]:g}, fy {fy[frame]:g} for {width}x{height} pixels, "
            f"a field of view of {angles[frame, 0]:.1f} x {angles[frame, 1]:.1f} degrees"
        ),
        f"{narrow:g} to {wide:g} degrees, fx and fy within a factor of {MAX_FOCAL_RATIO:g}",
        fix="intrinsics are in pixels of the image, not normalised",
    )


def _check_finite(matrices: Float64, where: str) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(matrices.astype(np.float32))
    _fail_at(
        np.any(~finite, axis=(1, 2)),
        "a number is not finite",
        where,
        lambda frame: str(matrices[frame].tolist()),
        "finite numbers of 32-bit range",
    )


def _fail_at(
    bad: Bool,
    what: str,
    where: str,
    got: Callable[[int], str],
    allowed: str,
    fix: str | None = None,
) -> None:
    """Raise CameraError for the first frame that is ``bad``; ``got`` describes a frame."""
    if bad.any():
        frame = int(np.argmax(bad))
        raise CameraError(what, where=f"{where}[{frame}]", got=got(frame), allowed=allowed, fix=fix)
