"""transforms.json of nerfstudio (also of instant-ngp and SEVA): cameras with OpenGL axes.

``transform_matrix`` of a frame is world from camera, the camera's axes x right, y up, z backward.
``applied_transform`` A (3x4) and ``applied_scale`` s say what was done to the original world:
a stored place is s (A p). Reading undoes both, so that cameras come out in the world that they
were made in. Intrinsics are in pixels, pixel centres at +0.5.
Source: docs.nerf.studio, "Data conventions", and nerfstudio's data parser.

Nerfstudio's world has +z up, ours +y down: the writer states the rotation between them as
``applied_transform``. Points that ``ply_file_path`` names are in the stored world too: pass them
through ``to_nerfstudio_world`` before they are written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldstereo.errors import CameraError
from worldstereo.formats.atomic import atomic_write_text
from worldstereo.formats.cameras import check_extrinsics
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.manifest import to_json
from worldstereo.formats.named_cameras import (
    Float64,
    NamedCameras,
    check_count,
    inverted,
    json_number,
    json_pose,
    json_side,
    named_cameras,
    one_size,
    pinhole,
    read_json_object,
)
from worldstereo.formats.scene_files import describe_json
from worldstereo.formats.upright import Up, blender_from_world, turned
from worldstereo.types import Cameras, Float32

# Camera models that are pinholes when their distortion is 0.
PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "RADIAL", "SIMPLE_RADIAL")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
# OpenCV camera axes in OpenGL's, and back.
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def read_transforms(
    path: Path, *, image_size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS
) -> NamedCameras:
    """Read a transforms.json.

    Args:
        path: the file; intrinsics may be stated once or in each frame.
        image_size: (height, width) of the images where the file does not say ``h`` and ``w``.
        limits: upper bounds.

    Returns:
        The cameras sorted by ``file_path``, which is their name, in the world before
        ``applied_transform`` and ``applied_scale``; of no stated unit.

    Raises:
        CameraError: naming file and field; also for a lens with distortion.
    """
    content, name = read_json_object(path, limits)
    frames = _frames(content, name, limits)
    stored = np.stack(
        [json_pose(frame.get("transform_matrix"), _at(name, frame)) for frame in frames]
    )
    poses = f"{name}: transform_matrix, frames sorted by file_path"
    original = _undone(content, stored, name) @ _FLIP
    merged = [{**content, **frame} for frame in frames]
    for frame in merged:
        _check_pinhole(frame, f"{name}: {frame['file_path']}")
    sizes = [_size(frame, f"{name}: {frame['file_path']}", image_size) for frame in merged]
    size = one_size(sizes, f"{name}: h and w")
    intrinsics = [_intrinsics(frame, f"{name}: {frame['file_path']}", size) for frame in merged]
    return named_cameras(
        [frame["file_path"] for frame in frames],
        inverted(original, poses),
        np.stack(intrinsics),
        size,
        poses=poses,
        focal=f"{name}: fl_x fl_y cx cy, frames sorted by file_path",
        limits=limits,
    )


def write_transforms(
    path: Path,
    file_paths: Sequence[str],
    cameras: Cameras,
    *,
    ply_file_path: str | None = None,
    up: Up = "-y",
) -> None:
    """Write a transforms.json, whole or not at all.

    Args:
        path: the file.
        file_paths: the N images, relative to the file's folder, with ``/``.
        cameras: N cameras; intrinsics that differ are written with each frame.
        ply_file_path: a point cloud, relative, in nerfstudio's world (``to_nerfstudio_world``).
        up: the upward axis of the cameras' world.
    """
    applied = _applied_transform(up)
    poses = np.linalg.inv(cameras.camera_from_world.astype(np.float64)) @ _FLIP
    stored = _four_rows(applied) @ poses + 0.0  # no -0
    lenses = [_lens(matrix) for matrix in cameras.intrinsics.astype(np.float64)]
    shared = all(lens == lenses[0] for lens in lenses)
    content: dict[str, Any] = {
        "camera_model": "PINHOLE",
        "w": cameras.width,
        "h": cameras.height,
        **(lenses[0] if shared else {}),
        "applied_transform": applied.tolist(),
    }
    if ply_file_path is not None:
        content["ply_file_path"] = ply_file_path
    content["frames"] = [
        {
            "file_path": file_path,
            **({} if shared else lens),
            "transform_matrix": matrix.tolist(),
        }
        for file_path, lens, matrix in zip(file_paths, lenses, stored, strict=True)
    ]
    atomic_write_text(path, to_json(content))


def to_nerfstudio_world(points: Float32, up: Up = "-y") -> Float32:
    """Points [P, 3] of a world in the one that ``write_transforms`` writes its cameras in."""
    return turned(points, blender_from_world(up)) + np.float32(0)


def _applied_transform(up: Up) -> Float64:
    """[3, 4] from a world to nerfstudio's: +Z up, the front along +Y, as Blender's."""
    return np.concatenate([blender_from_world(up), np.zeros((3, 1))], axis=1) + 0.0  # no -0


def _four_rows(rows: Sequence[Sequence[float]] | Float64) -> Float64:
    return np.array([*rows, (0.0, 0.0, 0.0, 1.0)])


def _lens(matrix: Float64) -> dict[str, float]:
    return {
        "fl_x": float(matrix[0, 0]),
        "fl_y": float(matrix[1, 1]),
        "cx": float(matrix[0, 2]),
        "cy": float(matrix[1, 2]),
    }


def _at(name: str, frame: dict[str, Any]) -> str:
    return f"{name}: {frame['file_path']}: transform_matrix"


def _frames(content: dict[str, Any], name: str, limits: Limits) -> list[dict[str, Any]]:
    """The frames, each with a text as its ``file_path``, sorted by it."""
    frames = content.get("frames")
    if not isinstance(frames, list):
        raise CameraError(
            "frames is no list",
            where=f"{name}: frames",
            got=describe_json(frames) if "frames" in content else "no such field",
            allowed='a list of {"file_path": ..., "transform_matrix": ...}',
        )
    check_count(len(frames), f"{name}: frames", limits)
    for index, frame in enumerate(frames):
        file_path = frame.get("file_path") if isinstance(frame, dict) else frame
        if not isinstance(frame, dict) or not isinstance(file_path, str):
            raise CameraError(
                "a frame names no image",
                where=f"{name}: frames[{index}]: file_path",
                got=describe_json(file_path),
                allowed="the image's path as text",
            )
    return sorted(frames, key=lambda frame: str(frame["file_path"]))


def _undone(content: dict[str, Any], stored: Float64, name: str) -> Float64:
    """World from camera [N, 4, 4] before the world was transformed and scaled."""
    poses = stored.copy()
    if "applied_scale" in content:
        scale = json_number(content, "applied_scale", name)
        if not 1e-12 < scale < 1e12:
            raise CameraError(
                "applied_scale is out of range",
                where=f"{name}: applied_scale",
                got=f"{scale:g}",
                allowed="1e-12 to 1e12",
            )
        poses[:, :3, 3] /= scale
    if "applied_transform" in content:
        where = f"{name}: applied_transform"
        applied = json_pose(content["applied_transform"], where)
        check_extrinsics(applied[None], where)
        poses = inverted(applied[None], where) @ poses
    return poses


def _check_pinhole(frame: dict[str, Any], where: str) -> None:
    model = frame.get("camera_model", "PINHOLE")
    if model not in PINHOLE_MODELS:
        raise CameraError(
            "the camera is no pinhole",
            where=f"{where}: camera_model",
            got=describe_json(model),
            allowed=", ".join(PINHOLE_MODELS),
            fix="undistort the images first",
        )
    lens = {field: frame[field] for field in DISTORTION if field in frame}
    listed = frame.get("distortion_params")
    if isinstance(listed, list):
        lens |= {f"distortion_params[{index}]": value for index, value in enumerate(listed)}
    for field in lens:
        value = json_number(lens, field, where)
        if value:
            raise CameraError(
                "the camera has lens distortion",
                where=f"{where}: {field}",
                got=f"{value:g}",
                allowed="0, a pinhole camera",
                fix="undistort the images first",
            )


def _size(frame: dict[str, Any], where: str, image_size: tuple[int, int] | None) -> tuple[int, int]:
    if "h" not in frame and "w" not in frame and image_size is not None:
        return image_size
    return json_side(frame, "h", where), json_side(frame, "w", where)


def _intrinsics(frame: dict[str, Any], where: str, size: tuple[int, int]) -> Float64:
    """[3, 3] from fl_x or camera_angle_x; fl_y, cx and cy default to fl_x and the centre."""
    height, width = size
    focal_x = _focal(frame, "fl_x", "camera_angle_x", width, where)
    if focal_x is None:
        raise CameraError(
            "no focal length",
            where=f"{where}: fl_x",
            got="neither fl_x nor camera_angle_x",
            allowed="fl_x in pixels, or camera_angle_x in radians",
        )
    focal_y = _focal(frame, "fl_y", "camera_angle_y", height, where)
    cx = json_number(frame, "cx", where) if "cx" in frame else width / 2
    cy = json_number(frame, "cy", where) if "cy" in frame else height / 2
    return pinhole(focal_x, focal_x if focal_y is None else focal_y, cx, cy)


def _focal(
    frame: dict[str, Any], field: str, angle_field: str, side: int, where: str
) -> float | None:
    if field in frame:
        return json_number(frame, field, where)
    if angle_field not in frame:
        return None
    angle = json_number(frame, angle_field, where)
    if not 0 < angle < math.pi:
        raise CameraError(
            "the field of view is out of range",
            where=f"{where}: {angle_field}",
            got=f"{angle:g}",
            allowed="radians between 0 and pi",
        )
    return side / (2 * math.tan(angle / 2))
