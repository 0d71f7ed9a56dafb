"""transforms.json: OpenGL axes, world from camera, and what was done to the world is undone."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.rigid_cameras import aside, cameras, rigid, same, some_cameras, turned_right
from worldstereo.errors import CameraError
from worldstereo.formats.transforms_json import (
    read_transforms,
    to_nerfstudio_world,
    write_transforms,
)
from worldstereo.formats.upright import Up
from worldstereo.types import Cameras


def names_of(count: int) -> list[str]:
    return [f"images/{index:03d}.png" for index in range(count)]


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@settings(max_examples=20)
@given(cameras)
def test_they_come_back(written: Cameras) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transforms.json"
        write_transforms(path, names_of(len(written)), written)
        read = read_transforms(path)
    # Inverted twice in float64.
    same(read.cameras, written, 1e-6)
    assert list(read.names) == names_of(len(written))
    assert read.metric is None


def test_known_cameras_have_these_matrices(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    write_transforms(path, ["a.png"], aside(), ply_file_path="points.ply")
    content = content_of(path)
    # Ours: x right, y down, z forward. Theirs: x right, y forward, z up; the camera's own axes
    # are right (1 0 0), up (0 0 1) and backward (0 -1 0), in the columns.
    assert content["applied_transform"] == [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    assert content["frames"] == [
        {
            "file_path": "a.png",
            "transform_matrix": [[1, 0, 0, 1], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
        }
    ]
    lens = {"fl_x": 100, "fl_y": 110, "cx": 80, "cy": 48, "w": 160, "h": 96}
    assert lens.items() <= content.items()
    assert content["ply_file_path"] == "points.ply"
    assert "-0.0" not in path.read_text()

    # At (0, 0, 2), looking along +x: right is our -z, which is their -y; up is still their z.
    write_transforms(path, ["a.png"], turned_right())
    matrix = content_of(path)["frames"][0]["transform_matrix"]
    expected = [[0, 0, -1, 0], [-1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_an_opengl_camera_without_applied_transform(tmp_path: Path) -> None:
    # OpenGL's camera at (1, 2, 3) looks along -z of the world, y up: in OpenCV's axes it is
    # turned half around x.
    content = {
        "camera_angle_x": 2 * math.atan(0.5),
        "w": 160,
        "h": 96,
        "frames": [
            {
                "file_path": "a",
                "transform_matrix": [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]],
            }
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    cameras = read_transforms(tmp_path / "a.json").cameras
    expected = [[1, 0, 0, -1], [0, -1, 0, 2], [0, 0, -1, 3], [0, 0, 0, 1]]
    np.testing.assert_array_equal(cameras.camera_from_world[0], expected)
    np.testing.assert_allclose(
        cameras.intrinsics[0], [[160, 0, 80], [0, 160, 48], [0, 0, 1]], rtol=1e-6
    )


@pytest.mark.parametrize("up", ["-y", "z"])
def test_points_and_cameras_stay_together(tmp_path: Path, up: Up) -> None:
    """A point seen in a pixel is seen there by a reader that knows the stored world alone."""
    cameras, point = some_cameras(2, 1), np.array([[0.3, -0.2, 4.0]])
    world = np.linalg.inv(cameras.camera_from_world[0].astype(float))
    points = (point @ world[:3, :3].T + world[:3, 3]).astype(np.float32)
    write_transforms(tmp_path / "t.json", ["a"], cameras, up=up)
    stored = np.array(content_of(tmp_path / "t.json")["frames"][0]["transform_matrix"])
    local = (to_nerfstudio_world(points, up) - stored[:3, 3]) @ stored[:3, :3]
    np.testing.assert_allclose(local * [1, -1, -1], point, atol=1e-5)


@pytest.mark.parametrize(("up", "above"), [("-y", [0, -1, 0]), ("z", [0, 0, 1])])
def test_what_is_above_is_above(tmp_path: Path, up: Up, above: list[float]) -> None:
    higher = to_nerfstudio_world(np.array([above], dtype=np.float32), up)
    np.testing.assert_array_equal(higher, [[0, 0, 1]])
    written = some_cameras(5, 3)
    write_transforms(tmp_path / "t.json", names_of(3), written, up=up)
    same(read_transforms(tmp_path / "t.json").cameras, written, 1e-5)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_what_was_applied_is_undone(seed: int, scale: float) -> None:
    written = some_cameras(seed, 3)
    applied = rigid(*(np.random.default_rng(seed).normal(size=n) for n in (4, 3)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transforms.json"
        write_transforms(path, names_of(3), written)
        content = content_of(path)
        first = np.array([*content["applied_transform"], [0, 0, 0, 1]])
        for frame in content["frames"]:
            matrix = applied @ np.array(frame["transform_matrix"])
            matrix[:3, 3] *= scale
            frame["transform_matrix"] = matrix.tolist()
        content["applied_transform"] = (applied @ first)[:3].tolist()
        content["applied_scale"] = scale
        path.write_text(json.dumps(content))
        same(read_transforms(path).cameras, written, 1e-5)


def test_frames_come_sorted_with_their_own_lenses(tmp_path: Path) -> None:
    written = some_cameras(4, 3)
    write_transforms(tmp_path / "t.json", ["c.png", "a.png", "b.png"], written)
    content = content_of(tmp_path / "t.json")
    assert "fl_x" not in content
    assert [frame["file_path"] for frame in content["frames"]] == ["c.png", "a.png", "b.png"]
    read = read_transforms(tmp_path / "t.json")
    assert read.names == ("a.png", "b.png", "c.png")
    same(read.cameras, written[[1, 2, 0]], 1e-6)


def test_a_size_that_the_file_does_not_state(tmp_path: Path) -> None:
    write_transforms(tmp_path / "t.json", ["a"], aside())
    content = content_of(tmp_path / "t.json")
    del content["w"], content["h"]
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(CameraError, match=r"t.json: a: h: .*no such field"):
        read_transforms(tmp_path / "t.json")
    same(read_transforms(tmp_path / "t.json", image_size=(96, 160)).cameras, aside())


def test_a_lens_that_is_distorted_by_nothing_is_a_pinhole(tmp_path: Path) -> None:
    write_transforms(tmp_path / "t.json", ["a"], aside())
    content = content_of(tmp_path / "t.json")
    content |= {"camera_model": "OPENCV", "k1": 0.0, "k2": 0, "p1": 0, "p2": 0}
    content |= {"orientation_override": "none", "auto_scale_poses_override": False}
    (tmp_path / "t.json").write_text(json.dumps(content))
    same(read_transforms(tmp_path / "t.json").cameras, aside())
    content["frames"][0]["k1"] = 0.01
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(CameraError, match=r"t.json: a: k1: .*lens distortion.*undistort"):
        read_transforms(tmp_path / "t.json")
