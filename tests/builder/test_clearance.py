"""How near paths come to points, and how far they may go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.builder.rooms import SIZE, lens, slanted, wall
from worldstereo.builder.clearance import Obstacles, obstacle_points, shortened
from worldstereo.builder.specs import path_of, trajectory_specs
from worldstereo.errors import ParameterError
from worldstereo.geometry.camera_path import StartPose
from worldstereo.types import Cameras

START = StartPose(np.eye(4), 2.0)
# So dense that the mean distance of five points is that of the wall.
GRID = np.stack(np.meshgrid(np.arange(-4, 4.01, 0.02), np.arange(-1, 1.01, 0.02)), axis=-1)
PLANE = GRID.reshape(-1, 2)


def across(distance: float) -> Obstacles:
    """A wall across the view at this depth."""
    return Obstacles(np.insert(PLANE, 2, distance, axis=1))


def beside(distance: float) -> Obstacles:
    """A wall along the view, to the right of the camera."""
    return Obstacles(np.insert(PLANE, 0, distance, axis=1))


def spec_of(**fields: Any) -> Any:
    return trajectory_specs([fields])[0]


def test_the_distance_is_that_of_the_five_nearest_points() -> None:
    points = [[0, 0, z] for z in (1, 2, 3, 4, 5, 100)]
    assert Obstacles(points).distances([[0, 0, 0], [0, 0, 1]]) == pytest.approx([3, 2])
    assert Obstacles(points[:2]).distances([[0, 0, 0]]) == pytest.approx([1.5])


@pytest.mark.parametrize(
    ("fields", "obstacles", "factor"),
    [
        # Clearance 0.1 x 2 before a wall at 2: of the 3 asked for 1.8 are free.
        ({"preset": "dolly", "amount": 1.5}, across(2.0), 1.8 / 3),
        ({"preset": "dolly", "amount": 3, "unit": "scene"}, across(2.0), 1.8 / 3),
        ({"preset": "truck", "amount": 1}, beside(1.0), 0.8 / 2),
        # x = 2 sin(az) may reach 1.0 of 1.2.
        ({"preset": "orbit", "azimuth": 90}, beside(1.2), 30 / 90),
        # x = 2 rx may reach 0.8.
        ({"preset": "ellipse", "radius_x": 0.8, "radius_y": 0}, beside(1.0), 0.5),
        # Long and through the wall: no centre may jump over it.
        ({"preset": "dolly", "amount": 50}, across(2.0), 1.8 / 100),
    ],
)
def test_a_path_is_shortened_as_far_as_it_must(
    fields: dict[str, Any], obstacles: Obstacles, factor: float
) -> None:
    spec = spec_of(**fields)
    found = shortened(spec, START, obstacles, 0.1, frames=21, name="renders/x", minimum=0.001)
    assert found.factor == pytest.approx(factor, abs=0.01)
    assert found.clearance == pytest.approx(0.2)
    assert found.clearance <= found.smallest_distance < 0.23
    assert found.spec == spec.scaled(found.factor)
    keyframes = path_of(found.spec, START).centers
    assert obstacles.distances(keyframes).min() >= found.clearance
    # The same again: nothing about the search is random.
    assert shortened(spec, START, obstacles, 0.1, frames=21, name="x", minimum=0.001) == found


@pytest.mark.parametrize(
    "fields",
    [
        {"preset": "dolly", "amount": 0.5},
        {"preset": "dolly", "amount": -3},
        {"preset": "pan", "degrees": 180},
        {"preset": "zoom", "factor": 5},
        {"preset": "orbit", "azimuth": 40},
    ],
)
def test_a_free_path_stays_as_it_is(fields: dict[str, Any]) -> None:
    spec = spec_of(**fields)
    found = shortened(spec, START, across(2.0), 0.1, frames=21, name="x")
    assert (found.spec, found.factor) == (spec, 1.0)
    assert found.smallest_distance >= found.clearance


def test_without_clearance_a_path_may_go_through_walls() -> None:
    spec = spec_of(preset="dolly", amount=1.5)
    found = shortened(spec, START, across(2.0), 0, frames=21, name="x")
    assert (found.factor, found.clearance) == (1.0, 0)
    assert found.smallest_distance < 0.05


def test_given_cameras_are_never_changed() -> None:
    end = np.eye(4)
    end[2, 3] = -1.95
    spec = spec_of(preset="cameras", camera_from_world=[np.eye(4).tolist(), end.tolist()])
    found = shortened(spec, START, across(2.0), 0.1, frames=21, name="x")
    assert (found.spec, found.factor) == (spec, 1.0)
    assert found.smallest_distance == pytest.approx(0.05, abs=0.01)


def test_a_camera_that_stands_near_may_come_half_as_near() -> None:
    found = shortened(
        spec_of(preset="truck", amount=0.1), START, beside(0.15), 0.1, frames=21, name="x"
    )
    assert found.clearance == pytest.approx(0.075, abs=0.005)
    assert found.factor == pytest.approx(0.075 / 0.2, abs=0.03)


def test_a_path_that_cannot_begin_is_refused() -> None:
    spec = spec_of(preset="dolly", amount=50)
    with pytest.raises(ParameterError, match=r"renders/far: .*runs into the scene.*10%.*0.2"):
        shortened(spec, START, across(2.0), 0.1, frames=21, name="renders/far")


def test_obstacles_are_what_the_depth_shows() -> None:
    _, depth = slanted()
    depth[:10] = 0
    camera = Cameras(np.eye(4, dtype=np.float32)[None], lens()[None], *SIZE)
    points = obstacle_points(depth, camera.resized(48, 72))
    assert len(points) == (SIZE[0] - 10) * SIZE[1]
    pixel = points[20 * SIZE[1] + 100]
    focal = lens()[0, 0]
    expected = [(100.5 - 72) / focal, (30.5 - 48) / focal, 1]
    np.testing.assert_allclose(pixel, depth[30, 100] * np.array(expected), rtol=1e-6)
    # A larger map is thinned evenly.
    _, large = wall(2.0, (960, 1440))
    few = obstacle_points(large, camera)
    assert 1 << 16 < len(few) <= 1 << 18
    np.testing.assert_allclose(few[:, 2], 2.0)
    np.testing.assert_allclose(few.mean(axis=0)[:2], 0, atol=0.01)
