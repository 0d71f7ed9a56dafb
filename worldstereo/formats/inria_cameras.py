"""Cameras as the Gaussian splatting programs of Inria list them; SuperSplat opens the file.

Owns ``cameras_inria.json``: one entry an image with its position and its world_from_camera
rotation (OpenCV axes, columns are the camera's x, y, z in the world), both in the axes of
``points.ply``. SuperSplat turns cameras as it turns PLY files, so they fit each other.

The format has no principal point: readers take the image's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldstereo.formats.atomic import atomic_write_text
from worldstereo.formats.manifest import to_json
from worldstereo.formats.upright import world_from_cameras
from worldstereo.types import Cameras


def write_inria_cameras(path: Path, names: Sequence[str], cameras: Cameras) -> None:
    """Write the file whole or not at all.

    Args:
        path: of the file; its folder is made.
        names: of the N images.
        cameras: N, in the world axes of the points that they are shown with.
    """
    entries = [
        {
            "id": index,
            "img_name": name,
            "width": cameras.width,
            "height": cameras.height,
            "position": matrix[:3, 3].tolist(),
            "rotation": matrix[:3, :3].tolist(),
            "fx": float(intrinsics[0, 0]),
            "fy": float(intrinsics[1, 1]),
        }
        for index, (name, matrix, intrinsics) in enumerate(
            zip(
                names,
                world_from_cameras(cameras),
                cameras.intrinsics.astype(np.float64),
                strict=True,
            )
        )
    ]
    atomic_write_text(path, to_json(entries))
