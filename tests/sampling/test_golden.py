"""The recorded pipelines of the published program."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.golden import check_pipelines
from tests.golden.report import Case, Options

FOLDER = Path(__file__).parent.parent / "golden" / "pipelines"


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    found = check_pipelines.check(FOLDER, Options())
    return {case.name.removeprefix("pipelines/"): case for case in found}


@pytest.mark.parametrize("name", sorted(check_pipelines.read(FOLDER).expected))
def test_recorded(name: str, cases: dict[str, Case]) -> None:
    assert cases[name].passed, cases[name]


def test_the_timesteps_are_the_recorded_ones(cases: dict[str, Case]) -> None:
    assert cases["dmd.timesteps"].passed, cases["dmd.timesteps"]


def test_nothing_else_is_reported(cases: dict[str, Case]) -> None:
    assert set(cases) == {*check_pipelines.read(FOLDER).expected, "dmd.timesteps"}


def test_a_folder_may_hold_a_part_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    shutil.copy(FOLDER / "pipelines.json", folder)
    tensors = load_file(FOLDER / "pipelines.safetensors")
    part = ("memory-dmd.frames", "vae.keyframe_frames")
    save_file({name: tensors[name] for name in part}, folder / "pipelines.safetensors")
    found = list(check_pipelines.check(folder, Options()))
    assert {case.name for case in found} == {
        f"pipelines/{name}" for name in (*part, "dmd.timesteps")
    }
    assert all(case.passed for case in found)
