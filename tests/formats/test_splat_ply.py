"""3DGS PLY files: opened by plyfile as their programs do, and read back exactly."""

from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from worldstereo.errors import MediaError
from worldstereo.formats.splat_ply import (
    GaussianSplats,
    read_splat_ply,
    rgb_from_sh,
    sh_from_rgb,
    write_splat_ply,
)


def splats(count: int = 5, degree: int = 2) -> GaussianSplats:
    random = np.random.default_rng(degree)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return GaussianSplats(
        means=normal(count, 3),
        rotations=normal(count, 4),
        log_scales=normal(count, 3),
        opacity_logits=normal(count),
        sh=normal(count, (degree + 1) ** 2, 3),
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 5])
def test_splats_come_back_exactly(tmp_path: Path, degree: int, count: int) -> None:
    given = splats(count, degree)
    write_splat_ply(tmp_path / "s.ply", given)
    back = read_splat_ply(tmp_path / "s.ply")
    assert back.degree == degree
    for name in ("means", "rotations", "log_scales", "opacity_logits", "sh"):
        assert np.array_equal(getattr(back, name), getattr(given, name)), name
        assert getattr(back, name).dtype == np.float32


def test_properties_and_their_order(tmp_path: Path) -> None:
    given = splats(degree=3)
    write_splat_ply(tmp_path / "s.ply", given)
    opened = PlyData.read(tmp_path / "s.ply")
    vertex = opened["vertex"]
    assert (opened.text, opened.byte_order) == (False, "<")
    assert [p.name for p in vertex.properties] == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{index}" for index in range(45)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    assert {p.val_dtype for p in vertex.properties} == {"f4"}
    # The published reader's rule: f_rest as [N, 3, 15], then transposed.
    rest = np.stack([vertex[f"f_rest_{index}"] for index in range(45)], axis=1)
    features = rest.reshape(len(given), 3, 15).transpose(0, 2, 1)
    assert np.array_equal(features, given.sh[:, 1:])
    assert np.array_equal(vertex["f_dc_1"], given.sh[:, 0, 1])
    assert not vertex["nx"].any()


def test_known_numbers(tmp_path: Path) -> None:
    """A white, half opaque ball of radius 0.1 at (1, 2, 3), not turned."""
    one = GaussianSplats(
        means=np.float32([[1, 2, 3]]),
        rotations=np.float32([[1, 0, 0, 0]]),
        log_scales=np.full((1, 3), np.log(0.1), np.float32),
        opacity_logits=np.zeros(1, np.float32),
        sh=sh_from_rgb(np.ones((1, 1, 3), np.float32)),
    )
    write_splat_ply(tmp_path / "s.ply", one)
    (row,) = PlyData.read(tmp_path / "s.ply")["vertex"].data
    assert row["f_dc_0"] == pytest.approx(0.5 / 0.28209479177387814)
    assert 1 / (1 + np.exp(-row["opacity"])) == 0.5
    assert np.exp(row["scale_2"]) == pytest.approx(0.1)
    assert [row[f"rot_{index}"] for index in range(4)] == [1, 0, 0, 0]


def test_colours_of_coefficients() -> None:
    rgb = np.float32([[0, 0.25, 0.5], [0.75, 1, 0.1]])
    np.testing.assert_allclose(rgb_from_sh(sh_from_rgb(rgb)), rgb, atol=1e-7)
    assert sh_from_rgb(np.float32([0.5])).tolist() == [0]


def test_properties_of_others_in_any_order(tmp_path: Path) -> None:
    write_splat_ply(tmp_path / "s.ply", splats())
    rows = PlyData.read(tmp_path / "s.ply")["vertex"].data
    names = [*reversed(rows.dtype.names), "extra"]
    other = np.zeros(len(rows), [(name, "f8") for name in names])
    for name in rows.dtype.names:
        other[name] = rows[name]
    PlyData([PlyElement.describe(other, "vertex")], text=True).write(str(tmp_path / "o.ply"))
    assert np.array_equal(read_splat_ply(tmp_path / "o.ply").sh, splats().sh)


def test_same_splats_same_bytes(tmp_path: Path) -> None:
    for name in ("a.ply", "b.ply"):
        write_splat_ply(tmp_path / name, splats())
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


@pytest.mark.parametrize(
    ("without", "changed", "message"),
    [
        ("opacity", {}, "no number opacity"),
        ("rot_3", {}, "no number rot_3"),
        ("f_rest_7", {}, r"23 properties f_rest_\*; allowed: 0, 9, 24, 45, 72"),
        ("", {"scale_1": np.inf}, "vertex 2, scale_1"),
        ("", {f"rot_{index}": 0 for index in range(4)}, "vertex 2: a quaternion has length 0"),
    ],
)
def test_refused(tmp_path: Path, without: str, changed: dict[str, float], message: str) -> None:
    write_splat_ply(tmp_path / "s.ply", splats())
    rows = PlyData.read(tmp_path / "s.ply")["vertex"].data.copy()
    for name, value in changed.items():
        rows[name][2] = value
    kept = rows[[name for name in rows.dtype.names if name != without]]
    other = np.empty(len(kept), [(name, "f4") for name in kept.dtype.names])
    for name in kept.dtype.names:
        other[name] = kept[name]
    PlyData([PlyElement.describe(other, "vertex")]).write(str(tmp_path / "o.ply"))
    with pytest.raises(MediaError, match=message):
        read_splat_ply(tmp_path / "o.ply")
