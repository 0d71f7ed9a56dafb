"""Which numbers stay float32 in a bfloat16 model, and what a timestep becomes."""

import math

import pytest
import torch

from tests.models.tiny import CAMERA, MEMORY, tiny_inputs, tiny_model
from worldstereo.config import Variant
from worldstereo.models.timestep import timestep_sinusoid
from worldstereo.models.transformer import stays_float32

# A bfloat16 has 8 bits: one pass of three blocks differs from float32 by a few units of 2^-8.
BF16_RELATIVE_TOLERANCE = 0.05


@pytest.mark.parametrize("variant", [CAMERA, MEMORY])
@torch.no_grad()
def test_a_bfloat16_pass_is_close_and_keeps_norms_in_float32(variant: Variant) -> None:
    model = tiny_model(variant)
    inputs = tiny_inputs(variant)
    precise = model(**inputs)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(torch.bfloat16)
    for name, value in model.state_dict().items():
        if stays_float32(name):
            assert torch.equal(value, before[name]), name
        else:
            assert value.dtype == torch.bfloat16, name
    rounded = model(**inputs)
    assert rounded.dtype == model.dtype == model.compute_dtype == torch.bfloat16
    error = (rounded.float() - precise).norm() / precise.norm()
    assert error < BF16_RELATIVE_TOLERANCE


def test_what_stays_float32() -> None:
    names = [name for name in tiny_model(MEMORY).state_dict() if stays_float32(name)]
    kept = {name for name in names if not name.startswith("controlnet.")}
    assert {
        "scale_shift_table",
        "blocks.2.scale_shift_table",
        "blocks.0.norm2.weight",
        "condition_embedder.time_embedder.linear_1.weight",
        "condition_embedder.image_embedder.norm1.bias",
    } <= kept
    assert not any("attn" in name or "ffn" in name or "time_proj" in name for name in kept)
    # Of the ControlNet the affine parts of its norms, and none of its matrices.
    control = {name for name in names if name.startswith("controlnet.")}
    block = "controlnet.controlnet_blocks.{}.norm{}.norm.{}"
    assert control == {
        *(block.format(i, n, part) for i in (0, 1) for n in (1, 2) for part in ("weight", "bias")),
        "controlnet.controlnet_mask_embedding.mask_proj.1.weight",
        "controlnet.controlnet_mask_embedding.mask_proj.1.bias",
    }


def test_float64_is_not_held_back() -> None:
    model = tiny_model(CAMERA).double()
    assert {value.dtype for value in model.state_dict().values()} == {torch.float64}


@torch.no_grad()
def test_the_timestep_is_not_rounded_before_the_sinusoid() -> None:
    model = tiny_model(CAMERA).to(torch.bfloat16)
    inputs = tiny_inputs(CAMERA)
    # 937.5 and 940 are the same number in bfloat16.
    near, far = (model(**inputs | {"timestep": torch.tensor([value])}) for value in (937.5, 940.0))
    assert not torch.equal(near, far)


@pytest.mark.parametrize("timestep", [0.0, 37.5, 833.3333, 1000.0])
def test_the_sinusoid_against_exact_arithmetic(timestep: float) -> None:
    channels = 64
    (row,) = timestep_sinusoid(torch.tensor([timestep]), channels)
    assert row.dtype == torch.float32
    for i in range(channels // 2):
        angle = timestep * math.exp(-math.log(10_000) * i / (channels // 2))
        # Frequencies and angles are float32: 1000 rad is known to about 1e-4.
        assert row[i].item() == pytest.approx(math.cos(angle), abs=2e-4)
        assert row[channels // 2 + i].item() == pytest.approx(math.sin(angle), abs=2e-4)
