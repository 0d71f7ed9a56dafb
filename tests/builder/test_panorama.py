"""From a panorama to a scene: a small one is built, read back and compared with the room."""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.builder import box_room
from worldstereo.builder import panorama as builder
from worldstereo.builder.panorama import ProvidedPanoramaDepth, build_panorama, render_size
from worldstereo.builder.panorama_cameras import bank_cameras, polar_cameras, view_camera
from worldstereo.builder.parameters import BuildParameters, trajectory_ids
from worldstereo.builder.report import REPORT_FILE, BuildReport
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import MediaError, ParameterError
from worldstereo.formats.clips import load_render
from worldstereo.formats.images import read_image, resize_bicubic
from worldstereo.formats.scene_folder import read_scene
from worldstereo.formats.video import read_video
from worldstereo.types import Bool, Float32, SceneInput, UInt8, concatenate_cameras

SCALE_MAP = ((128, 192), (192, 128))
PARAMETERS = BuildParameters(kind="panorama", prompt="a room with a block", frames=3)


@dataclass
class Built:
    folder: Path
    report: BuildReport
    scene: SceneInput


@pytest.fixture(scope="module")
def room() -> tuple[UInt8, ProvidedPanoramaDepth]:
    return box_room.panorama(256)[0], ProvidedPanoramaDepth(box_room.panorama(512)[1])


@pytest.fixture(scope="module")
def coarse_grid() -> Iterator[None]:
    """Fewer points around than the product has: what is tested is where they lie."""
    with pytest.MonkeyPatch.context() as patch:
        coarse = functools.partial(builder.lift_surroundings, rows=384)
        patch.setattr(builder, "lift_surroundings", coarse)
        yield


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
    room: tuple[UInt8, ProvidedPanoramaDepth],
    coarse_grid: None,
) -> Built:
    folder = tmp_path_factory.mktemp("panorama") / "room"
    report = build_panorama(*room, PARAMETERS, folder, scale_map=SCALE_MAP)
    return Built(folder, report, read_scene(folder, scale_map=SCALE_MAP, nframe=3, align_nframe=2))


def test_the_scene_reads_back(built: Built) -> None:
    scene = built.scene
    assert scene.layout == "panorama"
    assert scene.size == (128, 192) == built.report.size
    assert not scene.skipped
    assert tuple(item.id for item in scene.trajectories) == trajectory_ids(PARAMETERS)
    assert [item.id for item in scene.trajectories][:4] == [
        "view0/traj2",
        "view0/traj0",
        "view0/traj1",
        "view1/traj2",
    ]
    assert {item.prompt for item in scene.trajectories} == {"a room with a block"}
    assert [frame.id for frame in scene.start_frames] == [f"pano_bank/{n:04d}" for n in range(27)]
    assert sorted(path.name for path in built.folder.iterdir()) == [
        "build_report.json",
        "meta_info.json",
        "pano_bank",
        "points.ply",
        "view0",
        "view1",
        "view2",
    ]


def test_start_frames_show_the_room(built: Built) -> None:
    for index, frame in enumerate(built.scene.start_frames):
        camera = bank_cameras()[[index]]
        assert np.array_equal(frame.camera.camera_from_world, camera.camera_from_world)
        image = read_image(frame.image)
        assert image.shape == (480, 832, 3)
        if index % 5 == 0:
            assert box_room.psnr_db(image, box_room.views(camera)[0][0]) > 34
    for view, bank in (("view0", "0000"), ("view1", "0005"), ("view2", "0008")):
        start = (built.folder / view / "start_frame.png").read_bytes()
        assert start == (built.folder / "pano_bank" / "images" / f"{bank}.png").read_bytes()


def test_cameras_start_at_their_view_and_look_at_the_pivot(built: Built) -> None:
    for item, report in zip(built.scene.trajectories, built.report.trajectories, strict=True):
        assert item.id == report.id
        start = view_camera(int(item.view[-1]))
        matrices = item.cameras.camera_from_world.astype(np.float64)
        assert np.abs(matrices[0] - start.camera_from_world[0]).max() < 1e-6
        assert (item.cameras.height, item.cameras.width) == (480, 832)
        median = float(np.median(box_room.views(start)[1]))
        pivot = matrices[0, :3, :3].T @ [0, 0, median]
        seen = matrices[:, :3, :3] @ pivot + matrices[:, :3, 3]
        assert np.abs(seen - [0, 0, median]).max() < 0.01 * median
        turned = np.degrees(np.arccos(np.clip(matrices[-1, 2, :3] @ matrices[0, 2, :3], -1, 1)))
        if item.name != "traj2":
            assert turned == pytest.approx(abs(report.used["azimuth"]), abs=1e-3)
            assert (report.used["azimuth"] > 0) == (item.name == "traj0")
        else:
            assert matrices[1, 2, 2] < -0.5  # looks down half way


def test_paths_stay_away_from_the_room(built: Built) -> None:
    reports = built.report.trajectories
    assert any(report.shortened for report in reports)
    assert not all(report.shortened for report in reports)
    for item, report in zip(built.scene.trajectories, reports, strict=True):
        assert report.smallest_distance >= report.clearance
        ends = np.linalg.inv(item.cameras.camera_from_world.astype(np.float64))[:, :3, 3]
        low, high = box_room.ROOM
        gap = min(float((ends - low).min()), float((high - ends).min()))
        # The mean of five points that lie apart is more than the distance of the wall.
        assert gap > 0.8 * report.clearance
        block_low, block_high = box_room.BLOCK
        nearest = np.clip(ends, block_low, block_high)
        assert np.linalg.norm(ends - nearest, axis=-1).min() > 0.8 * report.clearance


def test_renders_show_the_room_from_their_cameras(built: Built) -> None:
    height, width = render_size(128)
    for item, report in zip(built.scene.trajectories, built.report.trajectories, strict=True):
        assert item.render is not None
        assert item.render_mask is not None
        video = read_video(item.render)
        holes = read_video(item.render_mask)[..., 0] > 127
        assert video.shape == (3, height, width, 3)
        assert not holes[0].any()
        start = read_image(built.folder / item.view / "start_frame.png")
        assert box_room.psnr_db(video[0], resize_bicubic(start, (height, width))) > 32
        assert np.allclose(holes.mean(axis=(1, 2)), report.hole_share, atol=0.02)
        assert max(report.hole_share) < 0.3
        cameras = item.cameras.resized(height, width)
        true, _ = box_room.views(cameras)
        for frame in (1, 2):
            # The panorama does not show the block's back, which some of the cameras see.
            known = _inside(~holes[frame]) & ~box_room.shows_block(cameras[[frame]])
            assert known.mean() > 0.5
            shown, expected = video[frame][known], true[frame][known]
            assert box_room.psnr_db(shown, expected) > 22
            assert np.median(np.abs(shown.astype(int) - expected)) <= 4


def _inside(covered: Bool) -> Bool:
    """Covered pixels whose eight neighbours are covered too: partly covered ones are darker."""
    padded = np.pad(covered, 1, constant_values=True)
    height, width = covered.shape
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.all(shifts, axis=0))


def test_the_model_gets_working_size(built: Built) -> None:
    video, holes = load_render(built.scene.trajectories[1], built.scene.size, 3)
    assert video.shape == (3, 128, 192, 3)
    assert holes.shape == (3, 128, 192)


def test_the_report_says_what_was_built(built: Built) -> None:
    report = built.report
    assert BuildReport.model_validate_json((built.folder / REPORT_FILE).read_text()) == report
    assert report.kind == "panorama"
    assert report.metric
    assert report.field_of_view == 120
    assert report.valid_depth == 1
    assert report.pivot_distance == pytest.approx(
        float(np.median(box_room.views(view_camera(0))[1])), rel=0.01
    )
    assert [check.id for check in report.start] == [f"view{n}/start_frame.png" for n in range(3)]
    assert min(check.covered for check in report.start) > 0.99
    assert min(check.psnr_db for check in report.start) > 35
    shortened = [found.id for found in report.trajectories if found.shortened]
    assert [warning.split(":")[0] for warning in report.warnings] == shortened
    assert all(found.hole_share[0] == 0 for found in report.trajectories)


class Estimator:
    """Exact depths of the 29 views in order, each times a factor of its own."""

    def __init__(self, depths: Float32) -> None:
        self.left = [DepthMap(depth, True) for depth in depths]

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        return [self.left.pop(0) for _ in images]


@pytest.fixture
def one_view(monkeypatch: pytest.MonkeyPatch, coarse_grid: None) -> None:
    monkeypatch.setattr(builder, "PANORAMA_VIEWS", ("view0",))


@pytest.fixture
def short_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "bank_cameras", lambda: bank_cameras()[:2])


def test_estimated_views_make_the_same_scene(
    tmp_path: Path, built: Built, room: tuple[UInt8, ProvidedPanoramaDepth], one_view: None
) -> None:
    """Up to a scale that nobody knows: the median view's, here exact."""
    cameras = concatenate_cameras([bank_cameras(), polar_cameras()])
    factors = np.exp(np.linspace(-0.3, 0.3, len(cameras)))
    coarse = box_room.views(cameras.resized(240, 416))[1]
    depths = np.repeat(np.repeat(coarse, 2, axis=1), 2, axis=2) * factors[:, None, None]
    estimator = Estimator(depths.astype(np.float32))
    report = build_panorama(room[0], estimator, PARAMETERS, tmp_path / "s", scale_map=SCALE_MAP)
    assert not estimator.left
    assert report.pivot_distance == pytest.approx(built.report.pivot_distance, rel=0.01)
    for ours, theirs in zip(report.trajectories, built.report.trajectories, strict=False):
        assert ours.id == theirs.id
        assert ours.factor == pytest.approx(theirs.factor, abs=0.05)
        assert np.allclose(ours.hole_share, theirs.hole_share, atol=0.05)
    assert "29 views" in report.warnings[0]
    assert "not measured" in report.warnings[0]
    merging = json.loads((tmp_path / "s" / "merged_depth.json").read_text())
    scales = np.array([view["scale"] for view in merging["views"]])
    assert np.abs(np.log(scales * factors)).max() < 1e-3
    assert max(abs(pair["offset"]) for pair in merging["pairs"]) < 3e-3
    scene = read_scene(tmp_path / "s", scale_map=SCALE_MAP, nframe=3, align_nframe=2)
    assert [item.id for item in scene.trajectories] == ["view0/traj2", "view0/traj0", "view0/traj1"]


def test_the_same_input_gives_the_same_bytes(
    tmp_path: Path,
    built: Built,
    room: tuple[UInt8, ProvidedPanoramaDepth],
    one_view: None,
    short_bank: None,
) -> None:
    build_panorama(*room, PARAMETERS, tmp_path / "again", scale_map=SCALE_MAP)
    again, first = _digests(tmp_path / "again"), _digests(built.folder)
    compared = {name for name in again if name.startswith(("pano_bank/images/", "view0/"))}
    assert len(compared) == 2 + 1 + 3 * 4
    assert {name: again[name] for name in compared} == {name: first[name] for name in compared}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_cannot_be_built_leaves_nothing(
    tmp_path: Path, room: tuple[UInt8, ProvidedPanoramaDepth], short_bank: None
) -> None:
    image, depth = room
    perspective = BuildParameters(prompt="a room")
    with pytest.raises(ParameterError, match="panorama"):
        build_panorama(image, depth, perspective, tmp_path / "s", scale_map=SCALE_MAP)
    with pytest.raises(MediaError, match="twice as wide"):
        build_panorama(image[:, :500], depth, PARAMETERS, tmp_path / "s", scale_map=SCALE_MAP)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ParameterError, match="exists"):
        build_panorama(image, depth, PARAMETERS, tmp_path / "taken", scale_map=SCALE_MAP)
    behind = np.zeros((64, 128), dtype=np.float32)
    behind[:, :10] = 2
    with pytest.raises(MediaError, match="no depth"):
        build_panorama(
            image, ProvidedPanoramaDepth(behind), PARAMETERS, tmp_path / "s", scale_map=SCALE_MAP
        )
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_renders_have_the_published_shape() -> None:
    assert render_size(480) == (480, 832)
    for height in (128, 480, 608, 333):
        rows, columns = render_size(height)
        assert rows % 2 == columns % 2 == 0
        assert columns / rows == pytest.approx(832 / 480, rel=0.01)
