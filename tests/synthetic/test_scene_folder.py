"""Synthetic worlds as scene folders that every reader takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from worldstereo.config import DEFAULT_SCALE_MAP
from worldstereo.errors import ParameterError
from worldstereo.formats.clips import load_render
from worldstereo.formats.images import read_image
from worldstereo.formats.scene_folder import read_scene
from worldstereo.synthetic import SyntheticWorld, make_world
from worldstereo.synthetic.scene_folder import (
    path_cameras,
    render_paths,
    write_synthetic_scene,
    write_synthetic_view,
)

SIZE = (64, 96)


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return make_world(1, "room")


def test_a_world_becomes_a_scene(world: SyntheticWorld, tmp_path: Path) -> None:
    folder = write_synthetic_scene(world, tmp_path / "scene", SIZE, frames=5)
    scene = read_scene(folder, scale_map=DEFAULT_SCALE_MAP, nframe=5, align_nframe=2)
    assert scene.layout == "reconstruction"
    assert [t.name for t in scene.trajectories] == list(world.paths(5))
    assert scene.trajectories[0].prompt == world.caption
    views = world.render(world.start_camera(*SIZE))
    assert np.array_equal(read_image(folder / "image.png"), views.images[0])
    assert np.array_equal(np.load(folder / "depth.npy"), views.depths[0])
    for trajectory in scene.trajectories:
        cameras = path_cameras(world, world.paths(5)[trajectory.name], SIZE)
        assert np.array_equal(trajectory.cameras.camera_from_world, cameras.camera_from_world)
        assert np.allclose(trajectory.cameras.intrinsics, cameras.intrinsics)
        _, holes = load_render(trajectory, SIZE, 5)
        assert not holes[0].any()
        assert 0 < holes[2].mean() < 0.6
    with pytest.raises(ParameterError):
        write_synthetic_scene(world, folder, SIZE, frames=5)


def test_renders_show_the_true_views(world: SyntheticWorld) -> None:
    """Where the start view's points reach, another camera's exact picture is what they show."""
    image, depth, renders = render_paths(world, SIZE, frames=5)
    assert image.shape == (*SIZE, 3)
    assert depth.shape == SIZE
    for name, (video, holes, cameras) in renders.items():
        exact = world.render(cameras).images
        assert np.array_equal(video[0], image)
        covered = ~holes[2]
        assert 0.5 < covered.mean() < 1, name
        off = np.abs(video[2][covered].astype(int) - exact[2][covered])
        assert np.median(off) < 12, name


def test_a_world_as_a_single_view(world: SyntheticWorld, tmp_path: Path) -> None:
    folder = write_synthetic_view(world, tmp_path / "view", SIZE, path="traj_left")
    scene = read_scene(folder, scale_map=DEFAULT_SCALE_MAP, nframe=21)
    assert scene.layout == "single_view"
    assert json.loads((folder / "prompt.json").read_text()) == {"prompt": world.caption}
    cameras = path_cameras(world, world.paths()["traj_left"], SIZE)
    given = scene.trajectories[0].cameras.camera_from_world
    assert np.array_equal(given, cameras.camera_from_world)
