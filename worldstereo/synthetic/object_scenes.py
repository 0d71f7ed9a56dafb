"""Open-air scenes: several things on a ground under a sky.

Owns the layout of worlds of the kind ``objects``. The sky is a dome, so that every pixel has a
finite depth; it and the ground far away lie beyond the layout's reach.
"""

from __future__ import annotations

import math
from dataclasses import replace

from worldstereo.synthetic import palette
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Color, Layout, Light, Material, Part, Piece
from worldstereo.synthetic.monuments import MONUMENTS, garden_wall, tree
from worldstereo.synthetic.palette import of, scaled
from worldstereo.synthetic.solids import bounds

# Radius of the sky, and how far from the camera things count as the scene, in metres.
DOME, REACH = 24.0, 11.0
# Radius of the ring of ground that things stand on.
STAGE = 1.9


def objects_scene(draw: Draw) -> Layout:
    """Draw a scene; whether its start view is a good one is for the caller to judge."""
    words, ground = _ground(draw)
    mood, sky, sun, ambient = _weather(draw)
    shell = Piece(
        "",
        (
            Part("plane", (0, 0, 0), (DOME, 0, DOME), ground, 1, -1),
            Part("dome", (0, 0, 0), (DOME, DOME, DOME), sky),
        ),
    )
    distance = draw.uniform(3.6, 4.5)
    yaw = draw.uniform(-0.2, 0.2)
    camera = (-distance * math.sin(yaw), -draw.uniform(1.0, 1.35), -distance * math.cos(yaw))
    pieces = _things(draw, camera[0], camera[2])
    pieces += _background(draw)
    return Layout(
        pieces=(shell, *pieces),
        lights=(sun, Light((0, -12, 0), 1.0, (0.1, 0.12, 0.16), 1.0, 0.0, False)),
        beam=None,
        ambient=ambient,
        position=camera,
        yaw=yaw,
        field_of_view=math.radians(draw.uniform(60, 70)),
        reach=REACH,
        setting=f"{mood} {words}.",
    )


def _things(draw: Draw, camera_x: float, camera_z: float) -> list[Piece]:
    """Different things that stand apart from each other."""
    pieces: list[Piece] = []
    for make in draw.shuffled(MONUMENTS)[: draw.integer(5, 7)]:
        piece = make(draw)
        for _ in range(20):
            angle, radius = draw.uniform(-math.pi, math.pi), STAGE * math.sqrt(draw.uniform(0, 1))
            place = (1.15 * radius * math.sin(angle), 0.0, radius * math.cos(angle))
            turned = replace(piece, position=place, yaw=draw.uniform(-0.7, 0.7))
            if _off(turned, camera_x, camera_z) > 1.75 and not any(
                _touch(turned, other, 0.12) for other in pieces
            ):
                pieces.append(turned)
                break
    return pieces


def _background(draw: Draw) -> list[Piece]:
    """A wall behind the things, trees beside it, or trees alone."""
    pieces: list[Piece] = []
    if draw.chance(0.65):
        turn = draw.uniform(-0.25, 0.25)
        place = (draw.uniform(-1, 1), 0.0, draw.uniform(4.0, 5.5))
        pieces.append(replace(garden_wall(draw), position=place, yaw=turn))
    for _ in range(draw.integer(2, 5)):
        angle, radius = draw.uniform(-0.9, 0.9), draw.uniform(4.2, 6.6)
        place = (radius * math.sin(angle), 0.0, radius * math.cos(angle))
        placed = replace(tree(draw), position=place, yaw=draw.uniform(-3, 3))
        if not any(_touch(placed, other, 0.1) for other in pieces):
            pieces.append(placed)
    return pieces


def _off(piece: Piece, x: float, z: float) -> float:
    low, high = bounds(piece)
    return math.hypot(max(low[0] - x, 0.0, x - high[0]), max(low[2] - z, 0.0, z - high[2]))


def _touch(one: Piece, other: Piece, gap: float) -> bool:
    (low, high), (other_low, other_high) = bounds(one), bounds(other)
    return all(
        low[axis] < other_high[axis] + gap and other_low[axis] < high[axis] + gap for axis in (0, 2)
    )


def _ground(draw: Draw) -> tuple[str, Material]:
    kind = draw.choice(["grass", "tiles", "gravel", "checker", "wood", "bricks"])
    salt = draw.integer(1, 10**6)
    if kind == "grass":
        return "on a green lawn", of(
            "leaves", (0.1, 0.22, 0.04), (0.2, 0.36, 0.08), (0.36, 0.5, 0.16), salt=salt
        )
    if kind == "gravel":
        return "on sandy ground", of("gravel", (0.6, 0.48, 0.3), (0.48, 0.36, 0.22), salt=salt)
    if kind == "wood":
        name = draw.choice(list(palette.WOODS))
        dark, light = (palette.linear(color) for color in palette.WOODS[name])
        return f"on a deck of {name}", of("wood", dark, light, scale=0.2, salt=salt)
    if kind == "bricks":
        return "on red paving bricks", of(
            "bricks",
            (0.38, 0.17, 0.11),
            (0.5, 0.26, 0.17),
            (0.3, 0.28, 0.25),
            scale=0.12,
            salt=salt,
        )
    name, color = palette.soft_color(draw)
    size = draw.uniform(0.4, 0.7)
    if kind == "checker":
        other, second = palette.strong_color(draw, ("white", "yellow"))
        return f"on {name} and {other} checkered paving", of(
            "checker", scaled(color, 0.85), scaled(second, 0.8), scale=size, salt=salt
        )
    return f"on {name} paving stones", of(
        "tiles", scaled(color, 0.85), scaled(color, 0.65), (0.2, 0.19, 0.18), scale=size, salt=salt
    )


def _weather(
    draw: Draw,
) -> tuple[str, Material, Light, tuple[Color, Color]]:
    """Words, the sky, the sun, and the light of the sky and of the ground."""
    mood, zenith, horizon, warm, power = draw.choice(
        [
            ("A sunny day", (0.1, 0.3, 0.78), (0.68, 0.82, 0.95), (1.0, 0.93, 0.82), 1.25),
            ("A clear morning", (0.22, 0.42, 0.75), (0.92, 0.84, 0.7), (1.0, 0.85, 0.66), 1.15),
            ("A golden evening", (0.28, 0.3, 0.55), (0.95, 0.6, 0.32), (1.0, 0.68, 0.4), 1.2),
            ("A cloudy day", (0.5, 0.56, 0.64), (0.8, 0.83, 0.86), (0.95, 0.97, 1.0), 0.6),
        ]
    )
    hill = draw.choice([(0.16, 0.3, 0.12), (0.24, 0.32, 0.2), (0.3, 0.33, 0.4)])
    sky = of("sky", zenith, horizon, hill, salt=draw.integer(1, 10**6), glow=0.95)
    # The sun stands at the camera's side of the scene or beside it: what is seen is lit.
    angle, height = draw.uniform(0.5, 1.4) * draw.choice([-1, 1]), draw.uniform(0.5, 1.1)
    flat = 200 * math.cos(height)
    position = (flat * math.sin(angle), -200 * math.sin(height), -flat * math.cos(angle))
    color = (warm[0] * power, warm[1] * power, warm[2] * power)
    sun = Light(position, 3.0 if power > 1 else 14.0, color, 1.0, 0.0)
    above = palette.blended((0.4, 0.42, 0.46), zenith, 0.3)
    return mood, sky, sun, (above, (0.24, 0.23, 0.2))
