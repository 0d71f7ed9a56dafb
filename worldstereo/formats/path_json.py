"""Our own camera path as JSON: direction, axes and unit are said in the file.

``camera_from_world_opencv`` N x 4 x 4, ``intrinsics`` N x 3 x 3 in pixels of ``width`` x
``height``, ``unit`` one of metric, median_depth (multiples of the source image's median depth)
and scene, and optionally ``names``. The cameras.json of a generated clip is one without a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worldstereo.errors import CameraError
from worldstereo.formats.atomic import atomic_write_text
from worldstereo.formats.cameras import MAX_SIDE
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.manifest import SCHEMA_VERSION, to_json
from worldstereo.formats.named_cameras import (
    Float64,
    NamedCameras,
    Unit,
    check_count,
    named_cameras,
    numbered,
    read_json_object,
)
from worldstereo.formats.results import AXES


class PathFile(BaseModel):
    """What the file holds; ``axes`` and ``schema_version`` may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: int = SCHEMA_VERSION
    axes: str = AXES
    unit: Unit | None = None
    width: int = Field(ge=1, le=MAX_SIDE, description="pixels that the intrinsics are stated for")
    height: int = Field(ge=1, le=MAX_SIDE)
    names: list[str] | None = None
    camera_from_world_opencv: list[list[list[float]]] = Field(description="N x 4 x 4")
    intrinsics: list[list[list[float]]] = Field(description="N x 3 x 3, pixels")


def read_path_json(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> NamedCameras:
    """Read a camera path, or the cameras.json of a generated clip.

    Args:
        path: the file.
        limits: upper bounds.

    Returns:
        The cameras in the file's order, numbered where they have no names.

    Raises:
        CameraError: naming file and field.
    """
    content, name = read_json_object(path, limits)
    try:
        file = PathFile.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise CameraError(
            f"the file is no camera path: {problem['msg']}",
            where=f"{name}: {field}" if field else name,
            got=repr(problem["input"])[:80],
            allowed=f"the fields {', '.join(PathFile.model_fields)}",
        ) from error
    _check_stated(name, file)
    count = len(file.camera_from_world_opencv)
    check_count(count, f"{name}: camera_from_world_opencv", limits)
    for field, entries in (("intrinsics", file.intrinsics), ("names", file.names)):
        if entries is not None and len(entries) != count:
            raise CameraError(
                f"camera_from_world_opencv and {field} do not agree in number",
                where=f"{name}: {field}",
                got=f"{count} matrices and {len(entries)} {field}",
                allowed="one for every camera",
            )
    return named_cameras(
        numbered(count) if file.names is None else file.names,
        _matrices(file.camera_from_world_opencv, 4, f"{name}: camera_from_world_opencv"),
        _matrices(file.intrinsics, 3, f"{name}: intrinsics"),
        (file.height, file.width),
        poses=f"{name}: camera_from_world_opencv",
        focal=f"{name}: intrinsics",
        limits=limits,
        unit=file.unit,
    )


def write_path_json(path: Path, named: NamedCameras) -> None:
    """Write a camera path, whole or not at all; float32 values read back exactly.

    Args:
        path: the file.
        named: the cameras; their unit is left out when there is none.
    """
    content = PathFile(
        unit=named.unit,
        width=named.cameras.width,
        height=named.cameras.height,
        names=list(named.names),
        camera_from_world_opencv=named.cameras.camera_from_world.astype(np.float64).tolist(),
        intrinsics=named.cameras.intrinsics.astype(np.float64).tolist(),
    )
    atomic_write_text(path, to_json(content.model_dump(exclude_none=True)))


def _check_stated(name: str, file: PathFile) -> None:
    stated: tuple[tuple[str, str | int, str | int], ...] = (
        ("axes", file.axes, AXES),
        ("schema_version", file.schema_version, SCHEMA_VERSION),
    )
    for field, value, expected in stated:
        if value != expected:
            raise CameraError(
                f"{field} is not what this version reads",
                where=f"{name}: {field}",
                got=repr(value)[:80],
                allowed=repr(expected),
            )


def _matrices(values: Sequence[Sequence[Sequence[float]]], side: int, where: str) -> Float64:
    for index, rows in enumerate(values):
        if len(rows) != side or any(len(row) != side for row in rows):
            raise CameraError(
                f"a matrix is not {side}x{side}",
                where=f"{where}[{index}]",
                got=f"{len(rows)} rows of {' or '.join(sorted({str(len(row)) for row in rows}))}",
                allowed=f"{side} rows of {side} numbers",
            )
    return np.array(values, dtype=np.float64)
