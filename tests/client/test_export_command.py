"""``worldstereo export``: what it writes, prints and refuses; the formats have their own tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from typer.testing import CliRunner, Result
from worldstereo_client import cli
from worldstereo_client.exit_codes import ExitCode

from deployments.export_command import export
from tests.formats.clouds import cloud
from tests.memory.folders import (
    FRAMES,
    TRAJECTORIES,
    open_run,
    run_all,
    write_panorama,
    write_reconstruction,
)
from worldstereo.builder.report import BuildReport
from worldstereo.formats.glb import read_glb
from worldstereo.formats.manifest import verify_manifest, write_manifest
from worldstereo.formats.ply import write_ply

DEFAULT = {"colmap", "transforms.json", "cameras_inria.json", "blender"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scene folders and their finished results: hall, tower and out/<scene>."""
    folder = tmp_path_factory.mktemp("scenes")
    write_reconstruction(folder / "hall")
    write_panorama(folder / "tower")
    for name in ("hall", "tower"):
        run = open_run(folder / name, folder / "out" / name)
        run_all(run)
        run.finish(dict.fromkeys(run.committed, "completed"))
    return folder


@pytest.fixture
def results(scenes: Path, tmp_path: Path) -> Path:
    """Results of the hall that a test may change."""
    return shutil.copytree(scenes / "out" / "hall", tmp_path / "hall")


def call(*arguments: str | Path) -> Result:
    app = cli.build_app()
    app.command("export")(export)
    return CliRunner().invoke(app, ["export", *(str(argument) for argument in arguments)])


def added(folder: Path) -> set[str]:
    """Names at the top of a result folder that an export put there."""
    return {path.name for path in folder.iterdir()} - {"plan.json", "manifest.json", "renders"}


def test_what_needs_the_results_alone(results: Path) -> None:
    result = call(results)
    assert result.exit_code == 0, result.output
    assert added(results) == DEFAULT
    verify_manifest(results)
    model = pycolmap.Reconstruction(str(results / "colmap"))
    assert model.num_images() == len(TRAJECTORIES) * FRAMES
    lines = result.stdout.splitlines()
    assert "transforms.json" in lines
    assert "colmap/cameras.bin" in lines
    assert lines[-1].endswith(f" files in {results}")


def test_the_formats_that_were_asked_for(results: Path) -> None:
    result = call(results, "--format", "transforms", "-f", "inria", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "folder": str(results),
        "files": ["transforms.json", "cameras_inria.json"],
    }
    assert added(results) == {"transforms.json", "cameras_inria.json"}


def test_points_that_are_there(results: Path) -> None:
    write_ply(results / "points.ply", cloud())
    manifest = json.loads((results / "manifest.json").read_text())
    write_manifest(
        results, {k: v for k, v in manifest.items() if k not in ("files", "schema_version")}
    )
    result = call(results, "--metric")
    assert result.exit_code == 0, result.output
    assert added(results) == DEFAULT | {"points.ply", "points.glb", "sparse_pc.ply"}
    assert np.array_equal(read_glb(results / "points.glb").points, cloud().points)
    assert pycolmap.Reconstruction(str(results / "colmap")).num_points3D() == len(cloud())
    assert json.loads((results / "blender/cameras.json").read_text())["unit"] == "metre"
    verify_manifest(results)


def test_the_unit_that_a_scene_was_built_in_stays(results: Path) -> None:
    report = BuildReport(
        kind="perspective",
        image_size=(8, 8),
        size=(8, 8),
        intrinsics=[[8, 0, 4], [0, 8, 4], [0, 0, 1]],
        intrinsics_from="depth",
        field_of_view=53,
        metric=True,
        pivot_distance=2,
        valid_depth=1,
        points=64,
        start=[],
        trajectories=[],
    )
    assert call(results, "-f", "blender").exit_code == 0
    assert json.loads((results / "blender/cameras.json").read_text())["unit"] == "scene"
    report.write(results)
    assert call(results, "-f", "blender").exit_code == 0
    assert json.loads((results / "blender/cameras.json").read_text())["unit"] == "metre"


def test_start_frames_of_the_scene(scenes: Path, results: Path) -> None:
    result = call(results, "--scene", scenes / "hall", "--format", "worldmirror")
    assert result.exit_code == 0, result.output
    folder = results / "world_mirror_data" / "worldstereo-memory-dmd"
    names = {path.stem for path in (folder / "images").iterdir()}
    assert len(names) == 1 + 2 * len(TRAJECTORIES)  # align_nframe is 2
    assert "pano-image" in names
    assert json.loads((folder / "name_map.json").read_text())["hall/pano_bank/image"] == "0000"
    # They stay in the results: the next export needs no scene.
    assert call(results, "--format", "transforms").exit_code == 0
    frames = json.loads((results / "transforms.json").read_text())["frames"]
    assert frames[0]["file_path"] == "start_frames/image.png"
    verify_manifest(results)


def test_a_panorama_is_z_up(scenes: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scenes / "out" / "tower", tmp_path / "tower")
    result = call(folder, "--scene", scenes / "tower", "-f", "blender", "-f", "inria")
    assert result.exit_code == 0, result.output
    turn = json.loads((folder / "blender" / "cameras.json").read_text())["blender_from_world"]
    assert turn[2] == [0, 0, 1]
    entries = json.loads((folder / "cameras_inria.json").read_text())
    assert [entry["img_name"] for entry in entries[:3]] == [
        f"start_frames/{index:04d}.png" for index in range(3)
    ]


def test_twice_is_the_same(results: Path) -> None:
    assert call(results).exit_code == 0
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert call(results).exit_code == 0
    assert before == {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "obj"], "--format: unknown format; got 'obj'; allowed: points, glb, colmap"),
        (["--format", "glb"], "--format glb: the results hold no points; got no points.ply"),
        (["--format", "points"], "submit the scene with points among its outputs"),
        (["--format", "depth"], "output depth: there is no depth to write"),
    ],
)
def test_refused(results: Path, arguments: list[str], message: str) -> None:
    result = call(results, "--format", "inria", *arguments)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert added(results) == set()


def test_other_folders_are_refused(scenes: Path, results: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", scenes / "hall"):
        result = call(folder)
        assert result.exit_code == ExitCode.BAD_INPUT
        assert "the result has no manifest" in result.stderr
    result = call(results, "--scene", scenes / "tower")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "the results are of another scene" in result.stderr
    assert added(results) == set()
