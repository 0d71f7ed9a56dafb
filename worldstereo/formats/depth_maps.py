"""Depth of a clip's frames: one .npy a frame, and a JSON file that says what the numbers are.

Owns a clip's depth folder::

    %04d.npy      [height, width] float32, named like the frames
    depth.json    unit, axes, size, count, the value that means none

Each .npy can be given back as the depth of an image, and is what nerfstudio's ``depth_file_path``
takes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worldstereo.errors import MediaError
from worldstereo.formats.atomic import atomic_write_bytes, atomic_write_text
from worldstereo.formats.manifest import SCHEMA_VERSION, to_json
from worldstereo.types import Float32

DEPTH = "depth.json"
AXES = "along the optical axis (OpenCV z), not along the ray"


class DepthFile(BaseModel):
    """depth.json: what the numbers of the .npy files beside it mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    unit: Literal["metre", "scene"] = Field(description="scene: the unit of the scene's cameras")
    axes: str = AXES
    frames: int = Field(ge=0)
    height: int = Field(gt=0, description="pixels")
    width: int = Field(gt=0)
    dtype: Literal["float32"] = "float32"
    invalid: float = Field(default=0.0, description="the value of pixels without depth")
    files: str = "%04d.npy"


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """Depth of a clip, read back.

    Attributes:
        depths: [F, height, width] float32 along z, 0 = invalid.
        metric: whether the unit is the metre; else it is that of the scene's cameras.
    """

    depths: Float32
    metric: bool


def depth_path(folder: Path, index: int) -> Path:
    """The depth of frame ``index`` in a clip's depth folder."""
    return folder / f"{index:04d}.npy"


def write_depth_maps(folder: Path, depths: Float32, *, metric: bool) -> list[Path]:
    """Write a clip's depth folder, each file whole or not at all, depth.json last.

    Args:
        folder: it is made.
        depths: [F, height, width] float32 along z, finite, 0 = invalid.
        metric: whether the unit is the metre.

    Returns:
        The files.
    """
    assert depths.ndim == 3, depths.shape
    assert depths.dtype == np.float32, depths.dtype
    count, height, width = depths.shape
    files = []
    for index, depth in enumerate(depths):
        array = io.BytesIO()
        np.save(array, np.ascontiguousarray(depth), allow_pickle=False)
        atomic_write_bytes(depth_path(folder, index), array.getvalue())
        files.append(depth_path(folder, index))
    unit: Literal["metre", "scene"] = "metre" if metric else "scene"
    content = DepthFile(unit=unit, frames=count, height=height, width=width)
    atomic_write_text(folder / DEPTH, to_json(content.model_dump()))
    return [*files, folder / DEPTH]


def read_depth_maps(folder: Path) -> DepthMaps:
    """Read a clip's depth folder back.

    Raises:
        MediaError: a file is missing or not what ``write_depth_maps`` writes.
    """
    path = folder / DEPTH
    try:
        content = DepthFile.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise MediaError(
            "a file of the depth is missing", where=str(path), got=str(problem.strerror)
        ) from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        raise MediaError(
            "the file does not read as it was written",
            where=str(path),
            got=f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}",
        ) from problem
    size = (content.height, content.width)
    maps = [_read_map(depth_path(folder, index), size) for index in range(content.frames)]
    depths = np.stack(maps) if maps else np.empty((0, *size), dtype=np.float32)
    return DepthMaps(depths, content.unit == "metre")


def _read_map(path: Path, size: tuple[int, int]) -> Float32:
    try:
        # Mapped: a header that claims more than the file holds allocates nothing.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise MediaError(
            "a depth map cannot be read", where=str(path), got=str(problem)[:120]
        ) from problem
    if array.shape != size or array.dtype != np.float32:
        raise MediaError(
            "a depth map is of another kind than its description",
            where=str(path),
            got=f"{list(array.shape)} {array.dtype}",
            allowed=f"{list(size)} float32, as {DEPTH} says",
        )
    depth = np.array(array)
    if not (np.isfinite(depth) & (depth >= 0)).all():
        raise MediaError(
            "a depth map holds values that are no depths",
            where=str(path),
            allowed="finite numbers, > 0, or 0 where there is none",
        )
    return depth
