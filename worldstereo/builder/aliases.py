"""Camera paths by the names that other systems gave them.

Owns the table and what each name becomes: a preset of ours with the same geometry, in fractions
of the pivot distance. An alias stands where a preset's name does, ``{"preset": "gen3c:left"}``,
beside ``name`` and the parameters that the table lists. Descriptions follow the systems'
published documentation and code as read, not their words: signs differ between them.

SEVA (Stable Virtual Camera), lengths in distances to its look-at point::

    seva:orbit              a full turn about the pivot
    seva:spiral             radii 0.5, 0.5, advance 0.2, two turns
    seva:lemniscate         an eight as wide as Bernoulli's with a = tan 30 degrees
    seva:zoom-in, -out      field of view x 0.28, x 1.5, at SEVA's default of 54 degrees
    seva:dolly zoom-in, -out  the same zooms while the pivot plane keeps its size
    seva:move-forward, -backward          0.99 along the optical axis
    seva:move-left, -right, -up, -down    0.99 sideways, looking at the pivot
    seva:pan-left, -right, -up, -down     0.99 sideways without turning
    seva:roll               360 degrees

GEN3C, ``distance`` (default 0.3) of the centre's depth::

    gen3c:left, right, up, down   sideways; "rotation": "center_facing" (default: looking at the
                                  pivot) or "no_rotation"
    gen3c:zoom_in, zoom_out       along the optical axis: the camera moves, it does not zoom
    gen3c:clockwise, counterclockwise   a circle of that radius through the start pose

WorldStereo and WorldNav, whose angles have the opposite signs of ours::

    worldstereo:rotation    phi > 0 moves the camera left, theta < 0 raises it; degrees
    worldstereo:aerial      theta first, then phi about the vertical; degrees
    worldstereo:eloop       rx, ry (0.3, 0.4)
    worldstereo:forward, worldstereo:right   v (1) times half the pivot distance
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worldstereo.errors import ParameterError

Fields = dict[str, Any]

# SEVA's default field of view, and the factors of its zooms.
_SEVA_HALF_FOV = math.radians(27)
_ZOOM_IN = math.tan(_SEVA_HALF_FOV) / math.tan(0.28 * _SEVA_HALF_FOV)
_ZOOM_OUT = math.tan(_SEVA_HALF_FOV) / math.tan(1.5 * _SEVA_HALF_FOV)
_SEVA_MOVE = 0.99
# Bernoulli's lemniscate of half-width a is 2 a / sqrt(8) high.
_LEMNISCATE = math.tan(math.radians(30))
# WorldNav's translations are half the median depth at v = 1.
_AIR_BOUND = 0.5
# Fields that every spec has, which an alias passes on.
_COMMON = ("name",)


@dataclass(frozen=True)
class Alias:
    """What an alias becomes, given its parameters, and their defaults."""

    fields: Callable[..., Fields]
    parameters: Mapping[str, float | str] = field(default_factory=dict)


def expand_alias(value: Any) -> Any:
    """A spec's JSON value with the preset that an alias stands for; other values as they are.

    Raises:
        ParameterError: no such alias; a parameter that it does not have, or of another kind.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("preset"), str):
        return value
    name = value["preset"]
    if ":" not in name:
        return value
    if name not in ALIASES:
        system = f"{name.partition(':')[0]}:"
        near = [other for other in ALIASES if other.startswith(system)] or list(ALIASES)
        raise ParameterError(
            "unknown camera path", where="preset", got=repr(name), allowed=", ".join(near)
        )
    alias = ALIASES[name]
    given = {key: value[key] for key in value if key not in ("preset", *_COMMON)}
    for key in given:
        _check_parameter(key, given[key], name, alias)
    fields = alias.fields(**{**alias.parameters, **given})
    common = {key: value[key] for key in _COMMON if key in value}
    return {**fields, **common, "alias": name}


def _check_parameter(key: str, value: object, name: str, alias: Alias) -> None:
    if key not in alias.parameters:
        raise ParameterError(
            f"{name} has no such field",
            where=key,
            got=repr(value)[:80],
            allowed=", ".join([*alias.parameters, *_COMMON]),
        )
    if isinstance(alias.parameters[key], str):
        if value not in ("center_facing", "no_rotation"):
            raise ParameterError(
                "unknown rotation",
                where=key,
                got=repr(value)[:80],
                allowed="center_facing, no_rotation",
            )
    elif type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ParameterError(
            "not a number", where=key, got=repr(value)[:80], allowed="a finite number"
        )


def _facing(right: float, up: float) -> Fields:
    """Straight sideways at an even pace, looking at the pivot: a quarter of a spiral's turn."""
    quarter = {"preset": "spiral", "radius_x": right, "radius_y": up, "turns": 0.25}
    return {"preset": "chain", "segments": [quarter]}


def _sideways(right: float, up: float) -> Callable[..., Fields]:
    def fields(distance: float, rotation: str) -> Fields:
        if rotation == "center_facing":
            return _facing(right * distance, up * distance)
        preset, amount = ("truck", right) if right else ("pedestal", up)
        return {"preset": preset, "amount": amount * distance}

    return fields


def _aerial(phi: float, theta: float) -> Fields:
    rise = {"preset": "orbit", "elevation": -theta}
    turn = {"preset": "orbit", "azimuth": -phi, "up": [0, -1, 0]}
    return {"preset": "chain", "segments": [rise, turn]}


def _always(**fields: Any) -> Alias:
    return Alias(lambda: dict(fields))


_GEN3C: dict[str, float | str] = {"distance": 0.3, "rotation": "center_facing"}
_DISTANCE = {"distance": 0.3}

ALIASES: dict[str, Alias] = {
    "seva:orbit": _always(preset="orbit", azimuth=360),
    "seva:spiral": _always(preset="spiral", radius_x=0.5, radius_y=0.5, advance=0.2, turns=2),
    "seva:lemniscate": _always(
        preset="figure8", radius_x=_LEMNISCATE, radius_y=_LEMNISCATE / math.sqrt(8)
    ),
    "seva:zoom-in": _always(preset="zoom", factor=_ZOOM_IN),
    "seva:zoom-out": _always(preset="zoom", factor=_ZOOM_OUT),
    "seva:dolly zoom-in": _always(preset="dolly_zoom", amount=_ZOOM_IN - 1),
    "seva:dolly zoom-out": _always(preset="dolly_zoom", amount=_ZOOM_OUT - 1),
    "seva:move-forward": _always(preset="dolly", amount=_SEVA_MOVE),
    "seva:move-backward": _always(preset="dolly", amount=-_SEVA_MOVE),
    "seva:move-left": _always(**_facing(-_SEVA_MOVE, 0)),
    "seva:move-right": _always(**_facing(_SEVA_MOVE, 0)),
    "seva:move-up": _always(**_facing(0, _SEVA_MOVE)),
    "seva:move-down": _always(**_facing(0, -_SEVA_MOVE)),
    "seva:pan-left": _always(preset="truck", amount=-_SEVA_MOVE),
    "seva:pan-right": _always(preset="truck", amount=_SEVA_MOVE),
    "seva:pan-up": _always(preset="pedestal", amount=_SEVA_MOVE),
    "seva:pan-down": _always(preset="pedestal", amount=-_SEVA_MOVE),
    "seva:roll": _always(preset="roll", degrees=360),
    "gen3c:left": Alias(_sideways(-1, 0), _GEN3C),
    "gen3c:right": Alias(_sideways(1, 0), _GEN3C),
    "gen3c:up": Alias(_sideways(0, 1), _GEN3C),
    "gen3c:down": Alias(_sideways(0, -1), _GEN3C),
    "gen3c:zoom_in": Alias(lambda distance: {"preset": "dolly", "amount": distance}, _DISTANCE),
    "gen3c:zoom_out": Alias(lambda distance: {"preset": "dolly", "amount": -distance}, _DISTANCE),
    "gen3c:clockwise": Alias(
        lambda distance: {"preset": "ellipse", "radius_x": -distance, "radius_y": distance},
        _DISTANCE,
    ),
    "gen3c:counterclockwise": Alias(
        lambda distance: {"preset": "ellipse", "radius_x": distance, "radius_y": distance},
        _DISTANCE,
    ),
    "worldstereo:rotation": Alias(
        lambda phi, theta: {"preset": "orbit", "azimuth": -phi, "elevation": -theta},
        {"phi": 0.0, "theta": 0.0},
    ),
    "worldstereo:aerial": Alias(_aerial, {"phi": 0.0, "theta": 0.0}),
    "worldstereo:eloop": Alias(
        lambda rx, ry: {"preset": "ellipse", "radius_x": rx, "radius_y": ry},
        {"rx": 0.3, "ry": 0.4},
    ),
    "worldstereo:forward": Alias(
        lambda v: {"preset": "dolly", "amount": _AIR_BOUND * v}, {"v": 1.0}
    ),
    "worldstereo:right": Alias(lambda v: {"preset": "truck", "amount": _AIR_BOUND * v}, {"v": 1.0}),
}
