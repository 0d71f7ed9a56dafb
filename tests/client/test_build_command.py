"""``worldstereo build``: one image and its depth in, a scene folder out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result
from worldstereo_client import errors

from deployments.build_command import build
from tests.builder.rooms import SIZE, lens, slanted
from tests.scenes import path as given_path
from worldstereo.builder.specs import path_of, trajectory_specs
from worldstereo.formats.images import read_image, write_png
from worldstereo.formats.scene_folder import read_scene
from worldstereo.formats.video import read_video
from worldstereo.geometry.camera_path import StartPose
from worldstereo.types import SceneInput

PIVOT = float(np.median(slanted()[1].astype(np.float64)))
ROOT = Path(__file__).parents[2]
FRAMES, WORKING = 5, (64, 96)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a model of short clips and small frames; there are no weights."""
    folder = tmp_path_factory.mktemp("model")
    for variant in ("worldstereo-camera", "worldstereo-memory-dmd"):
        bundled = ROOT / "worldstereo/bundled/worldstereo-tiny" / variant / "config.json"
        content = json.loads(bundled.read_text())
        sizes = [(48, 48), WORKING] if variant == "worldstereo-memory-dmd" else [(32, 48)]
        (folder / variant).mkdir()
        content |= {"nframe": FRAMES, "scale_map": sizes}
        (folder / variant / "config.json").write_text(json.dumps(content))
    settings = (ROOT / "configs/models/worldstereo-tiny.yaml").read_text()
    (folder / "model.yaml").write_text(
        settings.replace("source: worldstereo-tiny", f"source: {folder}")
    )
    return folder / "model.yaml"


@pytest.fixture
def given(tmp_path: Path, model: Path) -> list[str]:
    """Arguments that name an image, a scene folder, a depth map, a prompt and a model."""
    image, depth = slanted()
    write_png(tmp_path / "photo.png", image)
    np.save(tmp_path / "depth.npy", depth)
    names = [tmp_path / "photo.png", tmp_path / "scene", "--depth", tmp_path / "depth.npy"]
    return [*map(str, names), "--prompt", "a slanted wall", "--model", str(model)]


def call(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command("build")(build)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def scene(given: list[str]) -> SceneInput:
    return read_scene(Path(given[1]), scale_map=[WORKING], nframe=FRAMES, align_nframe=1)


def test_a_scene_is_built_from_an_image_and_its_depth(given: list[str], tmp_path: Path) -> None:
    pictures = ["--contact-sheet", tmp_path / "sheet.png", "--preview", tmp_path / "preview.mp4"]
    done = call(
        *given,
        *("--trajectory", "orbit:azimuth=20,elevation=5,name=right", "--fov", "50"),
        *("--trajectory", "gen3c:zoom_in:distance=0.2", *pictures),
    )
    assert done.exit_code == 0, done.output
    found = scene(given)
    assert found.size == WORKING
    ids = [trajectory.id for trajectory in found.trajectories]
    assert ids == ["renders/right", "renders/gen3c_zoom_in_0"]
    assert [trajectory.prompt for trajectory in found.trajectories] == ["a slanted wall"] * 2
    orbit, dolly = trajectory_specs(
        [
            {"preset": "orbit", "azimuth": 20, "elevation": 5},
            {"preset": "dolly", "amount": 0.2},
        ]
    )
    for trajectory, spec in zip(found.trajectories, (orbit, dolly), strict=True):
        path = path_of(spec, StartPose(np.eye(4), PIVOT), FRAMES)
        np.testing.assert_array_equal(trajectory.cameras.camera_from_world, path.camera_from_world)
        np.testing.assert_array_equal(trajectory.cameras.intrinsics, path.intrinsics(lens(50)))
    assert "2 trajectories at 64x96, field of view 50.0 degrees" in done.output
    assert "renders/right: holes" in done.output
    assert read_image(tmp_path / "sheet.png").shape[1] > FRAMES * 96
    assert read_video(tmp_path / "preview.mp4").shape == (2 * FRAMES, *WORKING, 3)


def test_trajectories_come_from_a_file_and_the_report_as_json(
    given: list[str], tmp_path: Path
) -> None:
    listed = [{"preset": "truck", "amount": 0.1, "name": "b"}, {"preset": "dolly", "amount": 2}]
    (tmp_path / "paths.json").write_text(json.dumps(listed))
    done = call(*given, "--trajectory", tmp_path / "paths.json", "--metric", "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["folder"] == given[1]
    report = content["report"]
    stored = json.loads((Path(given[1]) / "build_report.json").read_text())
    assert report == stored
    assert report["metric"]
    assert [entry["id"] for entry in report["trajectories"]] == ["renders/b", "renders/dolly_0"]
    assert [entry["shortened"] for entry in report["trajectories"]] == [False, True]
    assert any("shortened" in warning for warning in report["warnings"])
    assert [trajectory.name for trajectory in scene(given).trajectories] == ["b", "dolly_0"]


def test_clearance_is_the_callers(given: list[str]) -> None:
    done = call(*given, "--trajectory", "dolly:amount=1.2", "--clearance", "0", "--json")
    (entry,) = json.loads(done.stdout)["report"]["trajectories"]
    assert (entry["shortened"], entry["used"]) == (False, {"amount": 1.2})


def write_cameras(file: Path, scale: float = 1.0) -> np.ndarray:
    """An npz of 21 cameras in another world, whose first one takes the image."""
    poses = given_path(21, yaw=12, step=0.4).astype(np.float64)
    elsewhere = given_path(2, yaw=70, pitch=20, step=3.0)[1].astype(np.float64)
    moved = poses @ elsewhere
    moved[:, :3, 3] *= scale
    np.savez(
        file,
        w2c=moved,
        intrinsics=np.tile(lens(50), (21, 1, 1)),
        image_height=SIZE[0],
        image_width=SIZE[1],
    )
    return poses


def test_cameras_from_elsewhere_become_a_trajectory(given: list[str], tmp_path: Path) -> None:
    poses = write_cameras(tmp_path / "path.npz", scale=0.5)
    arguments = [*given, "--fov", "50", "--cameras", tmp_path / "path.npz"]
    refused = call(*arguments, "--cameras-unit", "scene", "--cameras-scale", "2")
    assert isinstance(refused.exception, errors.CameraError)
    assert "the first camera is not the camera of the source image" in str(refused.exception)
    assert not Path(given[1]).exists()
    done = call(*arguments, "--cameras-unit", "scene", "--cameras-scale", "2", "--rebase")
    assert done.exit_code == 0, done.output
    (trajectory,) = scene(given).trajectories
    assert trajectory.id == "renders/cameras"
    np.testing.assert_allclose(trajectory.cameras.camera_from_world, poses[::5], atol=1e-5)
    np.testing.assert_allclose(trajectory.cameras.intrinsics, [lens(50)] * FRAMES, rtol=1e-6)


def test_a_camera_is_named_as_the_images(given: list[str], tmp_path: Path) -> None:
    poses = write_cameras(tmp_path / "path.npz")
    done = call(
        *given,
        *("--fov", "50", "--cameras", tmp_path / "path.npz", "--cameras-unit", "scene"),
        *("--source-camera", "0000", "--trajectory", "pan:degrees=5"),
    )
    assert done.exit_code == 0, done.output
    pan, cameras = scene(given).trajectories
    assert (pan.id, cameras.id) == ("renders/pan_0", "renders/cameras")
    np.testing.assert_allclose(cameras.cameras.camera_from_world, poses[::5], atol=1e-5)


def test_the_size_is_that_of_the_variant(given: list[str]) -> None:
    arguments = ["--variant", "worldstereo-camera", "--trajectory", "tilt:degrees=4", "--json"]
    done = call(*given, *arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["report"]["size"] == [32, 48]


def test_the_bundled_model_is_the_default(given: list[str]) -> None:
    done = call(*given[:-2], "--trajectory", "pan:degrees=4")
    assert done.exit_code == 0, done.output
    sizes = ((128, 192), (144, 192), (160, 160), (192, 144), (192, 128))
    assert read_scene(Path(given[1]), scale_map=sizes, nframe=21).size == (128, 192)
    assert "warning: the field of view was assumed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--trajectory", "orbit:azimuth=far"], errors.ParameterError, r"\[0\].azimuth: .*number"),
        (["--trajectory", "orbit:azimut=3"], errors.ParameterError, r"trajectories\[0\].azimut: "),
        (["--trajectory", "swing"], errors.ParameterError, "unknown preset; got 'swing'"),
        (["--trajectory", "missing.json"], errors.ParameterError, "missing.json"),
        (["--clearance", "2"], errors.ParameterError, "^clearance: "),
        (["--fov", "1"], errors.ParameterError, "^field_of_view: "),
        (["--prompt", " "], errors.ParameterError, "^prompt: the prompt is empty"),
        (["--estimator", "moge"], errors.ParameterError, "--depth, --estimator: .*got both"),
        (["--estimator-source", "x"], errors.ParameterError, "--estimator-source: "),
        (["--model", "nowhere"], errors.WorldStereoError, "nowhere"),
        (["--variant", "large"], errors.ParameterError, "model_type: .*large"),
        (["--cameras", "missing.txt"], errors.CameraError, "missing.txt"),
        (["--panorama"], errors.MediaError, "panorama"),
    ],
)
def test_what_is_refused(
    given: list[str],
    arguments: list[str],
    error: type[Exception],
    message: str,
) -> None:
    done = call(*given, *arguments)
    assert isinstance(done.exception, error), done.output
    with pytest.raises(error, match=message):
        raise done.exception
    assert not Path(given[1]).exists()


def test_depth_must_come_from_somewhere(given: list[str]) -> None:
    done = call(*given[:2], *given[4:])
    assert isinstance(done.exception, errors.ParameterError)
    assert "got neither" in str(done.exception)
    unknown: Any = call(*given[:2], *given[4:], "--estimator", "guess").exception
    assert "no depth estimator has this name; got 'guess'" in str(unknown)
