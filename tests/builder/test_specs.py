"""Specs of trajectories: what they become, what they refuse, and that JSON keeps them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.geometry.strategies import laws, poses, rigid
from tests.scenes import path
from worldstereo.builder.specs import (
    GivenCameras,
    cameras_of,
    path_of,
    trajectory_names,
    trajectory_specs,
)
from worldstereo.errors import ParameterError
from worldstereo.geometry.camera_path import StartPose
from worldstereo.types import Cameras

LEVEL = StartPose(np.eye(4), 2.0)
POSE = rigid([0.1, 0.3, -0.1], [0.3, -0.1, 0.2]).tolist()
GIVEN = path(5, step=0.6).tolist()
LENS = [[100.0, 0.0, 72.0], [0.0, 100.0, 48.0], [0.0, 0.0, 1.0]]
VALID: list[dict[str, Any]] = [
    {"preset": "dolly", "amount": 0.5},
    {"preset": "truck", "amount": -0.5, "unit": "scene"},
    {"preset": "pedestal", "amount": 0.25, "name": "up"},
    {"preset": "pan", "degrees": 30},
    {"preset": "tilt", "degrees": -10},
    {"preset": "roll", "degrees": 90},
    {"preset": "orbit", "azimuth": 30},
    {"preset": "orbit", "azimuth": 30, "elevation": 10, "up": [0, -1, 0.2]},
    {"preset": "ellipse", "radius_x": 0.3, "radius_y": 0.4},
    {"preset": "spiral", "radius_x": 0.3, "radius_y": 0.2, "advance": 0.5, "turns": 3},
    {"preset": "figure8", "radius_x": 0.3, "radius_y": 0.1},
    {"preset": "zoom", "factor": 2},
    {"preset": "dolly_zoom", "amount": 0.5},
    {"preset": "keyframes", "camera_from_world": [POSE]},
    {
        "preset": "chain",
        "segments": [{"preset": "pan", "degrees": 20}, {"preset": "dolly", "amount": 0.2}],
    },
    {"preset": "cameras", "camera_from_world": GIVEN},
    {
        "preset": "cameras",
        "camera_from_world": GIVEN,
        "intrinsics": [LENS],
        "height": 96,
        "width": 144,
    },
]


def spec_of(value: dict[str, Any]) -> Any:
    return trajectory_specs([value])[0]


@pytest.mark.parametrize("value", VALID, ids=lambda value: value["preset"])
@settings(laws, max_examples=8)
@given(poses, st.floats(0.3, 10), st.integers(2, 23))
def test_every_path_starts_at_the_start_pose(
    value: dict[str, Any], pose: Any, distance: float, frames: int
) -> None:
    start = StartPose(pose, distance)
    made = path_of(spec_of(value), start, frames)
    assert len(made) == frames
    np.testing.assert_allclose(made.camera_from_world[0], pose, atol=1e-5)
    assert made.focal_scale[0] == 1


@pytest.mark.parametrize("value", VALID, ids=lambda value: value["preset"])
def test_json_keeps_a_spec(value: dict[str, Any]) -> None:
    spec = spec_of(value)
    again = spec_of(json.loads(json.dumps(spec.model_dump(mode="json"))))
    assert again == spec
    assert spec_of(json.loads(spec.model_dump_json(exclude_none=True))) == spec


@pytest.mark.parametrize(
    ("value", "center"),
    [
        ({"preset": "dolly", "amount": 0.5}, [0, 0, 1]),
        ({"preset": "dolly", "amount": 0.5, "unit": "scene"}, [0, 0, 0.5]),
        ({"preset": "truck", "amount": 0.5}, [1, 0, 0]),
        ({"preset": "pedestal", "amount": 0.5}, [0, -1, 0]),
        ({"preset": "pan", "degrees": 50}, [0, 0, 0]),
        # 30 degrees at distance 2: to the right by 2 sin 30, forward by 2 (1 - cos 30).
        ({"preset": "orbit", "azimuth": 30}, [1, 0, 0.2679]),
        ({"preset": "orbit", "azimuth": -30}, [-1, 0, 0.2679]),
        ({"preset": "orbit", "elevation": 30}, [0, -1, 0.2679]),
        ({"preset": "ellipse", "radius_x": 0.3, "radius_y": 0.4}, [0, 0, 0]),
        ({"preset": "dolly_zoom", "amount": 0.5}, [0, 0, -1]),
        (
            {
                "preset": "chain",
                "segments": [
                    {"preset": "pan", "degrees": 90},
                    {"preset": "dolly", "amount": 0.5},
                ],
            },
            [1, 0, 0],
        ),
    ],
)
def test_where_the_camera_ends(value: dict[str, Any], center: list[float]) -> None:
    np.testing.assert_allclose(path_of(spec_of(value), LEVEL).centers[-1], center, atol=1e-4)


@pytest.mark.parametrize("preset", ["dolly", "truck", "pan", "orbit", "zoom", "dolly_zoom"])
@pytest.mark.parametrize("factor", [0.25, 0.5])
def test_a_scaled_path_is_the_beginning_of_the_whole(preset: str, factor: float) -> None:
    spec = spec_of(next(value for value in VALID if value["preset"] == preset))
    whole, part = path_of(spec, LEVEL, 41), path_of(spec.scaled(factor), LEVEL, 2)
    at = round(40 * factor)
    np.testing.assert_allclose(part.camera_from_world[-1], whole.camera_from_world[at], atol=1e-6)
    assert part.focal_scale[-1] == pytest.approx(whole.focal_scale[at])


@pytest.mark.parametrize("value", VALID, ids=lambda value: value["preset"])
def test_scaling_scales_the_extent(value: dict[str, Any]) -> None:
    spec = spec_of(value)
    half = spec.scaled(0.5)
    if spec.preset == "zoom":
        assert half.extent == {"factor": pytest.approx(2**0.5)}
    elif spec.scalable:
        assert half.extent == {name: pytest.approx(x / 2) for name, x in spec.extent.items()}
        assert set(spec.extent)
    else:
        assert half is spec
    assert type(spec).model_validate(half.model_dump()) == half


def test_a_chain_keeps_to_the_coordinates_of_its_own_start() -> None:
    """Up by 45 degrees and then to the side, about the vertical of the start camera."""
    turn = {"preset": "orbit", "azimuth": 90, "up": [0, -1, 0]}
    chain = {"preset": "chain", "segments": [{"preset": "orbit", "elevation": 45}, turn]}
    start = StartPose(rigid([0, 0.7, 0], [1, 2, 3]), 2.0)
    path = path_of(spec_of(chain), start, 81)
    heights = path.centers[40:, 1]
    np.testing.assert_allclose(heights[heights < heights.min() + 0.1], heights.min(), atol=1e-2)
    # The camera stood at -z before the pivot, and ends at its +x.
    offset = start.rotation.inv().apply(path.centers[-1] - start.pivot)
    np.testing.assert_allclose(offset, [2**0.5, -(2**0.5), 0], atol=1e-6)


def test_keyframes_are_relative_to_the_start_camera() -> None:
    start = StartPose(rigid([0.2, -0.5, 0.1], [1, -2, 0.5]), 4.0)
    for unit, distance in (("pivot", 4.0), ("scene", 1.0)):
        value = {"preset": "keyframes", "camera_from_world": [POSE], "unit": unit}
        end = path_of(spec_of(value), start, 7).camera_from_world[-1]
        expected = np.array(POSE)
        expected[:3, 3] *= distance
        np.testing.assert_allclose(end, expected @ start.camera_from_world, atol=1e-5)
    leading = {"preset": "keyframes", "camera_from_world": [np.eye(4).tolist(), POSE]}
    alone = {"preset": "keyframes", "camera_from_world": [POSE]}
    np.testing.assert_allclose(
        path_of(spec_of(leading), LEVEL).camera_from_world,
        path_of(spec_of(alone), LEVEL).camera_from_world,
        atol=1e-6,
    )


def test_half_of_keyframes_is_half_way_and_half_turned() -> None:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", -40, degrees=True).as_matrix()
    pose[:3, 3] = -pose[:3, :3] @ [2, 0, 0]
    value = {"preset": "keyframes", "camera_from_world": [pose.tolist()], "unit": "scene"}
    end = path_of(spec_of(value).scaled(0.5), LEVEL, 5)
    np.testing.assert_allclose(end.centers[-1], [1, 0, 0], atol=1e-9)
    turned = end.rotation[-1].as_rotvec(degrees=True)
    np.testing.assert_allclose(turned, [0, 20, 0], atol=1e-6)


def test_given_cameras_are_thinned_as_published_ones() -> None:
    many = path(81, step=2.0)
    spec = spec_of({"preset": "cameras", "camera_from_world": many.tolist()})
    made = path_of(spec, LEVEL, 21)
    np.testing.assert_allclose(made.camera_from_world, many[::4], atol=1e-6)
    moved = StartPose(rigid([0, 0.4, 0], [1, 0, 2]), 3.0)
    np.testing.assert_allclose(
        path_of(spec, moved, 21).camera_from_world,
        many[::4] @ np.asarray(moved.camera_from_world),
        atol=1e-5,
    )


def test_few_given_cameras_are_interpolated() -> None:
    end = np.eye(4)
    end[0, 3] = -1
    value = {"preset": "cameras", "camera_from_world": [np.eye(4).tolist(), end.tolist()]}
    centers = path_of(spec_of(value), LEVEL, 5).centers
    np.testing.assert_allclose(centers[:, 0], [0, 0.25, 0.5, 0.75, 1], atol=1e-9)


def test_given_intrinsics_come_in_the_images_pixels() -> None:
    lenses = np.tile(np.array(LENS), (5, 1, 1))
    lenses[:, 0, 0] = lenses[:, 1, 1] = [100, 110, 120, 130, 140]
    value = {"preset": "cameras", "camera_from_world": GIVEN, "intrinsics": lenses.tolist()}
    spec = spec_of({**value, "height": 96, "width": 144})
    cameras = cameras_of(spec, LEVEL, np.eye(3, dtype=np.float32), 192, 288, 5)
    np.testing.assert_allclose(cameras.intrinsics[:, 0, 0], 2 * lenses[:, 0, 0])
    np.testing.assert_allclose(cameras.intrinsics[:, :2, 2], [[144, 96]] * 5)
    np.testing.assert_allclose(path_of(spec, LEVEL, 5).focal_scale, [1, 1.1, 1.2, 1.3, 1.4])
    own = GivenCameras.of(cameras, "again")
    back = cameras_of(own, LEVEL, np.eye(3, dtype=np.float32), 192, 288, 5)
    np.testing.assert_array_equal(back.intrinsics, cameras.intrinsics)
    np.testing.assert_allclose(back.camera_from_world, cameras.camera_from_world, atol=1e-6)


def test_zooming_changes_the_cameras_focal_lengths() -> None:
    lens = np.array(LENS, dtype=np.float32)
    cameras = cameras_of(spec_of({"preset": "zoom", "factor": 4}), LEVEL, lens, 96, 144, 3)
    np.testing.assert_allclose(cameras.intrinsics[:, 0, 0], [100, 200, 400])
    assert not np.signbit(cameras.camera_from_world[cameras.camera_from_world == 0]).any()


def test_names_are_those_given_or_the_presets_with_a_number() -> None:
    values = [
        {"preset": "orbit"},
        {"preset": "orbit", "name": "orbit_1"},
        {"preset": "orbit"},
        {"preset": "pan", "degrees": 3},
        {"preset": "seva:dolly zoom-in"},
        {"preset": "gen3c:left", "name": "left"},
    ]
    names = trajectory_names(trajectory_specs(values))
    assert names == ("orbit_0", "orbit_1", "orbit_2", "pan_0", "seva_dolly_zoom_in_0", "left")
    twice = trajectory_specs([{"preset": "orbit", "name": "a"}, {"preset": "orbit", "name": "A"}])
    with pytest.raises(ParameterError, match=r"trajectories\[1\].name.*one name"):
        trajectory_names(twice)


SKEWED = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]
CAMERAS = {"preset": "cameras", "camera_from_world": GIVEN}
BAD: list[tuple[Any, str]] = [
    ({"preset": "dolly"}, r"trajectories\[0\].amount: Field required"),
    ({"preset": "dolly", "amount": "0.5"}, r"trajectories\[0\].amount: .*number"),
    ({"preset": "dolly", "amount": True}, r"trajectories\[0\].amount: .*number"),
    ({"preset": "dolly", "amount": float("nan")}, r"trajectories\[0\].amount: .*finite"),
    ({"preset": "dolly", "amount": float("inf")}, r"trajectories\[0\].amount: "),
    ({"preset": "dolly", "amount": 1e9}, r"trajectories\[0\].amount: .*less than"),
    ({"preset": "dolly", "amount": 1, "unit": "metre"}, r"trajectories\[0\].unit: .*'pivot'"),
    ({"preset": "dolly", "amount": 1, "speed": 2}, r"trajectories\[0\].speed: Extra"),
    ({"preset": "dolly", "amount": 1, "name": "a b"}, r"trajectories\[0\].name: .*pattern"),
    ({"preset": "dolly", "amount": 1, "name": "../up"}, r"trajectories\[0\].name: .*pattern"),
    ({"preset": "dolly", "amount": 1, "name": ""}, r"trajectories\[0\].name: .*pattern"),
    ({"preset": "dolly", "amount": 1, "name": "a\n"}, r"trajectories\[0\].name: .*pattern"),
    ({"preset": "dolly", "amount": 1, "name": "x" * 65}, r"trajectories\[0\].name: .*pattern"),
    ({"preset": "dolly", "amount": 1, "name": "pano_bank"}, r"trajectories\[0\].name: pano_bank"),
    ({"preset": "pan", "degrees": 1e5}, r"trajectories\[0\].degrees: "),
    ({"preset": "orbit", "elevation": 91}, r"trajectories\[0\].elevation: .*90"),
    ({"preset": "orbit", "up": [0, 0, 0]}, r"trajectories\[0\].up: not a direction"),
    ({"preset": "orbit", "up": [0, 1]}, r"trajectories\[0\].up\[2\]: "),
    ({"preset": "ellipse", "radius_x": 1}, r"trajectories\[0\].radius_y: Field required"),
    (
        {"preset": "spiral", "radius_x": 0, "radius_y": 0, "advance": 1},
        r"trajectories\[0\]: advance must be below 1",
    ),
    ({"preset": "zoom", "factor": 0}, r"trajectories\[0\].factor: .*0.05"),
    ({"preset": "dolly_zoom", "amount": -1}, r"trajectories\[0\].amount: .*greater than -1"),
    ({"preset": "keyframes", "camera_from_world": []}, r"\[0\].camera_from_world: .*at least 1"),
    (
        {"preset": "keyframes", "camera_from_world": [SKEWED]},
        r"\[0\].camera_from_world\[0\]: the rotation part is not orthonormal",
    ),
    (
        {"preset": "keyframes", "camera_from_world": [[[1, 0], [0, 1]]]},
        r"\[0\].camera_from_world\[0\]\[0\]",
    ),
    ({"preset": "chain", "segments": []}, r"trajectories\[0\].segments: .*at least 1"),
    (
        {"preset": "chain", "segments": [{"preset": "chain", "segments": []}]},
        r"\[0\].segments\[0\].preset: unknown preset; got 'chain'",
    ),
    (
        {"preset": "chain", "segments": [{"preset": "pan", "degrees": 1, "name": "x"}]},
        r"\[0\]: segments\[0\].name: only the chain",
    ),
    (
        {"preset": "chain", "segments": [{"preset": "pan", "degrees": None}]},
        r"\[0\].segments\[0\].degrees: ",
    ),
    (
        {"preset": "cameras", "camera_from_world": [POSE, POSE]},
        r"camera_from_world\[0\] must be the identity",
    ),
    ({"preset": "cameras", "camera_from_world": GIVEN[:1]}, r"camera_from_world: .*at least 2"),
    ({**CAMERAS, "intrinsics": [LENS]}, "height and width must state"),
    (
        {**CAMERAS, "intrinsics": [LENS, LENS], "height": 96, "width": 144},
        "intrinsics: got 2 matrices",
    ),
    (
        {**CAMERAS, "intrinsics": [LENS], "height": 9600, "width": 144},
        r"intrinsics\[0\]: the focal lengths do not fit",
    ),
    ({**CAMERAS, "height": 0}, r"trajectories\[0\].height: "),
    ({"preset": "swing"}, r"\[0\].preset: unknown preset; got 'swing'; allowed: 'dolly', "),
    ({"preset": 3}, r"\[0\]"),
    ({"azimuth": 3}, r"\[0\].preset: a trajectory names its preset"),
    ({"preset": "seva:dance"}, r"\[0\].preset: unknown camera path.*seva:orbit"),
    ({"preset": "gen3c:left", "distance": "far"}, r"\[0\].distance: not a number; got 'far'"),
    ({"preset": "gen3c:left", "rotation": "spin"}, r"\[0\].rotation: unknown rotation.*no_rotat"),
    ({"preset": "gen3c:zoom_in", "rotation": "no_rotation"}, r"\[0\].rotation: .*no such field"),
    ({"preset": "seva:orbit", "azimuth": 3}, r"\[0\].azimuth: .*no such field"),
    ("orbit", r"trajectories\[0\]: "),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=lambda part: str(part)[:60])
def test_a_bad_spec_is_refused_by_its_field(value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        trajectory_specs([value])


def test_cameras_of_too_few_frames_are_refused() -> None:
    with pytest.raises(ParameterError, match="frames"):
        path_of(spec_of(VALID[0]), LEVEL, 1)
    one = Cameras(np.eye(4, dtype=np.float32)[None], np.array([LENS], np.float32), 96, 144)
    with pytest.raises(ParameterError, match=r"cameras.camera_from_world: .*at least 2"):
        GivenCameras.of(one)
