"""A finished result folder read back for other programs, and the start frames of its scene."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.memory.folders import (
    FRAMES,
    SIZE,
    TRAJECTORIES,
    open_run,
    read,
    run_all,
    start_image,
    write_panorama,
    write_reconstruction,
    write_single_view,
)
from tests.reconstruction.finished_scene import start_frames
from worldstereo.errors import LayoutError
from worldstereo.formats.depth_maps import write_depth_maps
from worldstereo.formats.images import resize_bicubic
from worldstereo.reconstruction.result_clips import (
    read_result_clips,
    read_start_frames,
    start_frames_of,
    write_start_frames,
)
from worldstereo.scene import SceneRun


@pytest.fixture
def run(tmp_path: Path) -> SceneRun:
    run = open_run(write_reconstruction(tmp_path / "hall"), tmp_path / "out")
    run_all(run)
    return run


def test_clips_in_canonical_order_with_the_commanded_cameras(run: SceneRun) -> None:
    run.finish(dict.fromkeys(TRAJECTORIES, "completed"))
    depths = np.ones((FRAMES, *SIZE), dtype=np.float32)
    write_depth_maps(run.output / "depth" / TRAJECTORIES[2], depths, metric=False)
    clips = read_result_clips(run.output)
    assert [clip.id for clip in clips] == list(TRAJECTORIES)
    for clip in clips:
        commanded = run.prepare(clip.id).cameras
        assert np.array_equal(clip.cameras.camera_from_world, commanded.camera_from_world)
        assert np.array_equal(clip.cameras.intrinsics, commanded.intrinsics)
        assert clip.frames.shape == (FRAMES, *SIZE, 3)
        # align_nframe is 2: the last frame and one in the middle.
        assert clip.keyframes == tuple(i for _, i in run.plan.trajectory(clip.id).adds)
        assert len(clip.keyframes) == 2
        assert clip.keyframes[-1] == FRAMES - 1
    assert [clip.depths is None for clip in clips] == [True, True, False, True]
    assert np.array_equal(clips[2].depths, depths)  # type: ignore[arg-type]


def test_failed_trajectories_are_left_out(tmp_path: Path) -> None:
    run = open_run(write_reconstruction(tmp_path / "hall"), tmp_path / "out")
    first = TRAJECTORIES[0]
    clip = run.prepare(first)
    run.commit(first, clip.render_video, {})
    run.finish({first: "completed"} | dict.fromkeys(TRAJECTORIES[1:], "failed"))
    assert [clip.id for clip in read_result_clips(run.output)] == [first]


def test_refused(run: SceneRun) -> None:
    with pytest.raises(LayoutError, match="the scene is not finished"):
        read_result_clips(run.output)
    run.finish(dict.fromkeys(TRAJECTORIES, "completed"))
    (run.output / TRAJECTORIES[1] / "frames" / "0001.png").unlink()
    with pytest.raises(LayoutError, match=r"0001\.png: a frame is missing"):
        read_result_clips(run.output)
    plan = run.output / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "nframe": "many"}))
    with pytest.raises(LayoutError, match="the plan does not read as it was written; got nframe"):
        read_result_clips(run.output)
    plan.unlink()
    with pytest.raises(LayoutError, match="the result has no plan"):
        read_result_clips(run.output)


def test_a_start_image_has_the_camera_that_took_it(tmp_path: Path) -> None:
    scene = read(write_single_view(tmp_path / "shelf"))
    ((frame_id, image, camera),) = start_frames_of(scene)
    assert frame_id == "renders/pano_bank/image.png"
    assert np.array_equal(image, resize_bicubic(start_image(), SIZE))
    # The memory holds it at the world's origin; the path's camera 0 is 3 units before it.
    assert np.array_equal(scene.start_frames[0].camera.camera_from_world[0], np.eye(4))
    assert camera.camera_from_world[0, :3, 3].tolist() == [0, 0, 3]
    assert (camera.height, camera.width) == SIZE
    assert camera.intrinsics[0, 0, 0] == 40  # 80 at twice the size


def test_a_panorama_keeps_its_own_cameras(tmp_path: Path) -> None:
    scene = read(write_panorama(tmp_path / "tower"))
    frames = start_frames_of(scene)
    assert [frame_id for frame_id, _, _ in frames] == [frame.id for frame in scene.start_frames]
    for (_, _, camera), given in zip(frames, scene.start_frames, strict=True):
        assert np.array_equal(camera.camera_from_world, given.camera.camera_from_world)


def test_start_frames_come_back(tmp_path: Path) -> None:
    assert read_start_frames(tmp_path) == []
    given = start_frames()
    files = write_start_frames(tmp_path, given)
    assert sorted(files) == sorted((tmp_path / "start_frames").iterdir())
    for (frame_id, image, camera), back in zip(given, read_start_frames(tmp_path), strict=True):
        assert back[0] == frame_id
        assert np.array_equal(back[1], image)
        assert np.array_equal(back[2].camera_from_world, camera.camera_from_world)
        assert np.array_equal(back[2].intrinsics, camera.intrinsics)
    cameras = tmp_path / "start_frames" / "cameras.json"
    content = json.loads(cameras.read_text())
    cameras.write_text(json.dumps({**content, "ids": ["one", "two"]}))
    with pytest.raises(LayoutError, match="2 ids, cameras of shapes"):
        read_start_frames(tmp_path)
    cameras.write_text(json.dumps(content))
    files[0].unlink()
    with pytest.raises(LayoutError, match="a start frame is missing"):
        read_start_frames(tmp_path)
