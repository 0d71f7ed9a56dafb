"""camera.json: what is accepted comes out as it was; what is not names its frame."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from worldstereo.errors import CameraError
from worldstereo.formats.cameras import check_extrinsics, check_intrinsics, read_cameras
from worldstereo.formats.scene_files import SceneFiles

angles = st.lists(st.floats(-180, 180), min_size=3, max_size=3)
places = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)


def rigid(turns: list[float], place: list[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turns, degrees=True).as_matrix()
    matrix[:3, 3] = place
    return matrix


@given(angles, places)
def test_rigid_matrices_pass_unchanged(turns: list[float], place: list[float]) -> None:
    matrix = rigid(turns, place)[None]
    assert np.array_equal(check_extrinsics(matrix, "extrinsic"), matrix.astype(np.float32))


@given(angles, places, st.floats(0.0011, 0.5), st.integers(0, 2), st.integers(0, 2))
def test_what_bends_a_rotation_is_refused(
    turns: list[float], place: list[float], amount: float, row: int, column: int
) -> None:
    matrices = np.stack([rigid(turns, place)] * 3)
    shear = np.eye(3)
    shear[row, column] += 1.01 * amount
    matrices[1, :3, :3] = shear @ matrices[1, :3, :3]
    with pytest.raises(CameraError, match=r"extrinsic\[1\].*orthonormal"):
        check_extrinsics(matrices, "extrinsic")


@given(angles, st.sampled_from([[-1, 1, 1], [1, -1, 1], [1, 1, -1], [-1, -1, -1]]))
def test_mirrors_are_refused(turns: list[float], signs: list[int]) -> None:
    matrix = rigid(turns, [0, 0, 0])
    matrix[:3, :3] = np.diag(signs) @ matrix[:3, :3]
    with pytest.raises(CameraError, match="reflection"):
        check_extrinsics(matrix[None], "extrinsic")


@given(angles, st.integers(0, 3), st.integers(0, 3), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_value_that_is_not_finite_names_its_frame(
    turns: list[float], row: int, column: int, value: float
) -> None:
    matrices = np.stack([rigid(turns, [0, 0, 1])] * 5)
    matrices[3, row, column] = value
    with pytest.raises(CameraError, match=r"camera.json: extrinsic\[3\].*not finite"):
        check_extrinsics(matrices, "camera.json: extrinsic")


@given(
    st.floats(2, 150),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(64, 2000),
    st.integers(64, 2000),
)
def test_sane_intrinsics_pass_unchanged(
    fov: float, x: float, y: float, height: int, width: int
) -> None:
    focal = max(height, width) / (2 * np.tan(np.radians(fov) / 2))
    matrix = np.array([[focal, 0, x * width], [0, focal, y * height], [0, 0, 1]])[None]
    if np.degrees(2 * np.arctan(min(height, width) / (2 * focal))) < 1:
        return
    checked = check_intrinsics(matrix, (height, width), "intrinsic")
    assert np.array_equal(checked, matrix.astype(np.float32))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0, 0, 50], [0, 90, 40], [0, 0, 1]], "focal length is not positive"),
        ([[90, 0, 50], [0, 500, 40], [0, 0, 1]], "focal lengths do not fit"),
        ([[9000, 0, 50], [0, 9000, 40], [0, 0, 1]], "focal lengths do not fit"),
        ([[90, 2, 50], [0, 90, 40], [0, 0, 1]], "no pinhole"),
        ([[90, 0, 50], [0, 90, 40], [0, 0, 2]], "no pinhole"),
        ([[90, 0, -1], [0, 90, 40], [0, 0, 1]], "principal point"),
        ([[90, 0, 50], [0, 90, 81], [0, 0, 1]], "principal point"),
    ],
)
def test_insane_intrinsics(matrix: list[list[float]], message: str) -> None:
    good = [[90, 0, 50], [0, 90, 40], [0, 0, 1]]
    with pytest.raises(CameraError, match=rf"intrinsic\[2\].*{message}"):
        check_intrinsics(np.array([good, good, matrix], dtype=float), (80, 100), "intrinsic")


def test_size_of_the_file_or_else_of_the_image(tmp_path: Path) -> None:
    content = {
        "extrinsic": np.tile(np.eye(4), (21, 1, 1)).tolist(),
        "intrinsic": [[[600, 0, 384], [0, 600, 256], [0, 0, 1]]] * 21,
        "motion_list": ["words", "that are never read"],
    }
    (tmp_path / "camera.json").write_text(json.dumps(content))
    files = SceneFiles.open(tmp_path)
    cameras = read_cameras(files, "camera.json", image_size=(600, 800), nframe=21)
    assert (cameras.height, cameras.width, len(cameras)) == (600, 800, 21)
    (tmp_path / "camera.json").write_text(json.dumps(content | {"width": 768, "height": 512}))
    cameras = read_cameras(files, "camera.json", image_size=(600, 800), nframe=21)
    assert (cameras.height, cameras.width) == (512, 768)
    assert cameras.intrinsics.dtype == cameras.camera_from_world.dtype == np.float32


def test_text_with_a_byte_order_mark_is_json_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert SceneFiles.open(tmp_path).read_object("a.json", CameraError) == {}
