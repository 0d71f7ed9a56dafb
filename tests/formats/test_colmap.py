"""COLMAP models: what we write pycolmap reads, what pycolmap writes we read."""

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.rigid_cameras import aside, cameras, same, some_cameras, turned_right
from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.colmap import read_colmap, write_colmap
from worldstereo.formats.colmap_tracks import Observations, observations
from worldstereo.types import Cameras, PointCloud, concatenate_cameras


def names_of(count: int) -> list[str]:
    return [f"view/{index:03d}.png" for index in range(count)]


def some_cloud(count: int, seed: int = 0) -> PointCloud:
    random = np.random.default_rng(seed)
    points = random.uniform([-2, -1, 3], [2, 1, 6], (count, 3)).astype(np.float32)
    return PointCloud(points, random.integers(0, 256, (count, 3)).astype(np.uint8))


def row_of_cameras(count: int) -> Cameras:
    cameras = concatenate_cameras([aside()] * count)
    cameras.camera_from_world[:, 0, 3] = -np.linspace(-0.5, 0.5, count)
    return cameras


@settings(max_examples=10)
@given(cameras, st.booleans())
def test_they_come_back(written: Cameras, text: bool) -> None:
    names = names_of(len(written))
    with tempfile.TemporaryDirectory() as folder:
        write_colmap(Path(folder), names, written, None, text=text)
        read = read_colmap(Path(folder))
    assert list(read.names) == names
    assert read.metric is None
    same(read.cameras, written, 1e-5)


def test_known_cameras_have_these_quaternions(tmp_path: Path) -> None:
    write_colmap(
        tmp_path,
        ["a.png", "b.png"],
        concatenate_cameras([aside(), turned_right()]),
        None,
        text=True,
    )
    lines = [line for line in (tmp_path / "images.txt").read_text().splitlines() if line[:1] != "#"]
    assert lines[0] == "1 1 0 0 0 -1 0 0 1 a.png"
    # World to camera: the world turns left by 90 degrees; its place (0, 0, 2) is 2 to the right.
    words = lines[2].split()
    half = np.sqrt(0.5)
    np.testing.assert_allclose([*map(float, words[1:8])], [half, 0, -half, 0, 2, 0, 0], atol=1e-6)
    (lens,) = [
        line for line in (tmp_path / "cameras.txt").read_text().splitlines() if line[:1] != "#"
    ]
    assert lens == "1 PINHOLE 160 96 100 110 80 48"


@pytest.mark.parametrize("text", [False, True])
def test_pycolmap_reads_points_and_tracks(tmp_path: Path, text: bool) -> None:
    cameras, cloud = row_of_cameras(4), some_cloud(200)
    tracks = observations(cloud, cameras, tolerance=10.0)
    write_colmap(tmp_path, names_of(4), cameras, cloud, tracks=tracks, text=text)
    model = pycolmap.Reconstruction(str(tmp_path))
    assert model.is_valid()
    assert (model.num_cameras(), model.num_reg_images(), model.num_points3D()) == (1, 4, 200)
    assert model.compute_num_observations() == len(tracks) > 400
    for index in range(200):
        point = model.points3D[index + 1]
        np.testing.assert_array_equal(point.xyz, cloud.points[index].astype(float))
        np.testing.assert_array_equal(point.color, cloud.colors[index])
        seen = [element.image_id - 1 for element in point.track.elements]
        assert seen == tracks.frames[tracks.points == index].tolist()
    # COLMAP's own projection of a point is where the track says that it is.
    errors = []
    for image in model.images.values():
        for point in image.points2D:
            where = image.project_point(model.points3D[point.point3D_id].xyz)
            errors.append(np.abs(where - point.xy).max())
    assert max(errors) < 1e-4
    assert 0 <= model.compute_mean_reprojection_error() < 1e-4


def test_points_without_tracks_are_kept(tmp_path: Path) -> None:
    write_colmap(tmp_path, names_of(2), row_of_cameras(2), some_cloud(5))
    model = pycolmap.Reconstruction(str(tmp_path))
    assert model.num_points3D() == 5
    assert model.points3D[3].track.length() == 0


@pytest.mark.parametrize("text", [False, True])
def test_the_same_model_gives_the_same_bytes(tmp_path: Path, text: bool) -> None:
    cameras, cloud = some_cameras(1, 6), some_cloud(50)
    for name in ("a", "b"):
        tracks = observations(cloud, cameras)
        write_colmap(tmp_path / name, names_of(6), cameras, cloud, tracks=tracks, text=text)
    files = sorted((tmp_path / "a").iterdir())
    assert [file.stem for file in files] == ["cameras", "frames", "images", "points3D", "rigs"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_second_model_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_colmap(tmp_path, names_of(3), some_cameras(1, 3), some_cloud(5))
    write_colmap(tmp_path, names_of(2), some_cameras(2, 2), None, text=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".txt"}
    assert len(read_colmap(tmp_path)) == 2


def test_a_model_of_rigs_gives_the_images_poses(tmp_path: Path) -> None:
    """Two cameras on one rig: an image's pose is the sensor's in the rig times the rig's."""
    model = pycolmap.Reconstruction()
    rig = pycolmap.Rig(rig_id=1)
    for number in (1, 2):
        lens = pycolmap.Camera(
            model="SIMPLE_PINHOLE", width=160, height=96, params=[100, 80, 48], camera_id=number
        )
        model.add_camera(lens)
        if number == 1:
            rig.add_ref_sensor(lens.sensor_id)
        else:
            offset = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-0.5, 0, 0]))
            rig.add_sensor(lens.sensor_id, offset)
    model.add_rig(rig)
    frame = pycolmap.Frame(frame_id=1, rig_id=1)
    frame.rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([0, 0, 3.0]))
    images = [
        pycolmap.Image(name=name, camera_id=number, image_id=number)
        for number, name in ((1, "right.png"), (2, "left.png"))
    ]
    for image in images:
        frame.add_data_id(image.data_id)
        image.frame_id = 1
    model.add_frame(frame)
    for image in images:
        model.add_image(image)
    model.register_frame(1)
    model.write_binary(str(tmp_path))
    read = read_colmap(tmp_path)
    assert read.names == ("left.png", "right.png")
    np.testing.assert_array_equal(
        read.cameras.camera_from_world[:, :3, 3], [[-0.5, 0, 3], [0, 0, 3]]
    )
    np.testing.assert_array_equal(
        read.cameras.intrinsics[0], [[100, 0, 80], [0, 100, 48], [0, 0, 1]]
    )


def test_sizes_and_names(tmp_path: Path) -> None:
    write_colmap(tmp_path, ["b", "a"], some_cameras(1, 2), None, text=True)
    assert read_colmap(tmp_path).names == ("a", "b")
    lines = (tmp_path / "cameras.txt").read_text().replace("2 PINHOLE 160 96", "2 PINHOLE 161 97")
    (tmp_path / "cameras.txt").write_text(lines)
    with pytest.raises(CameraError, match=r"several image sizes.*160x96, 161x97"):
        read_colmap(tmp_path)
    with pytest.raises(ParameterError, match=r"without blanks.*binary"):
        write_colmap(tmp_path / "c", ["an image.png"], aside(), None, text=True)
    with pytest.raises(ParameterError, match="one name"):
        write_colmap(tmp_path / "c", ["a", "a"], some_cameras(1, 2), None)
    write_colmap(tmp_path / "c", ["an image.png"], aside(), None)
    assert read_colmap(tmp_path / "c").names == ("an image.png",)


def test_a_wall_hides_what_is_behind_it() -> None:
    """A dense wall at depth 2 and points at depth 4: seen beside the wall, not through it."""
    x, y = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(-0.9, 0.9, 181))
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], axis=1)
    behind = np.array([[0, 0, 4], [0.5, 0.3, 4], [2.9, 0, 4], [0, 0, -1], [90, 0, 4]], float)
    points = np.concatenate([wall, behind]).astype(np.float32)
    cloud = PointCloud(points, np.zeros(points.shape, np.uint8))
    camera = Cameras(np.eye(4, dtype=np.float32)[None], aside().intrinsics, 96, 160)
    n = len(wall)
    seen = observations(cloud, camera)
    # On the wall: |y| <= 48 / 110 x 2 is inside the image, and all of its width.
    assert set(seen.points[seen.points < n]) == set(np.flatnonzero(np.abs(wall[:, 1]) < 0.8726))
    assert set(seen.points[seen.points >= n] - n) == {2}
    place = seen.xy[seen.points == n + 2][0]
    np.testing.assert_allclose(place, [80 + 100 * 2.9 / 4, 48], atol=1e-5)

    depth = np.full((48, 80), 4.0, np.float32)  # half the size of the image
    depth[:, 40:] = 0
    with_map = observations(cloud, camera, depth[None])
    # The map knows the left half alone, and there the far surface.
    assert len(with_map) == 0
    depth[:] = 4.0
    assert set(observations(cloud, camera, depth[None]).points - n) == {0, 1, 2}
    assert set(observations(cloud, camera, [None]).points) == set(seen.points)


@given(st.integers(1, 12), st.integers(1, 14))
def test_views_are_thinned_evenly(most: int, count: int) -> None:
    cameras = row_of_cameras(count)
    cloud = PointCloud(np.array([[0, 0, 5]], np.float32), np.zeros((1, 3), np.uint8))
    seen: Observations = observations(cloud, cameras, max_views=most)
    assert len(seen) == min(most, count)
    assert seen.frames[0] == 0
    gaps = np.diff([*seen.frames, count])
    assert gaps.min() > 0
    assert gaps.max() - gaps.min() <= 1


def test_memory_grows_with_the_views_that_are_kept() -> None:
    cloud = PointCloud(np.tile(np.float32([0, 0, 5]), (4000, 1)), np.zeros((4000, 3), np.uint8))
    tracemalloc.start()
    seen = observations(cloud, row_of_cameras(150), max_views=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 2 * 4000
    assert peak < 4_000_000  # all 600,000 sightings take 19 MB


def test_no_points_and_no_observations(tmp_path: Path) -> None:
    empty = PointCloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8))
    seen = observations(empty, row_of_cameras(2))
    assert len(seen) == 0
    write_colmap(tmp_path, names_of(2), row_of_cameras(2), empty, tracks=seen)
    assert pycolmap.Reconstruction(str(tmp_path)).num_points3D() == 0
