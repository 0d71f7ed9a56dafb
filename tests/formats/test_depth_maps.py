"""Depth folders: numpy opens the maps, the description says what they are, all comes back."""

import json
from pathlib import Path

import numpy as np
import pytest

from worldstereo.depth.provided import read_depth
from worldstereo.errors import MediaError
from worldstereo.formats.depth_maps import depth_path, read_depth_maps, write_depth_maps
from worldstereo.types import Float32


def depths(count: int = 3) -> Float32:
    maps = np.random.default_rng(1).uniform(0.5, 9, (count, 6, 8)).astype(np.float32)
    maps[:, 0, :3] = 0
    return maps


def test_depth_comes_back_exactly(tmp_path: Path) -> None:
    files = write_depth_maps(tmp_path / "traj", depths(), metric=True)
    assert [file.name for file in files] == ["0000.npy", "0001.npy", "0002.npy", "depth.json"]
    assert sorted(files) == sorted((tmp_path / "traj").iterdir())
    back = read_depth_maps(tmp_path / "traj")
    assert np.array_equal(back.depths, depths())
    assert back.metric
    assert not read_depth_maps(
        write_depth_maps(tmp_path / "b", depths(), metric=False)[0].parent
    ).metric


def test_others_open_it(tmp_path: Path) -> None:
    write_depth_maps(tmp_path, depths(), metric=False)
    array = np.load(depth_path(tmp_path, 1), allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (6, 8))
    assert np.array_equal(read_depth(depth_path(tmp_path, 1)), depths()[1])
    assert json.loads((tmp_path / "depth.json").read_text()) == {
        "schema_version": 1,
        "unit": "scene",
        "axes": "along the optical axis (OpenCV z), not along the ray",
        "frames": 3,
        "height": 6,
        "width": 8,
        "dtype": "float32",
        "invalid": 0.0,
        "files": "%04d.npy",
    }


def test_written_again_with_fewer_frames(tmp_path: Path) -> None:
    write_depth_maps(tmp_path, depths(3), metric=True)
    write_depth_maps(tmp_path, depths(2), metric=True)
    assert len(read_depth_maps(tmp_path).depths) == 2


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="a file of the depth is missing"):
        read_depth_maps(tmp_path)
    write_depth_maps(tmp_path, depths(), metric=True)
    map_file, description = depth_path(tmp_path, 1), tmp_path / "depth.json"
    np.save(map_file, depths()[1].astype(np.float64))
    with pytest.raises(MediaError, match=r"0001\.npy: .* got \[6, 8\] float64; allowed: \[6, 8\]"):
        read_depth_maps(tmp_path)
    np.save(map_file, -depths()[1])
    with pytest.raises(MediaError, match="values that are no depths"):
        read_depth_maps(tmp_path)
    map_file.write_bytes(b"\x93NUMPY")
    with pytest.raises(MediaError, match="a depth map cannot be read"):
        read_depth_maps(tmp_path)
    description.write_text('{"unit": "mile", "frames": 3, "height": 6, "width": 8}')
    with pytest.raises(MediaError, match=r"depth\.json: .* unit"):
        read_depth_maps(tmp_path)
