"""Point clouds of a world: spread over its surfaces, and as cameras see it.

Owns sampling by area, and which surfaces count.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from worldstereo.geometry.projection import unproject_pixels
from worldstereo.synthetic.layout import Part, Piece
from worldstereo.synthetic.raycast import RayCaster
from worldstereo.synthetic.solids import Axes, signed_distance, taken
from worldstereo.synthetic.surface import Surface
from worldstereo.types import Bool, Cameras, Float32, PointCloud, UInt8

# A surface counts where this far above it, in metres, it is free.
FREE = 2e-3
# Points stand for patches of this width where their textures are averaged.
PATCH = 0.01
BATCH = 1 << 15
# Colours see this many by this many points of every lamp.
LAMP_SAMPLES = 2


def sampled_cloud(
    caster: RayCaster, count: int, entropy: tuple[int, ...], exposure: float
) -> PointCloud:
    """Points spread evenly over the surfaces within reach, in the world's axes.

    Args:
        caster: of the world, on the CPU.
        count: number of points.
        entropy: non-negative integers that name the random stream.
        exposure: factor on all light.
    """
    generator = np.random.Generator(np.random.PCG64(list(entropy)))
    parts = [(piece, part) for piece in caster.layout.pieces for part in piece.parts]
    areas = np.array([_area(part, caster.layout.reach) for _, part in parts])
    shares = np.cumsum(areas) / areas.sum()
    points, colors, found = [], [], 0
    while found < count:
        draws = generator.random((BATCH, 4))
        chosen = np.minimum(np.searchsorted(shares, draws[:, 0], side="right"), len(parts) - 1)
        places = np.empty((BATCH, 3))
        for number in np.unique(chosen):
            piece, part = parts[number]
            own = chosen == number
            places[own] = _placed(piece, _on_surface(part, draws[own, 1:], caster.layout.reach))
        kept, own_colors = _counted(caster, places, chosen, exposure)
        points.append(kept)
        colors.append(own_colors)
        found += len(kept)
    world = (np.concatenate(points)[:count] - caster.layout.position) @ caster.layout_from_world
    return PointCloud(world.astype(np.float32), np.concatenate(colors)[:count])


def seen_cloud(images: UInt8, depths: Float32, cameras: Cameras, reach: float) -> PointCloud:
    """The pixels of F images as points in the world, frame by frame, in row order.

    Args:
        images: [F, H, W, 3].
        depths: [F, H, W] along z.
        cameras: F cameras that took them.
        reach: points farther than this from the world's origin are left out.
    """
    points, near = _unprojected(depths, cameras, reach)
    return PointCloud(points[near], images.reshape(-1, 3)[near])


def seen_points(depths: Float32, cameras: Cameras, reach: float) -> Float32:
    """The points [P, 3] of ``seen_cloud``."""
    points, near = _unprojected(depths, cameras, reach)
    return points[near]


def _unprojected(depths: Float32, cameras: Cameras, reach: float) -> tuple[Float32, Bool]:
    """A point [P, 3] of every pixel, and which of them are within reach."""
    v, u = torch.meshgrid(
        torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij"
    )
    points = [
        unproject_pixels(
            u.flatten(),
            v.flatten(),
            torch.from_numpy(depth).flatten(),
            torch.from_numpy(pose),
            torch.from_numpy(intrinsics),
        )
        for depth, pose, intrinsics in zip(
            depths, cameras.camera_from_world, cameras.intrinsics, strict=True
        )
    ]
    joined = torch.cat(points).numpy()
    return joined.astype(np.float32), np.sqrt((joined**2).sum(axis=-1)) <= reach


def _area(part: Part, reach: float) -> float:
    x, y, z = part.half
    if part.shape == "sphere":
        return 4 * math.pi * x * x
    if part.shape == "box":
        return 8 * (x * y + y * z + z * x)
    if part.shape == "cylinder":
        radius, half = _cylinder(part)
        return 2 * math.pi * radius * (radius + 2 * half)
    if part.shape == "plane":
        x, y, z = (min(value, reach) for value in part.half)
        return 4 * (x * y + y * z + z * x)
    return 0.0


def _cylinder(part: Part) -> tuple[float, float]:
    """Radius and half length."""
    return part.half[(part.axis + 1) % 3], part.half[part.axis]


def _on_surface(part: Part, draws: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Points [P, 3] of a part's surface, in its piece's frame; ``draws`` [P, 3] in 0..1."""
    first, second, third = draws.T
    half = np.array(part.half)
    if part.shape == "plane":
        spread = np.minimum(half, reach)
        b, c = (axis for axis in range(3) if axis != part.axis)
        local = np.zeros((len(draws), 3))
        local[:, b], local[:, c] = (2 * first - 1) * spread[b], (2 * second - 1) * spread[c]
    elif part.shape == "sphere":
        local = np.empty((len(draws), 3))
        height, turn = 2 * first - 1, 2 * np.pi * second
        flat = np.sqrt(1 - height**2)
        local[:, 0], local[:, 1], local[:, 2] = flat * np.cos(turn), height, flat * np.sin(turn)
        local *= half
    elif part.shape == "box":
        local = (2 * draws - 1) * half
        faces = np.array([half[1] * half[2], half[2] * half[0], half[0] * half[1]])
        ends = np.cumsum(faces) / faces.sum()
        # The first number chooses the face; what is left of it is as good as new.
        axis = np.minimum(np.searchsorted(ends, first, side="right"), 2)
        rest = (first - (ends - faces / faces.sum())[axis]) / (faces / faces.sum())[axis]
        rows = np.arange(len(draws))
        other = (axis + 1) % 3
        local[rows, other] = (2 * second - 1) * half[other]
        local[rows, (axis + 2) % 3] = (2 * third - 1) * half[(axis + 2) % 3]
        local[rows, axis] = np.where(rest < 0.5, -1.0, 1.0) * half[axis]
    else:
        local = _on_cylinder(part, draws)
    return np.asarray(local + np.array(part.center))


def _on_cylinder(part: Part, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second, third = draws.T
    radius, half = _cylinder(part)
    side = 2 * half / (2 * half + radius)
    turn, on_side = 2 * np.pi * second, first < side
    distance = np.where(on_side, radius, radius * np.sqrt(third))
    end = np.where(first < side + (1 - side) / 2, -half, half)
    local = np.empty((len(draws), 3))
    local[:, (part.axis + 1) % 3] = distance * np.cos(turn)
    local[:, (part.axis + 2) % 3] = distance * np.sin(turn)
    local[:, part.axis] = np.where(on_side, (2 * third - 1) * half, end)
    return local


def _placed(piece: Piece, local: NDArray[np.float64]) -> NDArray[np.float64]:
    cosine, sine = math.cos(piece.yaw), math.sin(piece.yaw)
    x, y, z = local.T
    turned = np.stack([cosine * x + sine * z, y, cosine * z - sine * x], axis=-1)
    return np.asarray(turned + np.array(piece.position))


def _counted(
    caster: RayCaster, places: NDArray[np.float64], chosen: NDArray[np.intp], exposure: float
) -> tuple[NDArray[np.float64], UInt8]:
    """The places of free surfaces within reach, and their colours."""
    x, y, z = torch.tensor(places, dtype=torch.float32).T
    part = torch.from_numpy(chosen)
    surface = caster.table.at((x, y, z), part, torch.full_like(x, PATCH))
    n = surface.normal
    above: Axes = (x + FREE * n[0], y + FREE * n[1], z + FREE * n[2])
    free = signed_distance(caster.pieces, above, 0.1) > 0.5 * FREE
    offset = places - np.array(caster.layout.position)
    near = np.sqrt((offset**2).sum(axis=-1)) <= caster.layout.reach
    kept = free.numpy() & near
    index = torch.from_numpy(kept.nonzero()[0])
    own = Surface(
        taken(surface.point, index),
        taken(n, index),
        taken(surface.local, index),
        taken(surface.local_normal, index),
        surface.footprint[index],
        part[index],
    )
    return places[kept], caster.surface_colors(own, LAMP_SAMPLES, exposure)
