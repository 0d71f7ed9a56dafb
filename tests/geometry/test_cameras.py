"""Laws of camera normalisation, and quaternions against scipy's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.geometry.strategies import clips, laws, poses, rigid
from worldstereo.errors import CameraError
from worldstereo.geometry.cameras import (
    CAMERA_SCALE,
    camera_centers,
    check_cameras,
    invert_matrices,
    normalise_cameras,
    quaternion_translation,
    unify_cameras,
)

# float32 results of a size of a few units.
CLOSE = 1e-5


def spread(cameras: torch.Tensor) -> float:
    """How far the first centre lies from the mean; the law of scale needs some distance."""
    centers = camera_centers(cameras)
    return float((centers[0] - centers.mean(dim=0)).norm())


def slow_normalised(cameras: torch.Tensor) -> list[np.ndarray]:
    """The specification, one camera at a time, in float64."""
    matrices = [np.asarray(camera) for camera in cameras]
    relative = [matrix @ np.linalg.inv(matrices[0]) for matrix in matrices]
    centers = [np.linalg.inv(matrix)[:3, 3] for matrix in relative]
    median = [sorted(axis)[(len(axis) - 1) // 2] for axis in zip(*centers, strict=True)]
    distances = [math.dist(center, median) for center in centers]
    limit = min(10 * float(np.quantile(distances, 0.97)), 1e6)
    kept = [c for c, distance in zip(centers, distances, strict=True) if not distance > limit]
    mean = sum(kept) / len(kept)
    first = float(np.linalg.norm(centers[0] - mean))
    scale = 2.0 / first if first >= 1e-5 else 2.0
    result = []
    for matrix, center in zip(relative, centers, strict=True):
        world_from_camera = np.linalg.inv(matrix)
        world_from_camera[:3, 3] = (center - mean) * scale
        result.append(np.linalg.inv(world_from_camera))
    return result


@laws
@given(clips(1, 6))
def test_normalisation_follows_the_specification(cameras):
    assume(len(cameras) == 1 or spread(cameras) > 1e-2)
    expected = np.stack(slow_normalised(cameras))
    actual = normalise_cameras(cameras)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual, expected, atol=CLOSE, rtol=CLOSE)


@laws
@given(clips())
def test_the_first_camera_ends_unturned_at_the_scale(cameras):
    assume(spread(cameras) > 1e-2)
    actual = normalise_cameras(cameras)
    torch.testing.assert_close(actual[0, :3, :3], torch.eye(3), atol=1e-6, rtol=0)
    centers = camera_centers(actual)
    assert float(centers[0].norm()) == pytest.approx(CAMERA_SCALE, abs=1e-5)
    assert float(centers.mean(dim=0).norm()) < 1e-4 * float(centers.norm(dim=1).max())


@laws
@given(clips(), poses, st.floats(0.2, 5))
def test_the_world_it_is_given_in_does_not_matter(cameras, world, scale):
    assume(spread(cameras) > 0.1)
    elsewhere = cameras @ torch.from_numpy(world)
    elsewhere[:, :3, 3] *= scale
    actual, expected = normalise_cameras(elsewhere), normalise_cameras(cameras)
    torch.testing.assert_close(actual, expected, atol=CLOSE, rtol=CLOSE)


@laws
@given(clips(1, 4), clips(1, 3))
def test_references_move_with_the_targets_and_change_nothing(targets, references):
    assume(len(targets) == 1 or spread(targets) > 0.1)
    unified, moved = unify_cameras(targets, torch.cat([references, targets]))
    assert torch.equal(unified, normalise_cameras(targets))
    torch.testing.assert_close(moved[len(references) :], unified, atol=CLOSE, rtol=CLOSE)
    # Relative rotations between cameras are kept.
    before = references[0, :3, :3] @ targets[0, :3, :3].T
    torch.testing.assert_close(moved[0, :3, :3].double(), before, atol=CLOSE, rtol=0)


def test_a_camera_that_stands_still_is_not_blown_up():
    cameras = torch.eye(4).repeat(5, 1, 1)
    cameras[:, 0, 3] = 3
    torch.testing.assert_close(normalise_cameras(cameras), torch.eye(4).expand(5, 4, 4))


def test_a_center_near_the_mean_is_multiplied_by_the_scale():
    cameras = torch.from_numpy(np.stack([rigid([0, 0, 0], [x, 0, 0]) for x in (0, 1, -1)]))
    centers = camera_centers(normalise_cameras(cameras))
    torch.testing.assert_close(centers[:, 0], torch.tensor([0.0, 2.0, -2.0]))


def test_far_cameras_are_left_out_of_the_mean_only():
    positions = [0.1 * (i % 5) for i in range(79)] + [1e4]
    cameras = torch.from_numpy(np.stack([rigid([0, 0, 0], [x, 0, 0]) for x in positions]))
    centers = camera_centers(normalise_cameras(cameras).double())[:, 0]
    mean = sum(positions[:-1]) / 79
    expected = (torch.tensor(positions, dtype=torch.float64) - mean) * (2 / mean)
    torch.testing.assert_close(centers, expected, atol=1e-4, rtol=1e-5)
    assert len(centers) == 80


def test_two_cameras_at_opposite_ends_of_nowhere_are_refused():
    cameras = torch.from_numpy(
        np.stack([rigid([0, 0, 0], [4e6, 0, 0]), rigid([0, 0, 0], [0, 4e6, 0])])
    )
    with pytest.raises(CameraError, match="too far"):
        normalise_cameras(cameras)


@laws
@given(poses)
def test_quaternions_are_scipys(pose):
    actual = quaternion_translation(torch.from_numpy(pose)[None])[0].numpy()
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    expected = np.array([w, x, y, z]) * (1 if w >= 0 else -1)
    assert actual[0] >= 0
    if expected[0] < 1e-6 and actual[:4] @ expected < 0:
        expected = -expected
    np.testing.assert_allclose(actual[:4], expected, atol=1e-6)
    np.testing.assert_allclose(actual[4:], pose[:3, 3], atol=1e-5)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]])
def test_half_turns_keep_their_axis(axis):
    rotation = torch.from_numpy(rigid(list(np.pi * np.array(axis)), [0, 0, 0]))[None]
    quaternion = quaternion_translation(rotation)[0, :4].numpy()
    assert quaternion[0] == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(np.abs(quaternion[1:]), np.abs(axis), atol=1e-7)


@laws
@given(poses)
def test_inverse_and_composition(pose):
    matrix = torch.from_numpy(pose)[None]
    inverse = invert_matrices(matrix)
    torch.testing.assert_close((matrix @ inverse)[0], torch.eye(4).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        camera_centers(matrix @ inverse), torch.zeros(1, 3).double(), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_camera_is_named(bad):
    cameras = torch.eye(4).repeat(5, 1, 1)
    cameras[3, 1, 2] = bad
    for function in (check_cameras, normalise_cameras, quaternion_translation, camera_centers):
        with pytest.raises(CameraError, match="frame 3"):
            function(cameras)
    with pytest.raises(CameraError, match=r"reference.*frame 3"):
        unify_cameras(torch.eye(4)[None], cameras)


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 4), (2, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(CameraError, match="shape"):
        check_cameras(torch.zeros(shape))


def test_a_singular_camera_is_named():
    cameras = torch.eye(4).repeat(3, 1, 1)
    cameras[2, :3, :3] = 0
    with pytest.raises(CameraError, match="frame 2"):
        normalise_cameras(cameras)
