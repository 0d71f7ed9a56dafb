"""As much of Blender's Python as the import script uses, with Blender's own rules.

``matrix_world`` is read back from place and quaternion, as Blender composes it; the projection is
that of Blender's camera, from its source (``BKE_camera_params_compute_viewplane``).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float64 = NDArray[np.float64]


class Matrix:
    """``mathutils.Matrix``: made from rows."""

    def __init__(self, rows: Any) -> None:
        self.rows = np.array(rows, dtype=np.float64)
        assert self.rows.shape == (4, 4)


class Quaternion:
    """``mathutils.Quaternion``, w first."""

    def __init__(self, values: Float64) -> None:
        self.values = np.array(values, dtype=np.float64)

    def dot(self, other: Quaternion) -> float:
        return float(self.values @ other.values)

    def negate(self) -> None:
        self.values = -self.values

    def copy(self) -> Quaternion:
        return Quaternion(self.values)


class Keyed:
    """Anything that takes keys: each remembers the value at its frame."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[int, Any]] = {}

    def keyframe_insert(self, path: str, *, frame: int) -> None:
        value = getattr(self, path)
        value = value.values if isinstance(value, Quaternion) else value
        self.keys.setdefault(path, {})[frame] = np.array(value)


class Lens(Keyed):
    """``bpy.types.Camera``."""

    lens = 50.0
    shift_x = shift_y = 0.0
    sensor_fit = "AUTO"
    sensor_width = 36.0


class CameraObject(Keyed):
    """``bpy.types.Object`` of a camera; its place and quaternion are what is stored."""

    rotation_mode = "XYZ"

    def __init__(self, name: str, data: Lens) -> None:
        super().__init__()
        self.name, self.data = name, data
        self.location = np.zeros(3)
        self.rotation_quaternion = Quaternion(np.array([1.0, 0, 0, 0]))

    @property
    def matrix_world(self) -> Float64:
        return composed(self.location, self.rotation_quaternion.values)

    @matrix_world.setter
    def matrix_world(self, matrix: Matrix) -> None:
        assert self.rotation_mode == "QUATERNION", "else the quaternion is not what is set"
        turn = Rotation.from_matrix(matrix.rows[:3, :3])
        self.location = matrix.rows[:3, 3].copy()
        self.rotation_quaternion = Quaternion(turn.as_quat(canonical=True)[[3, 0, 1, 2]])


def composed(location: Float64, quaternion: Float64) -> Float64:
    """[4, 4] from a place and a quaternion, w first."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(quaternion[[1, 2, 3, 0]]).as_matrix()
    matrix[:3, 3] = location
    return matrix


class Blender:
    """The modules ``bpy`` and ``mathutils``.

    Attributes:
        bpy, mathutils: to put into ``sys.modules``.
        scene: the current scene.
        objects: that were made, in order.
    """

    def __init__(self) -> None:
        self.objects: list[CameraObject] = []
        self.linked: list[CameraObject] = []
        self.scene = SimpleNamespace(
            render=SimpleNamespace(),
            collection=SimpleNamespace(objects=SimpleNamespace(link=self.linked.append)),
            camera=None,
            frame_set=lambda frame: None,
        )
        self.bpy = SimpleNamespace(
            context=SimpleNamespace(scene=self.scene),
            data=SimpleNamespace(
                cameras=SimpleNamespace(new=lambda name: Lens()),
                objects=SimpleNamespace(new=self._new),
            ),
        )
        self.mathutils = SimpleNamespace(Matrix=Matrix)

    def _new(self, name: str, data: Lens) -> CameraObject:
        self.objects.append(CameraObject(name, data))
        return self.objects[-1]

    def pixels(self, camera: CameraObject, frame: int, points: Float64) -> Float64:
        """[P, 2]: where the camera sees points [P, 3] of Blender's world at a frame."""
        render, keys = self.scene.render, camera.keys
        matrix = composed(keys["location"][frame], keys["rotation_quaternion"][frame])
        local = (np.linalg.inv(matrix) @ np.c_[points, np.ones(len(points))].T)[:3]
        width, height = render.resolution_x, render.resolution_y
        assert camera.data.sensor_fit == "HORIZONTAL"
        lens, shift_x, shift_y = (
            camera.data.keys[name][frame] for name in ("lens", "shift_x", "shift_y")
        )
        ycor = render.pixel_aspect_y / render.pixel_aspect_x
        pixel = camera.data.sensor_width / lens / width  # at distance 1
        left = (-0.5 + shift_x) * width * pixel
        bottom = (-0.5 * ycor * height + shift_y * width) * pixel
        x, y = local[0] / -local[2], local[1] / -local[2]
        return np.stack([(x - left) / pixel, height - (y - bottom) / (pixel * ycor)], axis=1)
