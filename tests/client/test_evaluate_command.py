"""``worldstereo evaluate`` as it is typed, without a cluster."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result
from worldstereo_client import errors
from worldstereo_client.cli import ErrorReporting
from worldstereo_client.exit_codes import ExitCode

from deployments import evaluate_command, synthetic_evaluation
from deployments.synthetic_evaluation import SyntheticScenes
from tests.client.stub_scenes import failed_script, problem
from tests.client.stub_server import Stub
from tests.evaluation import box_room
from tests.evaluation.test_poses import write_tum
from worldstereo.evaluation import synthetic
from worldstereo.evaluation.report import Report, SceneReport, make_report
from worldstereo.formats.images import read_image
from worldstereo.formats.results import write_trajectory
from worldstereo.formats.scene_folder import read_scene
from worldstereo.synthetic import make_world
from worldstereo.synthetic.photographs import photograph_cameras

pytest.importorskip("evo")
CLIP = "view0/traj0"


def call(*words: str | Path) -> Result:
    app = typer.Typer(cls=ErrorReporting)
    app.command("evaluate")(evaluate_command.evaluate)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "kitchen"
    cameras = box_room.cameras(box_room.path(4))
    images, _ = box_room.render(cameras, samples=1)
    write_trajectory(folder / CLIP, images, cameras, None)
    return folder


def test_results_against_a_file_of_poses(results: Path, tmp_path: Path) -> None:
    poses = write_tum(tmp_path / "poses.txt", box_room.path(4), [0, 1, 2, 3])
    out = tmp_path / "out" / "report.json"
    words = ("--poses", poses, "--poses-scaled", "--median-depth", 2.5, "--json", out)
    result = call(results, *map(str, words))
    assert result.exit_code == 0, result.output
    assert "0 of 4" in result.stdout
    report = json.loads(out.read_text())
    assert report["kind"] == "results"
    errors_of = report["scenes"][0]["clips"][0]["cameras"]["result"]
    assert errors_of["rotation_deg"]["sum"] == pytest.approx(0, abs=1e-3)
    assert errors_of["translation_metric"]["sum"] == pytest.approx(0, abs=1e-3)
    assert errors_of["ate_sim3_median_depths"] == pytest.approx(0, abs=1e-3)
    assert report["settings"]["poses"] == "poses.txt"
    again = call(results, *map(str, words))
    assert again.stdout == result.stdout
    assert json.loads(out.read_text()) == report


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a result folder, or a number of synthetic scenes"),
        (("{results}", "--synthetic", "1"), "got both"),
        (("--synthetic", "1", "--estimator", "pycolmap"), "bring their own truth"),
        (("{results}", "--estimator", "vggt"), "poses come from a file or from an estimator"),
        (("{results}", "--estimator", "pycolmap", "--poses", "{results}"), "alone"),
        (("{results}", "--trajectory", "view7/traj0"), "no such clip"),
        (("{results}/view0", "--estimator", "pycolmap"), "holds no clips"),
        (("--synthetic", "1", "--variant", "worldstereo-huge"), "unknown model variant"),
        (("--synthetic", "1", "--size", "7x9"), "does not work at this size"),
        (("{results}", "--photographs", "2"), "about synthetic scenes, and none are"),
        (("{results}", "--shuffle-photographs"), "about synthetic scenes, and none are"),
        (("{results}", "--keep", "kept"), "about synthetic scenes, and none are made"),
        (("--synthetic", "1", "--keep", "{results}"), "a folder of their own"),
        (("--synthetic", "1", "--shuffle-photographs"), "no photographs to shuffle"),
        (("--synthetic", "1", "--photographs", "10"), "allowed: 1 to 9"),
    ],
)
def test_what_does_not_go_together_is_refused(
    results: Path, words: tuple[str, ...], message: str
) -> None:
    result = call(*(word.format(results=results) for word in words))
    assert result.exit_code == ExitCode.BAD_INPUT, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_synthetic_scenes_of_the_seeds_and_variants_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What reaches the engine; what it does with it is tests/evaluation/test_synthetic.py's."""
    calls: list[Any] = []

    def evaluate(
        worlds: Sequence[Any], generate: Any, write: Any, settings: Any, work: Path, **more: Any
    ) -> Report:
        calls.append((settings, work))
        assert pickle.loads(pickle.dumps((worlds, write)))  # several processes make the scenes
        more["on_scene"]("synthetic-10003")
        names = [str(world.seed) for world in worlds]
        scenes = [SceneReport(name=name, clips=()) for name in names]
        return make_report("synthetic", more["told"], settings.variants, scenes)

    monkeypatch.setattr(synthetic, "evaluate_synthetic", evaluate)
    out = tmp_path / "report.json"
    result = call(
        *("--synthetic", "2", "--seed-start", "10003", "--size", "160x160", "--json", str(out)),
        *("--variant", "worldstereo-camera", "--variant", "worldstereo-memory-dmd"),
        *("--guidance", "1.5"),
    )
    assert result.exit_code == 0, result.output
    ((settings, work),) = calls
    assert settings.variants == ("worldstereo-camera", "worldstereo-memory-dmd")
    assert settings.nframe == 21
    assert (160, 160) in settings.scale_map
    assert not work.exists()
    report = json.loads(out.read_text())
    assert [scene["name"] for scene in report["scenes"]] == ["10003", "10004"]
    assert report["settings"]["size"] == [160, 160]
    assert report["settings"]["photographs"] == 0
    assert report["settings"]["guidance"] == 1.5
    assert report["settings"]["shuffle_photographs"] is False
    assert report["settings"]["model"] == "worldstereo-tiny"
    assert result.stdout.startswith("2 scenes, 0 trajectories; 0 failures")


def test_scenes_and_results_stay_where_they_are_to_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "new" / "kept"

    def evaluate(*given: Any, **more: Any) -> Report:
        *_, work = given
        assert work == kept
        (work / "scenes").mkdir()
        return make_report("synthetic", more["told"], (), [])

    monkeypatch.setattr(synthetic, "evaluate_synthetic", evaluate)
    result = call("--synthetic", "1", "--keep", kept)
    assert result.exit_code == 0, result.output
    # Nothing of the cluster's is left there.
    assert [file.name for file in kept.iterdir()] == ["scenes"]


def test_scenes_are_made_with_the_photographs_that_are_asked_for(tmp_path: Path) -> None:
    world, size = make_world(10_003), (64, 96)
    kinds = {
        "plain": SyntheticScenes(),
        "right": SyntheticScenes(photographs=2),
        "shuffled": SyntheticScenes(photographs=2, shuffle_photographs=True),
    }
    banks = {}
    for name, scenes in kinds.items():
        scenes.check()
        folder = scenes.write(world, tmp_path / name, size)
        assert folder.name == "synthetic-10003"
        frames = read_scene(folder, scale_map=[size], nframe=21).start_frames
        banks[name] = [read_image(frame.image) for frame in frames]
    assert [len(bank) for bank in banks.values()] == [1, 3, 3]
    other = make_world(10_004)
    theirs = other.render(photograph_cameras(other, 2, size)).images
    assert np.array_equal(banks["shuffled"], [banks["right"][0], *theirs])


def test_scenes_are_submitted_together_and_their_failures_told(
    stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    from worldstereo_client import Client

    stub.script = lambda: failed_script(problem(500, "GenerationError", "out of memory"))
    parameters = {"variant": "worldstereo-memory", "outputs": ("points",)}
    console = Console(stderr=True, quiet=True)
    with Client(stub.url) as client:
        reasons = synthetic_evaluation.submitted(
            client, [scene_folder], parameters, tmp_path / "out", console
        )
    assert reasons == {scene_folder.name: "out of memory"}
    assert stub.scenes["scene-0"].parameters.outputs == ("points",)


def test_guidance_is_of_the_variants_that_have_it() -> None:
    sampling = synthetic_evaluation.Sampling(8, steps=4, guidance=1.5)
    sent = {v: sampling.parameters(f"worldstereo-{v}") for v in ("camera", "memory-dmd")}
    assert [p["guidance_scale"] for p in sent.values()] == [1.5, None]
    assert {p["num_inference_steps"] for p in sent.values()} == {4}
    assert sent["camera"]["variant"] == "worldstereo-camera"


def test_sizes_are_the_models() -> None:
    sizes = ((128, 192), (160, 160))
    assert synthetic_evaluation.working_size(None, sizes) == (128, 192)
    assert synthetic_evaluation.working_size("160x160", sizes) == (160, 160)
    with pytest.raises(errors.ParameterError, match="128x192, 160x160"):
        synthetic_evaluation.working_size("192x128", sizes)
