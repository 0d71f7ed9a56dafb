"""Camera paths for scenes that are built from one image.

::

    from worldstereo_client import Client, chain, dolly, orbit, pan

    client.scenes.submit(
        "photo.jpg",
        prompt="A small harbour at noon",
        trajectories=[orbit(azimuth=30, name="right"), chain([pan(20), dolly(0.3)])],
    )

Each function writes one spec; the server checks it and knows its formula. Everything is stated
in the coordinates of the start image's camera: x right, y down, z forward. Lengths are fractions
of the pivot distance, which is the median depth of the start image, or with ``unit="scene"`` in
the depth's own unit (metres where it is metric). Angles are in degrees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import ArrayLike

from worldstereo_client.errors import ParameterError
from worldstereo_client.schemas import TrajectorySpec

Unit = Literal["pivot", "scene"]

# An equals sign tells the fields from the second part of another system's name.
_SHORT = re.compile(r"(?P<preset>(?:[a-z0-9]+:)?[A-Za-z0-9_ -]+)(?::(?P<fields>[^:]*=.*))?")


def dolly(amount: float, *, unit: Unit = "pivot", name: str | None = None) -> TrajectorySpec:
    """Forward by ``amount``; negative: back."""
    return _spec("dolly", name, amount=amount, unit=unit)


def truck(amount: float, *, unit: Unit = "pivot", name: str | None = None) -> TrajectorySpec:
    """To the right by ``amount``; negative: left."""
    return _spec("truck", name, amount=amount, unit=unit)


def pedestal(amount: float, *, unit: Unit = "pivot", name: str | None = None) -> TrajectorySpec:
    """Up by ``amount``; negative: down."""
    return _spec("pedestal", name, amount=amount, unit=unit)


def pan(degrees: float, *, name: str | None = None) -> TrajectorySpec:
    """Turn in place to the right; negative: left."""
    return _spec("pan", name, degrees=degrees)


def tilt(degrees: float, *, name: str | None = None) -> TrajectorySpec:
    """Turn in place upwards; negative: down."""
    return _spec("tilt", name, degrees=degrees)


def roll(degrees: float, *, name: str | None = None) -> TrajectorySpec:
    """Turn about the optical axis, clockwise where positive."""
    return _spec("roll", name, degrees=degrees)


def orbit(
    azimuth: float = 0.0,
    elevation: float = 0.0,
    *,
    up: Sequence[float] | None = None,
    name: str | None = None,
) -> TrajectorySpec:
    """Around the pivot, looking at it: to the right by ``azimuth``, up by ``elevation``.

    Args:
        azimuth: degrees; negative: left.
        elevation: degrees from -90 to 90; negative: down.
        up: [3] what the azimuth turns about, where the start camera is pitched: the world's
            upward direction in the start camera's coordinates; None: the camera's own.
        name: of the trajectory.
    """
    return _spec(
        "orbit", name, azimuth=azimuth, elevation=elevation, up=None if up is None else list(up)
    )


def ellipse(
    radius_x: float, radius_y: float, *, unit: Unit = "pivot", name: str | None = None
) -> TrajectorySpec:
    """A closed loop that rises above the start pose by 2 ``radius_y``, looking at the pivot."""
    return _spec("ellipse", name, radius_x=radius_x, radius_y=radius_y, unit=unit)


def spiral(
    radius_x: float,
    radius_y: float,
    advance: float = 0.0,
    turns: float = 2.0,
    *,
    unit: Unit = "pivot",
    name: str | None = None,
) -> TrajectorySpec:
    """The ellipse ``turns`` times while moving forward by ``advance``."""
    fields = {"radius_x": radius_x, "radius_y": radius_y, "advance": advance, "turns": turns}
    return _spec("spiral", name, **fields, unit=unit)


def figure8(
    radius_x: float, radius_y: float, *, unit: Unit = "pivot", name: str | None = None
) -> TrajectorySpec:
    """A lying eight through the start pose, looking at the pivot."""
    return _spec("figure8", name, radius_x=radius_x, radius_y=radius_y, unit=unit)


def zoom(factor: float, *, name: str | None = None) -> TrajectorySpec:
    """Stand still while the focal length grows to ``factor`` times its own."""
    return _spec("zoom", name, factor=factor)


def dolly_zoom(amount: float, *, name: str | None = None) -> TrajectorySpec:
    """Back by ``amount`` of the pivot distance while zooming in: the subject keeps its size."""
    return _spec("dolly_zoom", name, amount=amount)


def keyframes(
    camera_from_world: ArrayLike, *, unit: Unit = "pivot", name: str | None = None
) -> TrajectorySpec:
    """Through given poses, smoothly and at an even pace.

    Args:
        camera_from_world: [M, 4, 4] rigid, OpenCV axes; the identity is the start pose.
        unit: of the translations.
        name: of the trajectory.
    """
    return _spec("keyframes", name, camera_from_world=_nested(camera_from_world), unit=unit)


def given_cameras(
    camera_from_world: ArrayLike,
    intrinsics: ArrayLike | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
    unit: Unit = "scene",
    name: str | None = None,
) -> TrajectorySpec:
    """Cameras from elsewhere, one a frame, used as they are.

    Args:
        camera_from_world: [N, 4, 4] rigid, OpenCV axes; camera 0 is the identity.
        intrinsics: [N, 3, 3] or [1, 3, 3] in pixels of ``height`` x ``width``; None: the start
            image's.
        height: rows of the image that the intrinsics are stated for.
        width: its columns.
        unit: of the translations.
        name: of the trajectory.
    """
    fields = {
        "camera_from_world": _nested(camera_from_world),
        "intrinsics": None if intrinsics is None else _nested(intrinsics),
        "height": height,
        "width": width,
    }
    return _spec("cameras", name, **fields, unit=unit)


def chain(segments: Sequence[TrajectorySpec], *, name: str | None = None) -> TrajectorySpec:
    """Moves one after the other at an even pace, each from where the one before ended."""
    parts = [segment.model_dump(mode="json", exclude_none=True) for segment in segments]
    return _spec("chain", name, segments=parts)


def read_trajectories(text: str) -> list[TrajectorySpec]:
    """Trajectories as they are written on a command line.

    Args:
        text: ``preset`` or ``preset:field=value,field=value`` (``orbit:azimuth=30,name=right``),
            where the preset may be another system's name (``gen3c:left:distance=0.5``); or the
            path of a JSON file that holds one spec or a list of them.

    Raises:
        ParameterError: it is neither.
    """
    return _read_file(Path(text)) if text.endswith(".json") else [read_trajectory(text)]


def read_trajectory(text: str) -> TrajectorySpec:
    """One trajectory as ``preset`` or ``preset:field=value,field=value``; no file is read.

    Raises:
        ParameterError: it is not one.
    """
    match = _SHORT.fullmatch(text)
    if match is None:
        raise _unreadable(text)
    fields: dict[str, Any] = {}
    for part in filter(None, (match["fields"] or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in ("", "preset"):
            raise _unreadable(text)
        fields[key.strip()] = _value(key.strip(), value.strip())
    return TrajectorySpec.model_validate({**fields, "preset": match["preset"]})


def _value(key: str, text: str) -> Any:
    if key == "name":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_file(path: Path) -> list[TrajectorySpec]:
    try:
        content = json.loads(path.read_text())
        listed = content if isinstance(content, list) else [content]
        return [TrajectorySpec.model_validate(entry) for entry in listed]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, pydantic.ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ParameterError(
            "not a file of trajectories",
            where=str(path),
            got=reason or str(error),
            allowed='JSON: one spec such as {"preset": "orbit", "azimuth": 30}, or a list of them',
        ) from error


def _unreadable(text: str) -> ParameterError:
    return ParameterError(
        "not a trajectory",
        where="trajectory",
        got=repr(text[:200]),
        allowed="preset:field=value,field=value, for example orbit:azimuth=30,name=right; "
        "or a .json file",
    )


def _spec(preset: str, name: str | None, **fields: Any) -> TrajectorySpec:
    given = {key: _plain(value) for key, value in fields.items() if value is not None}
    return TrajectorySpec(preset=preset, name=name, **given)


def _plain(value: Any) -> Any:
    """Numbers of numpy as those that JSON can be made of."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _nested(matrices: ArrayLike) -> list[Any]:
    """Nested lists of the numbers, as JSON has them; one matrix alone becomes a list of one."""
    array = np.asarray(matrices, dtype=np.float64)
    listed: list[Any] = (array[None] if array.ndim == 2 else array).tolist()
    return listed
