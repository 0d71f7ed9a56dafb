"""Renders of a trajectory as a clip takes them."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scenes import make_panorama, make_trajectory, path
from worldstereo.errors import MediaError
from worldstereo.formats.clips import hole_mask, load_render, thin
from worldstereo.formats.scene_folder import read_scene
from worldstereo.formats.video import read_video, write_video
from worldstereo.types import Cameras, TrajectoryInput


@given(st.integers(2, 60), st.integers(0, 300))
def test_thinning_keeps_the_ends_and_the_order(nframe: int, more: int) -> None:
    indices = thin(nframe + more, nframe)
    assert len(indices) == nframe
    assert (indices[0], indices[-1]) == (0, nframe + more - 1)
    assert all(a < b for a, b in pairwise(indices))


def test_thinning_as_published() -> None:
    assert thin(81, 21) == list(range(0, 81, 4))
    assert thin(21, 21) == list(range(21))
    assert thin(49, 21) == [int(i) for i in np.linspace(0, 48, 21, dtype=int)]


def trajectory(folder: Path, nframe: int, size: tuple[int, int]) -> TrajectoryInput:
    make_trajectory(folder, path(nframe), nframe=nframe, size=size)
    eye = np.eye(4, dtype=np.float32)[None]
    return TrajectoryInput(
        view="view0",
        name="traj0",
        cameras=Cameras(eye, eye[:, :3, :3], *size),
        prompt="a room",
        start_image=None,
        render=folder / "render.mp4",
        render_mask=folder / "render_mask.mp4",
        render_frames=nframe,
    )


def test_frames_and_holes_at_their_own_size(tmp_path: Path) -> None:
    clip = trajectory(tmp_path, 21, (32, 48))
    video, holes = load_render(clip, (32, 48), 21)
    assert np.array_equal(video, read_video(tmp_path / "render.mp4"))
    assert holes.dtype == bool
    assert [int(frame[0].sum()) for frame in holes] == [(i * 48) // 63 for i in range(21)]


def test_thinned_and_resized(tmp_path: Path) -> None:
    clip = trajectory(tmp_path, 81, (32, 48))
    video, holes = load_render(clip, (64, 96), 21)
    assert video.shape == (21, 64, 96, 3)
    whole = read_video(tmp_path / "render_mask.mp4")[::4] > 127
    doubled = whole[..., 0].repeat(2, axis=1).repeat(2, axis=2)
    assert (holes == doubled).mean() > 0.98


def test_an_iterative_clip_has_no_holes_in_frame_0(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "s", {"reconstruct_0": ("traj0", "traj1")}, size=(32, 48))
    masks = np.full((21, 32, 48, 3), 255, np.uint8)
    for name in ("traj0", "traj1"):
        write_video(folder / "reconstruct_0" / name / "render_mask.mp4", masks)
    scene = read_scene(folder, scale_map=[(32, 48)], nframe=21)
    first, second = (load_render(clip, scene.size, 21)[1] for clip in scene.trajectories)
    assert first.all()
    assert not second[0].any()
    assert second[1:].all()


def test_half_grey_is_where_holes_begin() -> None:
    grey = np.full((16, 16, 3), 127, np.uint8)
    assert not hole_mask(grey, (16, 16)).any()
    assert hole_mask(grey + 1, (16, 16)).all()


def test_files_that_changed_since_they_were_read_are_errors(tmp_path: Path) -> None:
    clip = trajectory(tmp_path, 21, (32, 48))
    write_video(tmp_path / "render_mask.mp4", np.zeros((20, 32, 48, 3), np.uint8))
    with pytest.raises(MediaError, match=r"render_mask\.mp4.*20 frames; allowed: at least 21"):
        load_render(clip, (32, 48), 21)
    (tmp_path / "render.mp4").write_text(json.dumps("gone"))
    with pytest.raises(MediaError, match=r"render\.mp4"):
        load_render(clip, (32, 48), 21)
