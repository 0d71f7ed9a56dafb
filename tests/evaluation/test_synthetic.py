"""The synthetic evaluation with the cluster replaced by a function whose score is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation import box_room
from worldstereo.evaluation.images import HIGHEST_PSNR_DB
from worldstereo.evaluation.inpainting import FILLS
from worldstereo.evaluation.report import Report
from worldstereo.evaluation.synthetic import (
    EXACT,
    RENDER,
    START_POINTS,
    SyntheticSettings,
    evaluate_synthetic,
)
from worldstereo.evaluation.tables import tables
from worldstereo.evaluation.truth import SceneTruth, scene_truth
from worldstereo.formats.clips import load_render
from worldstereo.formats.ply import write_ply
from worldstereo.formats.results import Reference, write_trajectory
from worldstereo.formats.scene_folder import read_scene
from worldstereo.types import Cameras, PointCloud

pytest.importorskip("evo")

NFRAME, ALIGN = 5, 2
VARIANTS = ("worldstereo-camera", "worldstereo-memory")
SETTINGS = SyntheticSettings(
    variants=VARIANTS,
    scale_map=(box_room.SIZE,),
    nframe=NFRAME,
    align_nframe=ALIGN,
    consistency_stride=2,
)
WORLDS = [box_room.BoxWorld(3), box_room.BoxWorld(4)]


def in_world(world: box_room.BoxWorld, cameras: Cameras) -> Cameras:
    """The scene's start camera is the identity; the world's is not."""
    start = world.start_camera(*box_room.SIZE).camera_from_world[0]
    poses = cameras.camera_from_world.astype(np.float64) @ start.astype(np.float64)
    return Cameras(poses.astype(np.float32), cameras.intrinsics, *box_room.SIZE)


def generate(scenes: Sequence[Path], variant: str, output: Path) -> Mapping[str, str]:
    """The camera variant returns the render, the memory variant the truth; one clip is lost."""
    for folder in scenes:
        world = box_room.BoxWorld(int(folder.name.split("-")[1]))
        scene = read_scene(folder, scale_map=[box_room.SIZE], nframe=NFRAME, align_nframe=ALIGN)
        start = world.render(world.start_camera(*box_room.SIZE)).images[0]
        for trajectory in scene.trajectories:
            cameras = trajectory.cameras
            exact = world.render(in_world(world, cameras)).images
            render, _ = load_render(trajectory, scene.size, NFRAME)
            render[0] = start
            lost = world.seed == 4 and trajectory.name == "traj_right"
            if variant == "worldstereo-camera" and lost:
                continue
            frames = render if variant == "worldstereo-camera" else exact
            references = None
            if variant == "worldstereo-memory" and trajectory.name == "traj_right":
                references = [Reference(id="renders/traj_up/0004", ref_index=0)]
            place = output / folder.name / "renders" / trajectory.name
            write_trajectory(place, frames, cameras, references)
        if variant == "worldstereo-memory":
            seen = world.visible_cloud(in_world(world, scene.trajectories[0].cameras)).points
            turn = world.start_camera(*box_room.SIZE).camera_from_world[0]
            points = (seen @ turn[:3, :3].T + turn[:3, 3]).astype(np.float32)
            cloud = PointCloud(points, np.full(points.shape, 9, dtype=np.uint8))
            write_ply(output / folder.name / "points.ply", cloud)
    return {"box-4": "out of memory"} if variant == "worldstereo-camera" else {}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    work = tmp_path_factory.mktemp("work")
    return evaluate_synthetic(
        WORLDS, generate, box_room.write_scene, SETTINGS, work, told={"model": "none"}
    )


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> SceneTruth:
    folder = box_room.write_scene(WORLDS[0], tmp_path_factory.mktemp("scenes"))
    return scene_truth(
        WORLDS[0], folder, scale_map=[box_room.SIZE], nframe=NFRAME, align_nframe=ALIGN
    )


def test_exact_frames_have_the_highest_scores(report: Report) -> None:
    means = report.means["worldstereo-memory"]
    assert means.psnr["overall"] == means.psnr["holes"] == HIGHEST_PSNR_DB
    assert means.ssim["overall"] == pytest.approx(1)
    assert means.rotation_sum_deg is not None
    assert means.rotation_sum_deg < 1e-3
    assert means.ate_sim3 is not None
    assert means.ate_sim3 < 1e-4
    assert (means.clips, means.failures, means.camera_failed_frames) == (4, 0, 0)


def test_the_render_given_back_scores_as_the_render(report: Report) -> None:
    for scene in report.scenes:
        for clip in scene.clips:
            if "worldstereo-camera" in clip.images:
                assert clip.images["worldstereo-camera"] == clip.images[RENDER]
                assert clip.cameras["worldstereo-camera"] == clip.cameras[RENDER]
    means = report.means["worldstereo-camera"]
    assert means.psnr["holes"] is not None
    assert means.psnr["holes"] < 15


def test_a_fill_beats_the_render_on_holes_and_leaves_the_rest(report: Report) -> None:
    raw = report.means[RENDER].psnr
    for name in FILLS:
        filled = report.means[name].psnr
        assert filled["covered"] == raw["covered"]
    assert report.best_inpainting in FILLS
    assert report.best_inpainting is not None
    best = report.means[report.best_inpainting].psnr["holes"]
    assert best == max(report.means[name].psnr["holes"] or 0 for name in FILLS)
    assert best is not None
    assert raw["holes"] is not None
    assert best > raw["holes"] + 2


def test_missing_clips_are_failures_with_their_reason(report: Report) -> None:
    (failure,) = report.failures
    assert (failure.scene, failure.method) == ("box-4", "worldstereo-camera")
    assert failure.what == "renders/traj_right"
    assert failure.detail == "out of memory"
    assert report.means["worldstereo-camera"].failures == 1
    assert report.means["worldstereo-camera"].clips == 3


def test_a_scene_that_failed_behind_its_clips_is_a_failure(tmp_path: Path) -> None:
    def without_cloud(scenes: Sequence[Path], variant: str, output: Path) -> Mapping[str, str]:
        generate(scenes, variant, output)
        for folder in scenes:
            (output / folder.name / "points.ply").unlink()
        return {"box-3": "no points"}

    settings = SETTINGS.model_copy(update={"variants": VARIANTS[1:]})
    report = evaluate_synthetic(WORLDS[:1], without_cloud, box_room.write_scene, settings, tmp_path)
    (failure,) = report.failures
    assert (failure.scene, failure.what, failure.detail) == ("box-3", "points.ply", "no points")


def test_holes_that_references_see_are_the_same_for_all_variants(report: Report) -> None:
    for scene in report.scenes:
        up, right = scene.clips
        assert (up.id, right.id) == ("renders/traj_up", "renders/traj_right")
        assert right.references == ("renders/traj_up/0004",)
        assert right.references_from == "worldstereo-memory"
        assert up.references_from == "plan"
        assert up.references == ("renders/pano_bank/image.png",)
        # What the start image does not show, the start image does not see.
        assert up.seen_hole_share is not None
        assert up.hole_share is not None
        assert up.seen_hole_share < 0.25 * up.hole_share
        assert right.seen_hole_share is not None
        assert right.seen_hole_share > 0.04


def test_consistency_has_its_upper_bound(report: Report) -> None:
    exact = report.means[EXACT].consistency_psnr
    assert exact is not None
    assert exact > 33
    assert report.means["worldstereo-memory"].consistency_psnr == exact
    filled = report.means["nearest pixel"].consistency_psnr
    assert filled is not None
    assert filled < exact - 3
    assert report.means["worldstereo-camera"].consistency_psnr is not None
    # Grey holes agree with grey holes: no score for leaving them.
    assert report.means[RENDER].consistency_psnr is None


def test_the_fused_cloud_is_compared_in_the_worlds_coordinates(report: Report) -> None:
    fused, start = report.means["worldstereo-memory"], report.means[START_POINTS]
    coarse = fused.reconstruction[1]  # 10 cm
    assert coarse.threshold == 0.1
    assert coarse.precision == pytest.approx(1)
    assert coarse.f1 > start.reconstruction[1].f1
    assert fused.auc is not None
    assert fused.auc > 0.8
    assert report.means["worldstereo-camera"].reconstruction == ()


def test_the_report_is_the_same_from_several_processes(report: Report, tmp_path: Path) -> None:
    scored: list[str] = []
    again = evaluate_synthetic(
        WORLDS,
        generate,
        box_room.write_scene,
        SETTINGS,
        tmp_path,
        on_scene=scored.append,
        processes=2,
    )
    text = json.dumps(report.to_json()["scenes"], allow_nan=False)
    assert json.dumps(again.to_json()["scenes"], allow_nan=False) == text
    assert scored == ["box-3", "box-4"]
    assert str(tmp_path) not in json.dumps(again.to_json())


def test_the_json_and_the_table(report: Report) -> None:
    content = report.to_json()
    assert content["schema_version"] == 1
    assert content["settings"]["seeds"] == [3, 4]
    assert content["settings"]["model"] == "none"
    assert set(content["versions"]) >= {"pycolmap", "evo"}
    assert Report.model_validate(content).methods == report.methods
    text = tables(report)
    assert text.startswith("2 scenes, 4 trajectories; 1 failures; best trivial in-painting: ")
    for word in ("PSNR seen holes", "RotErr mean", "failed frames", "consistency", "F1 of means"):
        assert word in text
    assert "box-4: worldstereo-camera: renders/traj_right: out of memory" in text
    assert all(len(line) < 180 for line in text.splitlines())


def test_the_worlds_coordinates_are_tied_by_the_start_camera(truth: SceneTruth) -> None:
    for clip in truth.clips.values():
        np.testing.assert_allclose(
            clip.cameras.camera_from_world[0], truth.start.camera_from_world[0], atol=1e-5
        )
        np.testing.assert_array_equal(clip.images[0], truth.start_image)
        assert not clip.holes[0].any()
        covered = ~clip.holes[1:]
        error = (clip.render[1:].astype(float) - clip.images[1:])[covered]
        assert np.sqrt((error**2).mean()) < 20
    assert 2.5 < truth.median_depth < 4.5


def test_nothing_that_no_frame_can_see_is_seen(truth: SceneTruth) -> None:
    clip_id = "renders/traj_right"
    assert not truth.seen_holes(clip_id, ()).any()
    seen = truth.seen_holes(clip_id, ("renders/traj_up/0004",))
    assert seen.any()
    assert not (seen & ~truth.clips[clip_id].holes).any()
