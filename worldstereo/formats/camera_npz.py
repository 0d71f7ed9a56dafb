"""Cameras as one .npz file: ``w2c``, ``intrinsics``, ``image_height``, ``image_width``.

The form of Lyra's trajectory.npz: ``w2c`` [N, 4, 4] world to camera with OpenCV axes,
``intrinsics`` [N, 3, 3] in pixels of the stated size. Names and a unit are not part of it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldstereo.errors import CameraError
from worldstereo.formats.atomic import atomic_write_bytes
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.named_cameras import (
    NamedCameras,
    camera_file,
    check_count,
    json_side,
    named_cameras,
    numbered,
)
from worldstereo.types import Cameras

FIELDS = ("w2c", "intrinsics", "image_height", "image_width")
MAGIC = b"PK\x03\x04"

_BROKEN = (
    OSError,
    EOFError,
    MemoryError,
    NotImplementedError,  # a compression that zipfile does not know
    OverflowError,
    RuntimeError,  # an encrypted archive
    SyntaxError,
    TokenError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_camera_npz(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> NamedCameras:
    """Read cameras from an .npz file; nothing in it is unpickled.

    Args:
        path: the file; arrays other than ``FIELDS`` are not looked at.
        limits: upper bounds.

    Returns:
        The cameras in the file's order, numbered, of no stated unit.

    Raises:
        CameraError: naming file and field.
    """
    files, name = camera_file(path, limits)
    try:
        with zipfile.ZipFile(files.root / name) as archive:
            arrays = {field: _member(archive, field, name, limits) for field in FIELDS}
    except _BROKEN as problem:
        if isinstance(problem, CameraError):
            raise
        raise _broken(name, problem) from problem
    poses = _matrices(arrays["w2c"], 4, f"{name}: w2c")
    intrinsics = _matrices(arrays["intrinsics"], 3, f"{name}: intrinsics")
    check_count(len(poses), f"{name}: w2c", limits)
    if len(poses) != len(intrinsics):
        raise CameraError(
            "w2c and intrinsics do not agree in number",
            where=name,
            got=f"{len(poses)} w2c and {len(intrinsics)} intrinsics",
            allowed="one of each for every camera",
        )
    size = (_side(arrays, "image_height", name), _side(arrays, "image_width", name))
    return named_cameras(
        numbered(len(poses)),
        poses,
        intrinsics,
        size,
        poses=f"{name}: w2c",
        focal=f"{name}: intrinsics",
        limits=limits,
    )


def write_camera_npz(path: Path, cameras: Cameras) -> None:
    """Write cameras to an .npz file, whole or not at all; float32, so that they read back exactly.

    Args:
        path: the file.
        cameras: N cameras.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        w2c=cameras.camera_from_world,
        intrinsics=cameras.intrinsics,
        image_height=np.int64(cameras.height),
        image_width=np.int64(cameras.width),
    )
    atomic_write_bytes(path, buffer.getvalue())


def _member(archive: zipfile.ZipFile, field: str, name: str, limits: Limits) -> NDArray[Any]:
    try:
        info = archive.getinfo(f"{field}.npy")
    except KeyError as problem:
        raise CameraError(
            f"the array {field} is missing",
            where=name,
            got=", ".join(sorted(archive.namelist()))[:200] or "an empty archive",
            allowed=", ".join(FIELDS),
        ) from problem
    if info.file_size > limits.max_json_bytes:
        raise CameraError(
            "the array is too large",
            where=f"{name}: {field}",
            got=f"{info.file_size} bytes",
            allowed=f"up to {limits.max_json_bytes} bytes",
        )
    try:
        content = io.BytesIO(archive.read(info))
        array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    except _BROKEN as problem:
        raise _broken(f"{name}: {field}", problem) from problem
    if array.dtype.kind not in "fiu":
        raise CameraError(
            "the array does not hold numbers",
            where=f"{name}: {field}",
            got=f"dtype {array.dtype}",
            allowed="floats or integers",
        )
    return array


def _broken(where: str, problem: BaseException) -> CameraError:
    return CameraError(
        "the file is no readable .npz",
        where=where,
        got=f"{type(problem).__name__}: {str(problem)[:200]}",
        allowed=f"an archive of the arrays {', '.join(FIELDS)}, without pickled objects",
    )


def _matrices(array: NDArray[Any], side: int, where: str) -> NDArray[np.float64]:
    if array.ndim != 3 or array.shape[1:] != (side, side):
        raise CameraError(
            "the array is of another shape",
            where=where,
            got=str(list(array.shape)),
            allowed=f"[N, {side}, {side}]",
        )
    with np.errstate(over="ignore"):  # of long doubles
        return array.astype(np.float64)


def _side(arrays: dict[str, NDArray[Any]], field: str, name: str) -> int:
    array = arrays[field]
    if array.size != 1:
        raise CameraError(
            f"{field} is no number",
            where=f"{name}: {field}",
            got=f"an array of shape {list(array.shape)}",
            allowed="one whole number of pixels",
        )
    return json_side({field: float(array.reshape(()))}, field, name)
