"""From an image and its depth to a scene folder: what is in it, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builder.rooms import SCALE_MAP, SIZE, depth_map, lens, slanted, wall
from tests.scenes import path as given_path
from tests.scenes import picture
from worldstereo.builder import perspective
from worldstereo.builder.layout import limited_image
from worldstereo.builder.parameters import BuildParameters, trajectory_ids
from worldstereo.builder.perspective import build_scene
from worldstereo.builder.report import REPORT_FILE, BuildReport
from worldstereo.builder.specs import path_of
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import CameraError, LayoutError, MediaError, ParameterError
from worldstereo.formats.clips import load_render
from worldstereo.formats.images import read_image, resize_bicubic
from worldstereo.formats.ply import read_ply
from worldstereo.formats.scene_folder import read_scene
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.views import render_views
from worldstereo.types import SceneInput

WORKING = (64, 96)
LISTED = [
    {"preset": "truck", "amount": 0.2, "name": "z_right"},
    {"preset": "orbit", "azimuth": -20, "elevation": 10, "name": "around"},
    {"preset": "zoom", "factor": 1.5},
]


def parameters(*trajectories: dict[str, Any], **fields: Any) -> BuildParameters:
    return BuildParameters(
        **{"prompt": "a wall", "frames": 5, "trajectories": trajectories, **fields}
    )


def read(folder: Path) -> SceneInput:
    return read_scene(folder, scale_map=SCALE_MAP, nframe=5, align_nframe=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    image, depth = slanted()
    folder = tmp_path_factory.mktemp("built") / "wall"
    found = depth_map(depth, intrinsics=lens(50))
    return folder, build_scene(image, found, parameters(*LISTED), folder, scale_map=SCALE_MAP)


def test_the_folder_is_a_scene_in_the_order_given(built: tuple[Path, BuildReport]) -> None:
    folder, _ = built
    scene = read(folder)
    assert (scene.layout, scene.size) == ("reconstruction", WORKING)
    ids = [trajectory.id for trajectory in scene.trajectories]
    assert ids == ["renders/z_right", "renders/around", "renders/zoom_0"]
    assert tuple(ids) == trajectory_ids(parameters(*LISTED))
    assert {trajectory.prompt for trajectory in scene.trajectories} == {"a wall"}
    np.testing.assert_array_equal(read_image(folder / "image.png"), slanted()[0])
    names = {path.name for path in folder.iterdir()}
    assert names == {"image.png", "prompt.json", "points.ply", "renders", REPORT_FILE}


def test_cameras_start_at_the_origin_and_are_the_paths(built: tuple[Path, BuildReport]) -> None:
    folder, report = built
    start = StartPose(np.eye(4), float(np.median(slanted()[1].astype(np.float64))))
    assert report.pivot_distance == start.pivot_distance
    for trajectory, spec in zip(read(folder).trajectories, parameters(*LISTED).paths, strict=True):
        cameras, path = trajectory.cameras, path_of(spec, start, 5)
        np.testing.assert_array_equal(cameras.camera_from_world[0], np.eye(4))
        np.testing.assert_array_equal(cameras.camera_from_world, path.camera_from_world)
        assert (cameras.height, cameras.width) == SIZE
        np.testing.assert_array_equal(cameras.intrinsics, path.intrinsics(lens(50)))


def test_renders_are_those_of_the_views(built: tuple[Path, BuildReport]) -> None:
    folder, report = built
    image, depth = slanted()
    for trajectory, said in zip(read(folder).trajectories, report.trajectories, strict=True):
        video, holes = render_views(image, depth, trajectory.cameras.resized(*WORKING))
        read_video, read_holes = load_render(trajectory, WORKING, 5)
        # What the codecs leave: nearly the same colours, and nearly every pixel of the mask.
        assert np.abs(read_video.astype(int) - video).mean() < 6
        assert (read_holes != holes).mean() < 0.002
        np.testing.assert_allclose(said.hole_share, holes.mean(axis=(1, 2)))
        assert said.hole_share[0] == 0


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (96, 128), (80, 320)])
def test_an_image_of_any_usual_shape_becomes_a_scene(tmp_path: Path, size: tuple[int, int]) -> None:
    image = picture(2, size)
    rows, columns = np.indices(size)
    depth = (2 + columns / size[1] + 0.01 * np.sin(rows)).astype(np.float32)
    move = parameters({"preset": "truck", "amount": 0.1}, frames=3)
    build_scene(image, depth_map(depth), move, tmp_path / "s", scale_map=SCALE_MAP)
    scene = read_scene(tmp_path / "s", scale_map=SCALE_MAP, nframe=3, align_nframe=1)
    (trajectory,) = scene.trajectories
    assert (trajectory.cameras.height, trajectory.cameras.width) == size
    # As the model gets it: squeezed to the working size, the cameras with it.
    video, holes = load_render(trajectory, scene.size, 3)
    expected, _ = render_views(image, depth, trajectory.cameras.resized(*scene.size))
    both = ~holes & (expected != 128).any(axis=-1)
    assert np.abs(video.astype(int) - expected)[both].mean() < 12
    assert holes.mean() < 0.25


def test_the_report_says_what_was_built(built: tuple[Path, BuildReport]) -> None:
    folder, report = built
    again = BuildReport.model_validate_json((folder / REPORT_FILE).read_text())
    assert again == report
    assert (report.image_size, report.size, report.metric) == (SIZE, WORKING, True)
    assert report.intrinsics_from == "depth"
    assert report.field_of_view == pytest.approx(50)
    assert report.valid_depth == 1
    assert report.points == len(read_ply(folder / "points.ply"))
    (start,) = report.start
    assert start.covered > 0.9
    assert start.psnr_db > 25
    assert [found.id for found in report.trajectories] == [
        "renders/z_right",
        "renders/around",
        "renders/zoom_0",
    ]
    assert report.trajectories[1].asked == {"azimuth": -20, "elevation": 10}
    assert report.trajectories[1].used == report.trajectories[1].asked
    assert not any(found.shortened for found in report.trajectories)
    assert report.warnings == []


def test_the_same_input_gives_the_same_bytes(
    built: tuple[Path, BuildReport], tmp_path: Path
) -> None:
    folder, _ = built
    image, depth = slanted()
    other = tmp_path / "empty"
    other.mkdir()
    found = depth_map(depth, intrinsics=lens(50))
    build_scene(image, found, parameters(*LISTED), other, scale_map=SCALE_MAP)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for file in files:
        assert (folder / file).read_bytes() == (other / file).read_bytes(), file


def test_the_default_set_needs_no_order_file(tmp_path: Path) -> None:
    image, depth = wall()
    folder = tmp_path / "scene"
    report = build_scene(image, depth_map(depth), parameters(), folder, scale_map=SCALE_MAP)
    assert not (folder / "renders/order.json").exists()
    names = ["traj_eloop", "traj_up", "traj_right", "traj_left"]
    assert [trajectory.name for trajectory in read(folder).trajectories] == names
    assert report.intrinsics_from == "assumed"
    assert report.field_of_view == pytest.approx(60)
    assert any("assumed to be 60 degrees" in warning for warning in report.warnings)
    by_id = {found.id: found for found in report.trajectories}
    # The wall stands at the pivot and ends within the view: the orbit runs around its edge.
    assert by_id["renders/traj_up"].factor == 1


def test_a_path_into_the_wall_is_shortened_and_said(tmp_path: Path) -> None:
    image, depth = wall(2.0)
    into = {"preset": "dolly", "amount": 2}
    report = build_scene(
        image,
        depth_map(depth, intrinsics=lens()),
        parameters(into, field_of_view=70.0),
        tmp_path / "scene",
        scale_map=SCALE_MAP,
    )
    (found,) = report.trajectories
    assert found.shortened
    assert found.asked == {"amount": 2}
    assert found.used["amount"] == pytest.approx(0.9, abs=0.01)
    assert found.factor == pytest.approx(0.45, abs=0.01)
    assert 0.2 <= found.smallest_distance < 0.22
    end = read(tmp_path / "scene").trajectories[0].cameras.camera_from_world[-1]
    assert end[2, 3] == pytest.approx(-2 * found.used["amount"])
    # What the caller states is believed before what the depth says.
    assert (report.intrinsics_from, round(report.field_of_view)) == ("field_of_view", 70)
    assert "dolly_0: shortened to 45%" in report.warnings[0]


def test_holes_and_missing_depth_are_said(tmp_path: Path) -> None:
    image, depth = wall()
    depth[:, 50:] = 0
    away = {"preset": "pan", "degrees": 40}
    report = build_scene(
        image,
        depth_map(depth),
        parameters(away, field_of_view=60.0),
        tmp_path / "scene",
        scale_map=SCALE_MAP,
    )
    assert report.intrinsics_from == "field_of_view"
    assert report.valid_depth == pytest.approx(50 / 144)
    assert report.warnings[0].startswith("only 35% of the pixels have a depth")
    assert "4 of 5 frames have more than 60% holes, from frame 1 on" in report.warnings[-1]


def test_given_cameras_bring_their_own_intrinsics(tmp_path: Path) -> None:
    image, depth = wall()
    poses = given_path(9, yaw=8, step=0.2)
    given = {
        "preset": "cameras",
        "name": "mine",
        "camera_from_world": poses.tolist(),
        "intrinsics": [lens(40, (48, 72)).tolist()],
        "height": 48,
        "width": 72,
    }
    zoom = {"preset": "zoom", "factor": 2, "name": "zoom"}
    report = build_scene(
        image,
        depth_map(depth),
        parameters(given, zoom),
        tmp_path / "scene",
        scale_map=SCALE_MAP,
    )
    assert report.intrinsics_from == "cameras"
    assert report.field_of_view == pytest.approx(40)
    mine, zoomed = read(tmp_path / "scene").trajectories
    np.testing.assert_allclose(mine.cameras.camera_from_world, poses[::2], atol=1e-6)
    np.testing.assert_allclose(mine.cameras.intrinsics, [lens(40)] * 5, rtol=1e-6)
    np.testing.assert_allclose(zoomed.cameras.intrinsics[0], lens(40), rtol=1e-6)
    other = {**given, "name": "other", "intrinsics": [lens(55, (48, 72)).tolist()]}
    with pytest.raises(CameraError, match=r"other: intrinsics\[0\]: two trajectories state"):
        build_scene(
            image,
            depth_map(depth),
            parameters(given, other),
            tmp_path / "no",
            scale_map=SCALE_MAP,
        )


def test_depth_may_be_of_another_size_than_the_image(tmp_path: Path) -> None:
    _, depth = wall(2.0, (48, 72))
    large = picture(3, (192, 288))
    found = depth_map(depth, intrinsics=lens(50, (48, 72)))
    move = parameters({"preset": "truck", "amount": 0.1})
    report = build_scene(large, found, move, tmp_path / "scene", scale_map=SCALE_MAP)
    assert report.image_size == (192, 288)
    np.testing.assert_allclose(report.intrinsics, lens(50, (192, 288)), rtol=1e-6)


def test_a_huge_image_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(1, (60, 90))
    assert limited_image(image) is image
    monkeypatch.setattr("worldstereo.builder.layout.MAX_IMAGE_PIXELS", 30 * 45)
    np.testing.assert_array_equal(limited_image(image), resize_bicubic(image, (30, 45)))


def test_what_cannot_be_built_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, depth = wall()
    fine, move = depth_map(depth), parameters({"preset": "truck", "amount": 0.1})
    away = {"preset": "dolly", "amount": 60}
    cases: list[tuple[Any, DepthMap, BuildParameters, type[Exception], str]] = [
        (image, depth_map(depth[:, :100]), move, MediaError, "aspect ratio"),
        (image, depth_map(np.zeros_like(depth)), move, MediaError, "the depth map is empty"),
        (image[:10], depth_map(depth[:10]), move, MediaError, "out of range"),
        (image[:20], depth_map(depth[:20]), move, MediaError, "up to 4 times as long"),
        (image, fine, parameters(away), ParameterError, "renders/dolly_0: .*runs into"),
        (image, fine, parameters(kind="panorama"), ParameterError, "kind: .*panorama"),
        (
            image,
            depth_map(depth, intrinsics=lens(60) * 0),
            move,
            CameraError,
            "intrinsics of the depth",
        ),
        (
            image,
            fine,
            parameters({"preset": "zoom", "factor": 0.05}, field_of_view=120.0),
            CameraError,
            "renders/zoom_0/camera.json: intrinsic",
        ),
    ]
    for picture_, found, chosen, error, message in cases:
        with pytest.raises(error, match=message):
            build_scene(picture_, found, chosen, tmp_path / "scene", scale_map=SCALE_MAP)
    monkeypatch.setattr(perspective, "write_png", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        build_scene(image, fine, move, tmp_path / "scene", scale_map=SCALE_MAP)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    image, depth = wall()
    move = parameters({"preset": "truck", "amount": 0.1})
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for place in ("scene", "file", "file/below"):
        with pytest.raises(ParameterError, match=r"the scene's folder (exists|cannot be made)"):
            build_scene(image, depth_map(depth), move, tmp_path / place, scale_map=SCALE_MAP)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine.txt", "scene"]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["z_right", "around"], "does not list each trajectory once.*around, z_right, zoom_0"),
        (["z_right", "around", "zoom_0", "zoom_0"], "each trajectory once"),
        (["z_right", "around", "other"], "each trajectory once; got z_right, around, other"),
        ({"z_right": 1}, "no list of names; got an object"),
        (["z_right", 3, "zoom_0"], "no list of names"),
        ([], "an empty list"),
    ],
)
def test_an_order_file_must_fit(
    built: tuple[Path, BuildReport], tmp_path: Path, order: Any, message: str
) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    (folder / "renders").mkdir()
    for name in ("image.png", "prompt.json"):
        (folder / name).write_bytes((built[0] / name).read_bytes())
    for name in ("z_right", "around", "zoom_0"):
        (folder / "renders" / name).mkdir()
        for file in (built[0] / "renders" / name).iterdir():
            (folder / "renders" / name / file.name).write_bytes(file.read_bytes())
    (folder / "renders" / "order.json").write_text(json.dumps(order))
    with pytest.raises(LayoutError, match=f"renders/order.json: .*{message}"):
        read(folder)
    (folder / "renders" / "order.json").unlink()
    names = [trajectory.name for trajectory in read(folder).trajectories]
    assert names == ["around", "z_right", "zoom_0"]
