"""The parts that things are built from, by where they stand: heights count upwards.

Owns the step from heights above the ground to the layout's axes, where y points down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worldstereo.synthetic.layout import Material, Part, Piece
from worldstereo.synthetic.solids import bounds


def block(
    x: float,
    bottom: float,
    z: float,
    size: tuple[float, float, float],
    material: Material,
) -> Part:
    """A box of ``size`` (width, height, depth) around (x, z) that stands at height ``bottom``."""
    width, height, depth = size
    center = (x, -bottom - height / 2, z)
    return Part("box", center, (width / 2, height / 2, depth / 2), material)


def ball(x: float, bottom: float, z: float, radius: float, material: Material) -> Part:
    """A ball that lies at height ``bottom``."""
    return Part("sphere", (x, -bottom - radius, z), (radius, radius, radius), material)


def post(
    x: float, bottom: float, z: float, radius: float, height: float, material: Material
) -> Part:
    """A standing cylinder."""
    return Part("cylinder", (x, -bottom - height / 2, z), (radius, height / 2, radius), material)


def legs(width: float, depth: float, height: float, thick: float, material: Material) -> list[Part]:
    """Four legs under a top of ``width`` x ``depth``."""
    x, z = width / 2 - thick, depth / 2 - thick
    return [
        block(sx * x, 0, sz * z, (thick, height, thick), material)
        for sx in (-1, 1)
        for sz in (-1, 1)
    ]


def moved(parts: Sequence[Part], x: float, bottom: float, z: float) -> list[Part]:
    """Parts moved to another place in their piece."""
    return [
        replace(part, center=(part.center[0] + x, part.center[1] - bottom, part.center[2] + z))
        for part in parts
    ]


def height_of(piece: Piece) -> float:
    """How high a piece reaches above the ground."""
    return -bounds(piece)[0][1]
