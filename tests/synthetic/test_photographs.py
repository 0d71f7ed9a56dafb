"""Scenes with photographs: today's trajectories, and a memory that begins with more pictures."""

from pathlib import Path

import numpy as np
import pytest

from worldstereo.config import SceneParameters
from worldstereo.errors import ParameterError
from worldstereo.formats.images import read_image
from worldstereo.formats.scene_folder import read_scene
from worldstereo.memory.plan import plan_scene
from worldstereo.synthetic import SyntheticWorld, make_world
from worldstereo.synthetic.photographs import (
    MAX_PHOTOGRAPHS,
    photograph_cameras,
    write_photographed_scene,
)
from worldstereo.synthetic.scene_folder import path_cameras, write_synthetic_scene
from worldstereo.types import SceneInput

SIZE, FRAMES = (64, 96), 9
COUNT = 4


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return make_world(1, "room")


@pytest.fixture(scope="module")
def folder(world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scenes") / "photographed"
    return write_photographed_scene(world, place, SIZE, COUNT, frames=FRAMES)


def read(folder: Path) -> SceneInput:
    return read_scene(folder, scale_map=[SIZE], nframe=FRAMES, align_nframe=2)


def test_trajectories_are_those_of_the_scene_without_photographs(
    world: SyntheticWorld, folder: Path, tmp_path: Path
) -> None:
    plain = read(write_synthetic_scene(world, tmp_path / "plain", SIZE, frames=FRAMES))
    scene = read(folder)
    assert (scene.layout, scene.skipped, scene.size) == ("panorama", {}, SIZE)
    assert [trajectory.id for trajectory in scene.trajectories] == [
        "target0/traj_eloop",
        "target1/traj_up",
        "target2/traj_right",
        "target3/traj_left",
    ]
    for ours, before in zip(scene.trajectories, plain.trajectories, strict=True):
        assert ours.name == before.name
        assert ours.prompt == before.prompt == world.caption
        assert np.array_equal(ours.cameras.camera_from_world, before.cameras.camera_from_world)
        for video in ("render", "render_mask", "start_image"):
            paths = [getattr(trajectory, video) for trajectory in (ours, before)]
            assert paths[0].read_bytes() == paths[1].read_bytes(), video


def test_the_memory_begins_with_exact_pictures(world: SyntheticWorld, folder: Path) -> None:
    bank = read(folder).start_frames
    assert [frame.id for frame in bank] == [f"pano_bank/{n:04d}" for n in range(COUNT + 1)]
    assert np.array_equal(bank[0].camera.camera_from_world[0], np.eye(4))
    for frame in bank:
        assert np.array_equal(read_image(frame.image), world.render(frame.camera).images[0])


def test_shuffled_photographs_have_the_same_cameras_and_show_another_world(
    folder: Path, world: SyntheticWorld, tmp_path: Path
) -> None:
    shuffled = write_photographed_scene(
        world, tmp_path / "shuffled", SIZE, COUNT, pictures_of=make_world(2), frames=FRAMES
    )
    differ = {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file()
        and file.read_bytes() != (shuffled / file.relative_to(folder)).read_bytes()
    }
    # Not the cameras, nor the start picture, nor any trajectory.
    assert differ == {f"pano_bank/images/{number:04d}.png" for number in range(1, COUNT + 1)}
    ours, others = (read(scene).start_frames[1:] for scene in (folder, shuffled))
    for right, wrong in zip(ours, others, strict=True):
        far = np.abs(read_image(right.image).astype(int) - read_image(wrong.image))
        assert far.mean() > 20


def test_no_photograph_is_taken_where_a_frame_is(world: SyntheticWorld) -> None:
    taken = photograph_cameras(world, MAX_PHOTOGRAPHS, SIZE, FRAMES).camera_from_world
    frames = [path_cameras(world, path, SIZE) for path in world.paths(FRAMES).values()]
    poses = np.concatenate([cameras.camera_from_world for cameras in frames])
    apart = np.abs(taken[:, None] - poses).max(axis=(2, 3))
    assert apart.min() > 1e-3
    one_to_another = np.abs(taken[:, None] - taken).max(axis=(2, 3))
    assert (one_to_another > 1e-3).sum() == MAX_PHOTOGRAPHS * (MAX_PHOTOGRAPHS - 1)


def test_the_plan_retrieves_photographs(folder: Path) -> None:
    parameters = SceneParameters(variant="worldstereo-memory", align_nframe=2)
    plan = plan_scene(read(folder), parameters, FRAMES)
    used = {name for trajectory in plan.trajectories for name in trajectory.nearest}
    assert {f"pano_bank/{number:04d}" for number in range(COUNT + 1)} <= used
    # Towards its end a path is nearest to the photograph that was taken there.
    for trajectory, number in (("target2/traj_right", 1), ("target3/traj_left", 2)):
        assert plan.trajectory(trajectory).nearest[-1] == f"pano_bank/{number:04d}"


def test_the_same_scene_twice_is_the_same_bytes(
    world: SyntheticWorld, folder: Path, tmp_path: Path
) -> None:
    again = write_photographed_scene(world, tmp_path / "again", SIZE, COUNT, frames=FRAMES)
    names = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.parametrize("count", [0, MAX_PHOTOGRAPHS + 1])
def test_photographs_without_a_place_are_refused(
    world: SyntheticWorld, tmp_path: Path, count: int
) -> None:
    with pytest.raises(ParameterError, match=f"1 to {MAX_PHOTOGRAPHS}"):
        write_photographed_scene(world, tmp_path / "scene", SIZE, count)
    assert not (tmp_path / "scene").exists()
