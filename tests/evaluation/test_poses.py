"""Estimated poses: from files, by structure from motion, and by exact geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.evaluation import box_room
from worldstereo.errors import CameraError
from worldstereo.evaluation.alignment import camera_positions
from worldstereo.evaluation.cameras import camera_errors
from worldstereo.evaluation.exact_geometry import ExactGeometry, matches, sift_features
from worldstereo.evaluation.pose_estimation import estimate_by_sfm, read_poses

CLIP = "renders/traj_up"
POSES = box_room.path(4)
OFFSET = box_room.pose(1.5, -0.7, (0.06, 0.02, -0.05))


def angle(first: np.ndarray, second: np.ndarray) -> float:
    between = Rotation.from_matrix(first[:3, :3] @ second[:3, :3].T)
    return float(np.degrees(between.magnitude()))


def write_tum(path: Path, poses: np.ndarray, times: list[float]) -> Path:
    rows = ["# time x y z qx qy qz qw"]
    for time, center, pose in zip(times, camera_positions(poses), poses, strict=True):
        turn = Rotation.from_matrix(pose[:3, :3]).inv().as_quat()
        rows.append(" ".join(f"{value:.9f}" for value in (time, *center, *turn)))
    path.write_text("\n".join(rows) + "\n")
    return path


def write_transforms(path: Path, poses: np.ndarray, names: list[str]) -> Path:
    """nerfstudio's: world_from_camera with OpenGL axes."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    frames = [
        {"file_path": name, "transform_matrix": (np.linalg.inv(pose) @ flip).tolist()}
        for name, pose in zip(names, poses.astype(np.float64), strict=True)
    ]
    lens = {"fl_x": 115.2, "fl_y": 115.2, "cx": 72, "cy": 48, "w": 144, "h": 96}
    path.write_text(json.dumps({"camera_model": "PINHOLE", **lens, "frames": frames}))
    return path


def test_a_tum_trajectory_is_read(tmp_path: Path) -> None:
    file = write_tum(tmp_path / "poses.txt", POSES, [0, 1, 2, 3])
    found = read_poses(file, CLIP, 4, box_room.SIZE)
    np.testing.assert_allclose(found.camera_from_world, POSES, atol=1e-6)
    assert found.found.all()
    assert not found.scaled
    assert "poses.txt" in found.estimator


def test_frames_that_a_tum_trajectory_lacks_are_failures(tmp_path: Path) -> None:
    file = write_tum(tmp_path / "poses.txt", POSES[[0, 2]], [0, 2])
    found = read_poses(file, CLIP, 4, box_room.SIZE, scaled=True)
    assert found.found.tolist() == [True, False, True, False]
    assert found.scaled
    np.testing.assert_allclose(found.camera_from_world[2], POSES[2], atol=1e-6)


@pytest.mark.parametrize(
    ("times", "frames"), [([0, 1, 1, 2], 6), ([0, 1, 2, 9], 6), ([0.5, 1.5, 2.5, 3.5], 6)]
)
def test_poses_that_fit_no_frames_are_refused(
    tmp_path: Path, times: list[float], frames: int
) -> None:
    file = write_tum(tmp_path / "poses.txt", POSES, times)
    with pytest.raises(CameraError, match="cannot be matched"):
        read_poses(file, CLIP, frames, box_room.SIZE)


def test_times_that_are_no_numbers_of_frames_are_taken_in_order(tmp_path: Path) -> None:
    file = write_tum(tmp_path / "poses.txt", POSES, [17.5, 18.5, 19.5, 20.5])
    found = read_poses(file, CLIP, 4, box_room.SIZE)
    np.testing.assert_allclose(found.camera_from_world, POSES, atol=1e-6)


def test_a_broken_quaternion_is_refused(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text("0 0 0 0 0 0 0 0\n1 0 0 0 0 0 0 1\n")
    with pytest.raises(CameraError, match="no pose"):
        read_poses(tmp_path / "poses.txt", CLIP, 2, box_room.SIZE)


def test_cameras_of_several_clips_are_told_apart_by_name(tmp_path: Path) -> None:
    others = box_room.path(4, yaw=-30)
    names = [
        f"renders/{clip}/frames/{i:04d}.png" for clip in ("traj_left", "traj_up") for i in range(4)
    ]
    file = write_transforms(tmp_path / "transforms.json", np.concatenate([others, POSES]), names)
    for clip, poses in (("renders/traj_up", POSES), ("renders/traj_left", others)):
        found = read_poses(file, clip, 4, box_room.SIZE)
        assert found.found.all()
        np.testing.assert_allclose(found.camera_from_world, poses, atol=1e-5)


def test_cameras_of_another_clip_alone_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    names = [f"renders/traj_left/frames/{i:04d}.png" for i in range(4)]
    file = write_transforms(tmp_path / "transforms.json", POSES, names)
    others = ["renders/traj_left"]
    found = read_poses(file, "renders/traj_up", 4, box_room.SIZE, others=others)
    assert not found.found.any()


def test_structure_from_motion_finds_the_path_up_to_scale() -> None:
    wanted = box_room.cameras(box_room.path(5, yaw=25, move=0.9))
    images, _ = box_room.render(wanted)
    first, second = (estimate_by_sfm(images, wanted) for _ in range(2))
    np.testing.assert_array_equal(first.camera_from_world, second.camera_from_world)
    assert first.found.all()
    assert not first.scaled
    errors = camera_errors(wanted.camera_from_world, first, median_depth=3.0)
    assert errors.rotation_deg is not None
    assert errors.rotation_deg.mean < 0.5
    assert errors.ate_sim3 is not None
    assert errors.ate_sim3 < 0.03
    assert errors.translation_metric is None


def test_where_sfm_finds_nothing_every_frame_is_a_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    grey = np.full((4, *box_room.SIZE, 3), 90, dtype=np.uint8)
    found = estimate_by_sfm(grey, box_room.cameras(POSES))
    assert not found.found.any()
    assert camera_errors(POSES, found).failed
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def exact() -> ExactGeometry:
    wanted = box_room.cameras(POSES)
    return ExactGeometry(*box_room.render(wanted), wanted)


def test_exact_geometry_finds_where_a_frame_was_really_taken(exact: ExactGeometry) -> None:
    moved = np.stack([OFFSET @ pose for pose in POSES])
    frames, _ = box_room.render(box_room.cameras(moved))
    found = exact.estimate(frames)
    assert found.found.all()
    assert found.scaled
    for estimated, true in zip(found.camera_from_world, moved, strict=True):
        assert angle(estimated, true) < 0.2
    offset = camera_positions(found.camera_from_world) - camera_positions(moved)
    assert np.linalg.norm(offset, axis=1).max() < 0.02
    again = exact.estimate(frames)
    np.testing.assert_array_equal(found.camera_from_world, again.camera_from_world)


def test_exact_geometry_finds_no_error_in_exact_frames(exact: ExactGeometry) -> None:
    frames, _ = box_room.render(box_room.cameras(POSES))
    errors = camera_errors(POSES, exact.estimate(frames))
    assert errors.rotation_deg is not None
    assert errors.rotation_deg.sum < 1e-3
    assert errors.failed_frames == ()


def test_exact_geometry_counts_frames_that_show_something_else(
    exact: ExactGeometry, capfd: pytest.CaptureFixture[str]
) -> None:
    frames, _ = box_room.render(box_room.cameras(POSES))
    frames[1] = np.random.default_rng(0).integers(0, 255, frames[1].shape)
    frames[2] = 128
    assert exact.estimate(frames).found.tolist() == [True, False, False, True]
    assert capfd.readouterr() == ("", "")


def test_features_are_matched_within_the_radius_alone() -> None:
    picture, _ = box_room.render(box_room.cameras(POSES[:1]))
    features = sift_features(picture)[0]
    own = matches(features, features, 5.0)
    assert len(own) > 50
    np.testing.assert_array_equal(own[:, 0], own[:, 1])
    shifted = sift_features(np.roll(picture, 30, axis=2))[0]
    pairs = matches(features, shifted, 60.0)
    way = shifted.places[pairs[:, 1]] - features.places[pairs[:, 0]]
    true = np.linalg.norm(way - [30, 0], axis=1) < 1
    assert true.sum() > 100
    assert true.mean() > 0.9
    near = matches(features, shifted, 5.0)
    way = shifted.places[near[:, 1]] - features.places[near[:, 0]]
    assert len(near) < len(pairs) / 2
    assert np.linalg.norm(way, axis=1).max() <= 5


def test_two_pictures_of_which_one_has_no_features_have_no_matches() -> None:
    picture, _ = box_room.render(box_room.cameras(POSES[:1]))
    some, none = sift_features(np.concatenate([picture, np.full_like(picture, 77)]))
    assert len(matches(some, none, 50.0)) == len(matches(none, some, 50.0)) == 0
