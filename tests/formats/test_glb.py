"""points.glb: opened by trimesh and as plain glTF, upright there, and back in our axes."""

import json
import struct
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import trimesh

from tests.formats.clouds import cloud
from worldstereo.errors import MediaError, ParameterError
from worldstereo.formats.glb import read_glb, write_glb
from worldstereo.formats.upright import Up, blender_from_world, gltf_from_world, turned
from worldstereo.types import PointCloud

UPS = get_args(Up)
# World directions of each kind of scene: right, up and forward of its first view.
DIRECTIONS = {
    "-y": {"right": (1, 0, 0), "up": (0, -1, 0), "forward": (0, 0, 1)},
    "z": {"right": (0, 1, 0), "up": (0, 0, 1), "forward": (-1, 0, 0)},
}


def gltf_arrays(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON and the vertex arrays of a GLB file, by the glTF 2.0 specification."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    tree = json.loads(content[20 : 20 + size])
    binary = content[28 + size :]
    found = {}
    for name, index in tree["meshes"][0]["primitives"][0]["attributes"].items():
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        dtype, width = {5126: ("<f4", 3), 5121: ("u1", 4)}[accessor["componentType"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        values = np.frombuffer(binary, dtype, accessor["count"] * width, start)
        found[name] = values.reshape(-1, width)
    return tree, found


def test_the_file_by_the_specification(tmp_path: Path) -> None:
    points = cloud()
    write_glb(tmp_path / "points.glb", points, metric=True)
    tree, arrays = gltf_arrays((tmp_path / "points.glb").read_bytes())
    assert tree["meshes"][0]["primitives"][0]["mode"] == 0  # points
    assert all("matrix" not in node for node in tree["nodes"])
    assert tree["scenes"][0]["extras"] == {"source_up": "-y", "unit": "metre"}
    assert np.array_equal(arrays["POSITION"], points.points * np.float32([1, -1, -1]))
    assert np.array_equal(arrays["COLOR_0"][:, :3], points.colors)
    assert (arrays["COLOR_0"][:, 3] == 255).all()


@pytest.mark.parametrize("up", UPS)
def test_trimesh_shows_it_upright(tmp_path: Path, up: Up) -> None:
    ways = np.float32(list(DIRECTIONS[up].values()))
    write_glb(tmp_path / "ways.glb", PointCloud(ways, np.zeros((3, 3), np.uint8)), up=up)
    (shown,) = trimesh.load_scene(tmp_path / "ways.glb").dump()
    assert isinstance(shown, trimesh.PointCloud)
    # glTF: x to the right, y up, the view along -z.
    assert shown.vertices.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, -1]]
    # Blender turns glTF by 90 degrees about x; the front is along +y there.
    assert (ways @ blender_from_world(up).T).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("up", UPS)
def test_points_come_back_in_our_axes(tmp_path: Path, up: Up) -> None:
    points = cloud(200)
    write_glb(tmp_path / "points.glb", points, up=up)
    back = read_glb(tmp_path / "points.glb")
    assert np.array_equal(back.points, points.points)
    assert np.array_equal(back.colors, points.colors)
    assert (back.points.dtype, back.colors.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("up", UPS)
def test_the_turns_are_rotations_without_rounding(up: Up) -> None:
    for rotation in (gltf_from_world(up), blender_from_world(up)):
        assert np.array_equal(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        points = cloud().points
        assert np.array_equal(turned(points, rotation), points @ rotation.T)
        assert np.array_equal(turned(turned(points, rotation), rotation.T), points)


def test_same_cloud_same_bytes(tmp_path: Path) -> None:
    for name in ("a.glb", "b.glb"):
        write_glb(tmp_path / name, cloud())
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.glb", "b.glb"]


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no points to write"):
        write_glb(tmp_path / "none.glb", cloud(0))
    assert not (tmp_path / "none.glb").exists()
    with pytest.raises(MediaError, match="no readable GLB file"):
        read_glb(tmp_path / "none.glb")
    (tmp_path / "text.glb").write_bytes(b"no glTF at all, but long enough")
    with pytest.raises(MediaError, match="no readable GLB file"):
        read_glb(tmp_path / "text.glb")
    write_glb(tmp_path / "cut.glb", cloud())
    content = (tmp_path / "cut.glb").read_bytes()
    (tmp_path / "cut.glb").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match="no readable GLB file"):
        read_glb(tmp_path / "cut.glb")
    trimesh.Scene(trimesh.creation.box()).export(tmp_path / "box.glb")
    with pytest.raises(MediaError, match="is none of ours"):
        read_glb(tmp_path / "box.glb")
