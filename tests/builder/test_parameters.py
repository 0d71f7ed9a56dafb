"""What a caller may choose, and the ids that follow from it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.geometry.strategies import rigid
from worldstereo.builder.parameters import BuildParameters, trajectory_ids
from worldstereo.builder.specs import path_of, refused, trajectory_names
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.trajectories import reconstruction_paths


def test_the_default_is_the_published_set() -> None:
    parameters = BuildParameters(prompt="a room")
    start = StartPose(rigid([0.1, -0.2, 0.3], [1, 2, 3]), 3.0)
    published = reconstruction_paths(start)
    assert trajectory_names(parameters.paths) == tuple(published)
    for spec, path in zip(parameters.paths, published.values(), strict=True):
        made = path_of(spec, start)
        np.testing.assert_array_equal(made.camera_from_world, path.camera_from_world)
    assert trajectory_ids(parameters) == tuple(f"renders/{name}" for name in published)


def test_ids_keep_the_order_given() -> None:
    listed = [
        {"preset": "pan", "degrees": 20, "name": "z"},
        {"preset": "orbit"},
        {"preset": "dolly", "amount": 0.1, "name": "a"},
    ]
    parameters = BuildParameters(prompt="a room", trajectories=listed)
    assert trajectory_ids(parameters) == ("renders/z", "renders/orbit_0", "renders/a")
    again = BuildParameters.model_validate_json(parameters.model_dump_json())
    assert again == parameters


def test_a_panorama_has_three_views_in_canonical_order() -> None:
    parameters = BuildParameters(prompt="a square", kind="panorama")
    assert trajectory_ids(parameters) == tuple(
        f"view{view}/traj{number}" for view in range(3) for number in (2, 0, 1)
    )
    start = StartPose(np.eye(4), 2.0)
    ends = {spec.name: path_of(spec, start).centers[-1] - start.pivot for spec in parameters.paths}
    # traj0 to the right and traj1 to the left by 120 degrees; traj2 up by 45, then right by 60.
    side, back = 2 * np.sin(np.radians(120)), -2 * np.cos(np.radians(120))
    np.testing.assert_allclose(ends["traj0"], [side, 0, back], atol=1e-9)
    np.testing.assert_allclose(ends["traj1"], [-side, 0, back], atol=1e-9)
    level = 2 * np.cos(np.radians(45))
    expected = [level * np.sin(np.radians(60)), -(2**0.5), -level / 2]
    np.testing.assert_allclose(ends["traj2"], expected, atol=1e-9)
    one = BuildParameters(
        prompt="p", kind="panorama", trajectories=[{"preset": "orbit", "name": "traj1"}]
    )
    assert trajectory_ids(one) == ("view0/traj1", "view1/traj1", "view2/traj1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "prompt: Field required"),
        ({"prompt": "  "}, "prompt: the prompt is empty"),
        ({"prompt": "\ud800"}, "prompt: "),
        ({"prompt": "x" * 20_001}, "prompt: .*20000"),
        ({"prompt": "x", "field_of_view": 0}, "field_of_view: .*5"),
        ({"prompt": "x", "field_of_view": 179}, "field_of_view: .*160"),
        ({"prompt": "x", "field_of_view": float("nan")}, "field_of_view: .*finite"),
        ({"prompt": "x", "clearance": -0.1}, "clearance: "),
        ({"prompt": "x", "frames": 1}, "frames: "),
        ({"prompt": "x", "kind": "cube"}, "kind: "),
        ({"prompt": "x", "fov": 60}, "fov: Extra"),
        ({"prompt": "x", "trajectories": [{"preset": "orbit"}] * 65}, "trajectories: .*64"),
        ({"prompt": "x", "trajectories": [{"preset": "pan"}]}, r"trajectories\[0\].degrees: "),
        (
            {"prompt": "x", "trajectories": [{"preset": "orbit", "name": "a"}] * 2},
            r"trajectories\[1\].name: two trajectories have one name",
        ),
        (
            {"prompt": "x", "kind": "panorama", "trajectories": [{"preset": "orbit"}]},
            "trajectories: a view of a panorama.*traj2",
        ),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BuildParameters(**fields)
    assert re.match(message, str(refused(caught.value, "")))
