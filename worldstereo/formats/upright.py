"""Which way is up: the world axes of scenes and those of programs that show them.

Owns the turns between them, which are permutations and signs: nothing is rounded. Scenes of one
start image have OpenCV axes, so up is -y; panorama scenes are Z-up with the front along -x.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worldstereo.types import Cameras, Float32

Float64 = NDArray[np.float64]

Up = Literal["-y", "z"]

# glTF: +Y up, viewed along -Z. A front along +z (up -y) or -x (up z) is turned to -Z.
_GLTF_FROM_WORLD = {
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
}
# What Blender's glTF importer does: +Z up, the front along +Y.
_BLENDER_FROM_GLTF = ((1, 0, 0), (0, 0, -1), (0, 1, 0))


def gltf_from_world(up: Up) -> Float32:
    """The rotation [3, 3] from a scene's world axes to glTF's (+Y up, front along -Z)."""
    return np.array(_GLTF_FROM_WORLD[up], dtype=np.float32)


def blender_from_world(up: Up) -> Float32:
    """The rotation [3, 3] from a scene's world axes to Blender's (+Z up, front along +Y).

    It is where Blender's importer puts the points of a GLB file of the same scene.
    """
    return np.array(_BLENDER_FROM_GLTF, dtype=np.float32) @ gltf_from_world(up)


def turned(points: Float32, rotation: Float32) -> Float32:
    """Points [P, 3] in other axes: ``rotation`` [3, 3] holds zeros, ones and signs alone."""
    axes, signs = np.abs(rotation).argmax(axis=1), rotation.sum(axis=1)
    return np.ascontiguousarray(points[:, axes] * signs)


def world_from_cameras(cameras: Cameras) -> Float64:
    """The inverse of ``camera_from_world``, [N, 4, 4] float64: camera axes and centre as columns.

    By the adjugate, in element-wise steps: the same digits on every machine, unlike LAPACK's.
    """
    matrices = cameras.camera_from_world.astype(np.float64)
    x, y, z = (matrices[:, :3, axis] for axis in range(3))
    normals = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)], axis=1)
    volume = x[:, 0] * normals[:, 0, 0] + x[:, 1] * normals[:, 0, 1] + x[:, 2] * normals[:, 0, 2]
    rotation = normals / volume[:, None, None]
    moved = rotation * matrices[:, None, :3, 3]
    inverse = np.zeros_like(matrices)
    inverse[:, :3, :3] = rotation
    inverse[:, :3, 3] = -(moved[..., 0] + moved[..., 1] + moved[..., 2])
    inverse[:, 3, 3] = 1
    # No negative zeros: they would show in the files.
    return inverse + 0.0
