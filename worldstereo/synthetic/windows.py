"""Windows: a pane that shows the outside, its frame, curtains, and where the sun stands.

Owns where a room's window is and what it is made of. The light that it lets in is set in
rooms.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from worldstereo.synthetic import palette
from worldstereo.synthetic.blocks import block
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Material, Part, Piece, Vector
from worldstereo.synthetic.palette import WHITE, of, scaled


@dataclass(frozen=True)
class Window:
    """A window in a wall.

    Attributes:
        center: of the pane, in the layout, on the wall.
        half: half sizes; 0 across the wall.
        axis: 2 for the far wall, 0 for a side wall.
        yaw: of pieces that hang at this wall.
        sun: direction of the sunlight that comes in, or None.
    """

    center: Vector
    half: Vector
    axis: int
    yaw: float
    sun: Vector | None


def make_window(draw: Draw, half_x: float, half_z: float, height: float) -> Window:
    """Draw where a room's window is: in the far wall, or in the far part of a side wall."""
    wide, tall = draw.uniform(0.5, 0.85), draw.uniform(0.42, 0.55)
    middle = -min(1.55, height - tall - 0.25)
    wall = draw.choice(["far", "far", "left", "right"])
    down, aside = draw.uniform(0.5, 0.9), draw.uniform(-0.6, 0.6)
    sunny = draw.chance(0.6)
    if wall == "far":
        x = draw.uniform(-1, 1) * (half_x - wide - 0.4)
        sun = (aside, down, -1.0) if sunny else None
        return Window((x, middle, half_z), (wide, tall, 0), 2, 0.0, sun)
    side = -1.0 if wall == "left" else 1.0
    z = draw.uniform(-0.1, 0.9) * (half_z - wide - 0.4)
    sun = (-side, down, aside) if sunny else None
    return Window((side * half_x, middle, z), (0, tall, wide), 0, side * math.pi / 2, sun)


def window_piece(draw: Draw, window: Window) -> tuple[Piece, Piece]:
    """Frame, bars, sill and curtains; and the pane, which casts no shadow."""
    wide, tall = max(window.half[0], window.half[2]), window.half[1]
    frame = of("plain", WHITE, salt=4)
    thick = 0.05
    parts = [
        _bar(-wide - thick / 2, 0, thick, 2 * tall + 2 * thick, frame),
        _bar(wide + thick / 2, 0, thick, 2 * tall + 2 * thick, frame),
        _bar(0, -tall - thick / 2, 2 * wide, thick, frame),
        _bar(0, tall + thick / 2, 2 * wide + 0.2, thick, frame, 0.12),
        _bar(0, 0, 0.035, 2 * tall, frame),
        _bar(0, -0.15 * tall, 2 * wide, 0.03, frame),
    ]
    phrase = "a window that shows a blue sky over green hills"
    if draw.chance(0.5):
        name, color = (palette.strong_color if draw.chance(0.5) else palette.soft_color)(draw)
        cloth = of("striped", color, scaled(color, 0.72), scale=0.035, salt=2)
        for side in (-1, 1):
            parts.append(_bar(side * (wide + 0.2), 0.12, 0.3, 2 * tall + 0.4, cloth, 0.07))
        rod = Part("cylinder", (0, -tall - 0.13, -0.06), (wide + 0.45, 0.014, 0.014), frame, 0)
        parts.append(rod)
        phrase = f"a window with {name} curtains"
    green = draw.choice([(0.13, 0.32, 0.09), (0.22, 0.36, 0.1), (0.08, 0.26, 0.14)])
    pane = of(
        "view", (0.28, 0.52, 0.95), (0.9, 0.96, 1.0), green, salt=draw.integer(1, 999), glow=0.95
    )
    glass = block(0, -tall, -0.004, (2 * wide, 2 * tall, 0.008), pane)
    return (
        Piece(phrase, tuple(parts), window.center, window.yaw),
        Piece("", (glass,), window.center, window.yaw, casts_shadow=False),
    )


def _bar(
    x: float, y: float, width: float, height: float, look: Material, depth: float = 0.04
) -> Part:
    return block(x, -y - height / 2, -depth / 2, (width, height, depth), look)
