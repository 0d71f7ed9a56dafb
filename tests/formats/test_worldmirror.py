"""WorldMirror's files: the recorded ones to the byte, and the inverse by its law."""

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.spatial.transform import Rotation

from tests.scenes import intrinsics, path
from worldstereo.formats.worldmirror import camera_id, float32_inverse, worldmirror_files
from worldstereo.types import Float32

GOLDEN = Path(__file__).parents[1] / "golden" / "retrieval"
# Of a clip of 21 frames, 8 of which enter the memory.
KEPT = (3, 6, 9, 12, 14, 16, 18, 20)


def golden_frames() -> list[tuple[str, Float32, Float32]]:
    tensors = load_file(GOLDEN / "retrieval.safetensors")
    frames = [
        (f"pano_bank/{index:04d}", matrix, intrinsic)
        for index, (matrix, intrinsic) in enumerate(
            zip(tensors["bank.world_to_camera"], tensors["bank.intrinsics"], strict=True)
        )
    ]
    for name in json.loads((GOLDEN / "retrieval.json").read_text())["order"]:
        cameras, intrinsic = tensors[f"{name}.world_to_camera"], tensors[f"{name}.intrinsics"]
        frames += [(f"{name}/{index:04d}", cameras[index], intrinsic[index]) for index in KEPT]
    return frames


def test_a_real_scene_to_the_byte() -> None:
    cameras, name_map = worldmirror_files(golden_frames(), "myscene")
    assert cameras == (GOLDEN / "worldmirror_cameras.json").read_text()
    assert name_map == (GOLDEN / "worldmirror_name_map.json").read_text()


def test_names() -> None:
    assert camera_id("pano_bank/0003") == "pano-0003"
    assert camera_id("view0/traj2/0003") == "view0-traj2-0003"
    assert camera_id("renders/pano_bank/image.png") == "pano-image"


def test_a_scene_of_one_start_image() -> None:
    matrices, intrinsic = path(3), intrinsics(3)
    frames = [
        ("renders/pano_bank/image.png", matrices[0], intrinsic[0]),
        ("renders/traj_up/0020", matrices[1], intrinsic[1]),
        ("renders/traj_eloop/0020", matrices[2], intrinsic[2]),
    ]
    cameras, name_map = worldmirror_files(frames, "kitchen")
    assert [entry["camera_id"] for entry in json.loads(cameras)["intrinsics"]] == [
        "pano-image",
        "renders-traj_up-0020",
        "renders-traj_eloop-0020",
    ]
    assert list(json.loads(name_map).items()) == [
        ("kitchen/pano_bank/image", "0000"),
        ("renders/traj_eloop/0020", "0001"),
        ("renders/traj_up/0020", "0002"),
    ]


@given(
    st.lists(st.floats(-180, 180), min_size=3, max_size=3),
    st.lists(st.floats(-100, 100), min_size=3, max_size=3),
)
def test_the_inverse_inverts(turns: list[float], place: list[float]) -> None:
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = Rotation.from_euler("xyz", turns, degrees=True).as_matrix()
    matrix[:3, 3] = place
    inverse = float32_inverse(matrix[None])[0]
    assert inverse.dtype == np.float32
    expected = np.linalg.inv(matrix.astype(np.float64))
    np.testing.assert_allclose(inverse, expected, atol=1e-6 * (1 + np.abs(place).max()))


def test_each_matrix_is_inverted_by_itself() -> None:
    matrices = np.stack([matrix for _, matrix, _ in golden_frames()[:40]])
    together = float32_inverse(matrices)
    alone = np.concatenate([float32_inverse(matrix[None]) for matrix in matrices])
    assert together.tobytes() == alone.tobytes()
