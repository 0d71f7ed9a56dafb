"""Trajectories as a caller writes them: presets by name with their numbers, checked.

Owns the list of a scene's trajectories: which specs there are, their names, reading them from
JSON values, and their cameras. Everything is stated in the coordinates of the trajectory's own
start camera (OpenCV axes), whatever its pose in the world is. Lengths are fractions of the pivot
distance, which is the median depth of the start image, or with ``"unit": "scene"`` in the
depth's unit (metres where it is metric). Angles are in degrees. Names of other systems are taken
as well (aliases.py)::

    [{"preset": "orbit", "azimuth": 45, "name": "right"}, {"preset": "seva:move-forward"}]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from scipy.spatial.transform import Rotation, Slerp

from worldstereo.builder.aliases import expand_alias
from worldstereo.builder.presets import (
    Dolly,
    DollyZoom,
    Ellipse,
    Figure8,
    Keyframes,
    Matrix3,
    Matrix4,
    Orbit,
    Pan,
    Pedestal,
    Roll,
    Spec,
    Spiral,
    Tilt,
    Truck,
    Zoom,
    poses_in_world,
    reach_of,
)
from worldstereo.errors import InputError, ParameterError
from worldstereo.formats.cameras import MAX_SIDE, check_extrinsics, check_intrinsics
from worldstereo.formats.clips import thin
from worldstereo.geometry import trajectories as paths
from worldstereo.geometry.camera_path import CameraPath, Float64, StartPose
from worldstereo.geometry.trajectories import FRAMES, LengthUnit
from worldstereo.types import Cameras, Float32

# How far camera 0 of given cameras may be off the start camera: entries of its rotation, and its
# distance as a share of how far the cameras reach.
START_TOLERANCE = 1e-3

_Moves = (
    Dolly
    | Truck
    | Pedestal
    | Pan
    | Tilt
    | Roll
    | Orbit
    | Ellipse
    | Spiral
    | Figure8
    | Zoom
    | DollyZoom
    | Keyframes
)
Move = Annotated[_Moves, Field(discriminator="preset"), BeforeValidator(expand_alias)]


class Chain(Spec):
    """Moves one after the other at an even pace, each from where the one before ended.

    Their ``keyframes`` and ``up`` are stated in the coordinates of the whole chain's start.
    """

    preset: Literal["chain"]
    segments: Annotated[tuple[Move, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _unnamed(self) -> Self:
        for index, segment in enumerate(self.segments):
            if segment.name is not None:
                raise ValueError(f"segments[{index}].name: only the chain itself has a name")
        return self

    @property
    def extent(self) -> dict[str, float]:
        """The extents of all segments."""
        return {
            f"segments[{index}].{field}": value
            for index, segment in enumerate(self.segments)
            for field, value in segment.extent.items()
        }

    def scaled(self, factor: float) -> Self:
        """The same segments, each going ``factor`` as far."""
        return self.model_copy(
            update={"segments": tuple(segment.scaled(factor) for segment in self.segments)}
        )

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """``geometry.trajectories.chain``."""

        def part(move: _Moves) -> Callable[[StartPose, int], CameraPath]:
            return lambda pose, count: move.path(pose, count, origin)

        return paths.chain(start, [part(segment) for segment in self.segments], frames)


class GivenCameras(Spec):
    """Cameras from elsewhere, one a frame, used as they are: never shortened.

    ``camera_from_world`` [N, 4, 4] is rigid, its world the start camera's coordinates: camera 0
    is the identity. More cameras than frames are thinned as published scenes are, fewer are
    interpolated. ``intrinsics`` [N, 3, 3], or one matrix for all, are in pixels of ``height`` x
    ``width``; None: the start image's.
    """

    preset: Literal["cameras"]
    camera_from_world: Annotated[tuple[Matrix4, ...], Field(min_length=2, max_length=4096)]
    intrinsics: Annotated[tuple[Matrix3, ...], Field(min_length=1)] | None = None
    height: Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)] | None = None
    width: Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)] | None = None
    unit: LengthUnit = "scene"
    scalable: ClassVar[bool] = False

    @model_validator(mode="after")
    def _usable(self) -> Self:
        matrices = np.array(self.camera_from_world)
        check_extrinsics(matrices, "camera_from_world")
        turned = np.abs(matrices[0, :3, :3] - np.eye(3)).max()
        moved = np.linalg.norm(matrices[0, :3, 3])
        reach = np.linalg.norm(matrices[:, :3, 3], axis=-1).max()
        if turned > START_TOLERANCE or moved > START_TOLERANCE * reach:
            raise ValueError(
                "camera_from_world[0] must be the identity, since camera 0 takes the start image; "
                f"got {matrices[0].tolist()}"
            )
        if self.intrinsics is not None:
            self._check_intrinsics(self.intrinsics)
        return self

    @classmethod
    def of(cls, cameras: Cameras, name: str | None = None) -> GivenCameras:
        """The spec of cameras [N] in the start camera's coordinates and the scene's unit.

        Raises:
            ParameterError: fewer than two cameras, or camera 0 is not the start camera.
        """
        lenses = cameras.intrinsics
        same = bool((lenses == lenses[:1]).all())
        try:
            return cls(
                preset="cameras",
                name=name,
                camera_from_world=cameras.camera_from_world.tolist(),
                intrinsics=(lenses[:1] if same else lenses).tolist(),
                height=cameras.height,
                width=cameras.width,
            )
        except ValidationError as error:
            raise refused(error, name or "cameras") from error

    def _check_intrinsics(self, intrinsics: tuple[Matrix3, ...]) -> None:
        if self.height is None or self.width is None:
            raise ValueError("height and width must state the image size of the intrinsics")
        if len(intrinsics) not in (1, len(self.camera_from_world)):
            raise ValueError(
                f"intrinsics: got {len(intrinsics)} matrices, allowed: 1, or one for each of the "
                f"{len(self.camera_from_world)} cameras"
            )
        check_intrinsics(np.array(intrinsics), (self.height, self.width), "intrinsics")

    @property
    def extent(self) -> dict[str, float]:
        """The longest way from the start pose, and the largest turn in degrees."""
        return reach_of(np.array(self.camera_from_world))

    def scaled(self, factor: float) -> Self:
        """Themselves."""
        return self

    def path(self, start: StartPose, frames: int, origin: StartPose) -> CameraPath:
        """Poses at ``frames`` even steps through the list; focal lengths relative to camera 0's."""
        matrices = poses_in_world(np.array(self.camera_from_world), self.unit, origin)
        rotation = Rotation.from_matrix(matrices[:, :3, :3]).inv()
        centers = -rotation.apply(matrices[:, :3, 3])
        steps = np.arange(len(matrices))
        at = self._positions(frames)
        focal = np.ones(len(matrices))
        if self.intrinsics is not None and len(self.intrinsics) > 1:
            focal = np.array(self.intrinsics)[:, 0, 0]
        return CameraPath(
            Slerp(steps, rotation)(at),
            np.stack([np.interp(at, steps, axis) for axis in centers.T], axis=-1),
            np.interp(at, steps, focal / focal[0]),
        )

    def given_intrinsics(self, height: int, width: int, frames: int) -> Float32 | None:
        """Intrinsics [frames, 3, 3] in pixels of ``height`` x ``width``; None: none were given."""
        if self.intrinsics is None:
            return None
        assert self.height is not None, self
        assert self.width is not None, self
        matrices = np.array(self.intrinsics)
        if len(matrices) == 1:
            matrices = np.repeat(matrices, len(self.camera_from_world), axis=0)
        matrices[:, 0] *= width / self.width
        matrices[:, 1] *= height / self.height
        steps, at = np.arange(len(matrices)), self._positions(frames)
        rows = [np.interp(at, steps, entry) for entry in matrices.reshape(-1, 9).T]
        return np.stack(rows, axis=-1).reshape(frames, 3, 3).astype(np.float32)

    def _positions(self, frames: int) -> Float64:
        count = len(self.camera_from_world)
        if count >= frames:
            return np.array(thin(count, frames), dtype=np.float64)
        return np.linspace(0, count - 1, frames)


_Specs = _Moves | Chain | GivenCameras
TrajectorySpec = Annotated[_Specs, Field(discriminator="preset"), BeforeValidator(expand_alias)]

_LIST: TypeAdapter[tuple[TrajectorySpec, ...]] = TypeAdapter(tuple[TrajectorySpec, ...])
_PRESETS = (
    *("dolly", "truck", "pedestal", "pan", "tilt", "roll", "orbit", "ellipse", "spiral"),
    *("figure8", "zoom", "dolly_zoom", "keyframes", "chain", "cameras"),
)
_ALLOWED = ", ".join(_PRESETS)


def path_of(spec: TrajectorySpec, start: StartPose, frames: int = FRAMES) -> CameraPath:
    """The path of a trajectory.

    Args:
        spec: in the coordinates of the start camera.
        start: where that stands, and the pivot distance.
        frames: >= 2.

    Raises:
        ParameterError: the path reaches the pivot that it looks at; fewer than two frames.
    """
    return spec.path(start, frames, start)


def cameras_of(
    spec: TrajectorySpec,
    start: StartPose,
    intrinsics: Float32,
    height: int,
    width: int,
    frames: int = FRAMES,
) -> Cameras:
    """The cameras of a trajectory.

    Args:
        spec: in the coordinates of the start camera.
        start: where that stands, and the pivot distance.
        intrinsics: [3, 3] of the start image, in pixels of ``height`` x ``width``.
        height: rows of the image that the result's intrinsics are stated for.
        width: its columns.
        frames: >= 2.

    Returns:
        ``frames`` cameras. Where the spec gives intrinsics of its own these are used.

    Raises:
        ParameterError: the path reaches the pivot that it looks at; fewer than two frames.
    """
    path = path_of(spec, start, frames)
    given = None
    if isinstance(spec, GivenCameras):
        given = spec.given_intrinsics(height, width, frames)
    # Adding 0 turns -0 into 0, which files state otherwise.
    return Cameras(
        path.camera_from_world + np.float32(0),
        path.intrinsics(intrinsics) if given is None else given,
        height,
        width,
    )


def trajectory_names(specs: Sequence[TrajectorySpec]) -> tuple[str, ...]:
    """The name of each trajectory: its own, or its preset's with the first number that is free.

    Raises:
        ParameterError: two have one name (upper and lower case count as the same).
    """
    taken: set[str] = set()
    for index, spec in enumerate(specs):
        if spec.name is not None and spec.name.lower() in taken:
            raise ParameterError(
                "two trajectories have one name",
                where=f"trajectories[{index}].name",
                got=repr(spec.name),
                allowed="names that differ in more than upper and lower case",
            )
        taken |= {spec.name.lower()} if spec.name is not None else set()
    names = []
    for spec in specs:
        if spec.name is not None:
            names.append(spec.name)
            continue
        word, number = (spec.alias or spec.preset).translate(str.maketrans(":- ", "___")), 0
        while f"{word}_{number}".lower() in taken:
            number += 1
        names.append(f"{word}_{number}")
        taken.add(names[-1].lower())
    return tuple(names)


def trajectory_specs(values: object, where: str = "trajectories") -> tuple[TrajectorySpec, ...]:
    """Specs from JSON values.

    Args:
        values: a list of objects with a field ``preset``.
        where: how errors call the list.

    Raises:
        ParameterError: naming the entry and the field, what it holds and what is allowed.
    """
    try:
        return _LIST.validate_python(values)
    except ValidationError as error:
        raise refused(error, where) from error


def refused(error: ValidationError, where: str) -> ParameterError:
    """A validation error as the engine's: its first problem, with the field's place in JSON.

    Args:
        error: of a spec, or of a model that holds some.
        where: how the error calls the value that was validated; may be empty.
    """
    first = error.errors(include_url=False)[0]
    place = where
    for index, part in enumerate(first["loc"]):
        # The tag of a union stands behind the entry's number or field; it is no field.
        if part in _PRESETS and index > 0 and isinstance(first["loc"][index - 1], int):
            continue
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    details = first.get("ctx", {})
    cause: Any = details.get("error")
    if isinstance(cause, InputError):
        fields = {**cause.fields, "where": f"{place}.{cause.where}".strip(".")}
        return ParameterError(**fields)
    what, got, allowed = first["msg"].removeprefix("Value error, "), first["input"], None
    if first["type"] == "union_tag_invalid":
        place, what, got = f"{place}.preset", "unknown preset", details["tag"]
        allowed = details["expected_tags"]
    elif first["type"] == "union_tag_not_found":
        place, what, allowed = f"{place}.preset", "a trajectory names its preset", _ALLOWED
    return ParameterError(what, where=place.strip(".") or None, got=_shown(got), allowed=allowed)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
