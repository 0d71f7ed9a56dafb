"""Scenes for training are what the product makes of the same worlds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SEED, SIZE
from training.worlds import HELD_OUT, TrainingScene, bank_positions, make_scene
from worldstereo.geometry.cameras import normalise_cameras
from worldstereo.geometry.rays import plucker_embedding
from worldstereo.memory.plan import keyframe_indices
from worldstereo.synthetic import make_world
from worldstereo.synthetic.scene_folder import render_paths


def test_pictures_and_renders_are_those_of_scene_folders(scene: TrainingScene) -> None:
    world = make_world(SEED)
    image, _, renders = render_paths(world, SIZE)
    assert scene.caption == world.caption
    for number, (video, holes, cameras) in enumerate(renders.values()):
        assert np.array_equal(scene.renders[number], video)
        assert np.array_equal(scene.holes[number], holes)
        assert np.array_equal(scene.images[number, 0], image)
        exact = world.render(cameras[[20]]).images[0]
        assert np.array_equal(scene.images[number, 20], exact)


def test_bank_frames_are_the_start_and_what_clips_add(scene: TrainingScene) -> None:
    assert scene.scores.shape == (4, 20, 33)
    assert bank_positions(0) == slice(1, 9)
    assert bank_positions(3) == slice(25, 33)
    # A frame of a clip serves itself best, and as well as anything can.
    for path in range(4):
        for place, frame in zip(
            range(33)[bank_positions(path)], keyframe_indices(21, 8), strict=True
        ):
            assert scene.scores[path, frame - 1, place] == pytest.approx(1, abs=1e-4)
            own, seen = scene.camera_qt[path, frame], scene.bank_qt[path, place]
            assert torch.allclose(own, seen, atol=1e-5)


def test_rays_are_the_products(scene: TrainingScene) -> None:
    from training.clips import rays

    found = rays(scene.world_from_pixel, scene.centers, *SIZE)
    world = make_world(SEED)
    _, _, renders = render_paths(world, SIZE)
    for number, (_, _, cameras) in enumerate(renders.values()):
        normal = normalise_cameras(torch.from_numpy(cameras.camera_from_world))
        wanted = plucker_embedding(normal, torch.from_numpy(cameras.intrinsics), *SIZE)
        assert torch.allclose(found[number], wanted[0], atol=1e-5)


def test_what_is_written_is_read(scene: TrainingScene, tmp_path: Path) -> None:
    scene.save(tmp_path / "scene.safetensors")
    again = TrainingScene.load(tmp_path / "scene.safetensors")
    assert again.caption == scene.caption
    assert torch.equal(again.images, scene.images)
    assert torch.equal(again.qualities, scene.qualities)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.safetensors"]


def test_held_out_seeds_are_refused() -> None:
    with pytest.raises(AssertionError, match="held out"):
        make_scene(HELD_OUT)
