"""read_scene: which layout a folder is in, and what comes out of each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scenes import (
    make_pano_bank,
    make_panorama,
    make_perspective,
    make_reconstruction,
    make_single_view,
    make_trajectory,
    path,
    picture,
    write_json,
    write_picture,
)
from worldstereo.config import DEFAULT_SCALE_MAP
from worldstereo.errors import LayoutError
from worldstereo.formats.scene_folder import read_scene, working_size
from worldstereo.types import SceneInput

SIZE = (32, 48)
GOLDEN_SIZES = json.loads(
    (Path(__file__).parents[1] / "golden" / "cameras" / "tables.json").read_text()
)["resolution"]


def read(folder: Path, **options: object) -> SceneInput:
    return read_scene(folder, scale_map=DEFAULT_SCALE_MAP, nframe=21, **options)


def ids(scene: SceneInput) -> list[str]:
    return [trajectory.id for trajectory in scene.trajectories]


@pytest.mark.parametrize("size", GOLDEN_SIZES)
def test_working_size_as_published(size: str) -> None:
    height, width = map(int, size.split("x"))
    assert list(working_size(height, width, DEFAULT_SCALE_MAP)) == GOLDEN_SIZES[size]


def test_the_first_of_two_sizes_that_fit_equally() -> None:
    assert working_size(100, 100, [(4, 2), (2, 4), (1, 1)]) == (1, 1)
    assert working_size(100, 100, [(150, 100), (50, 100)]) == (150, 100)


def test_reconstruction(tmp_path: Path) -> None:
    names = ("traj_left", "zoom", "traj_up", "traj_eloop")
    folder = make_reconstruction(tmp_path / "my scene", names, size=SIZE)
    scene = read(folder)
    assert (scene.name, scene.layout, scene.size) == ("my scene", "reconstruction", (480, 768))
    assert ids(scene) == [
        f"renders/{name}" for name in ("traj_eloop", "traj_up", "traj_left", "zoom")
    ]
    (start,) = scene.start_frames
    first = scene.trajectories[0]
    assert start.id == "renders/pano_bank/image.png"
    assert start.image == first.start_image == folder / "image.png"
    assert np.array_equal(start.camera.camera_from_world[0], np.eye(4))
    assert np.array_equal(start.camera.intrinsics, first.cameras.intrinsics[:1])
    assert (first.cameras.height, first.cameras.width) == SIZE
    assert first.prompt == "a room with smooth colours"
    assert first.render == folder / "renders/traj_eloop/render.mp4"
    assert first.depth is None
    assert scene.skipped == {}


def test_a_caption_of_a_trajectory_comes_before_the_scenes_prompt(tmp_path: Path) -> None:
    folder = make_reconstruction(tmp_path / "s", ("traj_up", "traj_left"), size=SIZE)
    write_json(folder / "renders/traj_left/traj_caption.json", {"prompt": "to the left"})
    assert [t.prompt for t in read(folder).trajectories] == [
        "a room with smooth colours",
        "to the left",
    ]


@pytest.mark.parametrize(("cameras", "frames"), [(81, 21), (81, 81), (41, 21), (21, 81)])
def test_more_cameras_or_frames_than_keyframes(tmp_path: Path, cameras: int, frames: int) -> None:
    folder = make_reconstruction(tmp_path / "s", (), size=SIZE)
    make_trajectory(folder / "renders/traj_up", path(cameras), nframe=frames, size=SIZE)
    assert len(read(folder).trajectories[0].cameras) == cameras


def test_panorama(tmp_path: Path) -> None:
    scene = read(make_panorama(tmp_path / "pano", size=SIZE, bank=4))
    assert scene.layout == "panorama"
    assert ids(scene) == [
        "view0/traj2",
        "view0/traj0",
        "view0/traj1",
        "target_door_0/traj0",
        "target_door_0/traj1",
        "reconstruct_0/traj0",
        "wonder_0/traj0",
        "reconstruct_0/traj1",
    ]
    assert [frame.id for frame in scene.start_frames] == [f"pano_bank/{i:04d}" for i in range(4)]
    assert len({frame.camera.camera_from_world.tobytes() for frame in scene.start_frames}) == 4
    last = scene.trajectories[-1]
    assert (last.start_image, last.starts_after) == (None, "reconstruct_0/traj0")
    others = scene.trajectories[:-1]
    assert all(t.start_image is not None and t.starts_after is None for t in others)
    assert scene.trajectory("target_door_0/traj1").prompt == "target_door_0 traj1"


@pytest.mark.parametrize("bank_in", ["", "render_results/"])
@pytest.mark.parametrize("meta", [True, False])
def test_panorama_in_the_readmes_form(tmp_path: Path, bank_in: str, meta: bool) -> None:
    folder = make_panorama(tmp_path / "pano", {"view0": ("traj0",)}, size=SIZE, readme=True)
    if not bank_in:
        shutil.move(folder / "render_results/pano_bank", folder / "pano_bank")
    if not meta:
        (folder / "meta_info.json").unlink()
    write_picture(folder / "panorama.png", 7, (32, 64))
    scene = read(folder)
    assert scene.layout == "panorama"
    assert ids(scene) == ["view0/traj0"]
    assert scene.start_frames[0].image == folder / f"{bank_in}pano_bank/images/0000.png"
    assert read(folder, task_type="panorama").layout == "panorama"


def test_a_root_start_frame_serves_views_without_one(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "pano", {"view0": ("traj0",)}, size=SIZE, readme=True)
    shutil.move(folder / "render_results/view0/start_frame.png", folder / "start_frame.png")
    assert read(folder).trajectories[0].start_image == folder / "start_frame.png"


def test_two_banks_are_one_too_many(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "pano", {"view0": ("traj0",)}, size=SIZE, readme=True)
    make_pano_bank(folder / "pano_bank", 2, SIZE)
    with pytest.raises(LayoutError, match="pano_bank and render_results/pano_bank"):
        read(folder)


def test_bank_images_beside_their_cameras(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "pano", {"view0": ("traj0",)}, bank=2, size=SIZE)
    for file in (folder / "pano_bank/images").iterdir():
        file.rename(folder / "pano_bank" / file.name)
    (folder / "pano_bank/images").rmdir()
    assert [frame.id for frame in read(folder).start_frames] == ["pano_bank/0000", "pano_bank/0001"]


@pytest.mark.parametrize("meta", [True, False])
def test_perspective(tmp_path: Path, meta: bool) -> None:
    views = {"right": ("traj_up", "traj_eloop"), "far-away": ("b", "a")}
    folder = make_perspective(tmp_path / "s", views, size=SIZE)
    if not meta:
        (folder / "meta_info.json").unlink()
    write_picture(folder / "render_results/right/start_frame.png", 4, SIZE)
    scene = read(folder, task_type="reconstruction")
    assert scene.layout == "reconstruction"
    assert ids(scene) == ["far_away/a", "far_away/b", "right/traj_eloop", "right/traj_up"]
    assert [frame.id for frame in scene.start_frames] == ["renders/pano_bank/image.png"]
    assert scene.start_frames[0].image == folder / "start_frame.png"
    assert scene.trajectories[0].start_image == folder / "start_frame.png"
    own = folder / "render_results/right/start_frame.png"
    assert scene.trajectories[2].start_image == own


def test_single_view(tmp_path: Path) -> None:
    folder = make_single_view(tmp_path / "view", size=SIZE)
    scene = read(folder)
    assert scene.layout == "single_view"
    (trajectory,) = scene.trajectories
    assert trajectory.id == "renders/traj0"
    assert len(trajectory.cameras) == 81
    assert trajectory.prompt == "a long caption"
    assert trajectory.depth == folder / "depth.npy"
    assert trajectory.render is None
    assert (trajectory.cameras.height, trajectory.cameras.width) == SIZE
    assert trajectory.cameras.camera_from_world[0, 2, 3] == 2
    assert np.array_equal(scene.start_frames[0].camera.camera_from_world[0], np.eye(4))


def test_single_view_with_a_depth_given_and_a_plain_prompt(tmp_path: Path) -> None:
    folder = make_single_view(tmp_path / "view", size=SIZE, depth=False)
    write_json(folder / "prompt.json", {"prompt": "plain"})
    np.save(tmp_path / "given.npy", np.full(SIZE, 3, np.float32))
    (trajectory,) = read(folder, depth=tmp_path / "given.npy").trajectories
    assert trajectory.depth == tmp_path / "given.npy"
    assert trajectory.prompt == "plain"


def test_a_jpeg_named_png(tmp_path: Path) -> None:
    folder = make_reconstruction(tmp_path / "s", ("traj_up",), size=SIZE)
    Image.fromarray(picture(0, SIZE)).save(folder / "image.png", format="JPEG")
    assert len(read(folder).trajectories) == 1


def test_rejected_and_unknown_views_are_told(tmp_path: Path) -> None:
    folder = make_panorama(
        tmp_path / "pano",
        {"view0": ("traj0", "traj9"), "view1": ("traj0",), "sofa": ("traj0",), "wonder_0": ("a",)},
        size=SIZE,
    )
    write_json(folder / "view0/valid_analysis.json", {"valid": "yes", "reason": "fine"})
    write_json(folder / "view1/valid_analysis.json", {"valid": "no"})
    write_json(folder / "wonder_0/valid_analysis.json", {"verdict": "yes"})
    (folder / "notes").mkdir()
    scene = read(folder)
    assert ids(scene) == ["view0/traj0"]
    assert set(scene.skipped) == {"view0/traj9", "view1", "sofa", "wonder_0"}
    assert "'no'" in scene.skipped["view1"]
    assert "no field valid" in scene.skipped["wonder_0"]


def test_what_is_skipped_need_not_be_valid(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "p", {"view0": ("traj0",), "view1": ("traj0",)}, size=SIZE)
    write_json(folder / "view1/valid_analysis.json", {"valid": "no"})
    (folder / "view1/traj0/render.mp4").write_bytes(b"")
    assert ids(read(folder)) == ["view0/traj0"]


def test_hyphens_become_underscores_in_ids_alone(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "pano", {"target_exit-sign_1": ("traj0",)}, size=SIZE)
    (trajectory,) = read(folder).trajectories
    assert trajectory.id == "target_exit_sign_1/traj0"
    assert trajectory.render == folder / "target_exit-sign_1/traj0/render.mp4"
    assert (folder / "target_exit-sign_1").is_dir()


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    folder = make_reconstruction(tmp_path / "s", ("traj_up",), size=SIZE)
    (folder / "image.png").rename(folder / "original.png")
    (folder / "image.png").symlink_to("original.png")
    assert len(read(folder).trajectories) == 1
    (tmp_path / "link").symlink_to(folder)
    assert read(tmp_path / "link").root == folder


def test_hidden_and_other_files_are_nothing(tmp_path: Path) -> None:
    folder = make_reconstruction(tmp_path / "s", ("traj_up",), size=SIZE)
    (folder / ".DS_Store").write_bytes(b"\0")
    shutil.copytree(folder / "renders/traj_up", folder / "renders/.trash")
    (folder / "renders/empty").mkdir()
    (folder / "README.md").write_text("a scene")
    assert ids(read(folder)) == ["renders/traj_up"]


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_reconstruction(tmp_path / "s", ("traj_up",), size=SIZE)
    stat, access = Path.stat, os.access

    def closed_stat(path: Path, **options: bool) -> os.stat_result:
        if path == folder / "renders/traj_up/camera.json":
            raise PermissionError
        return stat(path, **options)

    def closed_access(path: Path, mode: int) -> bool:
        return access(path, mode) and path != folder / "renders"

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", closed_stat)
        with pytest.raises(LayoutError, match=r"traj_up/camera\.json: it may not be read; got no"):
            read(folder)
    monkeypatch.setattr(os, "access", closed_access)
    with pytest.raises(LayoutError, match="renders: it may not be read; got no permission"):
        read(folder)


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    folder = make_panorama(tmp_path / "pano", size=SIZE)
    first, second = read(folder), read(folder)
    assert ids(first) == ids(second)
    for a, b in zip(first.trajectories, second.trajectories, strict=True):
        assert a.cameras.camera_from_world.tobytes() == b.cameras.camera_from_world.tobytes()


def test_it_needs_no_torch(tmp_path: Path) -> None:
    folder = make_single_view(tmp_path / "view", size=SIZE)
    code = (
        "import sys; from pathlib import Path\n"
        "from worldstereo.formats.scene_folder import read_scene\n"
        "import worldstereo.formats.clips, worldstereo.formats.results\n"
        "import worldstereo.formats.worldmirror\n"
        "read_scene(Path(sys.argv[1]), scale_map=[(1, 1)], nframe=21)\n"
        "print('torch' in sys.modules or 'ray' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")
