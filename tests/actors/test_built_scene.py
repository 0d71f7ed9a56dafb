"""A memory bank that builds its scene from one image: to the outputs and through a restart."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.memory_bank import BankSpec, BuildSource, MemoryBankActor, SceneStage
from worldstereo.builder.parameters import BuildParameters
from worldstereo.builder.report import REPORT_FILE, BuildReport
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import GenerationCancelled, MediaError
from worldstereo.formats.manifest import MANIFEST, read_manifest, sha256_of, verify_manifest
from worldstereo.formats.ply import read_ply
from worldstereo.formats.scene_folder import read_scene
from worldstereo.models.source import bundled_folder, read_model_config
from worldstereo.reconstruction.stage import OnStage, Reconstruction, is_metric, start_cloud
from worldstereo.synthetic import make_world
from worldstereo.types import Cameras, UInt8

WORLD = make_world(1, "room")
CAMERA = WORLD.start_camera(128, 192)
PATHS = ("right", "left")
OUTPUTS = ("points", "glb", "colmap", "transforms", "depth")


class ExactDepth:
    """An estimator that knows the world; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        self.asked += len(images)
        depth = WORLD.render(CAMERA, samples=1).depths[0]
        return [DepthMap(depth, metric=True, intrinsics=CAMERA.intrinsics[0]) for _ in images]


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return read_model_config(bundled_folder("worldstereo-tiny") / "worldstereo-memory-dmd")


@pytest.fixture
def spec(tmp_path: Path, config: ModelConfig) -> BankSpec:
    return photo_spec(tmp_path, config)


def photo_spec(tmp_path: Path, config: ModelConfig) -> BankSpec:
    views = WORLD.render(CAMERA, samples=1)
    image, depth = tmp_path / "photo.png", tmp_path / "depth.npy"
    Image.fromarray(views.images[0]).save(image)
    np.save(depth, views.depths[0])
    focal = float(CAMERA.intrinsics[0, 0, 0])
    parameters = BuildParameters.model_validate(
        {
            "prompt": WORLD.caption,
            "field_of_view": float(np.degrees(2 * np.arctan(CAMERA.width / 2 / focal))),
            "trajectories": [
                {"preset": "orbit", "azimuth": 12, "name": PATHS[0]},
                {"preset": "truck", "amount": -0.1, "name": PATHS[1]},
            ],
        }
    )
    (tmp_path / "input").mkdir()
    return BankSpec(
        service="tests",
        scene_id="built",
        input=tmp_path / "input" / "photo",
        depth=depth,
        task_type="auto",
        output=tmp_path / "output",
        parameters=SceneParameters(),
        config=config,
        image_features="worldstereo-tiny",
        local_files_only=True,
        build=BuildSource(image, parameters),
    )


def exact_views(cameras: Cameras) -> UInt8:
    """What a perfect model would generate."""
    return WORLD.render(cameras, samples=1).images


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, config: ModelConfig) -> BankSpec:
    """A scene that went from its image to its manifest."""
    spec = photo_spec(tmp_path_factory.mktemp("finished"), config)
    bank = MemoryBankActor(spec)
    opened = bank.open("epoch")
    assert [clip.id for clip in opened.clips] == [f"renders/{name}" for name in PATHS]
    for name in PATHS:
        clip, _ = bank.prepare(f"renders/{name}")
        assert clip is not None
        assert bank.commit(clip.trajectory_id, exact_views(clip.cameras), {})
    bank.reconstruct(OUTPUTS)
    assert bank.stage() == SceneStage("export")
    bank.finish({clip.id: "completed" for clip in opened.clips})
    return spec


def test_an_image_becomes_a_scene_with_outputs(finished: BankSpec) -> None:
    spec = finished
    report = BuildReport.model_validate_json((spec.output / REPORT_FILE).read_bytes())
    assert report.intrinsics_from == "field_of_view"
    assert report.start[0].psnr_db > 20
    for name in ("contact_sheet.png", "preview.mp4"):
        assert (spec.output / name).stat().st_size > 1000
    verify_manifest(spec.output)
    cloud = read_ply(spec.output / "points.ply")
    assert len(cloud) > 5000
    # Points lie on the world's surfaces: within 3 % of how far they are, nearly all of them.
    off = np.abs(WORLD.clearance(cloud.points.astype(np.float64))) / np.linalg.norm(
        cloud.points, axis=-1
    )
    assert np.quantile(off, 0.9) < 0.03
    _, files = read_manifest(spec.output)
    names = {file.name for file in files}
    assert {"points.ply", "points.glb", "transforms.json", "colmap/images.bin"} <= names


def test_a_bank_that_starts_again_finds_the_scene_it_built(spec: BankSpec) -> None:
    first = MemoryBankActor(spec)
    first.open("epoch")
    before, _ = first.prepare("renders/right")
    built = {path: sha256_of(path) for path in spec.input.rglob("*") if path.is_file()}
    (spec.output / REPORT_FILE).unlink()  # as if it had died before it was copied
    again = MemoryBankActor(spec)
    again.open("epoch")
    assert (spec.output / REPORT_FILE).read_bytes() == (spec.input / REPORT_FILE).read_bytes()
    after, _ = again.prepare("renders/right")
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.render_video, after.render_video)
    assert {path: sha256_of(path) for path in spec.input.rglob("*") if path.is_file()} == built


def test_files_of_a_built_scenes_names_may_be_anybodys(finished: BankSpec, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(finished.input, folder)
    scene = read_scene(folder, scale_map=finished.config.scale_map, nframe=21, align_nframe=1)
    assert start_cloud(scene) is not None
    (folder / REPORT_FILE).write_text('{"of": "another program"}')
    (folder / "points.ply").write_bytes(b"no points at all")
    assert start_cloud(scene) is None
    assert not is_metric(scene)


def test_outputs_made_again_have_the_same_bytes(finished: BankSpec) -> None:
    files = [path for path in finished.output.rglob("*") if path.is_file()]
    first = {path: sha256_of(path) for path in files}
    MemoryBankActor(finished).reconstruct(OUTPUTS)  # as after a restart
    assert {path: sha256_of(path) for path in files} == first


def test_a_scene_that_is_opened_again_is_not_finished(finished: BankSpec) -> None:
    manifest = finished.output / MANIFEST
    before = manifest.read_bytes()
    bank = MemoryBankActor(finished)
    opened = bank.open("another epoch")
    assert opened.committed == {clip.id for clip in opened.clips}
    assert not manifest.exists()
    bank.finish({clip.id: "completed" for clip in opened.clips})
    assert manifest.read_bytes() == before


def test_an_estimator_gives_the_depth_that_did_not_come(spec: BankSpec) -> None:
    estimator = ExactDepth()
    assert spec.build is not None
    unsaid = spec.build.parameters.model_copy(update={"field_of_view": None})
    build = BuildSource(spec.build.image, unsaid)
    bank = MemoryBankActor(replace(spec, depth=None, estimator=estimator, build=build))
    bank.open("epoch")
    assert estimator.asked == 1
    report = BuildReport.model_validate_json((spec.output / REPORT_FILE).read_bytes())
    assert (report.intrinsics_from, report.metric) == ("depth", True)


def test_a_scene_that_cannot_be_built_leaves_nothing(spec: BankSpec) -> None:
    assert spec.depth is not None
    np.save(spec.depth, np.zeros((128, 192), dtype=np.float32))
    with pytest.raises(MediaError, match="depth"):
        MemoryBankActor(spec).open("epoch")
    assert list(spec.input.parent.iterdir()) == []


def test_outputs_stop_when_they_are_told_to(
    spec: BankSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = MemoryBankActor(spec)
    bank.open("epoch")
    written = []

    def write(self: Reconstruction, outputs: Collection[str], on_stage: OnStage) -> None:
        on_stage("points", 0, 1)
        if len(outputs) == 1:
            bank.stop()
        on_stage("export", 0, 0)
        written.append(tuple(outputs))

    monkeypatch.setattr(Reconstruction, "write", write)
    with pytest.raises(GenerationCancelled):
        bank.reconstruct(("points",))
    # A word that came too late for one does not stop the next.
    bank.reconstruct(("points", "glb"))
    assert written == [("points", "glb")]
