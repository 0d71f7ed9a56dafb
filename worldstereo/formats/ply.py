"""Coloured points as PLY files, through plyfile.

Owns ``points.ply`` (binary little endian: x y z float32, red green blue uint8) and reading the
vertices of any PLY file. The axes are those of the scene's world: nothing is turned.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldstereo.errors import MediaError, MissingDependencyError
from worldstereo.formats.atomic import atomic_write_bytes
from worldstereo.types import PointCloud

Vertices = NDArray[np.void]

PLACE, COLOR = ("x", "y", "z"), ("red", "green", "blue")
_POINT = np.dtype([*((name, "<f4") for name in PLACE), *((name, "u1") for name in COLOR)])
# The colour of points that come without one.
GREY = 128


def write_ply(path: Path, cloud: PointCloud, *, comments: Sequence[str] = ()) -> None:
    """Write a cloud whole or not at all; the same cloud gives the same bytes.

    Args:
        path: of the file; its folder is made.
        cloud: P >= 0 points, any world axes.
        comments: lines of the header, ASCII.

    Raises:
        MissingDependencyError: plyfile is not installed.
    """
    rows = np.empty(len(cloud), dtype=_POINT)
    for axis in range(3):
        rows[PLACE[axis]] = cloud.points[:, axis]
        rows[COLOR[axis]] = cloud.colors[:, axis]
    write_vertices(path, rows, comments)


def read_ply(path: Path, name: str | None = None) -> PointCloud:
    """Read the vertices of a PLY file, text or binary, whatever else it holds.

    Args:
        path: the file.
        name: how errors call it; default: its path.

    Returns:
        The points in the order of the file; points without colours are mid-grey.

    Raises:
        MediaError: no PLY file, cut, without x y z, colours that are not 8-bit, or a coordinate
            that is not finite.
        MissingDependencyError: plyfile is not installed.
    """
    name = str(path) if name is None else name
    rows = read_vertices(path, name)
    points = columns(rows, PLACE, name)
    colors = np.full(points.shape, GREY, dtype=np.uint8)
    fields = rows.dtype.names or ()
    if any(field in fields for field in COLOR):
        kinds = {str(rows.dtype[field]) if field in fields else "none" for field in COLOR}
        if kinds != {"uint8"}:
            raise MediaError(
                "the colours of the points cannot be used",
                where=name,
                got=f"{', '.join(COLOR)} of type {', '.join(sorted(kinds))}",
                allowed="three properties of type uchar",
            )
        colors = np.stack([rows[field] for field in COLOR], axis=-1)
    return PointCloud(points, colors)


def write_vertices(path: Path, rows: Vertices, comments: Sequence[str] = ()) -> None:
    """Write one element ``vertex``, binary little endian, whole or not at all."""
    plyfile = _plyfile(str(path))
    element = plyfile.PlyElement.describe(rows, "vertex")
    file = io.BytesIO()
    plyfile.PlyData([element], byte_order="<", comments=list(comments)).write(file)
    atomic_write_bytes(path, file.getvalue())


def read_vertices(path: Path, name: str) -> Vertices:
    """The element ``vertex`` of a PLY file, one row a point; MediaError where there is none."""
    plyfile = _plyfile(name)
    allowed = "a complete PLY file with an element vertex"
    try:
        with path.open("rb") as file:
            # What plyfile cannot map it reads row by row; a text file it would leave open.
            text = b"format ascii" in file.read(64)
            file.seek(0)
            stream = io.BytesIO(file.read()) if text else file
            elements = plyfile.PlyData.read(stream, mmap="c").elements
    except OSError as problem:
        raise MediaError(
            "no readable points", where=name, got=problem.strerror or str(problem), allowed=allowed
        ) from problem
    except (plyfile.PlyParseError, ValueError, TypeError, KeyError, MemoryError) as problem:
        raise MediaError(
            "no readable points",
            where=name,
            got=f"a broken, cut or other file: {str(problem)[:120]}",
            allowed=allowed,
        ) from problem
    for element in elements:
        if element.name == "vertex":
            rows: Vertices = np.array(element.data)
            return rows
    raise MediaError(
        "the PLY file holds no points",
        where=name,
        got=f"the elements {', '.join(element.name for element in elements) or 'none'}",
        allowed=allowed,
    )


def columns(rows: Vertices, fields: Sequence[str], name: str) -> NDArray[np.float32]:
    """Properties side by side, [P, len(fields)] float32.

    Raises:
        MediaError: a property is missing, is a list, or holds a value that is not finite.
    """
    there = rows.dtype.names or ()
    missing = [
        field for field in fields if field not in there or rows.dtype[field].kind not in "fiu"
    ]
    if missing:
        raise MediaError(
            "the points lack a property",
            where=f"{name}, vertex",
            got=f"no number {', '.join(missing)}",
            allowed=", ".join(fields),
        )
    values = np.empty((len(rows), len(fields)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for index, field in enumerate(fields):
            values[:, index] = rows[field]
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = (int(index) for index in np.argwhere(bad)[0])
        raise MediaError(
            "a value of a point is not finite",
            where=f"{name}, vertex {row}, {fields[column]}",
            got=f"{rows[fields[column]][row]} ({int(bad.any(axis=1).sum())} such points)",
            allowed="finite float32 numbers",
        )
    return values


def _plyfile(name: str) -> Any:
    try:
        import plyfile
    except ImportError as error:
        raise MissingDependencyError(
            "PLY files need the package plyfile",
            where=name,
            got=str(error),
            fix="install it with: pip install 'plyfile>=1.1'",
        ) from error
    return plyfile
