"""Sheets of kept scenes: each tile is the frame that its row and column name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.contact_sheets import (
    GAP,
    LABEL_HEIGHT,
    MISSING,
    chosen_frames,
    draw_sheet,
    main,
    write_sheets,
)
from worldstereo.evaluation.truth import SceneTruth, scene_truth
from worldstereo.formats.images import read_image
from worldstereo.formats.ply import write_ply
from worldstereo.formats.results import write_trajectory
from worldstereo.synthetic import make_world
from worldstereo.synthetic.photographs import write_photographed_scene
from worldstereo.types import UInt8

SEED, SIZE, FRAMES = 1, (64, 96), 5
LOST = "target3/traj_left"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What evaluate keeps: the camera variant gave the render back, the memory one the truth."""
    root = tmp_path_factory.mktemp("kept")
    world = make_world(SEED, "room")
    name = f"synthetic-{SEED}"
    scene = write_photographed_scene(world, root / "scenes" / name, SIZE, 2, frames=FRAMES)
    truth = scene_truth(world, scene, scale_map=[SIZE], nframe=FRAMES, align_nframe=1)
    for clip in truth.clips.values():
        for variant, frames in (("camera", clip.render), ("memory", clip.images)):
            if (variant, clip.id) != ("camera", LOST):
                place = root / "results" / variant / name / clip.id
                write_trajectory(place, frames, clip.cameras, None)
    cloud = world.visible_cloud(truth.start.resized(256, 384))
    write_ply(root / "results" / "memory" / name / "points.ply", cloud)
    return root


@pytest.fixture(scope="module")
def truth(kept: Path) -> SceneTruth:
    folder = kept / "scenes" / f"synthetic-{SEED}"
    world = make_world(SEED, "room")
    return scene_truth(world, folder, scale_map=[SIZE], nframe=FRAMES, align_nframe=1)


def tile(sheet: UInt8, row: int, column: int) -> UInt8:
    top = 2 * LABEL_HEIGHT + row * (LABEL_HEIGHT + SIZE[0] + GAP) + LABEL_HEIGHT
    left = GAP + column * (SIZE[1] + GAP)
    return sheet[top : top + SIZE[0], left : left + SIZE[1]]


def test_every_tile_is_the_frame_that_it_says(
    kept: Path, truth: SceneTruth, tmp_path: Path
) -> None:
    scene = kept / "scenes" / f"synthetic-{SEED}"
    variants = {"camera-only": kept / "results/camera", "memory": kept / "results/memory"}
    sheet_file, cloud_file = write_sheets(scene, variants, tmp_path / "new", ".png")
    sheet = read_image(sheet_file)
    row = 0
    for clip in truth.clips.values():
        for frame in chosen_frames(clip.holes):
            made = clip.render[frame]
            expected = [truth.start_image, made, made, clip.images[frame], clip.images[frame]]
            for column, picture in enumerate(expected):
                shown = tile(sheet, row, column)
                if clip.id == LOST and column == 2:
                    assert (shown[-1, -1] == MISSING).all()
                else:
                    assert np.array_equal(shown, picture), (clip.id, frame, column)
            row += 1
    bank = sorted((scene / "pano_bank" / "images").iterdir())
    for column, file in enumerate(bank):
        assert np.array_equal(tile(sheet, row, column), read_image(file))
    assert len(sheet) == 2 * LABEL_HEIGHT + (row + 1) * (LABEL_HEIGHT + SIZE[0] + GAP)
    cloud = read_image(cloud_file)
    assert cloud.shape == (480, 720, 3)
    # From a raised view the points of one picture are still most of what is seen.
    assert (cloud != 128).any(axis=-1).mean() > 0.5


def test_the_command_names_what_it_wrote(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(kept / "scenes"), f"memory={kept / 'results/memory'}", "--out", str(tmp_path)]
    main(words)
    written = [tmp_path / f"synthetic-{SEED}{end}.jpg" for end in ("", "-points")]
    assert capsys.readouterr().out.split() == [str(file) for file in written]
    for file in written:
        with Image.open(file) as picture:
            assert picture.format == "JPEG"


def test_frames_are_the_most_open_one_and_the_one_half_way() -> None:
    holes = np.zeros((9, 4, 4), dtype=np.bool_)
    holes[6, :2] = holes[8, :1] = True
    assert chosen_frames(holes) == [3, 6]
    assert chosen_frames(np.zeros_like(holes)) == [1]


def test_a_title_that_is_too_long_is_cut() -> None:
    black = np.zeros((8, 40, 3), dtype=np.uint8)
    sheet = draw_sheet("a room with " * 30, ["truth"], [("", [black])])
    assert sheet.size == (2 * GAP + 40, 3 * LABEL_HEIGHT + 8 + GAP)


@pytest.mark.parametrize(
    ("variants", "message"),
    [(["results/memory"], "NAME=RESULTS"), (["memory=elsewhere"], "no clip of it in elsewhere")],
)
def test_what_cannot_be_drawn_is_said(
    kept: Path,
    tmp_path: Path,
    variants: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(kept / "scenes"), *variants, "--out", str(tmp_path)])
    assert message in f"{ended.value}{capsys.readouterr().err}"
