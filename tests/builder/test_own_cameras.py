"""Cameras from elsewhere become a trajectory: scale, thinning, and the first camera's check."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.formats.rigid_cameras import rigid, some_cameras
from worldstereo.builder.own_cameras import check_start, own_trajectory, scene_units
from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.named_cameras import NamedCameras, Unit
from worldstereo.types import Cameras

LENS = np.array([[100, 0, 80], [0, 100, 48], [0, 0, 1]], dtype=np.float32)


def line(count: int, step: float = 0.1, unit: Unit | None = None) -> NamedCameras:
    """Cameras that go right from the origin by ``step``, zooming in by 1 % each."""
    poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    poses[:, 0, 3] = -step * np.arange(count)
    lenses = np.tile(LENS, (count, 1, 1))
    lenses[:, :2, :2] *= (1.01 ** np.arange(count))[:, None, None]
    names = tuple(f"{index}.png" for index in range(count))
    return NamedCameras(names, Cameras(poses, lenses, 96, 160), unit)


def moved(cameras: NamedCameras, world: np.ndarray) -> NamedCameras:
    """The same cameras in a world of which ``world`` [4, 4] makes the old one."""
    poses = (cameras.cameras.camera_from_world @ world).astype(np.float32)
    inner = cameras.cameras
    return NamedCameras(
        cameras.names, Cameras(poses, inner.intrinsics, inner.height, inner.width), cameras.unit
    )


def centers(cameras: Cameras) -> np.ndarray:
    return np.linalg.inv(cameras.camera_from_world.astype(float))[:, :3, 3]


SOURCE = line(1).cameras


def test_published_lists_are_thinned_like_this() -> None:
    path = own_trajectory(line(81), source=SOURCE, pivot_distance=2.0, unit="scene")
    assert (len(path), path.height, path.width) == (21, 96, 160)
    np.testing.assert_allclose(centers(path)[:, 0], 0.1 * np.arange(0, 81, 4), atol=1e-5)
    np.testing.assert_allclose(path.intrinsics[:, 0, 0], 100 * 1.01 ** np.arange(0, 81, 4), 1e-5)


@pytest.mark.parametrize(
    ("unit", "scale", "metric", "step"),
    [
        ("scene", 1.0, False, 0.1),
        ("scene", 3.0, False, 0.3),
        ("median_depth", 1.0, False, 0.25),
        ("median_depth", 2.0, True, 0.5),
        ("metric", 1.0, True, 0.1),
        ("metric", 0.01, True, 0.001),  # a file in centimetres
    ],
)
def test_every_unit_has_its_length(unit: Unit, scale: float, metric: bool, step: float) -> None:
    for cameras, stated in ((line(21, unit=unit), None), (line(21), unit)):
        path = own_trajectory(
            cameras,
            source=SOURCE,
            pivot_distance=2.5,
            unit=stated,
            scale=scale,
            metric=metric,
        )
        np.testing.assert_allclose(centers(path)[:, 0], step * np.arange(21), atol=1e-5)


def test_no_unit_is_guessed() -> None:
    with pytest.raises(CameraError, match=r"what the cameras' translations are in.*state the unit"):
        own_trajectory(line(21), source=SOURCE, pivot_distance=1.0)
    with pytest.raises(CameraError, match=r"in metres, the scene's depth is not"):
        own_trajectory(line(21, unit="metric"), source=SOURCE, pivot_distance=1.0)
    for scale, distance in ((0.0, 1.0), (float("nan"), 1.0), (1.0, -1.0), (1.0, float("inf"))):
        with pytest.raises(ParameterError, match="a number > 0"):
            scene_units(line(21), distance, unit="scene", scale=scale)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_rebasing_keeps_the_path_and_starts_at_the_source(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    cameras = NamedCameras(tuple(map(str, range(5))), some_cameras(seed, 5))
    source = Cameras(
        rigid(random.normal(size=4), random.normal(size=3)).astype(np.float32)[None], LENS[None],
        96, 160,
    )  # fmt: skip
    path = own_trajectory(
        cameras,
        source=source,
        pivot_distance=1.0,
        unit="scene",
        scale=scale,
        rebase=True,
        frames=5,
    )
    np.testing.assert_array_equal(path.camera_from_world[0], source.camera_from_world[0])
    np.testing.assert_array_equal(path.intrinsics[0], source.intrinsics[0])
    # Relative poses are those of the list, their translations scaled.
    given_poses = cameras.cameras.camera_from_world.astype(float)
    made = path.camera_from_world.astype(float)
    expected = given_poses @ np.linalg.inv(given_poses[0])
    expected[:, :3, 3] *= scale
    np.testing.assert_allclose(
        made @ np.linalg.inv(made[0]), expected, atol=2e-5 * max(1, 10 * scale)
    )
    zoom = cameras.cameras.intrinsics[:, 0, 0] / cameras.cameras.intrinsics[0, 0, 0]
    np.testing.assert_allclose(path.intrinsics[:, 0, 0] / 100, zoom, rtol=1e-5)


def test_the_check_has_these_numbers() -> None:
    turn = Rotation.from_euler("y", 30, degrees=True).as_quat()
    pose = rigid(list(turn), [0.6, 0.0, 0.8]).astype(np.float32)
    lens = np.array([[250, 0, 160], [0, 220, 112], [0, 0, 1]], dtype=np.float32)
    cameras = NamedCameras(("a",), Cameras(pose[None], lens[None], 192, 320))
    check = check_start(cameras, SOURCE, pivot_distance=4.0, scale=2.0)
    assert check.name == "a"
    assert check.rotation_degrees == pytest.approx(30, abs=1e-4)
    assert check.translation == pytest.approx(2 * 1.0 / 4, abs=1e-6)
    assert check.focal_ratio == pytest.approx(1.25)  # of x; 1.1 of y
    assert check.principal_offset == pytest.approx(8 / 160)
    assert check.aspect_ratio == pytest.approx(1)
    assert len(check.problems) == 4
    same = check_start(line(1), SOURCE, pivot_distance=4.0)
    assert (same.rotation_degrees, same.translation, same.focal_ratio) == (0, 0, 1)
    assert same.problems == ()


def test_half_a_turn_is_half_a_turn() -> None:
    pose = rigid([0, 1, 0, 0], [0, 0, 0]).astype(np.float32)
    cameras = NamedCameras(("a",), Cameras(pose[None], LENS[None], 96, 160))
    assert check_start(cameras, SOURCE, 1.0).rotation_degrees == pytest.approx(180, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rigid([0, np.sin(0.01), 0, np.cos(0.01)], [0, 0, 0]), "turned by 1.15 degrees"),
        (rigid([0, 0, 0, 1], [0.05, 0, 0]), "0.025 median depths away"),
    ],
)
def test_another_start_is_refused_with_how_far_it_is(change: np.ndarray, message: str) -> None:
    cameras = moved(line(21, unit="scene"), change)
    with pytest.raises(CameraError, match=f"camera 0.png: .*{message}.*rebase"):
        own_trajectory(cameras, source=SOURCE, pivot_distance=2.0)
    path = own_trajectory(cameras, source=SOURCE, pivot_distance=2.0, rebase=True)
    np.testing.assert_array_equal(path.camera_from_world[0], SOURCE.camera_from_world[0])


def test_another_lens_or_shape_is_refused() -> None:
    inner = line(21).cameras
    zoomed = NamedCameras(
        line(21).names, Cameras(inner.camera_from_world, inner.intrinsics * [[1.1], [1.1], [1]],
                                106, 176), "scene"
    )  # fmt: skip
    own_trajectory(zoomed, source=SOURCE, pivot_distance=1.0)  # another size of the same image
    longer = Cameras(inner.camera_from_world, zoomed.cameras.intrinsics, 96, 160)
    with pytest.raises(CameraError, match=r"focal length is 1.100 times as long"):
        own_trajectory(
            NamedCameras(zoomed.names, longer, "scene"), source=SOURCE, pivot_distance=1.0
        )
    cropped = Cameras(inner.camera_from_world, inner.intrinsics, 96, 120)
    with pytest.raises(CameraError, match=r"aspect ratio is 0.750 times"):
        own_trajectory(
            NamedCameras(zoomed.names, cropped, "scene"), source=SOURCE, pivot_distance=1.0
        )


def test_what_is_within_the_tolerance_is_made_exact() -> None:
    cameras = moved(line(21, unit="scene"), rigid([0, 0, 0, 1], [0.01, 0, 0]))
    path = own_trajectory(cameras, source=SOURCE, pivot_distance=2.0)
    np.testing.assert_array_equal(path.camera_from_world[0], SOURCE.camera_from_world[0])
    np.testing.assert_allclose(centers(path)[:, 0], 0.1 * np.arange(21), atol=1e-5)


def test_the_source_image_is_found_by_name_or_by_pose() -> None:
    """A foreign world, turned and moved, in which the list's first camera took the image."""
    world = rigid([0.3, 0.5, -0.2, 0.7], [4, 5, 6])
    cameras = moved(line(21, unit="scene"), world)
    arguments = {"source": SOURCE, "pivot_distance": 2.0, "unit": "median_depth"}
    with pytest.raises(CameraError, match="is not the camera of the source image"):
        own_trajectory(cameras, **arguments)
    for matching in ("0.png", cameras.cameras.camera_from_world[0]):
        path = own_trajectory(cameras, matching=matching, **arguments)
        np.testing.assert_allclose(centers(path)[:, 0], 0.2 * np.arange(21), atol=2e-5)
        np.testing.assert_allclose(centers(path)[:, 1:], 0, atol=2e-5)
    # Camera 3 took it: 3 x 0.1 median depths away.
    with pytest.raises(CameraError, match=r"0.300 median depths away.*times as long|0.300 median"):
        own_trajectory(cameras, matching="3.png", **arguments)
    later = own_trajectory(
        moved(line(24, unit="scene"), world).starting_at("3.png"),
        matching="3.png",
        source=SOURCE,
        pivot_distance=2.0,
    )
    np.testing.assert_allclose(centers(later)[:, 0], 0.1 * np.arange(21), atol=2e-5)
    assert later.intrinsics[0, 0, 0] == 100


def test_what_cannot_be_matched() -> None:
    for matching, message in (
        ("x.png", "no camera has this name"),
        (np.zeros((4, 4)), "no camera"),
    ):
        with pytest.raises(ParameterError, match=message):
            check_start(line(21), SOURCE, 1.0, matching=matching)
    with pytest.raises(CameraError, match=r"too few cameras.*20 cameras.*21 or more"):
        own_trajectory(line(20, unit="scene"), source=SOURCE, pivot_distance=1.0)
    with pytest.raises(CameraError, match=r"the scaled trajectory\[1\].*out of range"):
        own_trajectory(line(21, unit="scene"), source=SOURCE, pivot_distance=1.0, scale=1e9)
