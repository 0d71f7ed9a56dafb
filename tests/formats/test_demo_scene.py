"""The bundled demo scene: valid, as small as promised, and made by its command."""

import json
from pathlib import Path

import numpy as np
import pytest

from examples.make_demo_scene import FOLDER, demo_world, make_demo_scene, make_demo_view
from worldstereo.config import DEFAULT_SCALE_MAP
from worldstereo.errors import ParameterError
from worldstereo.formats.clips import load_render
from worldstereo.formats.images import read_image
from worldstereo.formats.scene_folder import read_scene
from worldstereo.types import SceneInput

SIZE = (32, 48)


def read(folder: Path) -> SceneInput:
    return read_scene(folder, scale_map=DEFAULT_SCALE_MAP, nframe=21)


def test_the_bundled_scene() -> None:
    scene = read(FOLDER)
    assert [trajectory.id for trajectory in scene.trajectories] == [
        "renders/traj_eloop",
        "renders/traj_up",
        "renders/traj_right",
        "renders/traj_left",
    ]
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 1_000_000
    for trajectory in scene.trajectories:
        video, holes = load_render(trajectory, (256, 384), 21)
        share = holes.mean(axis=(1, 2))
        assert share[0] == 0
        assert 0.03 < share[10] < 0.35, trajectory.id
        # Most of what is no hole shows the room, not the grey behind it.
        assert (np.abs(video[10][~holes[10]].astype(int) - 127).max(axis=-1) > 8).mean() > 0.8


def test_the_command_gives_the_same_files_and_replaces_its_own_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_demo_scene(tmp_path / name, SIZE, frames=3)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 2 + 4 * 3
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    make_demo_view(tmp_path / "b", SIZE)
    left = ["camera.json", "depth.npy", "image.png", "prompt.json"]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == left
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ParameterError):
        make_demo_view(tmp_path / "b", SIZE)
    assert (tmp_path / "b" / "notes.txt").read_text() == "mine"


def test_the_bundled_picture_is_the_rooms() -> None:
    world = demo_world()
    bundled = read_image(FOLDER / "image.png")
    camera = world.start_camera(256, 384)
    # Another processor may round a few pixels differently.
    off = np.abs(bundled.astype(int) - world.render(camera).images[0]).max(axis=-1)
    assert (off > 1).mean() < 1e-3
    assert json.loads((FOLDER / "prompt.json").read_text())["prompt"] == world.caption


def test_the_room_as_a_single_view(tmp_path: Path) -> None:
    scene = read(make_demo_view(tmp_path / "room", SIZE))
    assert scene.layout == "single_view"
    assert scene.trajectories[0].depth == tmp_path / "room" / "depth.npy"
