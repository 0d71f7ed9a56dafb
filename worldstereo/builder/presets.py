"""The presets of camera paths as models: their numbers, what is allowed, how each is scaled.

Owns one model a preset; the formulas are geometry/trajectories.py's. What a scene's list of
trajectories is made of, chains and given cameras included, is specs.py's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from scipy.spatial.transform import Rotation

from worldstereo.formats.cameras import check_extrinsics
from worldstereo.formats.renders import RESERVED_NAMES
from worldstereo.geometry import trajectories as paths
from worldstereo.geometry.camera_path import CameraPath, Float64, StartPose
from worldstereo.geometry.trajectories import LengthUnit


def _unreserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name} is the name of something else in a scene")
    return name


def _direction(vector: tuple[float, float, float]) -> tuple[float, float, float]:
    if not any(vector):
        raise ValueError("not a direction: all three numbers are 0")
    return vector


# JSON numbers alone: no texts, no true, nothing infinite.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Length = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e6, le=1e6)]
Degrees = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-3600, le=3600)]
Direction = Annotated[tuple[Number, Number, Number], AfterValidator(_direction)]
Row3 = tuple[Number, Number, Number]
Row4 = tuple[Number, Number, Number, Number]
Matrix3 = tuple[Row3, Row3, Row3]
Matrix4 = tuple[Row4, Row4, Row4, Row4]
# A folder's name on any system, and the same in an id.
TrajectoryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$"), AfterValidator(_unreserved)]


class Spec(BaseModel, ABC):
    """What the specs of all presets have in common.

    Attributes:
        name: of the trajectory's folder and id; None: the preset's with a number.
        alias: the name of another system that the spec was written with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TrajectoryName | None = None
    alias: Annotated[str, Field(pattern=r"^[a-z0-9]+:[A-Za-z_ -]{1,40}$")] | None = None

    # The fields that say how far the path goes, and whether ``scaled`` changes anything.
    extent_fields: ClassVar[tuple[str, ...]] = ()
    scalable: ClassVar[bool] = True

    @property
    def extent(self) -> dict[str, float]:
        """How far the path goes: the numbers that ``scaled`` changes."""
        return {field: float(getattr(self, field)) for field in self.extent_fields}

    def scaled(self, factor: float) -> Self:
        """The same path going ``factor`` (0 to 1) as far: its angles, lengths and radii."""
        return self.model_copy(
            update={field: value * factor for field, value in self.extent.items()}
        )

    @abstractmethod
    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """The path from ``start``; ``origin`` is where the whole trajectory starts."""


class _Straight(Spec):
    amount: Length
    unit: LengthUnit = "pivot"
    extent_fields: ClassVar[tuple[str, ...]] = ("amount",)


class _Turn(Spec):
    degrees: Degrees
    extent_fields: ClassVar[tuple[str, ...]] = ("degrees",)


class _Loop(Spec):
    radius_x: Length
    radius_y: Length
    unit: LengthUnit = "pivot"
    extent_fields: ClassVar[tuple[str, ...]] = ("radius_x", "radius_y")


class Dolly(_Straight):
    """Forward by ``amount``; negative: back."""

    preset: Literal["dolly"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.dolly``."""
        return paths.dolly(start, self.amount, frames, unit=self.unit)


class Truck(_Straight):
    """To the right by ``amount``; negative: left."""

    preset: Literal["truck"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.truck``."""
        return paths.truck(start, self.amount, frames, unit=self.unit)


class Pedestal(_Straight):
    """Up by ``amount``; negative: down."""

    preset: Literal["pedestal"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.pedestal``."""
        return paths.pedestal(start, self.amount, frames, unit=self.unit)


class Pan(_Turn):
    """Turn in place to the right by ``degrees``; negative: left."""

    preset: Literal["pan"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.pan``."""
        return paths.pan(start, self.degrees, frames)


class Tilt(_Turn):
    """Turn in place upwards by ``degrees``; negative: down."""

    preset: Literal["tilt"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.tilt``."""
        return paths.tilt(start, self.degrees, frames)


class Roll(_Turn):
    """Turn about the optical axis by ``degrees``, clockwise where positive."""

    preset: Literal["roll"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.roll``."""
        return paths.roll(start, self.degrees, frames)


class Orbit(Spec):
    """Around the pivot: to the right by ``azimuth``, up by ``elevation``, looking at it.

    ``up`` [3], in the start camera's coordinates, is what the azimuth turns about instead of the
    camera's own upward direction: that of the world, where the start camera is pitched.
    """

    preset: Literal["orbit"]
    azimuth: Degrees = 0.0
    elevation: Annotated[Number, Field(ge=-90, le=90)] = 0.0
    up: Direction | None = None
    extent_fields: ClassVar[tuple[str, ...]] = ("azimuth", "elevation")

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.orbit``."""
        up = None if self.up is None else origin.rotation.apply(self.up)
        return paths.orbit(start, self.azimuth, self.elevation, frames, up=up)


class Ellipse(_Loop):
    """A closed loop that rises above the start pose by 2 ``radius_y``, looking at the pivot."""

    preset: Literal["ellipse"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.ellipse``."""
        return paths.ellipse(start, self.radius_x, self.radius_y, frames, unit=self.unit)


class Spiral(_Loop):
    """The ellipse ``turns`` times while moving forward by ``advance``, looking at the pivot."""

    preset: Literal["spiral"]
    advance: Length = 0.0
    turns: Annotated[Number, Field(ge=-20, le=20)] = 2.0
    extent_fields: ClassVar[tuple[str, ...]] = ("radius_x", "radius_y", "advance")

    @model_validator(mode="after")
    def _before_the_pivot(self) -> Self:
        if self.unit == "pivot" and self.advance >= 1:
            raise ValueError(f"advance must be below 1, which is the pivot; got {self.advance:g}")
        return self

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.spiral``."""
        radii = self.radius_x, self.radius_y
        return paths.spiral(start, *radii, self.advance, self.turns, frames, unit=self.unit)


class Figure8(_Loop):
    """A lying eight through the start pose, looking at the pivot."""

    preset: Literal["figure8"]

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.figure8``."""
        return paths.figure8(start, self.radius_x, self.radius_y, frames, unit=self.unit)


class Zoom(Spec):
    """Stand still while the focal length grows to ``factor`` times its own."""

    preset: Literal["zoom"]
    factor: Annotated[Number, Field(ge=0.05, le=20)]
    extent_fields: ClassVar[tuple[str, ...]] = ("factor",)

    def scaled(self, factor: float) -> Self:
        """A share of the zoom, in its logarithm."""
        return self.model_copy(update={"factor": self.factor**factor})

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.zoom``."""
        return paths.zoom(start, self.factor, frames)


class DollyZoom(Spec):
    """Back by ``amount`` of the pivot distance while zooming in: the pivot plane keeps its size."""

    preset: Literal["dolly_zoom"]
    amount: Annotated[Number, Field(gt=-1, le=19)]
    extent_fields: ClassVar[tuple[str, ...]] = ("amount",)

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.dolly_zoom``."""
        return paths.dolly_zoom(start, self.amount, frames)


class Keyframes(Spec):
    """Through given poses, smoothly and at an even pace.

    ``camera_from_world`` [M, 4, 4]: rigid, OpenCV axes; their world is the start camera's
    coordinates, so the identity is the start pose, which need not be among them.
    """

    preset: Literal["keyframes"]
    camera_from_world: Annotated[tuple[Matrix4, ...], Field(min_length=1, max_length=256)]
    unit: LengthUnit = "pivot"

    @model_validator(mode="after")
    def _rigid(self) -> Self:
        check_extrinsics(np.array(self.camera_from_world), "camera_from_world")
        return self

    @property
    def extent(self) -> dict[str, float]:
        """The longest way from the start pose, and the largest turn in degrees."""
        return reach_of(np.array(self.camera_from_world))

    def scaled(self, factor: float) -> Self:
        """All poses drawn towards the start pose, in their places and turns."""
        rotation, centers = _rotations_and_centers(np.array(self.camera_from_world))
        camera_from_start = Rotation.from_rotvec(-factor * rotation.as_rotvec())
        matrices = np.tile(np.eye(4), (len(centers), 1, 1))
        matrices[:, :3, :3] = camera_from_start.as_matrix()
        matrices[:, :3, 3] = -camera_from_start.apply(factor * centers)
        poses = tuple(tuple(tuple(row) for row in matrix) for matrix in matrices.tolist())
        return self.model_copy(update={"camera_from_world": poses})

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.keyframes``."""
        matrices = poses_in_world(np.array(self.camera_from_world), self.unit, origin)
        here = np.asarray(start.camera_from_world, dtype=np.float64)
        # The start pose is the path's first knot in any case.
        if len(matrices) > 1 and np.allclose(matrices[0], here, rtol=0, atol=1e-9):
            matrices = matrices[1:]
        return paths.keyframes(start, matrices, frames)


def poses_in_world(matrices: Float64, unit: LengthUnit, origin: StartPose) -> Float64:
    """Poses that are stated relative to a start camera, in the world that it stands in.

    Args:
        matrices: [N, 4, 4], start camera to camera.
        unit: of their translations.
        origin: the start camera's pose, and the pivot distance.

    Returns:
        camera_from_world [N, 4, 4].
    """
    scaled = matrices.copy()
    scaled[:, :3, 3] *= origin.pivot_distance if unit == "pivot" else 1.0
    return np.asarray(scaled @ np.asarray(origin.camera_from_world, dtype=np.float64))


def reach_of(matrices: Float64) -> dict[str, float]:
    """The longest way of poses [N, 4, 4] from the origin, and their largest turn in degrees."""
    rotation, centers = _rotations_and_centers(matrices)
    longest = np.linalg.norm(centers, axis=-1).max()
    return {"distance": float(longest), "degrees": float(np.degrees(rotation.magnitude().max()))}


def _rotations_and_centers(matrices: Float64) -> tuple[Rotation, Float64]:
    """World from camera, of camera_from_world [N, 4, 4]."""
    rotation = Rotation.from_matrix(matrices[:, :3, :3]).inv()
    return rotation, np.asarray(-rotation.apply(matrices[:, :3, 3]))
