"""What passes may share: the result is the same to the bit, in float32 and in bfloat16."""

from typing import Any

import pytest
import torch

from tests.models.tiny import (
    CAMERA,
    FRAMES,
    HEIGHT,
    MEMORY,
    REF_INDEX,
    WIDTH,
    tiny_inputs,
    tiny_model,
)
from worldstereo.config import Variant
from worldstereo.errors import ParameterError

CONTROL = ("hidden_states", "timestep", "render_latent", "render_mask", "camera_embedding")
VARIANTS = pytest.mark.parametrize(
    ("variant", "controlnet"),
    [(CAMERA, {}), (MEMORY, {}), (MEMORY, {"update_ref": False, "main_camera_embedding": False})],
    ids=["camera", "memory", "memory-frozen"],
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])


@VARIANTS
@DTYPES
@torch.no_grad()
def test_every_seam_is_equal_to_the_plain_path(
    variant: Variant, controlnet: dict[str, Any], dtype: torch.dtype
) -> None:
    model = tiny_model(variant, **controlnet).to(dtype)
    inputs = tiny_inputs(variant)
    plain = model(**inputs)
    assert plain.dtype == dtype
    assert plain.isfinite().all()
    index = inputs.get("ref_index")
    seams = {
        "controlnet_residuals": model.controlnet_residuals(*(inputs[name] for name in CONTROL)),
        "text_keys": model.text_keys(inputs["encoder_hidden_states"]),
        "image_keys": model.image_keys(inputs["encoder_hidden_states_image"]),
        "rotary_tables": model.rotary_tables(FRAMES, HEIGHT, WIDTH, index),
    }
    for name, shared in seams.items():
        assert torch.equal(model(**inputs, **{name: shared}), plain), name
    replaced = {*CONTROL[2:], "encoder_hidden_states", "encoder_hidden_states_image"}
    needed = {name: value for name, value in inputs.items() if name not in replaced}
    assert torch.equal(model(**needed, **seams), plain)


@DTYPES
@torch.no_grad()
def test_one_image_serves_two_prompts_of_a_guidance_step(dtype: torch.dtype) -> None:
    model = tiny_model(MEMORY).to(dtype)
    inputs = tiny_inputs(MEMORY)
    other = inputs | {"encoder_hidden_states": -inputs["encoder_hidden_states"]}
    expected = [model(**inputs), model(**other)]
    assert not torch.equal(*expected)
    residuals = model.controlnet_residuals(*(inputs[name] for name in CONTROL))
    image = model.image_keys(inputs["encoder_hidden_states_image"])
    actual = [
        model(
            **inputs,
            controlnet_residuals=residuals,
            text_keys=model.text_keys(prompt["encoder_hidden_states"]),
            image_keys=image,
        )
        for prompt in (inputs, other)
    ]
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@torch.no_grad()
def test_residuals_beyond_the_last_block_are_not_computed() -> None:
    model = tiny_model(CAMERA, num_layers=5)
    inputs = tiny_inputs(CAMERA)
    residuals = model.controlnet_residuals(*(inputs[name] for name in CONTROL))
    assert len(residuals.states) == len(model.blocks)
    assert torch.equal(model(**inputs, controlnet_residuals=residuals), model(**inputs))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"encoder_hidden_states": None}, "encoder_hidden_states"),
        ({"encoder_hidden_states_image": None}, "encoder_hidden_states_image"),
        ({"render_mask": None}, "render_mask"),
        ({"camera_qt_ref": None}, "camera_qt_ref"),
        ({"ref_index": None}, "ref_index"),
        ({"ref_index": [0]}, "ref_index"),
        ({"ref_index": [0, FRAMES - 1]}, "ref_index"),
        ({"ref_index": [-1, 0]}, "ref_index"),
        ({"reference_latent": None}, "ref_index"),
    ],
)
def test_an_input_that_is_missing_or_does_not_fit_is_named(
    change: dict[str, Any], where: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        tiny_model(MEMORY)(**tiny_inputs(MEMORY) | change)
    assert caught.value.where == where


def test_the_camera_variant_refuses_references() -> None:
    inputs = tiny_inputs(CAMERA)
    references = {"reference_latent": inputs["hidden_states"], "ref_index": REF_INDEX}
    with pytest.raises(ParameterError, match="takes no references"):
        tiny_model(CAMERA)(**inputs | references)


@torch.no_grad()
def test_positions_may_be_a_tensor_and_references_may_be_absent() -> None:
    model = tiny_model(MEMORY)
    inputs = tiny_inputs(MEMORY)
    expected = model(**inputs)
    assert torch.equal(model(**inputs | {"ref_index": torch.tensor(REF_INDEX)}), expected)
    without = model(**inputs | {"reference_latent": None, "ref_index": None})
    assert not torch.allclose(without, expected)
