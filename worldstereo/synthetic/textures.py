"""Procedural textures: from places on surfaces to shares of three colours.

Owns the patterns. Colours, light and geometry are for others.

Only operations that are rounded exactly (integer hashes, + - * /, roots, floor, comparisons): the
same values for any number of threads, and no tables of random numbers. Patterns are averaged
over the footprint of a ray, so that they fade instead of flickering in the distance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Mix = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Spots:
    """Places on surfaces of one texture, each a tensor [R] float32.

    Attributes:
        u, v: metres along the surface, from the part's centre; around a ball or a cylinder u.
        nu, nv: the same in half sizes of the part, -1 to 1.
        x, y, z: metres from the part's centre, in the piece's frame.
        footprint: width in metres that one ray stands for.
        scale, salt: of the material; ``salt`` is int32.
    """

    u: Tensor
    v: Tensor
    nu: Tensor
    nv: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    footprint: Tensor
    scale: Tensor
    salt: Tensor


# Spots -> share of the second colour, of the third over both, and a factor on the result.
Texture = Callable[[Spots], Mix]


def hashed(x: Tensor, y: Tensor, salt: Tensor) -> Tensor:
    """A number in [0, 1) for each integer cell; x and y float32 with whole values."""
    # Products of int32 wrap around, the same on every device.
    value = x.int() * 374761393 + y.int() * 668265263 + salt * 974634777
    value = (value ^ ((value >> 15) & 0x1FFFF)) * 1274126177
    value = (value ^ ((value >> 13) & 0x7FFFF)) * 1103515245
    value = value ^ ((value >> 16) & 0xFFFF)
    return (value & 0xFFFFFF).float() * (1 / 2**24)


def noise(x: Tensor, y: Tensor, salt: Tensor) -> Tensor:
    """Smooth noise in 0..1 with a period of one: hashed lattice values, blended."""
    column, row = x.floor(), y.floor()
    fx, fy = x - column, y - row
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    a, b = hashed(column, row, salt), hashed(column + 1, row, salt)
    c, d = hashed(column, row + 1, salt), hashed(column + 1, row + 1, salt)
    upper, lower = a + fx * (b - a), c + fx * (d - c)
    return upper + fy * (lower - upper)


def faded(value: Tensor, cells: Tensor, mean: float = 0.5) -> Tensor:
    """Values whose pattern is narrower than the ray give way to their mean.

    Args:
        value: [R].
        cells: [R] footprint in periods of the pattern.
        mean: of the values.
    """
    return mean + (value - mean) * (1.5 - 1.5 * cells).clamp(0, 1)


def stripes(x: Tensor, cells: Tensor) -> Tensor:
    """1 around even whole numbers, 0 around odd ones, averaged over ``cells``."""
    half = x * 0.5
    wave = ((half - half.floor()) * 2 - 1).abs()
    return ((wave - 0.5) / cells.clamp(min=1e-3) + 0.5).clamp(0, 1)


def joint(x: Tensor, width: Tensor, cells: Tensor) -> Tensor:
    """1 within ``width`` (in cells) around whole numbers, averaged over ``cells``."""
    edge = (x - x.floor() - 0.5).abs() - 0.5 + width * 0.5
    line = (edge / cells.clamp(min=1e-3) + 0.5).clamp(0, 1)
    return width + (line - width) * (1.5 - cells).clamp(0, 1)


def _weave(s: Spots, size: float = 0.012) -> Tensor:
    cells = s.footprint * (1 / size)
    thread = hashed((s.u * (1 / size)).floor(), (s.v * (1 / size)).floor(), s.salt)
    return 0.82 + 0.36 * faded(thread, cells)


def _uneven(s: Spots, frequency: float, strength: float) -> Tensor:
    value = noise(s.u * frequency + s.z, s.v * frequency + s.x * 0.5, s.salt)
    return 1 + strength * (faded(value, s.footprint * frequency) - 0.5)


def plain(s: Spots) -> Mix:
    """One colour, a little uneven."""
    zero = torch.zeros_like(s.u)
    return zero, zero, _uneven(s, 6.0, 0.1)


def fabric(s: Spots) -> Mix:
    """Woven threads of the first colour, worn towards the second."""
    worn = noise(s.u * 4, s.v * 4, s.salt)
    return 0.25 * worn, torch.zeros_like(s.u), _weave(s)


def wood(s: Spots) -> Mix:
    """Boards ``scale`` wide that run along u, in tones of two colours."""
    row = (s.v / s.scale).floor()
    shift = hashed(row, row * 0, s.salt) * 1.7
    along = (s.u + shift) * (1 / 1.1)
    board = along.floor()
    grain = noise(s.u * 3 + shift * 9, s.v * 55, s.salt + 1)
    grain = faded(grain, s.footprint * 55)
    tone = 0.55 * hashed(row, board, s.salt + 2) + 0.45 * grain
    gap = joint(s.v / s.scale + 0.0, 0.012 / s.scale, s.footprint / s.scale)
    end = joint(along, torch.full_like(along, 0.006), s.footprint * (1 / 1.1))
    gain = 1 - 0.62 * torch.maximum(gap, end)
    return tone, torch.zeros_like(tone), gain


def timber(s: Spots) -> Mix:
    """One piece of wood without joints, its grain along u."""
    bend = noise(s.u * 1.5, s.v * 2 + s.z, s.salt)
    rings = noise(s.u * 2 + bend, s.v * 32 + 6 * bend, s.salt + 1)
    fine = noise(s.u * 6, s.v * 120, s.salt + 2)
    tone = 0.65 * faded(rings, s.footprint * 32) + 0.35 * faded(fine, s.footprint * 120)
    return tone, torch.zeros_like(tone), torch.ones_like(tone)


def tiles(s: Spots) -> Mix:
    """Square tiles with joints of the third colour; each tile its own tone."""
    x, y = s.u / s.scale, s.v / s.scale
    cells = s.footprint / s.scale
    tone = hashed(x.floor(), y.floor(), s.salt)
    spot = noise(s.u * 25, s.v * 25, s.salt + 1)
    width = 0.008 / s.scale
    gap = torch.maximum(joint(x, width, cells), joint(y, width, cells))
    return faded(tone, cells), gap, 0.94 + 0.12 * faded(spot, s.footprint * 25)


def checker(s: Spots) -> Mix:
    """Squares of two colours."""
    cells = s.footprint / s.scale
    first, second = stripes(s.u / s.scale, cells), stripes(s.v / s.scale, cells)
    share = first + second - 2 * first * second
    return share, torch.zeros_like(share), _uneven(s, 9.0, 0.12)


def striped(s: Spots) -> Mix:
    """Stripes of two colours across u."""
    share = stripes(s.u / s.scale, s.footprint / s.scale)
    return share, torch.zeros_like(share), _uneven(s, 7.0, 0.12)


def bricks(s: Spots) -> Mix:
    """Courses of bricks with mortar of the third colour."""
    y = s.v / s.scale
    row = y.floor()
    x = s.u / (s.scale * 3) + 0.5 * (row - 2 * (row * 0.5).floor())
    cells = s.footprint / s.scale
    tone = hashed(x.floor(), row, s.salt)
    rough = noise(s.u * 40, s.v * 40, s.salt + 1)
    gap = torch.maximum(
        joint(y, torch.full_like(y, 0.16), cells), joint(x, torch.full_like(x, 0.055), cells / 3)
    )
    return faded(tone, cells), gap, 0.85 + 0.3 * faded(rough, s.footprint * 40)


def dots(s: Spots) -> Mix:
    """Dots of the second colour."""
    x, y = s.u / s.scale, s.v / s.scale
    fx, fy = x - x.floor() - 0.5, y - y.floor() - 0.5
    cells = (s.footprint / s.scale).clamp(min=1e-3)
    inside = ((0.3 - (fx * fx + fy * fy).sqrt()) / cells + 0.5).clamp(0, 1)
    share = 0.28 + (inside - 0.28) * (1.5 - cells).clamp(0, 1)
    return share, torch.zeros_like(share), _uneven(s, 8.0, 0.1)


def marble(s: Spots) -> Mix:
    """Veins of the second colour through clouds of the first and third."""
    bend = noise(s.x * 3 + s.z, s.y * 3, s.salt)
    vein = noise(s.x * 4 + 2 * bend, s.y * 4 + s.z * 4, s.salt + 1)
    line = (1 - 9 * (vein - 0.5).abs()).clamp(0, 1)
    cloud = noise(s.u * 2, s.v * 2, s.salt + 2)
    return faded(line, s.footprint * 16, 0.15), 0.35 * cloud, _uneven(s, 11.0, 0.06)


def plaid(s: Spots) -> Mix:
    """Crossed bands of the second colour and thin lines of the third."""
    x, y = s.u / s.scale, s.v / s.scale
    cells = s.footprint / s.scale
    bands = 0.5 * (stripes(x, cells) + stripes(y, cells))
    width = torch.full_like(x, 0.12)
    lines = torch.maximum(joint(x * 0.5 + 0.25, width, cells), joint(y * 0.5 + 0.25, width, cells))
    return bands, 0.7 * lines, _weave(s)


def rug(s: Spots) -> Mix:
    """Woven frames of the second colour, diamonds of the third in the middle."""
    ring = torch.maximum(s.nu.abs(), s.nv.abs())
    frame = stripes(ring * 7, torch.full_like(ring, 0.08))
    diamond = stripes((s.nu.abs() + s.nv.abs()) * 5, torch.full_like(ring, 0.15))
    middle = ((0.55 - ring) * 25 + 0.5).clamp(0, 1)
    return frame * (1 - middle), middle * diamond, _weave(s)


def round_rug(s: Spots) -> Mix:
    """Woven rings of three colours."""
    ring = (s.nu * s.nu + s.nv * s.nv).sqrt()
    first = stripes(ring * 6, torch.full_like(ring, 0.08))
    outer = ((ring - 0.82) * 40 + 0.5).clamp(0, 1)
    return first, outer, _weave(s)


def segments(s: Spots) -> Mix:
    """A beach ball: six segments of three colours."""
    turn = (s.nu + 1) * 3 + 0.35 * s.nv
    index = (turn - 3 * (turn * (1 / 3)).floor()).floor()
    return (index == 1).float(), (index == 2).float(), torch.ones_like(turn)


def globe(s: Spots) -> Mix:
    """Seas of the first colour, lands of the second, ice of the third at the poles."""
    size = (s.x * s.x + s.y * s.y + s.z * s.z).sqrt().clamp(min=1e-6)
    x, y, z = s.x / size, s.y / size, s.z / size
    height = noise(x * 2.3 + y + 5, z * 2.3 - 0.7 * y, s.salt)
    height = height + 0.4 * noise(x * 6 + y * 3, z * 6 - y * 2, s.salt + 1)
    land = ((height - 0.72) * 18 + 0.5).clamp(0, 1)
    return land, ((y.abs() - 0.86) * 30 + 0.5).clamp(0, 1), torch.ones_like(land)


def leaves(s: Spots) -> Mix:
    """Foliage, grass, hedges: blotches of three colours."""
    coarse = noise(s.x * 9 + s.z * 3, s.y * 9 - s.z * 9, s.salt)
    fine = noise(s.x * 42 + s.y * 17, s.z * 42 - s.y * 31, s.salt + 1)
    fine = faded(fine, s.footprint * 42)
    spot = ((fine - 0.72) * 6).clamp(0, 1)
    return coarse, 0.7 * spot, 0.6 + 0.75 * fine


def gravel(s: Spots) -> Mix:
    """Sand and stones of two colours."""
    coarse = noise(s.u * 1.3, s.v * 1.3, s.salt)
    fine = faded(noise(s.u * 45, s.v * 45, s.salt + 1), s.footprint * 45)
    return coarse, torch.zeros_like(coarse), 0.7 + 0.6 * fine


def slats(s: Spots) -> Mix:
    """A crate's side: a frame of the second colour around boards of the first."""
    ring = torch.maximum(s.nu.abs(), s.nv.abs())
    frame = ((ring - 0.78) * 40 + 0.5).clamp(0, 1)
    boards = joint((s.nv + 1) * 2, torch.full_like(s.nv, 0.1), torch.full_like(s.nv, 0.04))
    edge = joint(ring / 0.78, torch.full_like(ring, 0.05), torch.full_like(ring, 0.02))
    grain = faded(noise(s.u * 4, s.v * 70, s.salt), s.footprint * 70)
    gap = torch.maximum(boards * (1 - frame), edge * (ring < 0.9))
    return frame, torch.zeros_like(frame), (0.78 + 0.4 * grain) * (1 - 0.6 * gap)


def panels(s: Spots) -> Mix:
    """A door: two fields with bevelled edges."""
    y = (s.nv + 1) - (s.nv > 0).float()
    field = torch.maximum((s.nu.abs() - 0.05) / 0.62, ((y - 0.5).abs() * 2 - 0.05) / 0.72)
    inside = ((1 - field) * 30).clamp(0, 1)
    bevel = (1 - (field - 0.95).abs() * 14).clamp(0, 1)
    return 0.55 * inside, torch.zeros_like(inside), 1 - 0.35 * bevel


def landscape(s: Spots) -> Mix:
    """A painting: a sky, hills of the second colour, nearer ones of the third."""
    far = 0.05 - 0.8 * (noise(s.nu * 1.7 + 9, s.nu * 0, s.salt) - 0.5)
    near = 0.45 - 0.7 * (noise(s.nu * 1.1 + 3, s.nu * 0 + 1, s.salt) - 0.5)
    brush = 0.8 + 0.4 * noise(s.nu * 9, s.nv * 22, s.salt + 2)
    first = ((s.nv - far) * 30 + 0.5).clamp(0, 1)
    second = ((s.nv - near) * 30 + 0.5).clamp(0, 1)
    return first, second, brush * (1 - 0.25 * s.nv * (1 - first))


def abstract(s: Spots) -> Mix:
    """A painting: rectangles of three colours with dark lines."""
    x, y = (s.nu + 1) * 1.7, (s.nv + 1) * 1.6
    x = x + 0.35 * hashed(y.floor(), y.floor() * 0, s.salt)
    value = hashed(x.floor(), y.floor(), s.salt + 1)
    width, cells = torch.full_like(x, 0.07), torch.full_like(x, 0.03)
    line = torch.maximum(joint(x, width, cells), joint(y, width, cells))
    return (value > 0.4).float(), (value > 0.72).float(), 1 - 0.9 * line


def rings(s: Spots) -> Mix:
    """A painting: rings around a point, on the third colour."""
    dx = s.nu - 0.4 * (hashed(s.salt.float(), s.salt.float() * 0, s.salt) - 0.5)
    ring = (dx * dx + s.nv * s.nv).sqrt()
    outside = ((ring - 0.75) * 40 + 0.5).clamp(0, 1)
    brush = 0.85 + 0.3 * noise(s.nu * 8, s.nv * 8, s.salt)
    return stripes(ring * 6, torch.full_like(ring, 0.08)), outside, brush


def view(s: Spots) -> Mix:
    """What a window shows: a sky that pales downwards, clouds, hills of the third colour."""
    cloud = noise(s.nu * 2.2, s.nv * 4.5, s.salt)
    pale = (0.55 + 0.45 * s.nv + 1.4 * (cloud - 0.55).clamp(min=0)).clamp(0, 1)
    crest = 0.55 - 0.5 * noise(s.nu * 2.5 + 4, s.nu * 0, s.salt + 1)
    hill = ((s.nv - crest) * 25 + 0.5).clamp(0, 1)
    return pale, hill, 1 - hill * (0.3 - 0.3 * noise(s.nu * 22, s.nv * 22, s.salt + 2))


def sky(s: Spots) -> Mix:
    """A dome: the first colour above, the second at the horizon and in clouds, then hills."""
    height = -s.nv
    x, z = s.x / (s.y.abs() + 3), s.z / (s.y.abs() + 3)
    cloud = 0.65 * noise(x * 3, z * 3, s.salt) + 0.35 * noise(x * 9, z * 9, s.salt + 1)
    haze = (1 - 2.2 * height).clamp(0, 1)
    white = (2.6 * (cloud - 0.52)).clamp(0, 1) * (height * 8).clamp(0, 1)
    ridge = noise(s.nu * 9, s.nu * 0, s.salt + 2) + 0.35 * noise(s.nu * 40, s.nu * 0, s.salt + 3)
    hill = ((0.03 + 0.07 * ridge - height) * 250 + 0.5).clamp(0, 1)
    shade = 1 - hill * (0.15 - 0.3 * noise(s.nu * 120, s.nv * 60, s.salt + 4))
    return torch.maximum(haze, white), hill, shade


def clock(s: Spots) -> Mix:
    """A dial of the first colour with marks and hands of the second."""
    ring = (s.nu * s.nu + s.nv * s.nv).sqrt()
    across, down = s.nu.abs(), s.nv.abs()
    mark = (ring > 0.78) & (ring < 0.92) & ((across < 0.06) | (down < 0.06))
    hand = ((across < 0.045) & (s.nv < 0) & (s.nv > -0.7)) | (
        (down < 0.05) & (s.nu > 0) & (s.nu < 0.5)
    )
    rim = ((ring - 0.93) * 60 + 0.5).clamp(0, 1)
    return (mark | hand).float(), rim, torch.ones_like(ring)


# By name; a material's texture is one of these.
TEXTURES: dict[str, Texture] = {
    texture.__name__: texture
    for texture in (
        plain,
        fabric,
        wood,
        timber,
        tiles,
        checker,
        striped,
        bricks,
        dots,
        marble,
        plaid,
        rug,
        round_rug,
        segments,
        globe,
        leaves,
        gravel,
        slats,
        panels,
        landscape,
        abstract,
        rings,
        view,
        sky,
        clock,
    )
}
