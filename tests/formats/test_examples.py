"""The published example scenes, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from worldstereo.config import DEFAULT_SCALE_MAP
from worldstereo.errors import LayoutError
from worldstereo.formats.clips import load_render
from worldstereo.formats.images import read_image
from worldstereo.formats.scene_folder import read_scene
from worldstereo.types import SceneInput

PANORAMA = "9c2dd62c7bb946a49e8e51278277eb6a"


def read(folder: Path, **options: object) -> SceneInput:
    return read_scene(folder, scale_map=DEFAULT_SCALE_MAP, nframe=21, **options)


def test_kitchen(examples_folder: Path) -> None:
    scene = read(examples_folder / "reconstruction" / "kitchen", task_type="reconstruction")
    assert (scene.name, scene.layout, scene.size) == ("kitchen", "reconstruction", (480, 768))
    assert [trajectory.id for trajectory in scene.trajectories] == [
        "renders/traj_eloop",
        "renders/traj_up",
        "renders/traj_right",
        "renders/traj_left",
    ]
    for trajectory in scene.trajectories:
        assert (len(trajectory.cameras), trajectory.cameras.height, trajectory.cameras.width) == (
            21,
            512,
            768,
        )
        assert trajectory.prompt.startswith("A cozy indoor dining/kitchen scene.")
    assert [frame.id for frame in scene.start_frames] == ["renders/pano_bank/image.png"]


def test_partial_panorama(examples_folder: Path) -> None:
    scene = read(examples_folder / "panorama" / PANORAMA, task_type="panorama")
    assert (scene.layout, scene.size, len(scene.start_frames)) == ("panorama", (480, 768), 27)
    assert [trajectory.id for trajectory in scene.trajectories] == [
        "view0/traj2",
        "view0/traj0",
        "view0/traj1",
        "target_escalator_1/traj0",
        "target_escalator_1/traj1",
        "reconstruct_0/traj0",
        "wonder_0/traj0",
        "wonder_0/traj1",
        "reconstruct_0/traj1",
    ]
    assert scene.trajectories[-1].starts_after == "reconstruct_0/traj0"
    assert scene.trajectories[-1].start_image is None
    assert all(
        (frame.camera.height, frame.camera.width) == (480, 832) for frame in scene.start_frames
    )
    _, holes = load_render(scene.trajectories[-1], scene.size, 21)
    assert not holes[0].any()
    assert holes[1].any()


@pytest.mark.parametrize(
    ("name", "size", "working"),
    [
        ("photorealistic-indoor-dining_spaces-030", (720, 1080), (480, 768)),
        ("photorealistic-outdoor-city-062", (768, 1024), (512, 720)),
    ],
)
def test_single_views_with_a_depth_given(
    examples_folder: Path,
    tmp_path: Path,
    name: str,
    size: tuple[int, int],
    working: tuple[int, int],
) -> None:
    folder = examples_folder / "images" / name
    with pytest.raises(LayoutError, match="needs a depth map"):
        read(folder)
    np.save(tmp_path / "depth.npy", np.full(size, 3.0, np.float32))
    scene = read(folder, depth=tmp_path / "depth.npy")
    (trajectory,) = scene.trajectories
    assert (trajectory.id, len(trajectory.cameras), scene.size) == ("renders/traj0", 81, working)
    assert (trajectory.cameras.height, trajectory.cameras.width) == size
    assert np.allclose(trajectory.cameras.camera_from_world[0, :3, :3], np.eye(3))
    assert len(trajectory.prompt) > 400


def test_a_published_png_is_a_jpeg(examples_folder: Path) -> None:
    file = examples_folder / "images" / "photorealistic-indoor-dining_spaces-030" / "image.png"
    assert file.read_bytes()[:2] == b"\xff\xd8"
    assert read_image(file).shape == (720, 1080, 3)


def test_renders_start_with_the_start_image(examples_folder: Path) -> None:
    scene = read(examples_folder / "reconstruction" / "kitchen")
    trajectory = scene.trajectories[1]
    assert trajectory.start_image is not None
    video, holes = load_render(trajectory, (512, 768), 21)
    start = read_image(trajectory.start_image)
    assert np.abs(video[0].astype(int) - start).mean() < 6
    assert not holes[0].any()
    assert 0.4 < holes[-1].mean() < 0.45
