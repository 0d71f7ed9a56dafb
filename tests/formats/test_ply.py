"""points.ply: opened by plyfile, read back exactly, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plyfile import PlyData, PlyElement

from tests.formats.clouds import cloud
from worldstereo.errors import MediaError
from worldstereo.formats.ply import GREY, read_ply, write_ply
from worldstereo.types import PointCloud


def test_plyfile_sees_what_the_format_promises(tmp_path: Path) -> None:
    points = cloud()
    write_ply(tmp_path / "points.ply", points, comments=["unit metre"])
    opened = PlyData.read(tmp_path / "points.ply")
    assert (opened.text, opened.byte_order, opened.comments) == (False, "<", ["unit metre"])
    (vertex,) = opened.elements
    assert vertex.name == "vertex"
    assert [(p.name, p.val_dtype) for p in vertex.properties] == [
        *((name, "f4") for name in "xyz"),
        *((name, "u1") for name in ("red", "green", "blue")),
    ]
    assert np.array_equal(np.stack([vertex[axis] for axis in "xyz"], axis=1), points.points)
    assert np.array_equal(vertex["green"], points.colors[:, 1])


@settings(max_examples=20)
@given(
    st.integers(0, 8).flatmap(
        lambda n: arrays(np.float32, (n, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32))
    )
)
def test_points_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, points: np.ndarray
) -> None:
    file = tmp_path_factory.mktemp("ply") / "points.ply"
    colors = np.arange(points.size, dtype=np.uint8).reshape(points.shape)
    write_ply(file, PointCloud(points, colors))
    back = read_ply(file)
    assert back.points.tobytes() == points.tobytes()
    assert np.array_equal(back.colors, colors)
    assert back.points.dtype == np.float32
    assert back.colors.dtype == np.uint8


def test_same_cloud_same_bytes_and_no_rest(tmp_path: Path) -> None:
    for name in ("a/points.ply", "b/points.ply"):
        write_ply(tmp_path / name, cloud())
    write_ply(tmp_path / "a" / "points.ply", cloud())  # over the old one
    assert (tmp_path / "a/points.ply").read_bytes() == (tmp_path / "b/points.ply").read_bytes()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["points.ply"]


def other_ply(file: Path, rows: np.ndarray, *, text: bool, name: str = "vertex") -> None:
    PlyData([PlyElement.describe(rows, name)], text=text).write(str(file))


@pytest.mark.parametrize("text", [True, False])
def test_files_of_others(tmp_path: Path, text: bool) -> None:
    rows = np.zeros(3, dtype=[("z", "f8"), ("x", "f8"), ("y", "i4"), ("quality", "f4")])
    rows["x"], rows["y"], rows["z"] = [0.5, 1, 2], [3, 4, 5], [6, 7, 8.25]
    other_ply(tmp_path / "other.ply", rows, text=text)
    back = read_ply(tmp_path / "other.ply")
    assert back.points.tolist() == [[0.5, 3, 6], [1, 4, 7], [2, 5, 8.25]]
    assert (back.colors == GREY).all()


def test_refused(tmp_path: Path) -> None:
    file = tmp_path / "points.ply"
    with pytest.raises(MediaError, match=r"points\.ply: no readable points; got No such file"):
        read_ply(file)
    file.write_bytes(b"not a ply")
    with pytest.raises(MediaError, match="a broken, cut or other file"):
        read_ply(file)
    write_ply(file, cloud(20))
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(MediaError, match="a broken, cut or other file"):
        read_ply(file)
    header = "ply\nformat {} 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n1\n"
    for kind in ("ascii", "binary_little_endian"):
        file.write_text(header.format(kind))
        with pytest.raises(MediaError, match="a broken, cut or other file"):
            read_ply(file)


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        (["x", "y"], "vertex", "no number z; allowed: x, y, z"),
        (["x", "y", "z"], "point", "holds no points; got the elements point"),
        (["x", "y", "z", "red"], "vertex", "red, green, blue of type float32, none"),
    ],
)
def test_other_elements_are_refused(
    tmp_path: Path, fields: list[str], name: str, message: str
) -> None:
    other_ply(
        tmp_path / "a.ply", np.ones(2, [(field, "f4") for field in fields]), text=False, name=name
    )
    with pytest.raises(MediaError, match=message):
        read_ply(tmp_path / "a.ply")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_point_that_is_nowhere_is_refused(tmp_path: Path, value: float) -> None:
    rows = np.ones(3, [(field, "f8") for field in "xyz"])
    rows["y"][1] = value
    other_ply(tmp_path / "a.ply", rows, text=False)
    with pytest.raises(MediaError, match=r"vertex 1, y: .*\(1 such points\)|vertex 1, y"):
        read_ply(tmp_path / "a.ply")
