"""Places on surfaces: normals, coordinates for textures, and colours before any light.

Owns what a hit means. The textures themselves lie in textures.py, the light in raycast.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldstereo.synthetic.layout import Material, Piece
from worldstereo.synthetic.solids import Axes, taken
from worldstereo.synthetic.textures import TEXTURES, Spots

SHAPES = ("box", "sphere", "cylinder", "plane", "dome")
# A surface is seen this obliquely at most, where the width of a ray on it counts.
GRAZING = 0.12


@dataclass(frozen=True, eq=False)
class Hits:
    """Where R rays met parts: ``distance`` [R] in lengths of ``direction``, ``part`` [R]."""

    origin: Axes
    direction: Axes
    distance: Tensor
    part: Tensor


@dataclass(frozen=True, eq=False)
class Surface:
    """R places on surfaces.

    Attributes:
        point, normal: in the layout; normals have length one and look at the viewer's side.
        local: from the part's centre, in the piece's frame.
        local_normal: in the piece's frame.
        footprint: [R] width in metres that one ray stands for.
        part: [R] int64.
    """

    point: Axes
    normal: Axes
    local: Axes
    local_normal: Axes
    footprint: Tensor
    part: Tensor


class SurfaceTable:
    """What is known of every part of a layout, to be looked up by part."""

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        rows, self.materials = [], []
        for piece in pieces:
            turn = (math.cos(piece.yaw), math.sin(piece.yaw))
            for part in piece.parts:
                shape = SHAPES.index(part.shape)
                rows.append(
                    [*piece.position, *turn, *part.center, *part.half, shape, part.axis, part.side]
                )
                self.materials.append(part.material)
        self.columns = torch.tensor(rows, dtype=torch.float32, device=device).T.contiguous()
        self.names = sorted({material.texture for material in self.materials})
        looks = [_look(material, self.names) for material in self.materials]
        self.looks = torch.tensor(looks, dtype=torch.float32, device=device).T.contiguous()
        salts = [material.salt % (1 << 20) for material in self.materials]
        self.salts = torch.tensor(salts, dtype=torch.int32, device=device)

    def surface(self, hits: Hits, width: Tensor) -> Surface:
        """The surfaces that rays met; ``width`` [R]: of a ray at depth 1."""
        point = (
            hits.origin[0] + hits.distance * hits.direction[0],
            hits.origin[1] + hits.distance * hits.direction[1],
            hits.origin[2] + hits.distance * hits.direction[2],
        )
        found = self.at(point, hits.part, width)
        d, n = hits.direction, found.normal
        length = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]).sqrt()
        slope = (d[0] * n[0] + d[1] * n[1] + d[2] * n[2]).abs() / length
        footprint = hits.distance * width / slope.clamp(min=GRAZING)
        return Surface(point, n, found.local, found.local_normal, footprint, hits.part)

    def at(self, point: Axes, part: Tensor, footprint: Tensor) -> Surface:
        """The surfaces at points [R] of the layout that lie on parts [R]."""
        column = self.columns[:, part]
        cosine, sine = column[3], column[4]
        x, y, z = point[0] - column[0], point[1] - column[1], point[2] - column[2]
        local = (
            cosine * x - sine * z - column[5],
            y - column[6],
            sine * x + cosine * z - column[7],
        )
        normal = _normals(local, (column[8], column[9], column[10]), *column[11:14])
        outer = (cosine * normal[0] + sine * normal[2], normal[1], cosine * normal[2])
        outer = (outer[0], outer[1], outer[2] - sine * normal[0])
        return Surface(point, outer, local, normal, footprint, part)

    def colors(self, surface: Surface) -> tuple[Axes, Tensor]:
        """Colours [R] without light, and the share of them that glows."""
        column = self.columns[8:13][:, surface.part]
        half = (column[0], column[1], column[2])
        places = _coordinates(surface, half, column[3], column[4])
        look = self.looks[:, surface.part]
        turned = look[12] > 0
        u, v, nu, nv = places
        u, v = torch.where(turned, v, u), torch.where(turned, u, v)
        nu, nv = torch.where(turned, nv, nu), torch.where(turned, nu, nv)
        mixes = torch.zeros(3, len(u), device=u.device)
        for number, name in enumerate(self.names):
            own = (look[9] == number).nonzero()[:, 0]
            if len(own) == 0:
                continue
            spots = Spots(
                u[own],
                v[own],
                nu[own],
                nv[own],
                *taken(surface.local, own),
                surface.footprint[own],
                look[10][own],
                self.salts[surface.part[own]],
            )
            mixes[:, own] = torch.stack(TEXTURES[name](spots))
        first, second, gain = mixes
        colors = []
        for channel in range(3):
            one, two, three = look[channel], look[channel + 3], look[channel + 6]
            color = one + first * (two - one)
            colors.append((color + second * (three - color)) * gain)
        return (colors[0], colors[1], colors[2]), look[11]


def _look(material: Material, names: Sequence[str]) -> list[float]:
    colors = [value for color in material.colors for value in color]
    number = names.index(material.texture)
    return [*colors, number, material.scale, material.glow, float(material.turned)]


def _normals(local: Axes, half: Axes, shape: Tensor, axis: Tensor, side: Tensor) -> Axes:
    """Unit normals of parts at places on their surfaces."""
    x, y, z = local
    ratio = [(local[k] / half[k].clamp(min=1e-6)).abs() for k in range(3)]
    length = (x * x + y * y + z * z).sqrt().clamp(min=1e-9)
    is_box, is_cylinder = shape == 0, shape == 2
    is_plane, is_dome = shape == 3, shape == 4
    along = [(axis == k).float() for k in range(3)]
    # A cylinder: its cap where the place lies nearer to the end than to the side.
    across = [local[k] * (1 - along[k]) for k in range(3)]
    radius = (across[0] * across[0] + across[1] * across[1] + across[2] * across[2]).sqrt()
    wide = sum(half[k] * (1 - along[k]) for k in range(3)) * 0.5
    height = sum(ratio[k] * along[k] for k in range(3))
    cap = height * wide >= radius
    largest = torch.maximum(torch.maximum(ratio[0], ratio[1]), ratio[2])
    first = ratio[0] == largest
    second = (ratio[1] == largest) & ~first
    faces = (first, second, ~first & ~second)
    found = []
    for k in range(3):
        sign = torch.where(local[k] < 0, -1.0, 1.0)
        value = local[k] / length
        value = torch.where(is_dome, -value, value)
        value = torch.where(is_box, faces[k].float() * sign, value)
        tube = torch.where(cap, along[k] * sign, across[k] / radius.clamp(min=1e-9))
        value = torch.where(is_cylinder, tube, value)
        found.append(torch.where(is_plane, along[k] * side, value))
    return found[0], found[1], found[2]


def _coordinates(
    surface: Surface, half: Axes, shape: Tensor, axis: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u and v in metres, and in half sizes of the part."""
    x, y, z = surface.local
    n = surface.local_normal
    size = tuple(value.clamp(min=1e-6) for value in half)
    facing_x, facing_y = n[0].abs() > 0.7, n[1].abs() > 0.7
    u, v = torch.where(facing_x, z, x), torch.where(facing_y, z, y)
    nu = torch.where(facing_x, z / size[2], x / size[0])
    nv = torch.where(facing_y, z / size[2], y / size[1])
    # Around balls, domes, and the sides of cylinders: the angle, and the height above the middle.
    is_tube = (shape == 2) & (torch.where(axis == 0, n[0], 0.0).abs() < 0.5)
    is_tube = is_tube & (torch.where(axis == 1, n[1], 0.0).abs() < 0.5)
    is_tube = is_tube & (torch.where(axis == 2, n[2], 0.0).abs() < 0.5)
    is_round = is_tube | (shape == 1) | (shape == 4)
    standing = (axis == 1) | ~is_tube
    b, c = torch.where(axis == 0, y, x), torch.where(standing | (axis == 0), z, y)
    b, c = torch.where(standing, x, b), torch.where(standing, z, c)
    angle = _turn(b, c)
    height = torch.where(standing, y, torch.where(axis == 0, x, z))
    length = torch.where(standing, size[1], torch.where(axis == 0, size[0], size[2]))
    around = angle * math.pi * torch.where(standing, size[0], size[1])
    return (
        torch.where(is_round, around, u),
        torch.where(is_round, height, v),
        torch.where(is_round, angle, nu),
        torch.where(is_round, height / length, nv),
    )


def _turn(x: Tensor, z: Tensor) -> Tensor:
    """An angle about the vertical in -1..1, without a library's arctangent: along a diamond."""
    share = x / (x.abs() + z.abs()).clamp(min=1e-9)
    far = torch.where(share < 0, -1.0, 1.0) - 0.5 * share
    return torch.where(z < 0, far, 0.5 * share)
