"""A scene on disk: what clips are prepared from, what is committed, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.golden.check_retrieval import OWN_FOLDER, GoldenScene
from tests.memory.folders import (
    CONFIG,
    FRAMES,
    IMAGE_SIZE,
    PARAMETERS,
    SIZE,
    TRAJECTORIES,
    camera_json,
    files,
    generated,
    open_run,
    read,
    run_all,
    start_image,
    write_json,
    write_panorama,
    write_reconstruction,
    write_single_view,
)
from tests.memory.scenes import MeanColors, ready
from worldstereo import scene as scene_module
from worldstereo.config import SceneParameters
from worldstereo.errors import GenerationError, ParameterError
from worldstereo.formats.clips import load_render
from worldstereo.formats.manifest import verify_manifest
from worldstereo.formats.scene_folder import read_scene
from worldstereo.geometry.views import lifting_size
from worldstereo.memory.stored_plan import input_digest
from worldstereo.scene import SceneRun, render_from_depth
from worldstereo.types import UInt8


@pytest.fixture(scope="module")
def reconstruction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reconstruction(tmp_path_factory.mktemp("scenes") / "hall")


@pytest.fixture(scope="module")
def panorama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_panorama(tmp_path_factory.mktemp("scenes") / "tower")


@pytest.fixture(scope="module")
def single_view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_single_view(tmp_path_factory.mktemp("scenes") / "shelf")


def test_a_clip_is_prepared_from_the_folder(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    assert [trajectory.id for trajectory in run.plan.trajectories] == list(TRAJECTORIES)
    clip = run.prepare(TRAJECTORIES[0])
    image = Image.fromarray(start_image()).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(clip.start_image, np.asarray(image))
    np.testing.assert_array_equal(clip.render_video[0], clip.start_image)
    video, holes = load_render(run.scene.trajectory(TRAJECTORIES[0]), SIZE, FRAMES)
    np.testing.assert_array_equal(clip.render_video[1:], video[1:])
    np.testing.assert_array_equal(clip.hole_mask[1:], holes[1:])
    assert holes[0].any()
    assert not clip.hole_mask[0].any()
    assert clip.hole_mask.dtype == np.bool_
    assert (clip.cameras.height, clip.cameras.width) == SIZE == clip.size
    assert (clip.prompt, clip.seed, clip.draw) == ("a hall", 7, 0)
    assert clip.references is not None
    assert clip.references.ids == ("renders/pano_bank/image.png",)
    np.testing.assert_array_equal(clip.references.frames[0], clip.start_image)


def test_a_scene_runs_from_start_to_manifest(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    frames = run_all(run)
    assert run.committed == set(TRAJECTORIES)
    manifest = run.finish(dict.fromkeys(TRAJECTORIES, "completed"))
    assert manifest == tmp_path / "out" / "manifest.json"
    content = verify_manifest(tmp_path / "out")
    assert content["parameters"] == PARAMETERS.model_dump()
    assert content["input_sha256"] == run.plan.input_sha256
    assert [(entry["id"], entry["status"]) for entry in content["trajectories"]] == (
        [(trajectory_id, "completed") for trajectory_id in TRAJECTORIES]
    )
    for trajectory_id in TRAJECTORIES:
        folder = run.folder(trajectory_id)
        assert {path.name for path in folder.iterdir()} >= (
            {"video.mp4", "frames", "cameras.json", "references.json"}
        )
        for index, frame in enumerate(frames[trajectory_id]):
            stored = np.asarray(Image.open(folder / "frames" / f"{index:04d}.png"))
            np.testing.assert_array_equal(stored, frame)


def test_preparing_twice_gives_the_same_clip(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    once = run.prepare(TRAJECTORIES[0])
    once.render_video[:] = 0
    once.start_image[:] = 0
    again, other = (
        open_run(reconstruction, tmp_path / "out").prepare(TRAJECTORIES[0]),
        run.prepare(TRAJECTORIES[0]),
    )
    np.testing.assert_array_equal(generated(again), generated(other))


def test_the_second_commit_of_a_clip_changes_nothing(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    frames = generated(run.prepare(TRAJECTORIES[0]))
    assert run.commit(TRAJECTORIES[0], frames, {})
    before = files(tmp_path / "out")
    assert not run.commit(TRAJECTORIES[0], 255 - frames, {})
    assert files(tmp_path / "out") == before
    reference = run.prepare(TRAJECTORIES[0]).references
    assert reference is not None


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((FRAMES - 1, *SIZE, 3), np.uint8),
        np.zeros((FRAMES, *IMAGE_SIZE, 3), np.uint8),
        np.zeros((FRAMES, *SIZE, 4), np.uint8),
        np.zeros((FRAMES, *SIZE, 3), np.float32),
    ],
    ids=["count", "size", "channels", "type"],
)
def test_frames_that_do_not_fit_are_refused(
    reconstruction: Path, tmp_path: Path, frames: UInt8
) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    with pytest.raises(GenerationError, match=r"allowed: \[5, 32, 48, 3\] uint8"):
        run.commit(TRAJECTORIES[0], frames, {})
    assert not run.committed
    assert not run.folder(TRAJECTORIES[0]).exists()


def test_a_clip_waits_for_what_it_depends_on(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    dependent = next(plan for plan in run.plan.trajectories if plan.depends_on)
    with pytest.raises(AssertionError, match="not committed"):
        run.prepare(dependent.id)
    with pytest.raises(AssertionError, match="not committed"):
        run.commit(dependent.id, np.zeros((FRAMES, *SIZE, 3), np.uint8), {})
    with pytest.raises(KeyError):
        run.prepare("renders/nowhere")


def test_the_iterative_clip_starts_from_the_last_generated_frame(
    panorama: Path, tmp_path: Path
) -> None:
    run = open_run(panorama, tmp_path / "out")
    first, second = run.plan.trajectories
    assert (first.id, second.id) == ("reconstruct_0/traj0", "reconstruct_0/traj1")
    assert first.id in second.depends_on
    assert run.plan.start_frames == ("pano_bank/0000", "pano_bank/0001", "pano_bank/0002")
    frames = generated(run.prepare(first.id))
    run.commit(first.id, frames, {})
    for one in (run, open_run(panorama, tmp_path / "out")):
        clip = one.prepare(second.id)
        np.testing.assert_array_equal(clip.start_image, frames[-1])
        np.testing.assert_array_equal(clip.render_video[0], frames[-1])
        assert not clip.hole_mask[0].any()
        assert clip.draw == 1


def test_a_single_view_is_rendered_from_its_depth(
    single_view: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(single_view, tmp_path / "out")
    (trajectory,) = run.plan.trajectories
    assert trajectory.id == "renders/traj0"
    clip = run.prepare(trajectory.id)
    assert clip.render_video.shape == (FRAMES, *SIZE, 3)
    np.testing.assert_array_equal(clip.render_video[0], clip.start_image)
    assert not clip.hole_mask[0].any()
    # The camera moves right by half a unit a step at depth 3: holes open at the right border,
    # and what is seen moves left by focal / depth x step = 40 / 3 x 0.375 = 5 pixels.
    assert clip.hole_mask[-1, :, -18:].mean() > 0.9
    assert clip.hole_mask[-1, :, :26].mean() < 0.1
    moved = clip.render_video[1, 4:-4, 4:38].astype(int) - clip.start_image[4:-4, 9:43]
    assert np.abs(moved).mean() < 8
    monkeypatch.setattr(scene_module, "render_from_depth", lambda *_: pytest.fail("rendered twice"))
    np.testing.assert_array_equal(generated(run.prepare(trajectory.id)), generated(clip))


def test_a_floor_survives_a_small_working_size(single_view: Path, tmp_path: Path) -> None:
    """At working size the floor below would be nothing but depth edges."""
    folder = tmp_path / "floor"
    shutil.copytree(single_view, folder)
    height, width = 4 * IMAGE_SIZE[0], 4 * IMAGE_SIZE[1]
    rows = np.arange(height)[:, None] + 0.5 - height / 4
    floor = np.where(rows > 0, 1.2 * 320 / np.maximum(rows, 1), 6.0)
    np.save(folder / "depth.npy", np.broadcast_to(np.minimum(floor, 6), (height, width)))
    (trajectory,) = open_run(folder, tmp_path / "out").scene.trajectories
    assert trajectory.start_image is not None
    assert trajectory.depth is not None
    cameras = trajectory.cameras[[0, 0]].resized(*SIZE)
    video, holes = render_from_depth(trajectory.start_image, trajectory.depth, cameras, PARAMETERS)
    # The same camera again: all that it sees is there, in the image's colours.
    assert holes[1].mean() < 0.02
    assert np.abs(video[1][~holes[1]].astype(int) - video[0][~holes[1]]).mean() < 4


@pytest.mark.parametrize(
    ("depth", "working", "size"),
    [
        ((720, 1080), (480, 768), (720, 1080)),
        ((720, 1080), (128, 192), (720, 1080)),
        ((240, 320), (480, 768), (480, 768)),
        ((64, 96), (32, 48), (250, 375)),
        ((2000, 3000), (480, 768), (836, 1254)),
        ((2000, 3000), (1088, 1920), (1180, 1770)),
    ],
)
def test_points_are_the_pixels_of_the_depth_map(
    depth: tuple[int, int], working: tuple[int, int], size: tuple[int, int]
) -> None:
    assert lifting_size(depth, working) == size


def test_an_output_that_is_no_folder_is_refused(reconstruction: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for output in (tmp_path / "out", tmp_path / "out" / "scene"):
        with pytest.raises(ParameterError, match="the output folder cannot be made"):
            open_run(reconstruction, output)


def test_the_camera_variant_has_no_memory(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out", variant="worldstereo-camera")
    assert ready(run.plan, set()) == list(TRAJECTORIES)
    assert run.prepare(TRAJECTORIES[3]).references is None
    run_all(run)
    resumed = open_run(reconstruction, tmp_path / "out", variant="worldstereo-camera")
    assert resumed.committed == set(TRAJECTORIES)


def test_the_plan_is_written_once(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    stored = (tmp_path / "out" / "plan.json").read_text()
    # A plan that another machine made is believed, not made again.
    content = json.loads(stored)
    content["trajectories"][1]["level"] = 99
    (tmp_path / "out" / "plan.json").write_text(json.dumps(content))
    again = open_run(reconstruction, tmp_path / "out")
    assert again.plan.trajectories[1].level == 99
    assert again.plan.trajectories[0] == run.plan.trajectories[0]


@pytest.mark.parametrize(
    "changed", [{"seed": 8}, {"align_nframe": 3}, {"variant": "worldstereo-camera"}]
)
def test_other_parameters_in_the_same_folder_are_refused(
    reconstruction: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    open_run(reconstruction, tmp_path / "out")
    with pytest.raises(ParameterError, match=f"other parameters; got {next(iter(changed))}"):
        open_run(reconstruction, tmp_path / "out", **changed)


def test_another_scene_in_the_same_folder_is_refused(reconstruction: Path, tmp_path: Path) -> None:
    open_run(reconstruction, tmp_path / "out")
    other = tmp_path / "hall"
    shutil.copytree(reconstruction, other)
    assert open_run(other, tmp_path / "out").committed == frozenset()
    Image.fromarray(255 - start_image()).save(other / "image.png")
    with pytest.raises(ParameterError, match="another scene or model"):
        open_run(other, tmp_path / "out")


def test_the_digest_covers_inputs_and_model(reconstruction: Path, tmp_path: Path) -> None:
    digest = input_digest(read(reconstruction), CONFIG)
    assert input_digest(read(reconstruction), CONFIG) == digest
    changed = CONFIG.model_copy(update={"gen_shift": 3.0})
    assert input_digest(read(reconstruction), changed) != digest
    for file in ("prompt.json", "renders/traj_up/camera.json", "renders/traj_up/render.mp4"):
        other = tmp_path / file.replace("/", "_") / "hall"
        shutil.copytree(reconstruction, other)
        if file.endswith("mp4"):
            shutil.copy(other / "renders/traj_left/render.mp4", other / file)
        else:
            value = {"prompt": "else"} if file == "prompt.json" else camera_json(99)
            write_json(other / file, value)
        assert input_digest(read(other), CONFIG) != digest


def test_a_folder_with_foreign_results_is_refused(reconstruction: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / TRAJECTORIES[2]).mkdir(parents=True)
    with pytest.raises(ParameterError, match="results without a plan; got renders/traj_right"):
        open_run(reconstruction, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plan.json").write_text('{"schema_version": 2}')
    with pytest.raises(ParameterError, match="a plan that this version cannot read"):
        open_run(reconstruction, tmp_path / "other")


def test_needed_image_features_are_opened_before_anything_is_written(
    panorama: Path, tmp_path: Path
) -> None:
    scene, one = read(panorama), PARAMETERS.model_copy(update={"max_reference": 1})
    with pytest.raises(ParameterError, match="image features are needed"):
        SceneRun.open(scene, one, CONFIG, tmp_path / "out")
    assert files(tmp_path / "out") == {}
    features = MeanColors()
    run = SceneRun.open(scene, one, CONFIG, tmp_path / "out", image_features=features)
    assert features.loads == 1
    assert any(trajectory.reduced for trajectory in run.plan.trajectories)
    run_all(run)
    assert features.calls > 0


def test_unneeded_image_features_are_not_opened(reconstruction: Path, tmp_path: Path) -> None:
    features = MeanColors()
    parameters = PARAMETERS.model_copy(update={"max_reference": 8})
    SceneRun.open(
        read(reconstruction), parameters, CONFIG, tmp_path / "out", image_features=features
    )
    assert features.loads == 0


def test_the_published_reconstruction(examples_folder: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"nframe": 21, "scale_map": ((32, 48),)})
    folder = examples_folder / "reconstruction" / "kitchen"
    scene = read_scene(folder, scale_map=config.scale_map, nframe=21)
    run = SceneRun.open(scene, SceneParameters(), config, tmp_path / "out")
    assert [plan.id for plan in run.plan.trajectories] == list(TRAJECTORIES)
    assert [plan.depends_on for plan in run.plan.trajectories] == [
        (),
        ("renders/traj_eloop",),
        ("renders/traj_eloop", "renders/traj_up"),
        ("renders/traj_eloop", "renders/traj_right"),
    ]
    clip = run.prepare("renders/traj_eloop")
    assert clip.render_video.shape == (21, 32, 48, 3)
    assert 0.05 < clip.hole_mask[1:].mean() < 0.6


def test_the_published_panorama_plans_what_was_recorded(
    examples_folder: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"nframe": 21})
    (folder,) = (examples_folder / "panorama").iterdir()
    scene = read_scene(folder, scale_map=config.scale_map, nframe=21)
    run = SceneRun.open(scene, SceneParameters(), config, tmp_path / "out")
    recorded = GoldenScene(OWN_FOLDER / "retrieval").content["rows"]
    rows = {f"{row['view']}/{row['trajectory']}": row for row in recorded}
    # The example is a part of the recorded scene: what comes first in both is the same.
    for plan in run.plan.trajectories[:3]:
        assert list(plan.nearest) == rows[plan.id]["nearest"]
        assert list(plan.depends_on) == rows[plan.id]["depends_on"]
    last = run.plan.trajectories[-1]
    assert last.id == "reconstruct_0/traj1"
    assert "reconstruct_0/traj0" in last.depends_on
