"""Cameras as .npz: they come back to the bit, and nothing is unpickled."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.formats.rigid_cameras import aside, cameras, same, some_cameras
from worldstereo.errors import CameraError
from worldstereo.formats.camera_npz import read_camera_npz, write_camera_npz
from worldstereo.formats.limits import Limits
from worldstereo.types import Cameras


@settings(max_examples=20)
@given(cameras)
def test_they_come_back_exactly(written: Cameras) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "path.npz"
        write_camera_npz(path, written)
        read = read_camera_npz(path)
    same(read.cameras, written)
    assert read.metric is None
    assert read.names == tuple(f"{index:04d}" for index in range(len(written)))


def test_the_fields_and_their_direction(tmp_path: Path) -> None:
    write_camera_npz(tmp_path / "a.npz", aside())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["image_height", "image_width", "intrinsics", "w2c"]
        # World to camera: a camera at x = 1 has the translation -1.
        assert arrays["w2c"][0, 0].tolist() == [1, 0, 0, -1]
        assert (int(arrays["image_height"]), int(arrays["image_width"])) == (96, 160)


def test_what_others_write(tmp_path: Path) -> None:
    cameras = some_cameras(1, 3)
    np.savez_compressed(
        tmp_path / "trajectory.npz",
        w2c=cameras.camera_from_world.astype(np.float64),
        intrinsics=cameras.intrinsics,
        image_height=np.array([96.0]),
        image_width=160,
        captions=np.array(["never read", None], dtype=object),
    )
    same(read_camera_npz(tmp_path / "trajectory.npz").cameras, cameras)


def test_the_same_cameras_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_camera_npz(tmp_path / f"{name}.npz", some_cameras(5, 4))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_limits_are_kept(tmp_path: Path) -> None:
    write_camera_npz(tmp_path / "a.npz", some_cameras(5, 4))
    with pytest.raises(CameraError, match=r"4 cameras.*1 to 3"):
        read_camera_npz(tmp_path / "a.npz", limits=Limits(max_cameras=3))
    np.savez_compressed(tmp_path / "bomb.npz", w2c=np.zeros(100_000))
    with pytest.raises(CameraError, match=r"bomb.npz: w2c: the array is too large"):
        read_camera_npz(tmp_path / "bomb.npz", limits=Limits(max_json_bytes=10_000))
