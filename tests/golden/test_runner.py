"""The runner on folders that hold a part, other things, or numbers that are not ours."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden import __main__ as runner
from tests.golden.report import Case, Options

OWN = Path(runner.__file__).parent
Tensors = dict[str, torch.Tensor]


def recorded(group: str, *names: str) -> Tensors:
    """Tensors of our own copy; all whose names start with one of these."""
    tensors = load_file(OWN / group / f"{group}.safetensors")
    return {key: value for key, value in tensors.items() if key.startswith(names)}


def write(folder: Path, group: str, tensors: Tensors, content: object = None) -> None:
    (folder / group).mkdir(exist_ok=True)
    save_file(tensors, folder / group / f"{group}.safetensors")
    if content is not None:
        (folder / group / f"{group}.json").write_text(json.dumps(content))


def scene(name: str) -> dict[str, object]:
    return {name: json.loads((OWN / "rendering" / "rendering.json").read_text())[name]}


def run(folder: Path) -> dict[str, Case]:
    return {case.name: case for case in runner.run(folder, Options())}


def exit_code(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> int:
    monkeypatch.setattr("sys.argv", ["python -m tests.golden", *map(str, folders)])
    return runner.main()


def test_some_keys_of_one_file_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "cameras", recorded("cameras", "city.world_to_camera", "city.unified"))
    cases = run(tmp_path)
    assert set(cases) == {"cameras city.unified", "cameras city.unified_references_0_3_7"}
    assert all(case.passed for case in cases.values())
    assert exit_code(monkeypatch, tmp_path) == 0


def test_a_folder_of_something_else_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_code(monkeypatch, tmp_path) == 2


def test_altered_numbers_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = recorded("cameras", "city.world_to_camera", "city.centered")
    tensors["city.centered"][20, 2, 3] += 3e-4
    write(tmp_path, "cameras", tensors)
    cases = run(tmp_path)
    assert [name for name, case in cases.items() if not case.passed] == ["cameras city.centered"]
    assert exit_code(monkeypatch, tmp_path / "nothing", tmp_path) == 1


def without_inputs(tensors: Tensors) -> None:
    del tensors["city.world_to_camera"]


def of_another_shape(tensors: Tensors) -> None:
    tensors["city.unified"] = tensors["city.unified"][:20].contiguous()


def not_finite(tensors: Tensors) -> None:
    tensors["city.unified"][3, 0, 0] = torch.nan


@pytest.mark.parametrize("spoil", [without_inputs, of_another_shape, not_finite])
def test_what_cannot_be_compared_fails_and_the_rest_is_checked(
    tmp_path: Path, spoil: Callable[[Tensors], None]
) -> None:
    tensors = recorded("cameras", "city.world_to_camera", "city.unified", "kitchen_eloop.")
    spoil(tensors)
    write(tmp_path, "cameras", tensors)
    cases = run(tmp_path)
    assert not cases["cameras city.unified"].passed
    assert all(case.passed for name, case in cases.items() if "kitchen_eloop" in name)
    assert len(cases) == 8


def test_a_quantity_that_no_check_knows_fails(tmp_path: Path) -> None:
    tensors = recorded("cameras", "city.world_to_camera")
    write(tmp_path, "cameras", tensors | {"city.sheared": torch.zeros(21, 4, 4)})
    (case,) = run(tmp_path).values()
    assert not case.passed
    assert "no check of sheared" in case.note


def test_inputs_alone_fail(tmp_path: Path) -> None:
    write(tmp_path, "cameras", recorded("cameras", "city.world_to_camera"))
    (tmp_path / "cameras" / "tables.json").write_text('{"keyframes": {}, "resolutions": {}}')
    cases = run(tmp_path)
    assert set(cases) == {"cameras/cameras.safetensors", "tables keyframes", "tables resolutions"}
    assert not any(case.passed for case in cases.values())


def test_some_outputs_of_a_scene_are_enough(tmp_path: Path) -> None:
    tensors = recorded("rendering", "all_valid.")
    for name in ("colors", "rgb", "hole_mask"):
        del tensors[f"all_valid.{name}"]
    write(tmp_path, "rendering", tensors, scene("all_valid"))
    cases = run(tmp_path)
    assert set(cases) == {"rendering all_valid.points", "rendering all_valid.zbuf_nearest"}
    assert all(case.passed for case in cases.values())


def test_depths_that_are_all_holes_fail(tmp_path: Path) -> None:
    tensors = recorded("rendering", "all_valid.")
    tensors["all_valid.zbuf_nearest"].fill_(-1)
    write(tmp_path, "rendering", tensors, scene("all_valid"))
    failures = [name for name, case in run(tmp_path).items() if not case.passed]
    assert failures == ["rendering all_valid.zbuf_nearest"]


def test_a_scene_without_tensors_fails_and_tensors_without_a_scene_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "rendering", recorded("rendering", "small."), scene("all_valid"))
    (case,) = run(tmp_path).values()
    assert case.name == "rendering all_valid"
    assert not case.passed
    assert "small.hole_mask" in capsys.readouterr().err


def test_files_that_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "rendering", recorded("rendering", "small."))
    assert run(tmp_path) == {}
    assert "rendering/rendering.json is missing" in capsys.readouterr().err
    (tmp_path / "rendering" / "rendering.safetensors").unlink()
    (tmp_path / "rendering" / "rendering.json").write_text(json.dumps(scene("small")))
    (case,) = run(tmp_path).values()
    assert case.name == "rendering/rendering.json"
    assert "FileNotFoundError" in case.note
    assert not case.passed
