"""Scenes for training are what the product makes of the same worlds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SEED, SIZE
from training.worlds import HELD_OUT, TrainingScene, bank_positions, make_scene, make_scenes
from worldstereo.geometry.cameras import (
    normalise_cameras,
    quaternion_translation,
    unify_cameras,
)
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


def test_a_mirrored_scene_is_a_scene_of_mirrored_cameras(scene: TrainingScene) -> None:
    from training.clips import rays

    found = scene.mirrored()
    assert torch.equal(found.images[1, 5, :, 0], scene.images[1, 5, :, -1])
    assert torch.equal(found.holes[1, 5, :, 0], scene.holes[1, 5, :, -1])
    sign = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    _, _, renders = render_paths(make_world(SEED), SIZE)
    seen = rays(found.world_from_pixel, found.centers, *SIZE)
    for number, (_, _, cameras) in enumerate(renders.values()):
        poses = sign @ torch.from_numpy(cameras.camera_from_world) @ sign
        intrinsics = torch.from_numpy(cameras.intrinsics).clone()
        intrinsics[:, 0, 2] = SIZE[1] - intrinsics[:, 0, 2]
        wanted = plucker_embedding(normalise_cameras(poses), intrinsics, *SIZE)
        assert torch.allclose(seen[number], wanted[0], atol=1e-5)
        bank = sign @ scene.bank_w2c @ sign
        assert torch.equal(found.bank_w2c, bank)
        own, others = unify_cameras(poses, bank)
        assert torch.allclose(found.camera_qt[number], quaternion_translation(own), atol=1e-5)
        assert torch.allclose(found.bank_qt[number], quaternion_translation(others), atol=1e-5)


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


def test_processes_make_the_same_scenes(scene: TrainingScene, tmp_path: Path) -> None:
    make_scenes(tmp_path, [SEED, 4], "cpu", workers=2, sharing=1, size=SIZE)
    made = {path.name: TrainingScene.load(path) for path in tmp_path.iterdir()}
    assert sorted(made) == ["00003.safetensors", "00004.safetensors"]
    again = made["00003.safetensors"]
    assert torch.equal(again.images, scene.images)
    assert torch.equal(again.scores, scene.scores)
    assert not torch.equal(made["00004.safetensors"].images, scene.images)
