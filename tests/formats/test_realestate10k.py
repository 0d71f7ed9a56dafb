"""RealEstate10K text: normalised intrinsics, world to camera, one line a camera."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.formats.rigid_cameras import aside, cameras, same, some_cameras
from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.realestate10k import read_realestate10k, write_realestate10k
from worldstereo.types import Cameras

SIZE = (96, 160)


@settings(max_examples=20)
@given(cameras)
def test_they_come_back_exactly(written: Cameras) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.txt"
        write_realestate10k(path, written)
        read = read_realestate10k(path, image_size=SIZE)
    same(read.cameras, written)
    assert read.names == tuple(str(62_500 * index) for index in range(len(written)))


def test_a_camera_at_one_zero_zero_has_this_line(tmp_path: Path) -> None:
    write_realestate10k(tmp_path / "a.txt", aside(), timestamps=[1_234_567], url="https://v/1")
    url, line = (tmp_path / "a.txt").read_text().splitlines()
    assert url == "https://v/1"
    words = line.split()
    assert words[0] == "1234567"
    fx, fy, cx, cy = map(float, words[1:5])
    assert (fx, cx, cy) == (100 / 160, 0.5, 0.5)
    assert fy == 110 / 96
    assert words[5:7] == ["0", "0"]
    assert [float(word) for word in words[7:]] == [1, 0, 0, -1, 0, 1, 0, 0, 0, 0, 1, 0]


def test_a_published_line_at_two_sizes(tmp_path: Path) -> None:
    line = "52553000 0.5 0.8888888889 0.5 0.5 0 0 " + "0 0 -1 2 0 1 0 0 1 0 0 3"
    for text in (f"https://www.youtube.com/watch?v=x\n{line}\n", line, f"\ufeff{line}\r\n\r\n"):
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        for height, width in ((720, 1280), (360, 640)):
            read = read_realestate10k(tmp_path / "a.txt", image_size=(height, width))
            assert read.names == ("52553000",)
            lens = read.cameras.intrinsics[0]
            np.testing.assert_allclose(np.diag(lens)[:2], [width / 2, width / 2], rtol=1e-6)
            np.testing.assert_array_equal(lens[:2, 2], [width / 2, height / 2])
            pose = read.cameras.camera_from_world[0]
            np.testing.assert_array_equal(pose[:3, 3], [2, 0, 3])
            # The centre: -R^T t.
            np.testing.assert_array_equal(np.linalg.inv(pose)[:3, 3], [-3, 0, 2])


def test_without_a_size_nothing_is_guessed(tmp_path: Path) -> None:
    write_realestate10k(tmp_path / "a.txt", some_cameras(0, 2))
    with pytest.raises(CameraError, match="give the image size"):
        read_realestate10k(tmp_path / "a.txt")


@pytest.mark.parametrize("url", ["two words", "12.5"])
def test_first_lines_that_would_not_read_back(tmp_path: Path, url: str) -> None:
    with pytest.raises(ParameterError, match="first line"):
        write_realestate10k(tmp_path / "a.txt", aside(), url=url)
