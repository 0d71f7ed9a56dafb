"""A small room, ray cast with numpy: colours and exact depth of a picture taken in it.

Owns the room of the demo scene: its shapes, textures and lamps. OpenCV axes, metres; the floor
lies 1.25 m below the world's origin. Textures come from integer hashes, so that a picture is
the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.types import Float32, UInt8

Array = NDArray[np.float64]
# Surface points [P, 3] -> colours [P, 3] in 0..1, linear light.
Texture = Callable[[Array], Array]

FLOOR, CEILING = 1.25, -1.35
LEFT, RIGHT, BACK, FRONT = -2.3, 2.3, 5.2, -1.5
LAMP = np.array([0.5, -1.1, 2.6])
LAMP_RADIUS = 0.12
AMBIENT, LAMP_POWER, SKY_POWER = 0.30, 2.6, 0.55
CORNERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
# Where a lamp of some size is looked at from a surface, in radii: soft shadows.
LAMP_SAMPLES = np.array([[0, 0, 0], [0.9, 0, 0], [-0.9, 0, 0], [0, 0, 0.9], [0, 0, -0.9]])


def hashed(cells: Array, salt: int) -> Array:
    """A number in 0..1 for each integer cell [..., K], by an integer hash."""
    value = np.full(cells.shape[:-1], 2166136261 + salt, dtype=np.uint64)
    for axis in range(cells.shape[-1]):
        value ^= cells[..., axis].astype(np.int64).astype(np.uint64) & np.uint64(0xFFFFFFFF)
        value = (value * np.uint64(16777619)) & np.uint64(0xFFFFFFFF)
        value ^= value >> np.uint64(15)
        value = (value * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
        value ^= value >> np.uint64(13)
    return value.astype(np.float64) / 2**32


def noise(places: Array, salt: int) -> Array:
    """Smooth noise in 0..1 over places [..., 2]: hashed lattice values, blended."""
    cell = np.floor(places)
    x, y = np.moveaxis(places - cell, -1, 0)
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    corner = [hashed(cell + offset, salt) for offset in CORNERS]
    upper, lower = corner[0] + x * (corner[1] - corner[0]), corner[2] + x * (corner[3] - corner[2])
    return np.asarray(upper + y * (lower - upper))


def mixed(share: Array, first: tuple[float, ...], second: tuple[float, ...]) -> Array:
    """Colours between ``first`` (share 0) and ``second`` (share 1)."""
    start, end = np.array(first), np.array(second)
    return np.asarray(start + np.clip(share, 0, 1)[..., None] * (end - start))


def wood(
    along: int, across: int, plank: float, dark: tuple[float, ...], light: tuple[float, ...]
) -> Texture:
    """Planks that run along one axis."""

    def texture(points: Array) -> Array:
        row = np.floor(points[:, across] / plank)
        shift = hashed(row[:, None], 3) * 1.7
        board = np.floor((points[:, along] + shift) / 1.1)
        grain = noise(np.stack([points[:, along] * 3 + shift * 9, points[:, across] * 60], -1), 5)
        tone = 0.55 * hashed(np.stack([row, board], -1), 7) + 0.45 * grain
        gap = np.abs(points[:, across] / plank - row - 0.5) > 0.5 - 0.008 / plank
        gap |= np.abs((points[:, along] + shift) / 1.1 - board - 0.5) > 0.494
        return mixed(tone, dark, light) * np.where(gap, 0.35, 1.0)[:, None]

    return texture


def plain(color: tuple[float, ...], salt: int = 11) -> Texture:
    """One colour, a little uneven."""

    def texture(points: Array) -> Array:
        uneven = noise(points[:, :2] * 7 + points[:, 2:] * 5, salt)
        return np.array(color) * (0.9 + 0.2 * uneven)[:, None]

    return texture


def room_texture(points: Array) -> Array:
    """Floor, rug, walls, skirting, pictures and window of the room itself."""
    x, y, z = points.T
    color = mixed(
        noise(np.stack([x * 9 + z * 9, y * 9], -1), 17), (0.60, 0.55, 0.43), (0.66, 0.61, 0.50)
    )
    stripe = np.floor((x + z) / 0.32) % 2 == 0
    color = np.where(stripe[:, None], color, color * [0.90, 0.95, 1.0])
    color[y > FLOOR - 0.12] = (0.75, 0.73, 0.68)
    ceiling, floor = y < CEILING + 1e-6, y > FLOOR - 1e-6
    color[ceiling] = mixed(
        noise(np.stack([x, z], -1)[ceiling] * 4, 19), (0.72, 0.72, 0.70), (0.80, 0.80, 0.78)
    )
    color[floor] = wood(2, 0, 0.22, (0.22, 0.11, 0.05), (0.48, 0.28, 0.14))(points[floor])
    rug = floor & (np.abs(x - 0.1) < 1.25) & (np.abs(z - 3.1) < 0.95)
    ring = np.maximum(np.abs(x - 0.1) / 1.25, np.abs(z - 3.1) / 0.95)
    band = np.floor(ring * 7) % 2 == 0
    weave = 0.8 + 0.4 * hashed(np.floor(np.stack([x, z], -1) * 90), 23)
    rug_color = np.where(band[:, None], (0.45, 0.08, 0.09), (0.62, 0.47, 0.28)) * weave[:, None]
    color = np.where(rug[:, None], rug_color, color)
    back = z > BACK - 1e-6
    frame = back & (np.abs(x - 1.25) < 0.52) & (np.abs(y + 0.25) < 0.40)
    picture = back & (np.abs(x - 1.25) < 0.46) & (np.abs(y + 0.25) < 0.34)
    color[frame] = (0.10, 0.07, 0.05)
    hills = np.floor(
        6 * noise(np.stack([x * 3, y * 5 + noise(np.stack([x * 4, y], -1), 29)], -1), 31)
    )
    color[picture] = mixed(hills / 5, (0.05, 0.20, 0.35), (0.85, 0.62, 0.25))[picture]
    return color


def window(points: Array) -> tuple[NDArray[np.bool_], Array]:
    """Where the left part of the back wall is a window, and the sky and hills seen in it."""
    x, y, z = points.T
    u, v = (x + 0.85) / 0.62, (y + 0.30) / 0.50
    inside = (z > BACK - 1e-6) & (np.abs(u) < 1) & (np.abs(v) < 1)
    bar = (np.abs(u) < 0.05) | (np.abs(v) < 0.06) | (np.abs(u) > 0.93) | (np.abs(v) > 0.92)
    sky = mixed((v + 1) / 2, (0.35, 0.60, 1.05), (0.95, 1.05, 1.15))
    clouds = noise(np.stack([u * 2, v * 4], -1), 37)
    sky = sky + 0.3 * np.clip(clouds - 0.5, 0, 1)[:, None]
    hill = v > 0.25 + 0.35 * noise(np.stack([u * 2.5, 0 * u], -1), 41)
    sky = np.where(hill[:, None], [0.16, 0.36, 0.12], sky)
    return inside, np.where(bar[:, None], 0.75, sky)


@dataclass(frozen=True, eq=False)
class Box:
    """An axis-aligned box; ``inside`` out for the room."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    texture: Texture
    inside: bool = False

    def hit(self, origin: Array, direction: Array) -> Array:
        """Distance along each ray, in lengths of ``direction``; infinity where it misses."""
        with np.errstate(divide="ignore", invalid="ignore"):
            first = (np.array(self.low) - origin) / direction
            second = (np.array(self.high) - origin) / direction
        near = np.fmax.reduce(np.minimum(first, second), axis=-1)
        far = np.fmin.reduce(np.maximum(first, second), axis=-1)
        if self.inside:
            return np.where(far > 1e-6, far, np.inf)
        return np.where((near <= far) & (near > 1e-6), near, np.inf)

    def normal(self, points: Array) -> Array:
        """Outward normals (inward for ``inside``) at points of the surface."""
        center, half = (np.array(self.low) + self.high) / 2, (np.array(self.high) - self.low) / 2
        local = (points - center) / half
        axis = np.abs(local).argmax(axis=-1)
        normal = np.eye(3)[axis] * np.sign(np.take_along_axis(local, axis[:, None], axis=-1))
        return np.asarray(-normal if self.inside else normal)


@dataclass(frozen=True, eq=False)
class Sphere:
    """A ball."""

    center: tuple[float, float, float]
    radius: float
    texture: Texture

    def hit(self, origin: Array, direction: Array) -> Array:
        """Distance along each ray, in lengths of ``direction``; infinity where it misses."""
        offset = origin - self.center
        a = (direction**2).sum(-1)
        b = (offset * direction).sum(-1)
        root = b * b - a * ((offset**2).sum(-1) - self.radius**2)
        with np.errstate(invalid="ignore"):
            near = (-b - np.sqrt(root)) / a
        return np.where((root > 0) & (near > 1e-6), near, np.inf)

    def normal(self, points: Array) -> Array:
        """Outward normals at points of the surface."""
        return np.asarray((points - self.center) / self.radius)


def beach_ball(points: Array) -> Array:
    """Six coloured segments about an axis that leans."""
    x, y, z = (points - [-0.95, FLOOR - 0.28, 2.75]).T
    turn = np.floor((np.arctan2(x + 0.4 * y, z) / np.pi + 1) * 3)
    colors = np.array([[0.8, 0.1, 0.08], [0.85, 0.8, 0.7], [0.1, 0.25, 0.65]])
    return np.asarray(colors[turn.astype(int) % 3])


def furniture() -> list[Box | Sphere]:
    """What stands in the room."""
    table = wood(0, 2, 0.16, (0.35, 0.20, 0.09), (0.58, 0.37, 0.19))
    shelf = wood(1, 2, 0.5, (0.20, 0.13, 0.08), (0.33, 0.22, 0.14))
    top = FLOOR - 0.78
    parts: list[Box | Sphere] = [Box((-0.15, top, 2.75), (1.25, top + 0.07, 3.55), table)]
    for x in (-0.08, 1.10):
        for z in (2.82, 3.40):
            parts.append(Box((x, top + 0.07, z), (x + 0.08, FLOOR, z + 0.08), table))
    parts += [
        Sphere((0.25, top - 0.17, 3.1), 0.17, plain((0.10, 0.42, 0.36), 43)),
        Box((0.62, top - 0.26, 2.95), (0.92, top, 3.22), plain((0.72, 0.40, 0.10), 47)),
        Box((0.68, top - 0.40, 3.00), (0.86, top - 0.26, 3.17), plain((0.55, 0.12, 0.30), 53)),
        Sphere((-0.95, FLOOR - 0.28, 2.75), 0.28, beach_ball),
        Box((-2.3, FLOOR - 1.70, 3.6), (-1.85, FLOOR, 4.6), shelf),
        Box((1.55, FLOOR - 0.45, 4.3), (2.3, FLOOR, 5.2), plain((0.16, 0.26, 0.38), 59)),
        Box((1.55, FLOOR - 0.95, 4.95), (2.3, FLOOR - 0.45, 5.2), plain((0.16, 0.26, 0.38), 61)),
    ]
    for row, height in enumerate((0.42, 0.86, 1.30)):
        for book in range(9):
            tall = 0.24 + 0.1 * float(hashed(np.array([row, book]), 67))
            tint = hashed(np.array([[row, book, c] for c in range(3)]), 71)
            low = (-1.85, FLOOR - height - tall, 3.66 + 0.1 * book)
            high = (-1.72, FLOOR - height, 3.745 + 0.1 * book)
            parts.append(Box(low, high, plain(tuple(0.08 + 0.6 * tint), 73 + book)))
    return parts


ROOM = Box((LEFT, CEILING, FRONT), (RIGHT, FLOOR, BACK), room_texture, inside=True)


def trace(
    shapes: list[Box | Sphere], origin: Array, direction: Array
) -> tuple[Array, NDArray[np.intp]]:
    """Distance to the nearest shape along each ray, and which shape it is."""
    best = np.full(len(direction), np.inf)
    which = np.zeros(len(direction), dtype=np.intp)
    for index, shape in enumerate(shapes):
        distance = shape.hit(origin, direction)
        nearer = distance < best
        best[nearer], which[nearer] = distance[nearer], index
    return best, which


def shade(shapes: list[Box | Sphere], points: Array, which: NDArray[np.intp]) -> Array:
    """Linear colours of surface points under the lamp, the window's light and what is around."""
    color, normal = np.zeros_like(points), np.zeros_like(points)
    for index, shape in enumerate(shapes):
        own = which == index
        if own.any():
            color[own], normal[own] = shape.texture(points[own]), shape.normal(points[own])
    start = points + 1e-4 * normal
    lit = np.zeros(len(points))
    for sample in LAMP_SAMPLES:
        to_lamp = LAMP + LAMP_RADIUS * sample - start
        distance = np.sqrt((to_lamp**2).sum(-1))
        slope = np.clip((to_lamp * normal).sum(-1) / distance, 0, 1)
        blocked, _ = trace(shapes, start, to_lamp)
        lit += np.where(blocked > 1, slope / (0.6 + distance**2), 0) / len(LAMP_SAMPLES)
    to_window = np.array([-0.85, -0.30, BACK]) - start
    far = np.sqrt((to_window**2).sum(-1))
    sky = np.clip((to_window * normal).sum(-1) / far, 0, 1) / (1 + 0.3 * far**2)
    corner = np.sort(np.abs(np.stack([points - ROOM.low, points - ROOM.high])).min(axis=0), axis=-1)
    dim = 1 - 0.35 * np.exp(-6 * corner[:, 1])
    warm, cool = np.array([1.0, 0.90, 0.74]), np.array([0.75, 0.88, 1.0])
    light = (LAMP_POWER * lit)[:, None] * warm + (SKY_POWER * sky)[:, None] * cool
    color = color * (light + (AMBIENT * dim)[:, None])
    inside, outside = window(points)
    inside &= which == 0
    return np.where(inside[:, None], outside, color)


def photograph(
    size: tuple[int, int], intrinsics: Float32, samples: int = 3
) -> tuple[UInt8, Float32]:
    """Take a picture from the world's origin, looking along z.

    Args:
        size: (height, width).
        intrinsics: [3, 3] in pixels of that size.
        samples: colours are the mean of ``samples`` x ``samples`` rays a pixel.

    Returns:
        [height, width, 3] uint8, and the exact depth [height, width] along z at pixel centres.
    """
    shapes: list[Box | Sphere] = [ROOM, *furniture()]
    height, width = size
    depth, _ = trace(shapes, np.zeros(3), _rays(size, intrinsics, 0.5, 0.5))
    total = np.zeros((height * width, 3))
    for row in range(samples):
        for column in range(samples):
            x, y = (column + 0.5) / samples, (row + 0.5) / samples
            direction = _rays(size, intrinsics, x, y)
            distance, which = trace(shapes, np.zeros(3), direction)
            total += np.clip(shade(shapes, distance[:, None] * direction, which), 0, 1)
    encoded = 255 * (total / samples**2) ** (1 / 2.2)
    image = np.round(encoded).astype(np.uint8).reshape(height, width, 3)
    return image, depth.astype(np.float32).reshape(height, width)


def _rays(size: tuple[int, int], intrinsics: Float32, x: float, y: float) -> Array:
    """Rays with z = 1 through the place (x, y) of every pixel, in row order."""
    rows, columns = np.indices(size).reshape(2, -1).astype(np.float64)
    k = intrinsics.astype(np.float64)
    across = (columns + x - k[0, 2]) / k[0, 0]
    down = (rows + y - k[1, 2]) / k[1, 1]
    return np.stack([across, down, np.ones_like(across)], axis=-1)
