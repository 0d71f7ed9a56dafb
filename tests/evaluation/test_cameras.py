"""Camera errors with known answers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.evaluation import box_room
from worldstereo.errors import MissingDependencyError
from worldstereo.evaluation.alignment import camera_positions
from worldstereo.evaluation.cameras import CameraErrors, PoseEstimate, camera_errors

pytest.importorskip("evo")
POSES = box_room.path(6)


def measured(
    estimated: np.ndarray,
    commanded: np.ndarray = POSES,
    *,
    lost: tuple[int, ...] = (),
    scaled: bool = True,
    median_depth: float | None = None,
) -> CameraErrors:
    found = np.ones(len(estimated), dtype=bool)
    found[list(lost)] = False
    estimate = PoseEstimate(estimated, found, scaled, "a test")
    return camera_errors(commanded, estimate, median_depth=median_depth)


def moved(poses: np.ndarray, scale: float, seed: int = 3) -> np.ndarray:
    """The cameras in another world: turned, shifted, and ``scale`` times as large."""
    turn = Rotation.random(random_state=seed).as_matrix()
    other = poses.copy()
    other[:, :3, :3] = poses[:, :3, :3] @ turn.T
    centers = scale * camera_positions(poses) @ turn.T + [3, -1, 2]
    other[:, :3, 3] = -np.einsum("nij,nj->ni", other[:, :3, :3], centers)
    return other


def test_the_same_cameras_have_no_error() -> None:
    errors = measured(POSES, median_depth=2.0)
    pairs = (errors.rotation_deg, errors.translation_metric, errors.translation_self_normalised)
    for pair in (*pairs, errors.translation_sim3):
        assert pair is not None
        assert pair.mean == pytest.approx(0, abs=1e-6)
        assert pair.sum == pytest.approx(0, abs=1e-6)
    for number in (errors.ate_sim3, errors.ate_sim3_median_depths, errors.rpe_translation):
        assert number == pytest.approx(0, abs=1e-6)
    assert errors.rpe_rotation_deg == pytest.approx(0, abs=1e-6)
    assert not errors.failed
    assert errors.undefined == {}


def test_a_rotation_of_all_later_frames_is_its_angle() -> None:
    turned = POSES.copy()
    turn = Rotation.from_euler("y", 3, degrees=True).as_matrix()
    turned[1:, :3] = turn @ POSES[1:, :3]
    errors = measured(turned)
    assert errors.rotation_deg is not None
    assert errors.rotation_deg.mean == pytest.approx(3, abs=1e-5)
    assert errors.rotation_deg.sum == pytest.approx(15, abs=1e-4)  # 5 frames behind the first
    # One of the five steps turns too far, by 3 degrees.
    assert errors.rpe_rotation_deg == pytest.approx(3 / np.sqrt(5), abs=1e-5)
    assert errors.ate_sim3 == pytest.approx(0, abs=1e-6)


def test_a_rotation_of_the_whole_world_is_no_error() -> None:
    errors = measured(moved(POSES, 1.0))
    assert errors.rotation_deg is not None
    assert errors.rotation_deg.sum == pytest.approx(0, abs=1e-4)
    assert errors.translation_metric is not None
    assert errors.translation_metric.sum == pytest.approx(0, abs=1e-6)


@given(scale=st.floats(0.1, 20), seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_a_scaled_trajectory_is_right_after_sim3_alone(scale: float, seed: int) -> None:
    errors = measured(moved(POSES, scale, seed))
    assert errors.ate_sim3 == pytest.approx(0, abs=1e-6)
    assert errors.rpe_translation == pytest.approx(0, abs=1e-6)
    for pair in (errors.translation_sim3, errors.translation_self_normalised):
        assert pair is not None
        assert pair.sum == pytest.approx(0, abs=1e-6)
    way = np.linalg.norm(camera_positions(POSES) - camera_positions(POSES)[0], axis=1)
    assert errors.translation_metric is not None
    assert errors.translation_metric.sum == pytest.approx(abs(scale - 1) * way.sum(), abs=1e-6)


def test_one_centre_that_is_off_counts_as_far_as_it_is_off() -> None:
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = -np.arange(5)  # centres 0, 1, 2, 3, 4 on x
    off = poses.copy()
    off[2, 1, 3] = -0.5
    errors = measured(off, poses, median_depth=4.0)
    assert errors.translation_metric is not None
    assert errors.translation_metric.sum == pytest.approx(0.5)
    assert errors.translation_metric.mean == pytest.approx(0.125)
    assert errors.translation_self_normalised is not None
    assert errors.translation_self_normalised.sum == pytest.approx(0.125)  # largest way is 4
    # 0.5 beside a line: best in the least squares is a shift of 0.1, and a scale below 1.
    assert errors.ate_sim3 is not None
    assert 0.19 < errors.ate_sim3 <= np.sqrt((4 * 0.1**2 + 0.4**2) / 5)
    assert errors.ate_sim3_median_depths == pytest.approx(errors.ate_sim3 / 4)


def test_a_straight_path_has_an_ate() -> None:
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 2, 3] = -np.linspace(0, 1, 6)
    errors = measured(moved(poses, 3.0), poses)
    assert errors.ate_sim3 == pytest.approx(0, abs=1e-9)


def test_a_standing_camera_has_rotation_errors_alone() -> None:
    poses = box_room.path(5, move=0)
    errors = measured(poses, poses)
    assert errors.rotation_deg is not None
    assert errors.rpe_rotation_deg == pytest.approx(0, abs=1e-5)
    assert errors.ate_sim3 is errors.translation_sim3 is None
    assert errors.translation_self_normalised is None
    assert "stands in one place" in errors.undefined["ate_sim3"]


@pytest.mark.parametrize("away", [0.3, 3.0, 400.0])
def test_a_camera_that_turns_on_the_spot_stands_in_float32_too(away: float) -> None:
    """Poses in single precision have centres that differ in their last digits."""
    poses = box_room.path(9, yaw=40, move=0)
    poses[:, :3, 3] = -np.einsum("nij,j->ni", poses[:, :3, :3], [0.2 * away, 0.1 * away, -away])
    single = poses.astype(np.float32).astype(np.float64)
    assert (np.ptp(camera_positions(single), axis=0) > 0).any()
    errors = measured(moved(poses, 1.0), single)
    assert errors.rotation_deg is not None
    assert errors.translation_self_normalised is errors.translation_sim3 is None
    assert errors.ate_sim3 is errors.rpe_translation is None


def test_an_estimate_that_does_not_move_is_not_excused() -> None:
    still = np.tile(POSES[:1], (6, 1, 1))
    errors = measured(still)
    assert errors.ate_sim3 is not None
    assert errors.ate_sim3 > 0.1
    assert errors.translation_self_normalised is not None
    assert errors.translation_self_normalised.sum > 1


def test_lost_frames_are_counted_and_left_out() -> None:
    nonsense = POSES.copy()
    nonsense[[0, 3]] = np.eye(4)
    errors = measured(nonsense, lost=(0, 3))
    assert errors.failed_frames == (0, 3)
    assert not errors.failed
    assert errors.rotation_deg is not None
    assert errors.rotation_deg.sum == pytest.approx(0, abs=1e-5)
    assert errors.frames == 6


def test_too_few_frames_are_a_failure() -> None:
    errors = measured(POSES, lost=(1, 2, 4, 5))
    assert errors.failed
    assert errors.rotation_deg is None
    assert errors.ate_sim3 is None


def test_unknown_scale_has_no_metric_error() -> None:
    errors = measured(POSES, scaled=False)
    assert errors.translation_metric is None
    assert errors.undefined["translation_metric"] == "the estimator knows no scale"


def test_evo_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    measured(POSES)
    assert capfd.readouterr() == ("", "")


def test_without_evo_the_line_to_type_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evo.core", None)
    with pytest.raises(MissingDependencyError, match=r"worldstereo-cluster\[evaluate\]"):
        measured(POSES)
