"""Laws of camera paths, their signs, and the published ones."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.geometry.strategies import laws, poses, rigid
from worldstereo.errors import CameraError, ParameterError
from worldstereo.geometry import trajectories
from worldstereo.geometry.camera_path import CameraPath, StartPose, resample, step_lengths
from worldstereo.geometry.projection import project_points
from worldstereo.geometry.trajectories import (
    chain,
    dolly,
    dolly_zoom,
    ellipse,
    figure8,
    keyframes,
    orbit,
    pan,
    pedestal,
    reconstruction_paths,
    roll,
    spiral,
    tilt,
    truck,
    zoom,
)

starts = st.builds(StartPose, poses, st.floats(0.2, 20))
LEVEL = StartPose(np.eye(4), 2.0)
PINHOLE = torch.tensor([[100.0, 0, 50], [0, 100, 30], [0, 0, 1]])
SOMEWHERE = [rigid([0.1, 0.3, -0.1], [1.0, -0.5, 0.2]), rigid([0.2, 0.5, 0], [1.5, 0, 1])]

PRESETS = {
    "dolly": lambda start, n: dolly(start, 0.4, n),
    "dolly in scene units": lambda start, n: dolly(start, -0.4, n, unit="scene"),
    "truck": lambda start, n: truck(start, 0.3, n),
    "pedestal": lambda start, n: pedestal(start, 0.3, n),
    "pan": lambda start, n: pan(start, 40, n),
    "tilt": lambda start, n: tilt(start, -20, n),
    "roll": lambda start, n: roll(start, 400, n),
    "orbit": lambda start, n: orbit(start, 70, 25, n),
    "orbit about the vertical": lambda start, n: orbit(start, -120, 10, n, up=[0, -1, 0]),
    "ellipse": lambda start, n: ellipse(start, 0.3, 0.4, n),
    "spiral": lambda start, n: spiral(start, 0.3, 0.2, 0.5, 2, n),
    "figure8": lambda start, n: figure8(start, 0.3, 0.2, n),
    "zoom": lambda start, n: zoom(start, 1.7, n),
    "dolly_zoom": lambda start, n: dolly_zoom(start, 0.6, n),
    "keyframes": lambda start, n: keyframes(start, SOMEWHERE, n),
    "chain": lambda start, n: chain(
        start, [PRESETS["pan"], PRESETS["dolly"], PRESETS["zoom"], PRESETS["orbit"]], n
    ),
}
AROUND_THE_PIVOT = ("orbit", "orbit about the vertical", "ellipse", "spiral", "figure8")


def pivot_pixels(path: CameraPath, start: StartPose) -> np.ndarray:
    """Where the pivot is seen, and how deep: u, v, z [N, 3]."""
    pivot = torch.from_numpy(start.pivot)[None]
    cameras = torch.from_numpy(path.camera_from_world)
    return np.array([[float(x) for x in project_points(pivot, c, PINHOLE)] for c in cameras])


@pytest.mark.parametrize("preset", PRESETS)
@laws
@given(starts, st.integers(2, 30))
def test_paths_start_at_the_start_pose_and_stay_rigid(preset, start, frames):
    path = PRESETS[preset](start, frames)
    cameras = path.camera_from_world.astype(np.float64)
    assert path.camera_from_world.dtype == np.float32
    assert cameras.shape == (frames, 4, 4)
    assert len(path) == frames
    size = max(1.0, float(np.abs(start.camera_from_world).max()))
    np.testing.assert_allclose(cameras[0], start.camera_from_world, atol=1e-6 * size)
    assert path.focal_scale[0] == 1
    turned = cameras[:, :3, :3]
    identity = np.broadcast_to(np.eye(3), turned.shape)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), identity, atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-6)


@pytest.mark.parametrize("preset", AROUND_THE_PIVOT)
@laws
@given(st.floats(0.5, 10))
def test_the_pivot_stays_in_the_middle(preset, distance):
    start = StartPose(rigid([0.1, -0.7, 0.2], [1, 2, 3]), distance)
    path = PRESETS[preset](start, 9)
    u, v, _ = pivot_pixels(path, start).T
    np.testing.assert_allclose(u, 50, atol=1e-2)
    np.testing.assert_allclose(v, 30, atol=1e-2)


@laws
@given(starts, st.floats(-360, 360), st.floats(-89, 89))
def test_an_orbit_keeps_its_distance(start, azimuth, elevation):
    path = orbit(start, azimuth, elevation, 7)
    distances = np.linalg.norm(path.centers - start.pivot, axis=-1)
    np.testing.assert_allclose(distances, start.pivot_distance, rtol=1e-9)


@laws
@given(starts, st.floats(0, 1), st.floats(0, 1))
def test_loops_close(start, radius_x, radius_y):
    for path in (ellipse(start, radius_x, radius_y), figure8(start, radius_x, radius_y)):
        np.testing.assert_allclose(path.centers[-1], start.center, atol=1e-9 * start.pivot_distance)
        assert (path.rotation[-1] * path.rotation[0].inv()).magnitude() < 1e-7


def test_an_ellipse_reaches_its_radii_and_rises_only():
    path = ellipse(LEVEL, 0.25, 0.5, 41)
    x, y, z = path.centers.T
    assert (x.max(), x.min()) == (pytest.approx(0.5), pytest.approx(-0.5))
    assert (y.max(), y.min()) == (pytest.approx(0), pytest.approx(-2))
    assert (z == 0).all()


@pytest.mark.parametrize(
    ("path", "center"),
    [
        (dolly(LEVEL, 0.5), [0, 0, 1]),
        (truck(LEVEL, 0.5), [1, 0, 0]),
        (pedestal(LEVEL, 0.5), [0, -1, 0]),
        (dolly(LEVEL, 0.5, unit="scene"), [0, 0, 0.5]),
        (dolly_zoom(LEVEL, 0.5), [0, 0, -1]),
        (orbit(LEVEL, 90), [2, 0, 2]),
        (orbit(LEVEL, -90), [-2, 0, 2]),
        (orbit(LEVEL, 0, 90), [0, -2, 2]),
        (orbit(LEVEL, 180), [0, 0, 4]),
        (spiral(LEVEL, 0.3, 0.3, 0.5), [0, 0, 1]),
    ],
)
def test_where_a_camera_ends(path, center):
    np.testing.assert_allclose(path.centers[-1], center, atol=1e-9)


@pytest.mark.parametrize(
    ("path", "forward", "right"),
    [
        (pan(LEVEL, 90), [1, 0, 0], [0, 0, -1]),  # looks right
        (tilt(LEVEL, 90), [0, -1, 0], [1, 0, 0]),  # looks up
        (roll(LEVEL, 90), [0, 0, 1], [0, 1, 0]),  # clockwise: what was right is down
    ],
)
def test_where_a_camera_turns(path, forward, right):
    world_from_camera = path.rotation[-1].as_matrix()
    np.testing.assert_allclose(world_from_camera[:, 2], forward, atol=1e-9)
    np.testing.assert_allclose(world_from_camera[:, 0], right, atol=1e-9)
    assert (path.centers == 0).all()


def test_an_orbit_about_the_vertical_keeps_a_pitched_camera_at_its_height():
    pitched = StartPose(rigid([-0.3, 0, 0], [0, 0, 0]), 2.0)
    heights = orbit(pitched, 180, up=[0, -1, 0]).centers[:, 1]
    np.testing.assert_allclose(heights, 0, atol=1e-9)
    assert np.abs(orbit(pitched, 180).centers[-1, 1]) > 0.5
    level = [orbit(LEVEL, 77, 12, up=up).centers for up in (None, [0, -3, 0])]
    np.testing.assert_allclose(level[0], level[1], atol=1e-12)


def test_zoom_is_even_in_its_logarithm():
    path = zoom(LEVEL, 4.0, 3)
    np.testing.assert_allclose(path.focal_scale, [1, 2, 4])
    matrices = path.intrinsics(PINHOLE.numpy())
    assert matrices.dtype == np.float32
    np.testing.assert_allclose(matrices[:, 0, 0], [100, 200, 400])
    np.testing.assert_allclose(matrices[:, 1, 1], [100, 200, 400])
    np.testing.assert_allclose(matrices[:, :2, 2], [[50, 30]] * 3)


@laws
@given(starts, st.floats(-0.9, 3))
def test_dolly_zoom_keeps_the_size_of_the_pivot_plane(start, amount):
    path = dolly_zoom(start, amount)
    depth = pivot_pixels(path, start)[:, 2]
    np.testing.assert_allclose(path.focal_scale / depth, 1 / start.pivot_distance, rtol=1e-4)


@laws
@given(starts, st.lists(poses, min_size=1, max_size=4))
def test_keyframes_pass_through_their_poses(start, stops):
    frames = 400
    path = keyframes(start, stops, frames)
    step = step_lengths(path, start.pivot_distance)
    for pose in stops:
        stop = StartPose(pose, start.pivot_distance)
        moved = np.linalg.norm(path.centers - stop.center, axis=-1)
        turned = start.pivot_distance * (path.rotation * stop.rotation.inv()).magnitude()
        assert np.minimum.reduce(np.maximum(moved, turned)) <= step.max() + 1e-6
    np.testing.assert_allclose(path.camera_from_world[-1], stops[-1], atol=1e-5)


def test_keyframes_on_a_line_keep_to_it_and_turn_where_they_stand():
    line = [rigid([0, 0, 0], [x, 0, 0]) for x in (1, 3)]
    path = keyframes(LEVEL, line, 4)
    np.testing.assert_allclose(path.centers[:, 0], [0, 1, 2, 3], atol=1e-3)
    np.testing.assert_allclose(path.centers[:, 1:], 0, atol=1e-12)
    turn = keyframes(LEVEL, [rigid([0, 0.5, 0], [0, 0, 0])], 3)
    np.testing.assert_allclose(turn.rotation.magnitude(), [0, 0.25, 0.5], atol=1e-3)


def test_many_keyframes_are_sampled_no_more_densely_than_a_bound(monkeypatch):
    """Where a path comes too near is looked for in thousands of frames: that must stay cheap."""
    stops = [rigid([0, 0.01 * i, 0], [0.1 * i, 0, np.sin(0.1 * i)]) for i in range(1, 21)]
    exact = keyframes(LEVEL, stops, 40)
    sampled: list[int] = []

    def resampled(path: CameraPath, frames: int, distance: float) -> CameraPath:
        sampled.append(len(path))
        return resample(path, frames, distance)

    monkeypatch.setattr(trajectories, "MOST_SAMPLES", 640)
    monkeypatch.setattr(trajectories, "resample", resampled)
    bounded = keyframes(LEVEL, stops, 40)
    assert sampled == [641]
    np.testing.assert_allclose(bounded.centers, exact.centers, atol=1e-3)


def test_a_chain_is_its_segments_at_an_even_pace():
    path = chain(
        LEVEL,
        [
            lambda pose, n: pan(pose, 90, n),
            lambda pose, n: dolly(pose, 0.5, n),
            lambda pose, n: zoom(pose, 2, n),
            lambda pose, n: zoom(pose, 2, n),
        ],
        201,
    )
    np.testing.assert_allclose(path.centers[-1], [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(path.rotation[-1].as_rotvec(degrees=True), [0, 90, 0], atol=1e-6)
    assert path.focal_scale[-1] == pytest.approx(4)
    steps = step_lengths(path, LEVEL.pivot_distance)
    total = 2 * math.radians(90) + 1 + 2 * math.log(4)
    assert steps.sum() == pytest.approx(total, rel=1e-2)
    assert steps.max() < 1.05 * total / 200


def test_a_chain_of_nothing_that_moves_stands_still():
    path = chain(LEVEL, [lambda pose, n: pan(pose, 0, n)], 5)
    np.testing.assert_allclose(path.camera_from_world, np.tile(np.eye(4), (5, 1, 1)))


def test_bad_arguments_are_named():
    cases = [
        (lambda: dolly(LEVEL, 1, 1), ParameterError, "frames"),
        (lambda: zoom(LEVEL, 0), ParameterError, "factor"),
        (lambda: dolly_zoom(LEVEL, -1), ParameterError, "amount"),
        (lambda: spiral(LEVEL, 0.1, 0.1, 1), ParameterError, "advance"),
        (lambda: orbit(LEVEL, 10, up=[0, 0, 0]), ParameterError, "up"),
        (lambda: chain(LEVEL, []), ParameterError, "segments"),
        (lambda: keyframes(LEVEL, np.zeros((0, 4, 4))), CameraError, "poses"),
        (lambda: keyframes(LEVEL, np.zeros((1, 4, 4))), CameraError, "camera_from_world"),
        (lambda: StartPose(np.eye(3), 1), CameraError, "camera_from_world"),
        (lambda: StartPose(np.full((4, 4), np.nan), 1), CameraError, "camera_from_world"),
        (lambda: StartPose(np.eye(4), 0), CameraError, "pivot_distance"),
        (lambda: StartPose(np.eye(4), math.inf), CameraError, "pivot_distance"),
    ]
    for call, error, where in cases:
        with pytest.raises(error, match=where):
            call()


def test_the_published_reconstruction_paths(examples_folder):
    renders = examples_folder / "reconstruction" / "kitchen" / "renders"
    published = {
        name: np.array(json.loads((renders / name / "camera.json").read_text())["extrinsic"])
        for name in ("traj_eloop", "traj_up", "traj_right", "traj_left")
    }
    # The loop's highest point lies 2 ry d above its start.
    loop = published["traj_eloop"]
    distance = np.linalg.inv(loop[10] @ np.linalg.inv(loop[0]))[1, 3] / -0.8
    paths = reconstruction_paths(StartPose(loop[0], distance), up=[0, -1, 0])
    assert list(paths) == list(published)
    for name in ("traj_eloop", "traj_right", "traj_left"):
        np.testing.assert_allclose(paths[name].camera_from_world, published[name], atol=1e-5)
    # That one turns about another, farther point; its angle is the same.
    turned = Rotation.from_matrix(published["traj_up"][[0, -1], :3, :3])
    assert (turned[1] * turned[0].inv()).magnitude() == pytest.approx(math.radians(45), abs=1e-5)
