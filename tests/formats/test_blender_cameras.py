"""blender/: the script makes cameras in Blender (its stand-in) that see what ours see."""

import json
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.formats.blender_stand_in import Blender
from tests.formats.clouds import cameras, cloud, pixels
from worldstereo.errors import CameraError
from worldstereo.formats.blender_cameras import write_blender_cameras
from worldstereo.formats.glb import write_glb
from worldstereo.formats.upright import Up, blender_from_world, turned
from worldstereo.types import Cameras

CLIPS = [
    ("renders/traj_up", cameras(5)),
    ("renders/traj_left", cameras(4, yaw=-25, pitch=15)),
]


def run_in_blender(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Blender:
    blender = Blender()
    monkeypatch.setitem(sys.modules, "bpy", blender.bpy)
    monkeypatch.setitem(sys.modules, "mathutils", blender.mathutils)
    runpy.run_path(str(folder / "import_cameras.py"), run_name="__main__")
    return blender


def described(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "cameras.json").read_text())
    return content


@pytest.mark.parametrize("up", get_args(Up))
def test_points_are_seen_at_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: Up
) -> None:
    write_blender_cameras(tmp_path, CLIPS, fps=16, up=up)
    blender = run_in_blender(tmp_path, monkeypatch)
    points = turned(cloud().points, blender_from_world(up)).astype(np.float64)
    for camera, (name, given) in zip(blender.objects, CLIPS, strict=True):
        assert camera.name == name
        for index, expected in enumerate(pixels(cloud().points, given)):
            seen = blender.pixels(camera, index + 1, points)
            np.testing.assert_allclose(seen, expected, atol=1e-4)


def test_exactly_the_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_blender_cameras(tmp_path, CLIPS, fps=16)
    turn = np.eye(4)
    turn[:3, :3] = blender_from_world("-y")
    set_by_script: list[np.ndarray] = []
    blender = Blender()

    class Recorded(blender.mathutils.Matrix):  # type: ignore[misc, name-defined]
        def __init__(self, rows: Any) -> None:
            super().__init__(rows)
            set_by_script.append(self.rows)

    monkeypatch.setitem(sys.modules, "bpy", blender.bpy)
    blender.mathutils.Matrix = Recorded
    monkeypatch.setitem(sys.modules, "mathutils", blender.mathutils)
    runpy.run_path(str(tmp_path / "import_cameras.py"), run_name="__main__")
    stored = [f["matrix_world"] for c in described(tmp_path)["cameras"] for f in c["frames"]]
    assert np.array_equal(set_by_script, stored)
    expected = [
        turn @ np.linalg.inv(pose.astype(np.float64)) @ np.diag([1, -1, -1, 1])
        for _, given in CLIPS
        for pose in given.camera_from_world
    ]
    np.testing.assert_allclose(stored, expected, atol=1e-12)


def test_scene_settings_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_blender_cameras(tmp_path, CLIPS, fps=16, metric=True)
    blender = run_in_blender(tmp_path, monkeypatch)
    scene = blender.scene
    assert (scene.render.resolution_x, scene.render.resolution_y) == (64, 48)
    assert (scene.render.fps, scene.frame_start, scene.frame_end) == (16, 1, 5)
    assert scene.camera is blender.objects[0]
    assert blender.linked == blender.objects
    for camera, (_, given) in zip(blender.objects, CLIPS, strict=True):
        frames = list(range(1, len(given) + 1))
        assert list(camera.keys["location"]) == list(camera.data.keys["lens"]) == frames
        turns = [camera.keys["rotation_quaternion"][frame] for frame in frames]
        assert all(a @ b > 0 for a, b in pairwise(turns))
    assert described(tmp_path)["unit"] == "metre"


def test_quaternions_stay_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full turn: the quaternion as such changes its sign on the way."""
    turn = cameras(24, yaw=360, pitch=0)
    write_blender_cameras(tmp_path, [("turn", turn)], fps=16)
    (camera,) = run_in_blender(tmp_path, monkeypatch).objects
    turns = np.stack(list(camera.keys["rotation_quaternion"].values()))
    assert (np.einsum("ij,ij->i", turns[1:], turns[:-1]) > 0.9).all()
    assert turns[0] @ turns[-1] == pytest.approx(-1, abs=1e-3)


def test_a_zoom_is_keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still = cameras(3, yaw=0, pitch=0)
    focal = still.intrinsics.copy()
    focal[:, [0, 1], [0, 1]] *= np.float32([[1], [2], [4]])
    zoom = Cameras(still.camera_from_world, focal, still.height, still.width)
    write_blender_cameras(tmp_path, [("zoom", zoom)], fps=16)
    (camera,) = run_in_blender(tmp_path, monkeypatch).objects
    lens = [float(camera.data.keys["lens"][frame]) for frame in (1, 2, 3)]
    assert lens == pytest.approx([50 * 36 / 64, 100 * 36 / 64, 200 * 36 / 64])


def test_pixels_of_two_aspects_are_refused(tmp_path: Path) -> None:
    other = cameras(3)
    other.intrinsics[2, 1, 1] *= 1.01
    with pytest.raises(CameraError, match=r"other, frame 2: cameras of one scene"):
        write_blender_cameras(tmp_path, [*CLIPS, ("other", other)], fps=16)
    assert list(tmp_path.iterdir()) == []


def test_the_script_compiles_and_needs_nothing_of_ours(tmp_path: Path) -> None:
    files = write_blender_cameras(tmp_path, CLIPS, fps=16)
    assert files == [tmp_path / "import_cameras.py", tmp_path / "cameras.json"]
    source = files[0].read_text()
    compile(source, "import_cameras.py", "exec")
    assert "worldstereo" not in source
    # Without Blender it stops at its module, after everything else was imported.
    done = subprocess.run(
        [sys.executable, "-I", str(files[0])], capture_output=True, text=True, check=False
    )
    assert "No module named 'bpy'" in done.stderr


def test_same_cameras_same_bytes(tmp_path: Path) -> None:
    first = [file.read_bytes() for file in write_blender_cameras(tmp_path / "a", CLIPS, fps=16)]
    again = [file.read_bytes() for file in write_blender_cameras(tmp_path / "b", CLIPS, fps=16)]
    assert first == again


def test_the_glb_lies_where_the_cameras_look(tmp_path: Path) -> None:
    """Blender's importer turns glTF's +Y up to +Z up: (x, y, z) becomes (x, -z, y)."""
    import trimesh

    for up in get_args(Up):
        write_glb(tmp_path / "points.glb", cloud(), up=up)
        (shown,) = trimesh.load_scene(tmp_path / "points.glb").dump()
        x, y, z = shown.vertices.T
        in_blender = turned(cloud().points, blender_from_world(up))
        assert np.array_equal(np.stack([x, -z, y], axis=1).astype(np.float32), in_blender)
