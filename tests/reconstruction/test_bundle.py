"""The bundle of a scene: each file opened by its own library, and what the cameras see in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import trimesh
from numpy.typing import NDArray
from plyfile import PlyData

from tests.formats.clouds import pixels
from tests.reconstruction.finished_scene import (
    FRAMES,
    IDS,
    SIZE,
    clips,
    start_frames,
    wall,
    write_clips,
)
from worldstereo.errors import LayoutError, ParameterError
from worldstereo.formats.atomic import is_temporary
from worldstereo.formats.depth_maps import read_depth_maps
from worldstereo.formats.images import read_image, resize_bicubic
from worldstereo.formats.manifest import verify_manifest, write_manifest
from worldstereo.formats.results import read_trajectory
from worldstereo.reconstruction import bundle
from worldstereo.reconstruction.bundle import (
    OUTPUTS,
    BundleClip,
    Output,
    add_to_manifest,
    write_bundle,
)
from worldstereo.types import Cameras, concatenate_cameras

NAMES = [
    "start_frames/image.png",
    *(f"{name}/frames/{index:04d}.png" for name in IDS for index in range(FRAMES)),
]
Pixels = NDArray[np.float64]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with every output."""
    folder = tmp_path_factory.mktemp("results") / "hall"
    made = write_clips(folder)
    written = write_bundle(
        folder, OUTPUTS, made, cloud=wall(), start_frames=start_frames(), metric=True
    )
    assert all(path.is_file() for path in written)
    assert len(set(written)) == len(written)
    return folder


def expected_cameras() -> Cameras:
    """Of ``NAMES``: the commanded ones."""
    starts = [camera.resized(*SIZE) for _, _, camera in start_frames()]
    return concatenate_cameras([*starts, *(clip.cameras for clip in clips())])


def expected_pixels() -> Pixels:
    return pixels(wall().points, expected_cameras())


@pytest.mark.parametrize("place", ["colmap", "colmap/text"])
def test_colmap(scene: Path, place: str) -> None:
    model = pycolmap.Reconstruction(str(scene / place))
    images = sorted(model.images.values(), key=lambda image: image.image_id)
    assert [image.name for image in images] == NAMES
    assert all((scene / image.name).is_file() for image in images)
    assert model.num_points3D() == len(wall())
    points = [model.points3D[index + 1] for index in range(len(wall()))]
    np.testing.assert_allclose([p.xyz for p in points], wall().points, atol=1e-6)
    assert np.array_equal([p.color for p in points], wall().colors)
    for image, expected in zip(images, expected_pixels(), strict=True):
        assert (image.camera.height, image.camera.width) == SIZE
        seen = [image.project_point(point.xyz) for point in points]
        np.testing.assert_allclose(seen, expected, atol=2e-3)
    assert model.compute_mean_reprojection_error() < 2e-3


def test_colmap_tracks_are_what_the_cameras_see(scene: Path) -> None:
    model = pycolmap.Reconstruction(str(scene / "colmap"))
    height, width = SIZE
    places = expected_pixels()
    inside = ((places >= 0) & (places < [width, height])).all(axis=-1)
    lengths = [model.points3D[index + 1].track.length() for index in range(len(wall()))]
    # Nothing hides the wall: a point is seen wherever it is in the image, eight times at most.
    assert lengths == np.minimum(inside.sum(axis=0), 8).tolist()
    assert max(lengths) == 8
    for index, point in enumerate(model.points3D[i + 1] for i in range(len(wall()))):
        for element in point.track.elements:
            xy = model.images[element.image_id].points2D[element.point2D_idx].xy
            np.testing.assert_allclose(xy, places[element.image_id - 1, index], atol=2e-3)


def test_transforms_as_nerfstudio_reads_them(scene: Path) -> None:
    meta = json.loads((scene / "transforms.json").read_text())
    assert [frame["file_path"] for frame in meta["frames"]] == NAMES
    assert all((scene / frame["file_path"]).is_file() for frame in meta["frames"])
    assert (meta["h"], meta["w"]) == SIZE
    vertex = PlyData.read(scene / meta["ply_file_path"])["vertex"]
    points = np.stack([vertex[axis] for axis in "xyz"], axis=1)
    for frame, expected in zip(meta["frames"], expected_pixels(), strict=True):
        lens = meta | frame
        intrinsics = [[lens["fl_x"], 0, lens["cx"]], [0, lens["fl_y"], lens["cy"]], [0, 0, 1]]
        # OpenGL: y up, z backward.
        world_from_camera = np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])
        view = Cameras(np.linalg.inv(world_from_camera)[None], np.array([intrinsics]), *SIZE)
        np.testing.assert_allclose(pixels(points, view)[0], expected, atol=1e-3)
    # Up is +z there: the wall's upper points, which have small y here, are above.
    assert np.argmax(points[:, 2]) == np.argmin(wall().points[:, 1])
    assert np.array_equal(vertex["red"], wall().colors[:, 0])


def test_points(scene: Path) -> None:
    opened = PlyData.read(scene / "points.ply")
    assert opened.comments == ["axes: OpenCV, y down", "unit: metre"]
    vertex = opened["vertex"]
    points = np.stack([vertex[axis] for axis in "xyz"], axis=1)
    assert np.array_equal(points, wall().points)
    (shown,) = trimesh.load_scene(scene / "points.glb").dump()
    assert np.array_equal(shown.vertices.astype(np.float32), wall().points * [1, -1, -1])
    assert np.array_equal(shown.colors[:, :3], wall().colors)


def test_cameras_for_viewers(scene: Path) -> None:
    entries = json.loads((scene / "cameras_inria.json").read_text())
    assert [entry["img_name"] for entry in entries] == NAMES
    centers = [np.linalg.inv(m)[:3, 3] for m in expected_cameras().camera_from_world]
    np.testing.assert_allclose([entry["position"] for entry in entries], centers, atol=1e-6)
    blender = json.loads((scene / "blender" / "cameras.json").read_text())
    assert [entry["name"] for entry in blender["cameras"]] == list(IDS)
    assert (blender["fps"], blender["unit"]) == (16, "metre")
    compile((scene / "blender" / "import_cameras.py").read_text(), "import_cameras.py", "exec")


def test_depth_lifts_to_the_wall(scene: Path) -> None:
    for clip in clips():
        maps = read_depth_maps(scene / "depth" / clip.id)
        assert maps.metric
        assert clip.depths is not None
        assert np.array_equal(maps.depths, clip.depths)
        row, column = 10, 37
        ray = np.linalg.inv(clip.cameras.intrinsics[3]) @ [column + 0.5, row + 0.5, 1]
        seen = np.append(ray * maps.depths[3, row, column], 1)
        place = np.linalg.inv(clip.cameras.camera_from_world[3].astype(np.float64)) @ seen
        assert place[2] == pytest.approx(4, abs=1e-5)


def test_worldmirror(scene: Path) -> None:
    folder = scene / "world_mirror_data" / "worldstereo-memory-dmd"
    content = json.loads((folder / "cameras.json").read_text())
    ids = [entry["camera_id"] for entry in content["extrinsics"]]
    # Of five frames all but the first enter the memory.
    kept = [f"{name.replace('/', '-')}-{index:04d}" for name in IDS for index in range(1, FRAMES)]
    assert ids == ["pano-image", *kept]
    assert content["num_cameras"] == len(ids)
    assert {path.name for path in (folder / "images").iterdir()} == {f"{i}.png" for i in ids}
    image = read_image(folder / "images" / "renders-traj_left-0003.png")
    assert np.array_equal(image, clips()[1].frames[3])
    matrix = np.array(content["extrinsics"][-2]["matrix"])  # world from camera
    pose = clips()[1].cameras.camera_from_world[3]
    np.testing.assert_allclose(matrix @ pose, np.eye(4), atol=1e-6)
    places = json.loads((folder / "name_map.json").read_text())
    assert places["hall/pano_bank/image"] == "0000"
    assert places["renders/traj_left/0001"] == "0001"


def test_start_frames_at_the_size_of_the_clips(scene: Path) -> None:
    ((_, image, _),) = start_frames()
    stored = read_image(scene / "start_frames" / "image.png")
    assert np.array_equal(stored, resize_bicubic(image, SIZE))


def test_the_results_are_as_they_were(scene: Path) -> None:
    for clip in clips():
        result = read_trajectory(scene / clip.id)
        assert np.array_equal(result.frames, clip.frames)
    assert not any(is_temporary(path) for path in scene.rglob("*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_same_scene_same_bytes_also_over_old_files(scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hall"
    made = write_clips(folder)
    half = [BundleClip(clip.id, clip.frames, clip.cameras, None, (4,)) for clip in made]
    write_bundle(folder, OUTPUTS[:-2], half, cloud=wall(3, 3), start_frames=[], metric=False)
    old = write_bundle(
        folder, ["worldmirror"], half, cloud=None, start_frames=[], metric=False, scene_name="x"
    )
    assert {path.name for path in old if path.suffix == ".png"} == {
        "renders-traj_up-0004.png",
        "renders-traj_left-0004.png",
    }
    (old[0].parent / "stale.png").write_bytes(b"")
    results = old[-1].parent / "results"
    results.mkdir()
    write_bundle(folder, OUTPUTS, made, cloud=wall(), start_frames=start_frames(), metric=True)
    assert results.is_dir()  # of WorldMirror itself
    results.rmdir()
    assert contents(folder) == contents(scene)


def test_without_points_cameras_are_still_there(tmp_path: Path) -> None:
    made = write_clips(tmp_path / "hall")
    outputs: list[Output] = ["colmap", "transforms", "inria", "blender"]
    write_bundle(tmp_path / "hall", outputs, made, cloud=None, start_frames=[], metric=False)
    model = pycolmap.Reconstruction(str(tmp_path / "hall" / "colmap"))
    assert (model.num_images(), model.num_points3D()) == (2 * FRAMES, 0)
    assert "ply_file_path" not in json.loads((tmp_path / "hall/transforms.json").read_text())
    assert not (tmp_path / "hall" / "start_frames").exists()


def test_a_colmap_model_of_a_large_cloud_is_thinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_COLMAP_POINTS", 40)
    made = write_clips(tmp_path)
    write_bundle(tmp_path, ["colmap"], made, cloud=wall(), start_frames=[], metric=False)
    model = pycolmap.Reconstruction(str(tmp_path / "colmap"))
    kept = np.array([model.points3D[index + 1].xyz for index in range(model.num_points3D())])
    assert len(kept) == 40
    steps = np.diff([np.abs(wall().points - point).sum(axis=1).argmin() for point in kept])
    assert set(steps) == {2, 3}  # 108 points in 40 steps


def test_points_of_a_scene_that_is_z_up(tmp_path: Path) -> None:
    made = write_clips(tmp_path)
    write_bundle(
        tmp_path, ["points", "glb"], made, cloud=wall(), start_frames=[], metric=False, up="z"
    )
    assert PlyData.read(tmp_path / "points.ply").comments == [
        "axes: z up",
        "unit: that of the scene's cameras",
    ]
    (shown,) = trimesh.load_scene(tmp_path / "points.glb").dump()
    assert np.array_equal(shown.vertices[:, 1].astype(np.float32), wall().points[:, 2])


def test_the_manifest_lists_what_was_added(tmp_path: Path) -> None:
    made = write_clips(tmp_path)
    write_manifest(tmp_path, {"name": "hall"})
    before = json.loads((tmp_path / "manifest.json").read_text())
    files = write_bundle(
        tmp_path, OUTPUTS, made, cloud=wall(), start_frames=start_frames(), metric=True
    )
    with pytest.raises(LayoutError, match="files that the manifest does not list"):
        verify_manifest(tmp_path)
    add_to_manifest(tmp_path, files)
    after = verify_manifest(tmp_path)
    assert after["name"] == "hall"
    listed = [file["name"] for file in after["files"]]
    assert listed == sorted(listed)
    assert all(file in after["files"] for file in before["files"])
    add_to_manifest(tmp_path, files)
    assert verify_manifest(tmp_path) == after


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = write_clips(tmp_path)
    bare = [BundleClip(clip.id, clip.frames, clip.cameras, None) for clip in made]
    before = contents(tmp_path)

    def write(outputs: list[Output], given: list[BundleClip] = bare) -> None:
        write_bundle(
            tmp_path, ["inria", *outputs], given, cloud=None, start_frames=[], metric=False
        )

    with pytest.raises(ParameterError, match="output points: there are no points to write; got no"):
        write(["points"])
    with pytest.raises(ParameterError, match="output glb: there are no points"):
        write(["glb"])
    with pytest.raises(ParameterError, match="output depth: there is no depth"):
        write(["depth"])
    with pytest.raises(ParameterError, match="unknown output; got obj; allowed: points, glb"):
        write(["obj"])  # type: ignore[list-item]
    with pytest.raises(ParameterError, match="there are no clips"):
        write([], [])
    assert contents(tmp_path) == before
    (tmp_path / IDS[1] / "frames" / "0002.png").unlink()
    with pytest.raises(LayoutError, match=r"traj_left/frames/0002\.png: a frame is missing"):
        write([])
    shutil.rmtree(tmp_path / "renders")
