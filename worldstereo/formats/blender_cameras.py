"""Animated cameras for Blender: their numbers, and the script that makes them there.

Owns ``blender/cameras.json`` and the copy of ``blender_import.py`` beside it. The matrices are
Blender's: cameras look along their -z with +y up, so matrix_world = B c2w diag(1, -1, -1, 1),
where B turns the scene's world to Blender's Z-up one, to where its importer puts ``points.glb``.

Lens and shifts are for ``sensor_fit = HORIZONTAL``, by Blender's view plane (its source,
``BKE_camera_params_compute_viewplane``)::

    lens = fx sensor / width            pixel_aspect_x / pixel_aspect_y = fy / fx
    shift_x = 1/2 - cx / width          shift_y = (cy - height / 2) pixel_aspect_y
                                                  / (pixel_aspect_x width)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from worldstereo.errors import CameraError
from worldstereo.formats.atomic import atomic_write_bytes, atomic_write_text
from worldstereo.formats.manifest import SCHEMA_VERSION, to_json
from worldstereo.formats.upright import Up, blender_from_world, world_from_cameras
from worldstereo.types import Cameras

CAMERAS, SCRIPT = "cameras.json", "import_cameras.py"
SENSOR_WIDTH_MM = 36.0
AXES = "Blender: world Z up; a camera looks along its -z, its y is up"
# What the ratio fy / fx of cameras of one scene may differ by: Blender has one for all.
ASPECT_TOLERANCE = 1e-3


def write_blender_cameras(
    folder: Path,
    clips: Sequence[tuple[str, Cameras]],
    *,
    fps: int,
    up: Up = "-y",
    metric: bool = False,
) -> list[Path]:
    """Write cameras.json and import_cameras.py, each whole or not at all.

    Args:
        folder: for both; it is made.
        clips: name and cameras of each animation, at least one, all of one image size.
        fps: frames a second.
        up: the scene's direction upwards: ``-y`` (OpenCV axes) or ``z`` (panorama scenes).
        metric: whether the unit is the metre.

    Returns:
        The two files.

    Raises:
        CameraError: the pixels of some cameras have another aspect than those of the others.
    """
    text = to_json(_description(clips, fps, up, metric))
    script = resources.files("worldstereo.formats").joinpath("blender_import.py").read_bytes()
    atomic_write_bytes(folder / SCRIPT, script)
    atomic_write_text(folder / CAMERAS, text)
    return [folder / SCRIPT, folder / CAMERAS]


def _description(
    clips: Sequence[tuple[str, Cameras]], fps: int, up: Up, metric: bool
) -> dict[str, Any]:
    sizes = {(cameras.height, cameras.width) for _, cameras in clips}
    assert len(sizes) == 1, sizes
    ((height, width),) = sizes
    aspect = _pixel_aspect(clips)
    return {
        "schema_version": SCHEMA_VERSION,
        "axes": AXES,
        "unit": "metre" if metric else "scene",
        "blender_from_world": blender_from_world(up).astype(np.float64).tolist(),
        "fps": fps,
        "width": width,
        "height": height,
        "pixel_aspect_x": max(1.0, aspect),
        "pixel_aspect_y": max(1.0, 1 / aspect),
        "sensor_width_mm": SENSOR_WIDTH_MM,
        "cameras": [
            {"name": name, "frames": _frames(cameras, aspect, up)} for name, cameras in clips
        ],
    }


def _pixel_aspect(clips: Sequence[tuple[str, Cameras]]) -> float:
    """fy / fx, which Blender keeps for the whole scene."""
    ratios = [
        cameras.intrinsics[:, 1, 1].astype(np.float64) / cameras.intrinsics[:, 0, 0]
        for _, cameras in clips
    ]
    first = float(ratios[0][0])
    for (name, _), of_clip in zip(clips, ratios, strict=True):
        off = np.abs(of_clip / first - 1)
        if off.max() > ASPECT_TOLERANCE:
            raise CameraError(
                "cameras of one scene have pixels of different aspect",
                where=f"{name}, frame {int(off.argmax())}",
                got=f"fy / fx = {of_clip[off.argmax()]:.6g}",
                allowed=f"{first:.6g}, as the first camera has: Blender has one for all",
            )
    return first


def _frames(cameras: Cameras, aspect: float, up: Up) -> list[dict[str, Any]]:
    turn = np.eye(4)
    turn[:3, :3] = blender_from_world(up)
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    matrices = turn @ world_from_cameras(cameras) @ flip + 0.0
    return [
        {
            "matrix_world": matrix.tolist(),
            "lens_mm": float(k[0, 0] * SENSOR_WIDTH_MM / cameras.width),
            "shift_x": float(0.5 - k[0, 2] / cameras.width),
            "shift_y": float((k[1, 2] - cameras.height / 2) / (aspect * cameras.width)),
        }
        for matrix, k in zip(matrices, cameras.intrinsics.astype(np.float64), strict=True)
    ]
