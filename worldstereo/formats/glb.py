"""Coloured points as GLB (binary glTF 2.0), through trimesh.

Owns ``points.glb`` and its axes: glTF is +Y up and is viewed along -Z, so the points of a scene
with OpenCV axes are written with y and z negated, those of a Z-up scene turned; programs that
show glTF then show them upright. Which turn it was stands in the file (``extras`` of its scene).

Colours are the images' own bytes (sRGB), as most programs write and show them; glTF itself calls
COLOR_0 linear, so a strict viewer shows them brighter.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import numpy as np

from worldstereo.errors import MediaError, MissingDependencyError, ParameterError
from worldstereo.formats.atomic import atomic_write_bytes
from worldstereo.formats.upright import Up, gltf_from_world, turned
from worldstereo.types import PointCloud

_UP, _UNIT = "source_up", "unit"


def write_glb(path: Path, cloud: PointCloud, *, up: Up = "-y", metric: bool = False) -> None:
    """Write a cloud as one set of points, whole or not at all; same cloud, same bytes.

    Args:
        path: of the file; its folder is made.
        cloud: at least one point, in the scene's world axes.
        up: the scene's direction upwards: ``-y`` (OpenCV axes) or ``z`` (panorama scenes).
        metric: whether the unit is the metre, which is glTF's; it is noted, not changed.

    Raises:
        ParameterError: no point, which glTF cannot hold.
        MissingDependencyError: trimesh is not installed.
    """
    if not len(cloud):
        raise ParameterError("there are no points to write", where=str(path), got="0 points")
    trimesh = _trimesh(str(path))
    scene = trimesh.Scene()
    scene.metadata.update({_UP: up, _UNIT: "metre" if metric else "scene"})
    points = turned(cloud.points, gltf_from_world(up))
    opaque = np.full((len(cloud), 1), 255, dtype=np.uint8)
    colored = trimesh.PointCloud(points, np.concatenate([cloud.colors, opaque], axis=1))
    scene.add_geometry(colored, node_name="points", geom_name="points")
    atomic_write_bytes(path, scene.export(file_type="glb"))


def read_glb(path: Path, name: str | None = None) -> PointCloud:
    """Read the points that ``write_glb`` wrote, back in the scene's world axes.

    Args:
        path: the file.
        name: how errors call it; default: its path.

    Raises:
        MediaError: no GLB file, or none of ours: without one set of points and their axes.
        MissingDependencyError: trimesh is not installed.
    """
    name = str(path) if name is None else name
    trimesh = _trimesh(name)
    try:
        scene = trimesh.load_scene(io.BytesIO(path.read_bytes()), file_type="glb")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as problem:
        raise MediaError(
            "no readable GLB file",
            where=name,
            got=str(problem)[:120],
            allowed="a complete binary glTF 2.0 file",
        ) from problem
    parts = list(scene.geometry.values())
    up = scene.metadata.get(_UP)
    if len(parts) != 1 or not isinstance(parts[0], trimesh.PointCloud) or up not in get_args(Up):
        raise MediaError(
            "the GLB file is none of ours",
            where=name,
            got=f"{len(parts)} geometries, {_UP} {up!r}",
            allowed=f"one set of points, and {_UP} {' or '.join(get_args(Up))} in its extras",
        )
    points = parts[0].vertices.astype(np.float32)
    colors = np.asarray(parts[0].colors, dtype=np.uint8)[:, :3]
    return PointCloud(turned(points, gltf_from_world(up).T), np.ascontiguousarray(colors))


def _trimesh(name: str) -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise MissingDependencyError(
            "GLB files need the package trimesh",
            where=name,
            got=str(error),
            fix="install it with: pip install 'trimesh>=4.6'",
        ) from error
    return trimesh
