"""Pictures of a layout: colours, exact depth, and which part each pixel shows.

Owns rays, shading and chunks. Everything is element-wise on tensors, on any device: the same
layout and cameras give the same bytes on a CPU, however many threads there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldstereo.synthetic.layout import Layout, Light
from worldstereo.synthetic.solids import (
    Axes,
    PlacedPiece,
    blocked,
    nearest,
    nonzero_direction,
    place,
    signed_distance,
)
from worldstereo.synthetic.surface import Hits, Surface, SurfaceTable
from worldstereo.types import Cameras, UInt8

# Rays that are traced at a time.
CPU_RAYS, CUDA_RAYS = 1 << 15, 1 << 23
# Shadow rays start this far above a surface, in metres.
LIFT = 2e-3
# Corners within this distance are darker, by this much.
CORNER, DARKEST = 0.35, 0.6


class RayCaster:
    """A layout on a device, ready to be looked at.

    Args:
        layout: what there is.
        device: where the tensors lie.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout, self.device = layout, device
        self.pieces: list[PlacedPiece] = place(layout.pieces, device)
        self.table = SurfaceTable(layout.pieces, device)
        cosine, sine = math.cos(layout.yaw), math.sin(layout.yaw)
        # Layout from world: the start camera looks along z turned by yaw.
        self.layout_from_world = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])

    def depths(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Depth along z [F, H, W] float32 at pixel centres, and the part's index [F, H, W]."""
        count = len(cameras) * cameras.height * cameras.width
        depth = torch.empty(count, device=self.device)
        which = torch.empty(count, dtype=torch.int64, device=self.device)
        for first, origin, direction, _ in self._rays(cameras, 1):
            part = slice(first, first + len(direction[0]))
            depth[part], which[part] = nearest(self.pieces, origin, direction)
        shape = (len(cameras), cameras.height, cameras.width)
        return depth.reshape(shape), which.reshape(shape)

    def images(self, cameras: Cameras, samples: int, exposure: float) -> Tensor:
        """Colours [F, H, W, 3] uint8: the mean of ``samples`` x ``samples`` rays a pixel.

        ``exposure`` is a factor on all light.
        """
        count = len(cameras) * cameras.height * cameras.width
        out = torch.empty(count, 3, dtype=torch.uint8, device=self.device)
        squares = samples * samples
        for first, origin, direction, size in self._rays(cameras, samples):
            pixels = len(direction[0]) // squares
            sample = torch.arange(squares, device=self.device).repeat_interleave(pixels)
            distance, which = nearest(self.pieces, origin, direction)
            surface = self.table.surface(Hits(origin, direction, distance, which), size)
            for channel, value in enumerate(self.shade(surface, sample, samples, exposure)):
                # Toned before the mean, so that bright edges stay smooth.
                toned = _toned(value).reshape(squares, pixels)
                total = toned[0]
                for other in range(1, squares):
                    total = total + toned[other]
                encoded = (total * (1 / squares)).sqrt() * 255 + 0.5
                out[first : first + pixels, channel] = encoded.to(torch.uint8)
        return out.reshape(len(cameras), cameras.height, cameras.width, 3)

    def surface_colors(self, surface: Surface, samples: int, exposure: float) -> UInt8:
        """Encoded colours [R, 3] of surfaces, each the mean over the points of every lamp."""
        total: list[Tensor] = []
        for number in range(samples * samples):
            sample = torch.full_like(surface.part, number)
            toned = [_toned(value) for value in self.shade(surface, sample, samples, exposure)]
            total = toned if not total else [a + b for a, b in zip(total, toned, strict=True)]
        channels = [(value * (1 / samples**2)).sqrt() * 255 + 0.5 for value in total]
        return np.asarray(torch.stack(channels, dim=-1).to(torch.uint8).cpu().numpy())

    def shade(self, surface: Surface, sample: Tensor, samples: int, exposure: float) -> Axes:
        """Linear colours of surfaces.

        Args:
            surface: R places.
            sample: [R] which of the points of every light each place sees.
            samples: lights have ``samples`` x ``samples`` points.
            exposure: factor on all light.
        """
        color, glow = self.table.colors(surface)
        normal = surface.normal
        start = _added(surface.point, normal, LIFT)
        probe = _added(surface.point, normal, CORNER)
        open_share = (signed_distance(self.pieces, probe, CORNER) * (1 / CORNER)).clamp(0, 1)
        near_open = 1 - DARKEST * (1 - open_share) * (1 - open_share)
        up = 0.5 - 0.5 * normal[1]
        above, below = self.layout.ambient
        light = [(below[c] + (above[c] - below[c]) * up) * near_open for c in range(3)]
        for lamp in self.layout.lights:
            share = self._lamp(lamp, start, normal, sample, samples)
            # A lamp without shadows stands for light from many sides, which corners get less of.
            share = share if lamp.shadows else share * near_open
            light = [light[c] + share * lamp.color[c] for c in range(3)]
        if self.layout.beam is not None:
            share = self._beam(start, normal, sample, samples)
            light = [light[c] + share * self.layout.beam.color[c] for c in range(3)]
        dim = (1 - glow) * exposure
        red, green, blue = (color[c] * (light[c] * dim + glow) for c in range(3))
        return red, green, blue

    def _lamp(self, lamp: Light, start: Axes, normal: Axes, sample: Tensor, samples: int) -> Tensor:
        points = torch.tensor(_lamp_points(lamp, samples), dtype=torch.float32, device=self.device)[
            sample
        ]
        x, y, z = (points[:, axis] - start[axis] for axis in range(3))
        square = x * x + y * y + z * z
        slope = (x * normal[0] + y * normal[1] + z * normal[2]) / square.sqrt()
        share = slope.clamp(min=0) / (lamp.near + lamp.decay * square)
        if not lamp.shadows:
            return share
        lit = (share > 1e-4).nonzero()[:, 0]
        shadow = blocked(
            self.pieces,
            (start[0][lit], start[1][lit], start[2][lit]),
            nonzero_direction((x[lit], y[lit], z[lit])),
        )
        share[lit] = torch.where(shadow, 0.0, share[lit])
        return share

    def _beam(self, start: Axes, normal: Axes, sample: Tensor, samples: int) -> Tensor:
        """Sunlight [R] that comes through the window."""
        beam = self.layout.beam
        assert beam is not None
        axis, other = beam.axis, 2 - beam.axis
        direction = torch.tensor(
            [
                [v + 0.012 * j for v, j in zip(beam.direction, (dx, dy, 0.0), strict=True)]
                for dx, dy in _grid(samples)
            ],
            dtype=torch.float32,
            device=self.device,
        )[sample]
        back = tuple(-direction[:, k] for k in range(3))
        length = (back[0] * back[0] + back[1] * back[1] + back[2] * back[2]).sqrt()
        slope = (back[0] * normal[0] + back[1] * normal[1] + back[2] * normal[2]) / length
        steps = (beam.center[axis] - start[axis]) / back[axis]
        u = start[other] + steps * back[other] - beam.center[other]
        v = start[1] + steps * back[1] - beam.center[1]
        through = (u.abs() < beam.half[other]) & (v.abs() < beam.half[1])
        share = torch.where(through & (steps > 0), slope.clamp(min=0), 0.0)
        lit = (share > 0).nonzero()[:, 0]
        shadow = blocked(
            self.pieces,
            (start[0][lit], start[1][lit], start[2][lit]),
            nonzero_direction(
                (
                    (back[0] * steps)[lit],
                    (back[1] * steps)[lit],
                    (back[2] * steps)[lit],
                )
            ),
        )
        share[lit] = torch.where(shadow, 0.0, share[lit])
        return share

    def _rays(self, cameras: Cameras, samples: int) -> Iterator[tuple[int, Axes, Axes, Tensor]]:
        """Chunks of rays: number of the first pixel, origins, directions, widths of a ray.

        Directions have z = 1 in their camera, so that distances along them are depths. Within a
        chunk all pixels' first rays come first, then all second ones.
        """
        height, width = cameras.height, cameras.width
        limit = CPU_RAYS if self.device.type == "cpu" else CUDA_RAYS
        pixels = max(width, limit // samples**2)
        frames, rows = max(1, pixels // (height * width)), min(height, pixels // width)
        poses = [self._pose(matrix) for matrix in cameras.camera_from_world]
        offset = torch.tensor(_grid(samples), dtype=torch.float32, device=self.device) * 0.5 + 0.5
        for f in range(0, len(cameras), frames):
            for r in range(0, height, rows):
                part = slice(f, min(f + frames, len(cameras)))
                yield self._chunk(
                    cameras, part, (r, min(r + rows, height)), poses[part], offset, samples
                )

    def _chunk(
        self,
        cameras: Cameras,
        frames: slice,
        rows: tuple[int, int],
        poses: list[NDArray[np.float64]],
        offset: Tensor,
        samples: int,
    ) -> tuple[int, Axes, Axes, Tensor]:
        def column(values: NDArray[np.float64]) -> Tensor:
            tensor = torch.tensor(values, dtype=torch.float32, device=self.device)
            return tensor[None, :, None, None]

        shape = (samples**2, len(poses), rows[1] - rows[0], cameras.width)
        k = cameras.intrinsics[frames].astype(np.float64)
        across = torch.arange(cameras.width, device=self.device) + offset[:, :1]
        down = torch.arange(*rows, device=self.device) + offset[:, 1:]
        y = (down[:, None, :, None] - column(k[:, 1, 2])) * column(1 / k[:, 1, 1])
        x = across[:, None, None, :] - column(k[:, 0, 2]) - column(k[:, 0, 1]) * y
        x = x * column(1 / k[:, 0, 0])
        matrix = np.stack(poses)
        direction = [
            (
                column(matrix[:, axis, 0]) * x
                + column(matrix[:, axis, 1]) * y
                + column(matrix[:, axis, 2])
            )
            .expand(shape)
            .flatten()
            for axis in range(3)
        ]
        origin = [
            column(matrix[:, axis, 3]).expand(shape).flatten().contiguous() for axis in range(3)
        ]
        size = column(1 / (k[:, 0, 0] * samples)).expand(shape).flatten()
        first = (frames.start * cameras.height + rows[0]) * cameras.width
        return (
            first,
            (origin[0], origin[1], origin[2]),
            nonzero_direction((direction[0], direction[1], direction[2])),
            size,
        )

    def _pose(self, camera_from_world: NDArray[np.float32]) -> NDArray[np.float64]:
        """[3, 4]: layout from camera."""
        matrix = camera_from_world.astype(np.float64)
        rotation = matrix[:3, :3].T
        center = -_product(rotation, matrix[:3, 3:])
        pose = _product(self.layout_from_world, np.concatenate([rotation, center], axis=1))
        pose[:, 3] += self.layout.position
        return pose


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, 3] x [3, N], summed in order: a library's matrix product may not be."""
    return np.asarray(a[:, :1] * b[:1] + a[:, 1:2] * b[1:2] + a[:, 2:3] * b[2:3])


def _grid(samples: int) -> list[tuple[float, float]]:
    """Centres of ``samples`` x ``samples`` fields of [-1, 1] x [-1, 1]."""
    places = [(2 * k + 1) / samples - 1 for k in range(samples)]
    return [(x, y) for y in places for x in places]


def _lamp_points(lamp: Light, samples: int) -> list[list[float]]:
    """Points of a lamp: a grid that is turned and bent, so that shadows get softer all ways."""
    x0, y0, z0 = lamp.position
    return [
        [
            x0 + lamp.radius * (0.9 * x + 0.35 * y),
            y0 + lamp.radius * 0.4 * x * y,
            z0 + lamp.radius * (0.9 * y - 0.35 * x),
        ]
        for x, y in _grid(samples)
    ]


def _added(point: Axes, normal: Axes, length: float) -> Axes:
    return (
        point[0] + length * normal[0],
        point[1] + length * normal[1],
        point[2] + length * normal[2],
    )


def _toned(value: Tensor) -> Tensor:
    """Linear light in 0..1: bright values are pressed together, white is reached at 3."""
    return (value * (1 + value * (1 / 9)) / (1 + 0.35 * value)).clamp(0, 1)
