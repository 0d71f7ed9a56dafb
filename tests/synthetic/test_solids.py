"""Rays and distances against known answers, and each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldstereo.synthetic.layout import Part, Piece, Shape
from worldstereo.synthetic.palette import of
from worldstereo.synthetic.solids import (
    Axes,
    blocked,
    bounds,
    nearest,
    nonzero_direction,
    place,
    signed_distance,
)
from worldstereo.synthetic.surface import SurfaceTable

CPU = torch.device("cpu")
LOOK = of("plain", (0.5, 0.5, 0.5))
SOLIDS: tuple[tuple[Shape, int], ...] = (
    ("box", 0),
    ("sphere", 0),
    ("cylinder", 0),
    ("cylinder", 1),
    ("cylinder", 2),
)


def axes(*rows: tuple[float, float, float]) -> Axes:
    x, y, z = torch.tensor(rows, dtype=torch.float32).T
    return x, y, z


def solid(shape: Shape, axis: int) -> Part:
    if shape == "sphere":
        return Part(shape, (0.3, -0.2, 0.1), (0.5, 0.5, 0.5), LOOK)
    half = [0.4, 0.4, 0.4] if shape == "cylinder" else [0.4, 0.7, 0.25]
    half[axis] = 0.7
    return Part(shape, (0.3, -0.2, 0.1), (half[0], half[1], half[2]), LOOK, axis)


def test_a_ray_along_an_axis_meets_each_solid_where_it_begins() -> None:
    for shape, axis in SOLIDS:
        part = solid(shape, axis)
        pieces = place([Piece("", (part,))], CPU)
        start, way = axes((0.3, -0.2, -5)), nonzero_direction(axes((0, 0, 1)))
        distance, which = nearest(pieces, start, way)
        assert float(distance[0]) == pytest.approx(5.1 - part.half[2], abs=1e-5), (shape, axis)
        assert int(which[0]) == 0
        # From behind nothing is met.
        assert torch.isinf(nearest(pieces, axes((0.3, -0.2, 5)), way)[0])[0]


def test_a_turned_box_shows_its_edge() -> None:
    part = Part("box", (0, 0, 0), (1, 1, 1), LOOK)
    pieces = place([Piece("", (part,), (0, 0, 4), math.pi / 4)], CPU)
    distance, _ = nearest(pieces, axes((1e-4, 0.1, 0)), nonzero_direction(axes((0, 0, 1))))
    assert float(distance[0]) == pytest.approx(4 - math.sqrt(2), abs=1e-3)
    assert bounds(Piece("", (part,), yaw=math.pi / 4))[1][0] == pytest.approx(
        math.sqrt(2), abs=2e-3
    )


def test_known_distances() -> None:
    box = place([Piece("", (Part("box", (0, 0, 0), (1, 1, 1), LOOK),))], CPU)
    points = axes((4, 0, 0), (4, 5, 1), (0.5, 0, 0), (2, 2, 2))
    assert signed_distance(box, points).tolist() == pytest.approx([3, 5, -0.5, math.sqrt(3)])
    can = place([Piece("", (Part("cylinder", (0, 0, 0), (1, 2, 1), LOOK),))], CPU)
    points = axes((4, 0, 0), (4, 6, 0), (0, 1.5, 0))
    assert signed_distance(can, points).tolist() == pytest.approx([3, 5, -0.5])
    room = place(
        [
            Piece(
                "",
                (
                    Part("plane", (0, 0, 0), (9, 0, 9), LOOK, 1, -1),
                    Part("dome", (0, 0, 0), (9, 9, 9), LOOK),
                ),
            )
        ],
        CPU,
    )
    assert signed_distance(room, axes((0, -2, 0), (0, -8, 0))).tolist() == pytest.approx([2, 1])


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(SOLIDS), st.floats(-3, 3))
def test_rays_end_on_surfaces(seed: int, kind: tuple[Shape, int], yaw: float) -> None:
    """Where a ray ends the distance is 0, before it the way is free, and normals look back."""
    piece = Piece("", (solid(*kind),), (0.2, -0.3, 4), yaw)
    pieces = place([piece], CPU)
    generator = np.random.default_rng(seed)
    aim = torch.tensor(generator.normal(scale=0.5, size=(3, 64)), dtype=torch.float32)
    start = axes(*[(0, 0, 0)] * 64)
    way = nonzero_direction((aim[0], aim[1], aim[2] + 4))
    distance, which = nearest(pieces, start, way)
    met = torch.isfinite(distance)
    end: list[Tensor] = [(distance * axis)[met] for axis in way]
    on = signed_distance(pieces, (end[0], end[1], end[2]))
    assert on.abs().max() < 2e-5 if len(on) else True
    half = [(0.5 * axis[met] * distance[met]) for axis in way]
    assert bool((signed_distance(pieces, (half[0], half[1], half[2])) > 0).all())
    table = SurfaceTable([piece], CPU)
    found = table.at((end[0], end[1], end[2]), which[met], torch.ones(len(on)))
    facing = sum(n * w[met] for n, w in zip(found.normal, way, strict=True))
    assert bool((torch.as_tensor(facing) < 1e-3).all())
    length = sum(n * n for n in found.normal)
    assert torch.allclose(torch.as_tensor(length), torch.ones(len(on)), atol=1e-5)
    # A ray that is just long enough is blocked, one that is just too short is not.
    for share, expected in ((1.001, True), (0.999, False)):
        short = tuple(axis[met] * distance[met] * share for axis in way)
        hit = blocked(pieces, axes(*[(0, 0, 0)] * len(on)), (short[0], short[1], short[2]))
        assert bool((hit == expected).all())


def test_far_pieces_are_left_out_without_a_difference() -> None:
    generator = np.random.default_rng(3)
    pieces = place(
        [
            Piece("", (solid(*kind),), (0.0, 0.0, 2.0 * number), number * 0.7)
            for number, kind in enumerate(SOLIDS)
        ],
        CPU,
    )
    x, y, z = torch.tensor(generator.uniform(-2, 9, (3, 500)), dtype=torch.float32)
    whole = signed_distance(pieces, (x, y, z))
    assert torch.equal(signed_distance(pieces, (x, y, z), 0.5), whole.clamp(max=0.5))
