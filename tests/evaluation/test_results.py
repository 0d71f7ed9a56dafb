"""Result folders of any scene: which clips there are, and what is measured of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation import box_room
from tests.evaluation.test_poses import write_tum
from worldstereo.errors import CameraError, LayoutError, MediaError
from worldstereo.evaluation.alignment import camera_positions
from worldstereo.evaluation.results import METHOD, ResultSettings, evaluate_results
from worldstereo.evaluation.tables import tables
from worldstereo.formats.ply import write_ply
from worldstereo.formats.results import camera_file, write_trajectory
from worldstereo.reconstruction.bundle import write_bundle
from worldstereo.reconstruction.result_clips import BundleClip
from worldstereo.types import PointCloud

pytest.importorskip("evo")

CLIPS = {"view0/traj0": box_room.path(5), "view0/traj1": box_room.path(5, yaw=-20)}
WORLD = box_room.BoxWorld(0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene's result folder: two clips with depth, and a cloud."""
    folder = tmp_path_factory.mktemp("results") / "kitchen"
    deep = []
    for clip_id, poses in CLIPS.items():
        cameras = box_room.cameras(poses)
        images, depths = box_room.render(cameras)
        write_trajectory(folder / clip_id, images, cameras, None)
        deep.append(BundleClip(clip_id, images, cameras, depths))
    # Where the output "depth" puts them.
    write_bundle(folder, ["depth"], deep, cloud=None, start_frames=[], metric=True)
    cameras = box_room.cameras(np.concatenate(list(CLIPS.values())))
    write_ply(folder / "points.ply", WORLD.visible_cloud(cameras))
    return folder


def test_poses_of_one_clip_from_a_file(results: Path, tmp_path: Path) -> None:
    file = write_tum(tmp_path / "vggt.txt", CLIPS["view0/traj0"][:4], [0, 1, 2, 3])
    settings = ResultSettings(estimator="file", poses=file, trajectories=("view0/traj0",))
    report = evaluate_results(results, settings)
    (scene,) = report.scenes
    (clip,) = scene.clips
    errors = clip.cameras[METHOD]
    assert errors.failed_frames == (4,)
    assert errors.ate_sim3 == pytest.approx(0, abs=1e-5)
    assert "vggt.txt" in errors.estimator
    means = report.means[METHOD]
    assert (means.camera_failed_frames, means.camera_frames) == (1, 5)
    assert "1 of 5" in tables(report)
    assert scene.consistency == {}  # one clip alone
    assert scene.reconstruction == {}
    assert str(tmp_path) not in str(report.to_json())


def test_a_clips_own_folder_can_be_named(results: Path, tmp_path: Path) -> None:
    file = write_tum(tmp_path / "poses.txt", CLIPS["view0/traj1"], [0, 1, 2, 3, 4])
    settings = ResultSettings(estimator="file", poses=file)
    report = evaluate_results(results / "view0" / "traj1", settings)
    (clip,) = report.scenes[0].clips
    assert clip.id == "view0/traj1"
    rotation = clip.cameras[METHOD].rotation_deg
    assert rotation is not None
    assert rotation.sum < 1e-4


def test_clips_with_depth_are_compared_with_each_other(results: Path) -> None:
    report = evaluate_results(results, ResultSettings(consistency_stride=2))
    found = report.scenes[0].consistency[METHOD]
    assert len(found.pairs) == 2
    assert found.psnr is not None
    assert found.psnr > 33
    assert report.means[METHOD].camera_clips == 0


def test_poses_that_do_not_name_their_clip_are_not_taken_for_all(
    results: Path, tmp_path: Path
) -> None:
    file = write_tum(tmp_path / "poses.txt", CLIPS["view0/traj0"], [0, 1, 2, 3, 4])
    with pytest.raises(CameraError, match="these are several clips"):
        evaluate_results(results, ResultSettings(estimator="file", poses=file))


def test_a_clip_that_nobody_can_place_is_a_failure(results: Path, tmp_path: Path) -> None:
    file = write_tum(tmp_path / "poses.txt", CLIPS["view0/traj0"][:2], [0, 1])
    settings = ResultSettings(estimator="file", poses=file, trajectories=("view0/traj0",))
    report = evaluate_results(results, settings)
    assert [failure.what for failure in report.failures] == ["view0/traj0"]
    assert report.means[METHOD].camera_failed_clips == 1
    assert "view0/traj0: too few frames have a pose" in tables(report)


def test_reconstruction_against_a_cloud(results: Path, tmp_path: Path) -> None:
    cameras = box_room.cameras(np.concatenate(list(CLIPS.values())))
    truth = WORLD.visible_cloud(cameras).points
    behind = truth - [0, 0, 30]  # no frame looks there
    every = np.concatenate([truth, behind]).astype(np.float32)
    write_ply(tmp_path / "truth.ply", PointCloud(every, np.zeros(every.shape, dtype=np.uint8)))
    settings = ResultSettings(ground_truth=tmp_path / "truth.ply", thresholds=(0.05,), percents=())
    scores = evaluate_results(results, settings).scenes[0].reconstruction[METHOD]
    assert scores.at[0].f1 == pytest.approx(1)
    uncropped = settings.model_copy(update={"crop": False})
    scores = evaluate_results(results, uncropped).scenes[0].reconstruction[METHOD]
    assert scores.at[0].recall == pytest.approx(0.5, abs=0.05)


def test_a_cloud_in_another_world_is_aligned_by_its_cameras(results: Path, tmp_path: Path) -> None:
    poses = CLIPS["view0/traj0"]
    turn = box_room.pose(40, 10)[:3, :3]
    moved = poses.copy()
    moved[:, :3, :3] = poses[:, :3, :3] @ turn.T
    centers = 3 * camera_positions(poses) @ turn.T + [1, 2, 3]
    moved[:, :3, 3] = -np.einsum("nij,nj->ni", moved[:, :3, :3], centers)
    truth = 3 * WORLD.visible_cloud(box_room.cameras(poses)).points @ turn.T + [1, 2, 3]
    cloud = PointCloud(truth.astype(np.float32), np.zeros(truth.shape, dtype=np.uint8))
    write_ply(tmp_path / "truth.ply", cloud)
    (tmp_path / "cameras.json").write_text(camera_file(box_room.cameras(moved)))
    settings = ResultSettings(
        ground_truth=tmp_path / "truth.ply",
        ground_truth_cameras=tmp_path / "cameras.json",
        trajectories=("view0/traj0",),
        percents=(1.0,),
    )
    scores = evaluate_results(results, settings).scenes[0].reconstruction[METHOD]
    assert scores.alignment == "sim3 from cameras"
    assert scores.at[0].recall > 0.99


def test_what_cannot_be_measured_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no clips"):
        evaluate_results(tmp_path, ResultSettings())
    with pytest.raises(LayoutError, match=r"view0/traj0, view0/traj1"):
        evaluate_results(results, ResultSettings(trajectories=("view0/traj9",)))
    with pytest.raises(MediaError, match="point cloud is missing"):
        evaluate_results(results, ResultSettings(ground_truth=tmp_path / "none.ply"))
    file = write_tum(tmp_path / "poses.txt", CLIPS["view0/traj0"], [0, 1, 2, 3, 8])
    settings = ResultSettings(estimator="file", poses=file, trajectories=("view0/traj0",))
    report = evaluate_results(results, settings)  # five poses for five frames: in order
    assert report.failures == ()
    write_tum(tmp_path / "poses.txt", CLIPS["view0/traj0"][:3], [0, 1, 8])
    with pytest.raises(CameraError, match="cannot be matched"):
        evaluate_results(results, settings)
