"""Depth maps that the user gives as a file: .npy, .exr or 16-bit .png with a stated unit.

Owns reading and validating them. Content decides which of the three a file is, not its suffix.
Numpy and Pillow alone; the package OpenEXR is imported when a file is one of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import MediaError, MissingDependencyError
from worldstereo.types import Float32, UInt8

Float64 = NDArray[np.float64]

# What a map's aspect ratio may be off by: the rounding of sizes.
ASPECT_TOLERANCE = 0.02
MAX_PIXELS = 64 * 1024 * 1024
# Of an .exr with other channels beside its depth.
MAX_EXR_VALUES = 4 * MAX_PIXELS
KINDS = ".npy (float), .exr, or 16-bit grey .png beside a .json that states its unit"
# Metres in one unit; "scene" stands for the unit of the scene's cameras.
UNITS = {
    "metre": 1.0,
    "meter": 1.0,
    "centimetre": 0.01,
    "centimeter": 0.01,
    "millimetre": 0.001,
    "millimeter": 0.001,
    "scene": 1.0,
}
UnitName = Literal[
    "metre", "meter", "centimetre", "centimeter", "millimetre", "millimeter", "scene"
]


class PngScale(BaseModel):
    """The JSON file beside a 16-bit PNG: depth = value x ``scale``, in ``unit``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: UnitName
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    encoding: Literal["uint16", "float16"] = Field(
        default="uint16", description="float16: the pixel's 16 bits are a half float"
    )


@dataclass(frozen=True)
class ProvidedDepth:
    """The ``DepthSource`` of a scene that brings the depth of its one image as a file.

    Args:
        path: the file, see ``read_depth``.
        metric: whether the scene's unit is the metre.
    """

    path: Path
    metric: bool = False

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        """The file's depth at the size of each image, which must have the map's aspect ratio.

        Raises:
            MediaError: as ``read_depth`` and ``check_depth_size`` say.
            MissingDependencyError: as ``read_depth`` says.
        """
        if not images:
            return []
        depth = read_depth(self.path)
        maps = []
        for image in images:
            height, width = image.shape[:2]
            check_depth_size(depth, height, width, str(self.path))
            maps.append(DepthMap(resize_depth(depth, height, width), self.metric))
        return maps


def read_depth(path: Path, name: str | None = None) -> Float32:
    """Read a depth map.

    Args:
        path: .npy with floats, .exr with one channel (or Z), both in the unit of the scene's
            cameras; or a 16-bit grey .png with a JSON file of the same stem that states the
            unit, e.g. ``{"unit": "millimetre"}`` (see ``PngScale``), which becomes metres
            unless the unit is "scene".
        name: how errors call the file; default: its path.

    Returns:
        [H, W] float32 along the camera's z; 0 = invalid, which is what 0, NaN and infinity in
        the file become.

    Raises:
        MediaError: the file is missing, broken, too large, of another kind, states no unit,
            holds negative depths or no positive one.
        MissingDependencyError: the file is an .exr and OpenEXR is not installed.
    """
    name = str(path) if name is None else name
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise _unusable(name, error.strerror or str(error)) from error
    if start.startswith(b"\x93NUMPY"):
        depth = _read_npy(path, name)
    elif start.startswith(b"\x76\x2f\x31\x01"):
        depth = _read_exr(path, name)
    elif start == b"\x89PNG\r\n\x1a\n":
        depth = _read_png(path, name)
    else:
        raise _unusable(name, f"a file that starts with {start!r}")
    return _checked(depth, name)


def check_depth_size(depth: Float32, height: int, width: int, name: str = "depth") -> None:
    """Refuse a map whose aspect ratio is not that of its image: it belongs to another one.

    Args:
        depth: [h, w].
        height: rows of the image that the depth is of, as the file stores it.
        width: its columns.
        name: how the error calls the map.

    Raises:
        MediaError: the ratios differ by more than ``ASPECT_TOLERANCE``.
    """
    rows, columns = depth.shape
    if abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
        raise MediaError(
            "the depth map is not of its image's shape",
            where=name,
            got=f"{rows} rows x {columns} columns",
            allowed=f"the aspect ratio of the image, {height} rows x {width} columns",
        )


def resize_depth(depth: Float32, height: int, width: int) -> Float32:
    """Depth at another size of the same image: for each new pixel's centre the pixel it lies in.

    Depths are never averaged: between an object and what is behind it there is nothing.

    Args:
        depth: [h, w].
        height: rows of the result.
        width: columns of the result.

    Returns:
        [height, width] float32.
    """
    old_height, old_width = depth.shape
    rows = ((np.arange(height) + 0.5) * old_height / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * old_width / width).astype(np.intp)
    return np.ascontiguousarray(depth[rows[:, None], columns[None, :]])


def _unusable(name: str, got: str) -> MediaError:
    return MediaError("no readable depth map", where=name, got=got, allowed=KINDS)


def _read_npy(path: Path, name: str) -> Float64:
    broken = (OSError, ValueError, EOFError, ArithmeticError, SyntaxError, TypeError, TokenError)
    try:
        # Mapped: a header that claims more than the file holds allocates nothing.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except broken as error:
        raise _unusable(name, f"a broken .npy file: {error}") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise MediaError(
            "a .npy depth map must hold floats, whose unit is that of the cameras",
            where=name,
            got=f"dtype {array.dtype}",
            allowed="float16, float32 or float64",
        )
    if array.ndim != 2:
        raise _unusable(name, f"an array of shape {list(array.shape)}; it must be [H, W]")
    _check_size(name, *array.shape)
    return np.asarray(array, dtype=np.float64)


def _read_exr(path: Path, name: str) -> Float64:
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingDependencyError(
            "reading .exr depth maps needs the package OpenEXR",
            where=name,
            got=str(error),
            fix="install it with: pip install 'OpenEXR>=3.3'; or give the depth as .npy",
        ) from error
    broken = (RuntimeError, ValueError, KeyError, OSError)
    try:
        with OpenEXR.File(str(path), header_only=True) as file:
            headers = [part.header for part in file.parts]
            sizes = [_exr_size(header) for header in headers]
            flat = (OpenEXR.scanlineimage, OpenEXR.tiledimage)
            deep = any(header.get("type", flat[0]) not in flat for header in headers)
    except broken as error:
        raise _unusable(name, f"a broken .exr file: {error}") from error
    # All channels of all parts are decoded; a deep pixel may hold any number of values.
    values = sum(rows * columns * channels for rows, columns, channels in sizes)
    if deep or values > MAX_EXR_VALUES:
        raise _unusable(name, "deep pixels" if deep else f"{values} values in all its channels")
    _check_size(name, *sizes[0][:2])
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {key: channel.pixels for key, channel in file.channels().items()}
    except broken as error:
        raise _unusable(name, f"a broken .exr file: {error}") from error
    chosen = next(iter(channels.values())) if len(channels) == 1 else channels.get("Z")
    if chosen is None or not np.issubdtype(chosen.dtype, np.floating) or chosen.ndim != 2:
        raise MediaError(
            "the .exr file has no depth channel",
            where=name,
            got=", ".join(f"{key} ({pixels.dtype})" for key, pixels in sorted(channels.items())),
            allowed="a single float channel, or one that is named Z",
        )
    return np.asarray(chosen, dtype=np.float64)


def _exr_size(header: Mapping[str, Any]) -> tuple[int, int, int]:
    """Rows, columns and channels of a part."""
    (left, top), (right, bottom) = header["dataWindow"]
    return int(bottom) - int(top) + 1, int(right) - int(left) + 1, len(header["channels"])


def _read_png(path: Path, name: str) -> Float64:
    stated = _read_scale(path.with_suffix(".json"), name)
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    # ValueError: texts beside the pixels that unpack to too much.
    broken = (OSError, SyntaxError, ValueError, *bombs)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            size, mode = (image.height, image.width), image.mode
    except broken as error:
        raise _unusable(name, f"a broken .png file: {error}") from error
    _check_size(name, *size)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except broken as error:
        raise _unusable(name, f"a broken .png file: {error}") from error
    if mode not in ("I;16", "I;16B"):
        raise MediaError(
            "a .png depth map must hold 16-bit greys",
            where=name,
            got=f"a PNG of mode {mode}",
            allowed=KINDS,
        )
    bits = pixels.astype(np.uint16)
    values = bits.view(np.float16) if stated.encoding == "float16" else bits
    return values.astype(np.float64) * (stated.scale * UNITS[stated.unit])


def _read_scale(path: Path, name: str) -> PngScale:
    try:
        return PngScale.model_validate_json(path.read_bytes())
    except OSError as error:
        raise MediaError(
            "a .png depth map states no unit",
            where=name,
            got=f"no file {path.name} beside it",
            allowed='a JSON file such as {"unit": "millimetre"}',
            fix="say what the pixels mean: 16-bit PNGs may hold millimetres, other scales "
            'or half floats ({"unit": "metre", "encoding": "float16"})',
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise MediaError(
            f"the unit of the depth map is unusable: {problem['msg']}",
            where=f"{path.name}, field {field}" if field else path.name,
            got=f"{problem['input']!r}"[:80],
            allowed=f"unit: {', '.join(UNITS)}; scale > 0; encoding: uint16 or float16",
        ) from error


def _check_size(name: str, rows: int, columns: int) -> None:
    if not 0 < rows * columns <= MAX_PIXELS:
        raise MediaError(
            "the depth map's size is out of range",
            where=name,
            got=f"{rows} x {columns}",
            allowed=f"1 to {MAX_PIXELS} pixels",
        )


def _checked(depth: Float64, name: str) -> Float32:
    """float32 with 0 for what is no depth; an error where values or their absence make none."""
    finite = np.isfinite(depth)
    negative = finite & (depth < 0)
    if negative.any():
        row, column = (int(index) for index in np.argwhere(negative)[0])
        raise MediaError(
            "the depth map holds negative values",
            where=f"{name}, row {row}, column {column}",
            got=f"{depth[row, column]:.6g} ({int(negative.sum())} such pixels)",
            allowed="depths along z, > 0, or 0 where there is none",
        )
    with np.errstate(over="ignore"):
        single = np.where(finite, depth, 0).astype(np.float32)
    single[~np.isfinite(single)] = 0
    if not single.any():
        raise MediaError(
            "the depth map is empty",
            where=name,
            got="no pixel with a positive finite depth",
            allowed="at least one",
        )
    return single
