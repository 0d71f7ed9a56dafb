"""Our own camera path: direction, axes and unit stand in the file."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.rigid_cameras import aside, cameras, same, some_cameras
from worldstereo.errors import CameraError
from worldstereo.formats.named_cameras import NamedCameras, Unit
from worldstereo.formats.path_json import read_path_json, write_path_json
from worldstereo.formats.results import camera_file
from worldstereo.types import Cameras

units = st.sampled_from(["metric", "median_depth", "scene", None])


@settings(max_examples=20)
@given(cameras, units)
def test_they_come_back_exactly(written: Cameras, unit: Unit | None) -> None:
    names = tuple(f"röom/{index}.png" for index in range(len(written)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "path.json"
        write_path_json(path, NamedCameras(names, written, unit))
        read = read_path_json(path)
    same(read.cameras, written)
    assert (read.names, read.unit) == (names, unit)
    assert read.metric == {"metric": True, None: None}.get(unit, False)


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    write_path_json(tmp_path / "a.json", NamedCameras(("first",), aside(), "metric"))
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "schema_version": 1,
        "axes": "OpenCV: x right, y down, z forward",
        "unit": "metric",
        "width": 160,
        "height": 96,
        "names": ["first"],
        "camera_from_world_opencv": [[[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]],
        "intrinsics": [[[100, 0, 80], [0, 110, 48], [0, 0, 1]]],
    }


def test_the_least_that_can_be_said(tmp_path: Path) -> None:
    pose = np.eye(4).astype(int).tolist()
    content = {
        "camera_from_world_opencv": [pose, pose],
        "intrinsics": [[[50, 0, 30], [0, 50, 20], [0, 0, 1]]] * 2,
        "width": 60,
        "height": 40,
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    read = read_path_json(tmp_path / "a.json")
    assert (read.names, read.unit, read.metric) == (("0000", "0001"), None, None)


def test_the_cameras_of_a_generated_clip_are_a_path(tmp_path: Path) -> None:
    cameras = some_cameras(3, 5)
    (tmp_path / "cameras.json").write_text(camera_file(cameras))
    read = read_path_json(tmp_path / "cameras.json")
    same(read.cameras, cameras)
    assert read.unit is None


def test_a_name_picks_where_a_path_starts() -> None:
    named = NamedCameras(("a", "b", "c"), some_cameras(3, 3), "scene")
    rest = named.starting_at("b")
    assert (rest.names, rest.unit, len(rest)) == (("b", "c"), "scene", 2)
    same(rest.cameras, named.cameras[1:])
    with pytest.raises(ValueError, match=r"no camera has this name.*'x'.*a, b, c"):
        named.starting_at("x")


def test_the_frame_at_fault_is_named(tmp_path: Path) -> None:
    write_path_json(tmp_path / "a.json", NamedCameras(("a", "b", "c"), some_cameras(3, 3), "scene"))
    content = json.loads((tmp_path / "a.json").read_text())
    content["camera_from_world_opencv"][1][0][0] += 0.5
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(CameraError, match=r"a.json: camera_from_world_opencv\[1\].*orthonormal"):
        read_path_json(tmp_path / "a.json")
