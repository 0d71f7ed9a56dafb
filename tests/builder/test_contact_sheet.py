"""The sheet and the preview show the arrays that clips are generated from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.memory.folders import (
    FRAMES,
    SIZE,
    TRAJECTORIES,
    open_run,
    read,
    write_panorama,
    write_reconstruction,
    write_single_view,
)
from worldstereo.builder.contact_sheet import (
    CHECKER,
    GAP,
    LABEL_HEIGHT,
    clip_inputs,
    contact_sheet,
    painted,
    write_contact_sheet,
    write_preview,
)
from worldstereo.errors import ParameterError
from worldstereo.formats.video import read_video


@pytest.fixture(scope="module")
def reconstruction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reconstruction(tmp_path_factory.mktemp("scenes") / "hall")


def test_they_are_the_models_arrays(reconstruction: Path, tmp_path: Path) -> None:
    single = write_single_view(tmp_path / "shelf")
    for folder, name in ((reconstruction, TRAJECTORIES[0]), (single, "renders/traj0")):
        run = open_run(folder, tmp_path / f"out_{folder.name}")
        clip = run.prepare(name)
        video, holes = clip_inputs(run.scene.trajectory(name), SIZE, FRAMES)
        np.testing.assert_array_equal(video, clip.render_video)
        np.testing.assert_array_equal(holes, clip.hole_mask)


def test_a_generated_start_frame_is_shown_as_rendered(tmp_path: Path) -> None:
    scene = read(write_panorama(tmp_path / "tower"))
    second = scene.trajectories[1]
    assert second.starts_after is not None
    video, holes = clip_inputs(second, scene.size, FRAMES)
    assert len(video) == FRAMES
    assert not holes[0].any()


def test_a_row_holds_frames_of_its_trajectory(reconstruction: Path) -> None:
    scene = read(reconstruction)
    sheet = contact_sheet(scene, nframe=FRAMES, columns=3)
    height, width = SIZE
    row = LABEL_HEIGHT + height + 2 * GAP
    assert sheet.shape == (len(TRAJECTORIES) * row, GAP + 3 * (width + GAP), 3)
    for index, trajectory in enumerate(scene.trajectories):
        video, holes = clip_inputs(trajectory, SIZE, FRAMES)
        frames = painted(video, holes)
        top = index * row + LABEL_HEIGHT + GAP
        for column, frame in enumerate((0, FRAMES // 2, FRAMES - 1)):
            left = GAP + column * (width + GAP)
            tile = sheet[top : top + height, left : left + width]
            np.testing.assert_array_equal(tile, frames[frame])
        label = sheet[index * row : index * row + LABEL_HEIGHT]
        assert (label > 150).any()
    assert contact_sheet(scene, nframe=FRAMES).shape[1] == GAP + FRAMES * (width + GAP)
    small = contact_sheet(scene, nframe=FRAMES, columns=2, tile_width=16)
    assert small.shape[1] == GAP + 2 * (16 + GAP)


def test_holes_are_a_magenta_checker() -> None:
    video = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    holes = np.zeros((1, 16, 16), dtype=np.bool_)
    holes[0, :, 8:] = True
    shown = painted(video, holes)[0]
    assert not shown[:, :8].any()
    np.testing.assert_array_equal(shown[0, 8], CHECKER[1])
    np.testing.assert_array_equal(shown[15, 8], CHECKER[0])


def test_the_sheet_is_a_png_of_the_same_bytes_every_time(
    reconstruction: Path, tmp_path: Path
) -> None:
    scene = read(reconstruction)
    paths = [tmp_path / "a.png", tmp_path / "new" / "b.png"]
    for path in paths:
        write_contact_sheet(path, contact_sheet(scene, nframe=FRAMES, columns=2))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(
            np.asarray(image), contact_sheet(scene, nframe=FRAMES, columns=2)
        )


def test_the_preview_shows_all_trajectories_in_order(reconstruction: Path, tmp_path: Path) -> None:
    scene = read(reconstruction)
    path = tmp_path / "preview.mp4"
    write_preview(path, scene, nframe=FRAMES)
    frames = read_video(path)
    assert frames.shape == (len(TRAJECTORIES) * FRAMES, *SIZE, 3)
    video, holes = clip_inputs(scene.trajectories[1], SIZE, FRAMES)
    # Below the label; colours come through the codec, which halves their resolution.
    shown, expected = frames[FRAMES, 20:], painted(video, holes)[0, 20:]
    assert np.abs(shown.astype(int) - expected).mean() < 25
    assert [path.name for path in tmp_path.iterdir()] == ["preview.mp4"]
    write_preview(path, scene, nframe=FRAMES, width=24)
    assert read_video(path).shape[1:3] == (16, 24)


@pytest.mark.parametrize(("columns", "width"), [(1, 64), (3, 8)])
def test_what_is_no_sheet(reconstruction: Path, columns: int, width: int) -> None:
    with pytest.raises(ParameterError, match="columns, tile_width"):
        contact_sheet(read(reconstruction), nframe=FRAMES, columns=columns, tile_width=width)
