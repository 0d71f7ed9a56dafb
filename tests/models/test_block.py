"""A block against diffusers' own, and a whole pass against one that skips nothing."""

from typing import Any, cast

import pytest
import torch
from diffusers.models.transformers.transformer_wan import (
    WanRotaryPosEmbed,
    WanTransformer3DModel,
    WanTransformerBlock,
)
from torch import Tensor, nn

from tests.golden import recipe
from tests.models.tiny import (
    BACKBONE,
    CAMERA,
    FRAMES,
    HEIGHT,
    MEMORY,
    WIDTH,
    tiny_inputs,
    tiny_model,
)
from worldstereo.models.attention import RotaryPositions
from worldstereo.models.block import StereoBlock
from worldstereo.models.controlnet import ControlNetResiduals
from worldstereo.models.timestep import timestep_sinusoid

SIZES: dict[str, Any] = {
    "dim": 24,
    "ffn_dim": 32,
    "num_heads": 2,
    "cross_attn_norm": True,
    "added_kv_proj_dim": 24,
}
# diffusers' block tells text from image by a fixed number of text tokens.
TEXT_TOKENS, IMAGE_TOKENS, TOKENS = 512, 7, 12
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])


def block_inputs(dtype: torch.dtype, batch: int = 2) -> dict[str, Tensor]:
    shapes = {"tokens": TOKENS, "text": TEXT_TOKENS, "image": IMAGE_TOKENS, "temb": 6}
    return {name: recipe.gaussian(name, (batch, n, 24)).to(dtype) for name, n in shapes.items()}


def block(dtype: torch.dtype, keep_reference: bool) -> StereoBlock:
    made = recipe.fill_(StereoBlock(keep_reference=keep_reference, **SIZES)).to(dtype)
    return cast(StereoBlock, made.eval())


@DTYPES
@torch.no_grad()
def test_without_references_the_block_is_bit_equal_to_diffusers(dtype: torch.dtype) -> None:
    theirs = recipe.fill_(WanTransformerBlock(**SIZES)).to(dtype).eval()
    x = block_inputs(dtype)
    rotary = RotaryPositions(12, (1, 2, 2), 64)(3, 4, 4)
    theirs_rotary = WanRotaryPosEmbed(12, (1, 2, 2), 64)(torch.empty(1, 36, 3, 4, 4))
    context = torch.cat([x["image"], x["text"]], dim=1)
    # Slices, as diffusers takes them: bfloat16 products depend on the layout in memory.
    image, text = context[:, :IMAGE_TOKENS], context[:, IMAGE_TOKENS:]
    actual = block(dtype, keep_reference=True)(x["tokens"], text, image, x["temb"], rotary)
    assert torch.equal(actual, theirs(x["tokens"], context, x["temb"], theirs_rotary))


@torch.no_grad()
def test_blocks_trace_into_one_graph() -> None:
    x = block_inputs(torch.float32)
    rotary = RotaryPositions(12, (1, 2, 2), 64)(3, 4, 4)
    arguments = (x["tokens"], x["text"], x["image"], x["temb"], rotary, TOKENS - 4)
    for keep in (True, False):
        plain = block(torch.float32, keep)
        traced = torch.compile(plain, fullgraph=True, backend="eager")
        assert torch.equal(traced(*arguments), plain(*arguments))


@DTYPES
@torch.no_grad()
def test_a_camera_pass_without_residuals_is_wan(dtype: torch.dtype) -> None:
    """With the ControlNet's projections at zero the camera variant is the base model."""
    model = tiny_model(CAMERA).to(dtype)
    for projection in model.controlnet.proj_out:
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
    wan = WanTransformer3DModel(**{k: v for k, v in BACKBONE.items() if not k.startswith("_")})
    wan.load_state_dict(
        {name: model.state_dict()[name] for name in wan.state_dict()}, strict=True, assign=True
    )
    wan.condition_embedder.timesteps_proj = _Sinusoid()
    inputs = tiny_inputs(CAMERA)
    text = recipe.gaussian("text", (1, 512, BACKBONE["text_dim"]))
    expected = wan.eval()(
        inputs["hidden_states"].to(dtype),
        inputs["timestep"],
        text.to(dtype),
        inputs["encoder_hidden_states_image"].to(dtype),
        return_dict=False,
    )[0]
    assert torch.equal(model(**inputs | {"encoder_hidden_states": text}), expected)


class _Sinusoid(nn.Module):
    def forward(self, timestep: Tensor) -> Tensor:
        return timestep_sinusoid(timestep, BACKBONE["freq_dim"])


@pytest.mark.parametrize("update_ref", [True, False])
@torch.no_grad()
def test_skipping_unused_reference_work_changes_nothing(update_ref: bool) -> None:
    """The twin computes the references' output in every block and drops it where it should."""
    model = tiny_model(MEMORY, update_ref=update_ref)
    inputs = tiny_inputs(MEMORY, batch=2)
    expected = model(**inputs)
    kept = [one.keep_reference for one in model.blocks]
    assert kept == ([True, True, False] if update_ref else [False] * 3)
    names = ("hidden_states", "timestep", "render_latent", "render_mask", "camera_embedding")
    residuals = model.controlnet_residuals(*(inputs[name] for name in names))
    actual = _forward_without_skipping(model, inputs, residuals, update_ref)
    assert torch.allclose(actual, expected, atol=2e-6)


def _forward_without_skipping(
    model: Any, inputs: dict[str, Any], residuals: ControlNetResiduals, update_ref: bool
) -> Tensor:
    temb, modulation = model._time(inputs["timestep"])
    rotary = model.rotary_tables(FRAMES, HEIGHT, WIDTH, inputs["ref_index"])
    text = model.condition_embedder.text_embedder(inputs["encoder_hidden_states"])
    image = model.condition_embedder.image_embedder(inputs["encoder_hidden_states_image"])
    streams = []
    for latents, rows in (("hidden_states", "camera_qt"), ("reference_latent", "camera_qt_ref")):
        tokens = model.patch_embedding(inputs[latents]).flatten(2).transpose(1, 2)
        rows_embedded = model.camera_embedding(inputs[rows])
        each = tokens.shape[1] // rows_embedded.shape[1]
        streams.append(tokens + rows_embedded.repeat_interleave(each, dim=1))
    target, reference = streams
    count = target.shape[1]
    for i, one in enumerate(model.blocks):
        one.keep_reference = True
        both = one(torch.cat([target, reference], 1), text, image, modulation, rotary, count)
        target, updated = both[:, :count], both[:, count:]
        reference = updated if update_ref else reference
        if i < len(residuals.states):
            target = target + model.controlnet.proj_out[i](residuals.states[i])
    return cast(Tensor, model._head(target, temb, (FRAMES, HEIGHT, WIDTH)))


@torch.no_grad()
def test_references_reach_the_target_at_their_own_place() -> None:
    model = tiny_model(MEMORY)
    inputs = tiny_inputs(MEMORY)
    expected = model(**inputs)
    moved = model(**inputs | {"ref_index": [0, 1]})
    assert not torch.allclose(moved, expected)
    # Their order is of no meaning: no mask, and each has its own position.
    flipped = {
        "reference_latent": inputs["reference_latent"].flip(2),
        "camera_qt_ref": inputs["camera_qt_ref"].flip(1),
        "ref_index": inputs["ref_index"][::-1],
    }
    assert torch.allclose(model(**inputs | flipped), expected, atol=2e-6)
