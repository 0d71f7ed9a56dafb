"""The transformers against recorded numbers, as ``python -m tests.golden`` checks them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.golden import check_transformer
from tests.golden.report import Options

FOLDER = Path(__file__).parent.parent / "golden" / "transformer"


def test_every_recorded_forward_pass_is_reproduced() -> None:
    cases = list(check_transformer.check_forward(FOLDER, Options()))
    recorded = json.loads((FOLDER / "transformer.json").read_text())["cases"]
    listed = sum("state_dict" in case for case in recorded.values())
    assert len(cases) == len(recorded) + listed
    assert [str(case) for case in cases if not case.passed] == []


def test_both_models_have_the_released_keys_at_full_size() -> None:
    cases = list(check_transformer.check_full_size_keys(FOLDER, Options()))
    assert len(cases) == 2
    assert [str(case) for case in cases if not case.passed] == []


@pytest.mark.parametrize(("downsample", "interp"), [(4, False), (4, True), (1, True)])
def test_the_check_takes_cases_that_are_not_shown(
    tmp_path: Path, downsample: int, interp: bool
) -> None:
    shown = json.loads((FOLDER / "transformer.json").read_text())
    case = dict(shown["cases"]["memory_batch2"], timestep=[10.0, 812.5], salt=3)
    case["controlnet_cfg"] |= {
        "mask_downsample": downsample,
        "interp": interp,
        "ref_embedding": True,
    }
    shown["cases"] = {"another": case}
    (tmp_path / "transformer.json").write_text(json.dumps(shown))
    model = check_transformer.build_case(case, shown["tiny"], 3)
    assert model.state_dict()["ref_index_embedding.weight"].shape == (21, 96)
    with torch.no_grad():
        output = model(**check_transformer.inputs_of(case, shown["tiny"], 3))
    save_file({"another": output + 1e-3}, tmp_path / "transformer.safetensors")
    (result,) = check_transformer.check_forward(tmp_path, Options())
    assert not result.passed
    assert result.difference == pytest.approx(1e-3, rel=1e-2)


def test_a_wrong_key_and_a_missing_output_are_failures(tmp_path: Path) -> None:
    shown = json.loads((FOLDER / "transformer.json").read_text())
    case = shown["cases"]["camera"]
    case["state_dict"]["proj_out.bias"] = [65]
    shown["cases"] = {"camera": case}
    (tmp_path / "transformer.json").write_text(json.dumps(shown))
    save_file({"other": torch.zeros(1)}, tmp_path / "transformer.safetensors")
    keys, forward = check_transformer.check_forward(tmp_path, Options())
    assert keys.difference == 1
    assert "proj_out.bias" in keys.note
    assert not forward.passed
