"""Depth for the images of scenes that bring neither a depth map nor renders.

Owns that it is estimated once, kept in a file, and the same from then on.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np

from worldstereo.depth.protocol import DepthSource
from worldstereo.formats.atomic import atomic_write_bytes
from worldstereo.formats.images import read_image
from worldstereo.types import SceneInput


def with_estimated_depth(scene: SceneInput, estimator: DepthSource, file: Path) -> SceneInput:
    """A scene whose trajectories all have a render or a depth map.

    Args:
        scene: one start image at most may lack both (the single-view layout).
        estimator: is asked only where the file is not there.
        file: .npy that keeps the depth map.

    Returns:
        The scene, its missing depth being in ``file``; the scene itself where none is missing.

    Raises:
        MediaError: there is no usable depth for the image.
    """
    lacking = [item for item in scene.trajectories if item.render is None and item.depth is None]
    images = {item.start_image for item in lacking}
    if not lacking:
        return scene
    (image,) = images
    assert image is not None, "a trajectory without a start image has a render"
    if not file.is_file():
        (found,) = estimator.depths_of([read_image(image)])
        buffer = io.BytesIO()
        np.save(buffer, found.depth)
        atomic_write_bytes(file, buffer.getvalue())
    return dataclasses.replace(
        scene,
        trajectories=tuple(
            dataclasses.replace(item, depth=file) if item in lacking else item
            for item in scene.trajectories
        ),
    )
