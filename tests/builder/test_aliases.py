"""Paths by other systems' names: where their cameras end and where they look."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from worldstereo.builder.aliases import ALIASES
from worldstereo.builder.specs import path_of, trajectory_specs
from worldstereo.geometry.camera_path import CameraPath, StartPose

D = 2.0
START = StartPose(np.eye(4), D)
AHEAD = [0.0, 0.0, 1.0]
MOVE, GEN3C = 0.99 * D, 0.3 * D
# Looking at the pivot from 0.99 d and 0.3 d beside the start.
FACING, NEARER = math.hypot(1, 0.99), math.hypot(1, 0.3)
TAN = math.tan(math.radians(27))

# The alias -> parameters, last centre, last viewing direction, last focal length.
ENDS: dict[str, tuple[dict[str, Any], list[float], list[float], float]] = {
    "seva:orbit": ({}, [0, 0, 0], AHEAD, 1),
    "seva:spiral": ({}, [0, 0, 0.2 * D], AHEAD, 1),
    "seva:lemniscate": ({}, [0, 0, 0], AHEAD, 1),
    "seva:zoom-in": ({}, [0, 0, 0], AHEAD, TAN / math.tan(math.radians(27 * 0.28))),
    "seva:zoom-out": ({}, [0, 0, 0], AHEAD, TAN / math.tan(math.radians(40.5))),
    "seva:dolly zoom-in": ({}, [0, 0, -2.83916 * D], AHEAD, 3.83916),
    "seva:dolly zoom-out": ({}, [0, 0, 0.4034 * D], AHEAD, 0.5966),
    "seva:move-forward": ({}, [0, 0, MOVE], AHEAD, 1),
    "seva:move-backward": ({}, [0, 0, -MOVE], AHEAD, 1),
    "seva:move-left": ({}, [-MOVE, 0, 0], [0.99 / FACING, 0, 1 / FACING], 1),
    "seva:move-right": ({}, [MOVE, 0, 0], [-0.99 / FACING, 0, 1 / FACING], 1),
    "seva:move-up": ({}, [0, -MOVE, 0], [0, 0.99 / FACING, 1 / FACING], 1),
    "seva:move-down": ({}, [0, MOVE, 0], [0, -0.99 / FACING, 1 / FACING], 1),
    "seva:pan-left": ({}, [-MOVE, 0, 0], AHEAD, 1),
    "seva:pan-right": ({}, [MOVE, 0, 0], AHEAD, 1),
    "seva:pan-up": ({}, [0, -MOVE, 0], AHEAD, 1),
    "seva:pan-down": ({}, [0, MOVE, 0], AHEAD, 1),
    "seva:roll": ({}, [0, 0, 0], AHEAD, 1),
    "gen3c:left": ({}, [-GEN3C, 0, 0], [0.3 / NEARER, 0, 1 / NEARER], 1),
    "gen3c:right": ({"rotation": "no_rotation"}, [GEN3C, 0, 0], AHEAD, 1),
    "gen3c:up": ({"rotation": "no_rotation", "distance": 0.5}, [0, -D / 2, 0], AHEAD, 1),
    "gen3c:down": ({}, [0, GEN3C, 0], [0, -0.3 / NEARER, 1 / NEARER], 1),
    "gen3c:zoom_in": ({}, [0, 0, GEN3C], AHEAD, 1),
    "gen3c:zoom_out": ({"distance": 0.5}, [0, 0, -D / 2], AHEAD, 1),
    "gen3c:clockwise": ({}, [0, 0, 0], AHEAD, 1),
    "gen3c:counterclockwise": ({}, [0, 0, 0], AHEAD, 1),
    # phi = 30 at d = 2: C = (-1, 0, 0.27), it moves left; theta < 0 raises it.
    "worldstereo:rotation": ({"phi": 30}, [-1, 0, 0.2679], [0.5, 0, 0.866], 1),
    "worldstereo:aerial": (
        {"theta": -45, "phi": -90},
        [2**0.5, -(2**0.5), D],
        [-(0.5**0.5), 0.5**0.5, 0],
        1,
    ),
    "worldstereo:eloop": ({}, [0, 0, 0], AHEAD, 1),
    "worldstereo:forward": ({}, [0, 0, D / 2], AHEAD, 1),
    "worldstereo:right": ({"v": -1}, [-D / 2, 0, 0], AHEAD, 1),
}


def path(preset: str, frames: int = 21, **fields: Any) -> CameraPath:
    (spec,) = trajectory_specs([{"preset": preset, **fields}])
    assert spec.alias == preset
    return path_of(spec, START, frames)


def test_every_alias_is_tested() -> None:
    assert set(ENDS) == set(ALIASES)


@pytest.mark.parametrize("alias", ENDS)
def test_where_it_ends_and_looks(alias: str) -> None:
    fields, center, forward, focal = ENDS[alias]
    end = path(alias, **fields)
    np.testing.assert_allclose(end.centers[-1], center, atol=2e-4)
    np.testing.assert_allclose(end.rotation[-1].as_matrix()[:, 2], forward, atol=2e-4)
    assert end.focal_scale[-1] == pytest.approx(focal, rel=1e-4)


@pytest.mark.parametrize(
    ("alias", "axis", "sign"),
    [("seva:move-left", 0, -1), ("seva:move-up", 1, -1), ("gen3c:down", 1, 1)],
)
def test_sideways_moves_are_straight_and_even(alias: str, axis: int, sign: int) -> None:
    centers = path(alias).centers
    others = np.delete(centers, axis, axis=1)
    np.testing.assert_allclose(others, 0, atol=1e-9)
    steps = sign * np.diff(centers[:, axis])
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)


def test_loops_by_their_middle() -> None:
    # Half way round: opposite of the start pose.
    np.testing.assert_allclose(path("seva:orbit").centers[10], [0, 0, 2 * D], atol=1e-9)
    np.testing.assert_allclose(path("worldstereo:eloop").centers[10], [0, -0.8 * D, 0], atol=1e-9)
    eighths = path("seva:lemniscate", 9).centers
    half_width, height = math.tan(math.radians(30)) * D, math.tan(math.radians(30)) * D / 8**0.5
    np.testing.assert_allclose(eighths[2], [half_width, 0, 0], atol=1e-9)
    np.testing.assert_allclose(eighths[1, 1], height, atol=1e-9)
    np.testing.assert_allclose(np.abs(path("seva:spiral", 81).centers[:, 0]).max(), 0.5 * D)


def test_clockwise_as_the_camera_sees_it() -> None:
    """From the bottom of its circle to the left, up, to the right and back."""
    for alias, sign in (("gen3c:clockwise", -1), ("gen3c:counterclockwise", 1)):
        quarters = path(alias, 5).centers
        expected = np.array([[0, 0], [sign, -1], [0, -2], [-sign, -1], [0, 0]]) * GEN3C
        np.testing.assert_allclose(quarters[:, :2], expected, atol=1e-9)


def test_roll_turns_once_and_stays() -> None:
    quarter = path("seva:roll", 5).rotation[1].as_rotvec(degrees=True)
    np.testing.assert_allclose(quarter, [0, 0, 90], atol=1e-9)


def test_an_alias_in_a_chain() -> None:
    chain = {"preset": "chain", "segments": [{"preset": "gen3c:zoom_in"}, {"preset": "seva:roll"}]}
    (spec,) = trajectory_specs([chain])
    np.testing.assert_allclose(path_of(spec, START).centers[-1], [0, 0, GEN3C], atol=1e-9)
