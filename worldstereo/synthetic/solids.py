"""Rays against solids, and exact signed distances.

Owns a layout's shapes as tensors. A piece's parts are tried only with the rays and points that
come near the piece. Vectors are triples of tensors [R], one an axis: all arithmetic is
element-wise, so that the numbers do not depend on the number of threads or on chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldstereo.synthetic.layout import Part, Piece, Shape, Vector

Axes = tuple[Tensor, Tensor, Tensor]

# Directions are kept from zero along every axis, so that slabs can be divided by them.
LEAST = 1e-6
# How much larger than their contents the bounds of pieces are, in metres.
SLACK = 1e-3


@dataclass(frozen=True, eq=False)
class Batch:
    """Parts of one piece that have one shape and one axis: n of them.

    Attributes:
        center, half: three tensors [n, 1] each, in the piece's frame.
        side: [n, 1], of planes.
        index: [n] int64, which parts of the layout they are.
    """

    shape: Shape
    axis: int
    center: Axes
    half: Axes
    side: Tensor
    index: Tensor


@dataclass(frozen=True, eq=False)
class PlacedPiece:
    """A piece's parts in batches, where it stands, and its bounds in the layout's axes."""

    position: Vector
    cosine: float
    sine: float
    low: Vector
    high: Vector
    batches: tuple[Batch, ...]
    surrounds: bool
    casts_shadow: bool

    def moved_in(self, v: Axes) -> Axes:
        """Points of the layout in the piece's frame."""
        px, py, pz = self.position
        return self.turned_in((v[0] - px, v[1] - py, v[2] - pz))

    def turned_in(self, v: Axes) -> Axes:
        """Directions of the layout in the piece's frame."""
        if self.sine == 0 and self.cosine == 1:
            return v
        return (
            self.cosine * v[0] - self.sine * v[2],
            v[1],
            self.sine * v[0] + self.cosine * v[2],
        )


def place(pieces: Sequence[Piece], device: torch.device) -> list[PlacedPiece]:
    """Pieces as tensors; their parts are numbered through in order."""
    placed, first = [], 0
    for piece in pieces:
        placed.append(_place(piece, first, device))
        first += len(piece.parts)
    return placed


def _place(piece: Piece, first: int, device: torch.device) -> PlacedPiece:
    groups: dict[tuple[Shape, int], list[int]] = {}
    for number, part in enumerate(piece.parts):
        axis = part.axis if part.shape in ("cylinder", "plane") else 0
        groups.setdefault((part.shape, axis), []).append(number)
    batches = tuple(
        _batch(shape, axis, [piece.parts[n] for n in numbers], [first + n for n in numbers], device)
        for (shape, axis), numbers in groups.items()
    )
    cosine, sine = math.cos(piece.yaw), math.sin(piece.yaw)
    low, high = bounds(piece)
    return PlacedPiece(
        position=piece.position,
        cosine=cosine,
        sine=sine,
        low=low,
        high=high,
        batches=batches,
        surrounds=any(part.shape in ("plane", "dome") for part in piece.parts),
        casts_shadow=piece.casts_shadow,
    )


def _batch(
    shape: Shape, axis: int, parts: Sequence[Part], index: Sequence[int], device: torch.device
) -> Batch:
    def columns(vectors: Sequence[Vector]) -> Axes:
        x, y, z = torch.tensor(vectors, dtype=torch.float32, device=device).unbind(-1)
        return x[:, None], y[:, None], z[:, None]

    return Batch(
        shape,
        axis,
        columns([part.center for part in parts]),
        columns([part.half for part in parts]),
        torch.tensor([[part.side] for part in parts], dtype=torch.float32, device=device),
        torch.tensor(list(index), device=device),
    )


def bounds(piece: Piece) -> tuple[Vector, Vector]:
    """Lowest and highest corner of a piece in the layout's axes."""
    cosine, sine = abs(math.cos(piece.yaw)), abs(math.sin(piece.yaw))
    low, high = [math.inf] * 3, [-math.inf] * 3
    for part in piece.parts:
        (x, y, z), (hx, hy, hz) = part.center, part.half
        c, s = math.cos(piece.yaw), math.sin(piece.yaw)
        center = (c * x + s * z, y, -s * x + c * z)
        half = (cosine * hx + sine * hz, hy, sine * hx + cosine * hz)
        for axis in range(3):
            at = center[axis] + piece.position[axis]
            low[axis] = min(low[axis], at - half[axis] - SLACK)
            high[axis] = max(high[axis], at + half[axis] + SLACK)
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def nonzero_direction(direction: Axes) -> Axes:
    """The direction, kept ``LEAST`` away from zero along every axis."""
    x, y, z = (torch.where(axis.abs() < LEAST, LEAST, axis) for axis in direction)
    return x, y, z


def nearest(pieces: Sequence[PlacedPiece], origin: Axes, direction: Axes) -> tuple[Tensor, Tensor]:
    """What each ray meets first.

    Args:
        pieces: of the layout.
        origin: where the rays start, in the layout.
        direction: not zero along any axis, any length.

    Returns:
        Distance [R] in lengths of ``direction``, infinite where a ray meets nothing, and the
        part's index [R] int64.
    """
    best = torch.full_like(direction[0], math.inf)
    which = torch.zeros(best.shape, dtype=torch.int64, device=best.device)
    inverse = (1 / direction[0], 1 / direction[1], 1 / direction[2])
    for piece in pieces:
        if piece.surrounds:
            rays = None
            o, d = piece.moved_in(origin), piece.turned_in(direction)
            so_far = best
        else:
            rays = _near_rays(piece, origin, inverse, best)
            if len(rays) == 0:
                continue
            o = piece.moved_in(taken(origin, rays))
            d = nonzero_direction(piece.turned_in(taken(direction, rays)))
            so_far = best[rays]
        found = which if rays is None else which[rays]
        for batch in piece.batches:
            # One part after the other: of equal distances the first part's counts everywhere,
            # where a minimum over parts would leave the choice to the processor.
            for distance, index in zip(_enter(batch, o, d), batch.index, strict=True):
                found = torch.where(distance < so_far, index, found)
                so_far = torch.minimum(distance, so_far)
        if rays is None:
            best, which = so_far, found
        else:
            best[rays], which[rays] = so_far, found
    return best, which


def blocked(pieces: Sequence[PlacedPiece], origin: Axes, direction: Axes) -> Tensor:
    """Which rays [R] meet something that casts a shadow before they have gone their length."""
    hit = torch.zeros(direction[0].shape, dtype=torch.bool, device=direction[0].device)
    inverse = (1 / direction[0], 1 / direction[1], 1 / direction[2])
    limit = torch.ones_like(direction[0])
    for piece in pieces:
        if piece.surrounds or not piece.casts_shadow:
            continue
        rays = _near_rays(piece, origin, inverse, torch.where(hit, -1.0, limit))
        if len(rays) == 0:
            continue
        o = piece.moved_in(taken(origin, rays))
        d = nonzero_direction(piece.turned_in(taken(direction, rays)))
        for batch in piece.batches:
            met = (_enter(batch, o, d) < 1).any(dim=0)
            hit[rays] |= met
    return hit


def signed_distance(
    pieces: Sequence[PlacedPiece], points: Axes, within: float = math.inf
) -> Tensor:
    """Distance [R] to the nearest surface, negative inside solids and outside of the world.

    Exact outside of solids; inside of several that overlap it is a lower bound of the depth.

    Args:
        pieces: of the layout.
        points: in the layout.
        within: distances are cut off here, which saves trying pieces that are farther away.
    """
    best = torch.full_like(points[0], within)
    for piece in pieces:
        if piece.surrounds or math.isinf(within):
            near = None
            p = piece.moved_in(points)
        else:
            near = _near_points(piece, points, within)
            if len(near) == 0:
                continue
            p = piece.moved_in(taken(points, near))
        for batch in piece.batches:
            distance = _distance(batch, p).amin(dim=0)
            if near is None:
                best = torch.minimum(best, distance)
            else:
                best[near] = torch.minimum(best[near], distance)
    return best


def taken(v: Axes, index: Tensor) -> Axes:
    """The vectors of these numbers."""
    return v[0][index], v[1][index], v[2][index]


def _near_rays(piece: PlacedPiece, origin: Axes, inverse: Axes, limit: Tensor) -> Tensor:
    """Rays that pass through a piece's bounds before ``limit``."""
    enter, leave = None, limit
    for axis in range(3):
        first = (piece.low[axis] - origin[axis]) * inverse[axis]
        second = (piece.high[axis] - origin[axis]) * inverse[axis]
        near, far = torch.minimum(first, second), torch.maximum(first, second)
        enter = near.clamp(min=0) if enter is None else torch.maximum(enter, near)
        leave = torch.minimum(leave, far)
    assert enter is not None
    return (enter <= leave).nonzero()[:, 0]


def _near_points(piece: PlacedPiece, points: Axes, within: float) -> Tensor:
    inside = None
    for axis in range(3):
        value = points[axis]
        fits = (value > piece.low[axis] - within) & (value < piece.high[axis] + within)
        inside = fits if inside is None else inside & fits
    assert inside is not None
    return inside.nonzero()[:, 0]


def _enter(batch: Batch, origin: Axes, d: Axes) -> Tensor:
    """Where rays [R] enter parts: [n, R] in lengths of d, infinite for misses."""
    o = tuple(origin[axis] - batch.center[axis] for axis in range(3))
    if batch.shape == "plane":
        axis = batch.axis
        t = -o[axis] / d[axis]
        # Seen from its own side alone.
        return torch.where((d[axis] * batch.side < 0) & (t > 0), t, math.inf)
    if batch.shape == "dome":
        return _ball(o, d, batch.half[0])[1]
    if batch.shape == "sphere":
        enter, leave = _ball(o, d, batch.half[0])
    elif batch.shape == "box":
        enter, leave = _slabs(o, d, batch.half, (0, 1, 2))
    else:
        b, c = (axis for axis in range(3) if axis != batch.axis)
        enter, leave = _slabs(o, d, batch.half, (batch.axis,))
        across_enter, across_leave = _tube(o[b], o[c], d[b], d[c], batch.half[b])
        enter, leave = torch.maximum(enter, across_enter), torch.minimum(leave, across_leave)
    return torch.where((enter <= leave) & (enter > 0), enter, math.inf)


def _slabs(
    o: tuple[Tensor, ...], d: Axes, half: Axes, axes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    enter, leave = None, None
    for axis in axes:
        inverse = 1 / d[axis]
        middle, reach = -o[axis] * inverse, half[axis] * inverse.abs()
        near, far = middle - reach, middle + reach
        enter = near if enter is None else torch.maximum(enter, near)
        leave = far if leave is None else torch.minimum(leave, far)
    assert enter is not None
    assert leave is not None
    return enter, leave


def _tube(ob: Tensor, oc: Tensor, db: Tensor, dc: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """An endless cylinder: from the distance of the ray from its axis, which cancels nothing."""
    a = db * db + dc * dc
    middle = -(ob * db + oc * dc) / a
    cross = ob * dc - oc * db
    square = (a * radius * radius - cross * cross) / (a * a)
    reach = square.clamp(min=0).sqrt()
    miss = square < 0
    return torch.where(miss, math.inf, middle - reach), torch.where(miss, -math.inf, middle + reach)


def _ball(o: tuple[Tensor, ...], d: Axes, radius: Tensor) -> tuple[Tensor, Tensor]:
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    middle = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2]) / a
    x, y, z = (o[axis] + middle * d[axis] for axis in range(3))
    square = (radius * radius - (x * x + y * y + z * z)) / a
    reach = square.clamp(min=0).sqrt()
    miss = square < 0
    return torch.where(miss, math.inf, middle - reach), torch.where(miss, -math.inf, middle + reach)


def _distance(batch: Batch, points: Axes) -> Tensor:
    """Signed distances [n, R] of points [R] in the piece's frame."""
    x, y, z = (points[axis] - batch.center[axis] for axis in range(3))
    local = (x, y, z)
    if batch.shape == "plane":
        return local[batch.axis] * batch.side
    if batch.shape in ("sphere", "dome"):
        distance = (x * x + y * y + z * z).sqrt() - batch.half[0]
        return -distance if batch.shape == "dome" else distance
    if batch.shape == "box":
        q = tuple(local[axis].abs() - batch.half[axis] for axis in range(3))
    else:
        b, c = (axis for axis in range(3) if axis != batch.axis)
        across = (local[b] * local[b] + local[c] * local[c]).sqrt() - batch.half[b]
        q = (across, local[batch.axis].abs() - batch.half[batch.axis])
    inside, square = q[0], torch.zeros_like(q[0])
    for value in q:
        inside = torch.maximum(inside, value)
        out = value.clamp(min=0)
        square = square + out * out
    return square.sqrt() + inside.clamp(max=0)
