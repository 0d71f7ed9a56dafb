"""The ControlNet: which frames of the maps reach which tokens, and a slow twin of its block."""

import math

import pytest
import torch
from torch import Tensor

from tests.golden import recipe
from tests.models.tiny import CAMERA, CONTROLNET, FRAMES, HEIGHT, WIDTH, tiny_inputs, tiny_model
from worldstereo.config import ControlNetConfig
from worldstereo.errors import ParameterError
from worldstereo.models.attention import RotaryPositions
from worldstereo.models.controlnet import ControlNetBlock, MapEmbedding

TWIN_TOLERANCE = 1e-5
VIDEO_FRAMES = 4 * (FRAMES - 1) + 1


def embedding(**changes: object) -> MapEmbedding:
    config = ControlNetConfig.model_validate(CONTROLNET | changes)
    return recipe.fill_(MapEmbedding(config, (1, 2, 2))).eval()


def embed_slowly(module: MapEmbedding, maps: Tensor, front: int) -> Tensor:
    """[1, 7, frames, H, W] -> [1, N, conv_out_dim], one latent cell at a time in float64."""
    cell, norm, out = module.mask_proj[0], module.mask_proj[1], module.mask_zero_proj
    step = cell.kernel_size[0]
    zeros = maps.new_zeros(1, 7, front, *maps.shape[3:])
    padded = torch.cat([zeros, maps], dim=2).double()[0]
    latent = torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [
                            torch.einsum(
                                "ocfyx,cfyx->o",
                                cell.weight.double(),
                                padded[:, step * f :, 8 * y :, 8 * x :][:, :step, :8, :8],
                            )
                            + cell.bias
                            for x in range(WIDTH)
                        ]
                    )
                    for y in range(HEIGHT)
                ]
            )
            for f in range(FRAMES)
        ]
    )  # [F, h, w, mid]
    groups = latent.unflatten(-1, (norm.num_groups, -1))
    mean = groups.mean((0, 1, 2, 4), keepdim=True)
    variance = groups.var((0, 1, 2, 4), unbiased=False, keepdim=True)
    normed = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(-2)
    normed = normed * norm.weight.double() + norm.bias.double()
    active = normed / (1 + (-normed).exp())
    tokens = [
        torch.einsum(
            "ocyx,yxc->o", out.weight[:, :, 0].double(), active[f, 2 * y :, 2 * x :][:2, :2]
        )
        + out.bias
        for f in range(FRAMES)
        for y in range(HEIGHT // 2)
        for x in range(WIDTH // 2)
    ]
    return torch.stack(tokens)[None].float()


@pytest.mark.parametrize(
    ("downsample", "interp", "frames", "front"),
    [
        (1, False, FRAMES, 0),
        (1, True, FRAMES, 0),
        (4, False, VIDEO_FRAMES, 3),
        (4, True, VIDEO_FRAMES, 3),
    ],
)
@torch.no_grad()
def test_map_tokens_equal_the_slow_twin(
    downsample: int, interp: bool, frames: int, front: int
) -> None:
    module = embedding(mask_downsample=downsample, interp=interp)
    maps = recipe.gaussian("maps", (1, 7, frames, 8 * HEIGHT, 8 * WIDTH))
    # Zeros behind the last frame fill no further window: F tokens a place with and without.
    assert torch.allclose(module(maps), embed_slowly(module, maps, front), atol=TWIN_TOLERANCE)


@pytest.mark.parametrize(
    ("controlnet", "frames"),
    [({}, FRAMES + 1), ({}, VIDEO_FRAMES), ({"mask_downsample": 4}, FRAMES)],
)
def test_maps_that_do_not_cover_the_latents_are_refused(
    controlnet: dict[str, int], frames: int
) -> None:
    model = tiny_model(CAMERA, **controlnet)
    with pytest.raises(ParameterError, match="do not cover the latents"):
        model(**tiny_inputs(CAMERA, map_frames=frames))


@torch.no_grad()
def test_maps_at_video_rate_pass_through_the_whole_model() -> None:
    model = tiny_model(CAMERA, mask_downsample=4, interp=True)
    output = model(**tiny_inputs(CAMERA, batch=2, map_frames=VIDEO_FRAMES))
    assert output.shape == (2, 16, FRAMES, HEIGHT, WIDTH)


@torch.no_grad()
def test_the_block_equals_its_slow_twin() -> None:
    config = ControlNetConfig.model_validate(CONTROLNET)
    block = recipe.fill_(ControlNetBlock(config)).eval()
    rotary = RotaryPositions(config.dim // config.num_heads, (1, 2, 2), 64)(1, 2, 6)
    tokens = recipe.gaussian("tokens", (1, 3, config.dim))
    temb = recipe.gaussian("temb", (1, config.time_embed_dim))

    def normed(x: Tensor, norm: torch.nn.Module) -> tuple[Tensor, Tensor]:
        silu = temb[0] / (1 + (-temb[0]).exp())
        shift, scale, gate = (norm.linear.weight @ silu + norm.linear.bias).view(3, config.dim)
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return (unit * norm.norm.weight + norm.norm.bias) * (1 + scale) + shift, gate

    x = tokens
    ready, gate = normed(x, block.norm1)
    x = x + gate * block.self_attn(ready, rotary_emb=rotary)[0]
    ready, gate = normed(x, block.norm2)
    inner = ready @ block.ffn[0].weight.T + block.ffn[0].bias
    cubic = math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)
    active = 0.5 * inner * (1 + cubic.tanh())
    x = x + gate * (active @ block.ffn[2].weight.T + block.ffn[2].bias)
    assert torch.allclose(block(tokens, temb, rotary), x, atol=TWIN_TOLERANCE)


def test_proj_in_has_parameters_only_where_widths_differ() -> None:
    names = tiny_model(CAMERA).state_dict()
    same = tiny_model(CAMERA, conv_out_dim=CONTROLNET["dim"]).state_dict()
    assert "controlnet.proj_in.weight" in names
    assert not any(name.startswith("controlnet.proj_in") for name in same)
    assert names["controlnet.controlnet_patch_embedding.weight"].shape == (20, 36, 1, 2, 2)


@torch.no_grad()
def test_residuals_follow_the_latents_and_the_maps_but_not_the_text() -> None:
    model = tiny_model(CAMERA)
    inputs = tiny_inputs(CAMERA)
    names = ("hidden_states", "timestep", "render_latent", "render_mask", "camera_embedding")

    def states(**changes: Tensor) -> tuple[Tensor, ...]:
        return model.controlnet_residuals(*((inputs | changes)[name] for name in names)).states

    expected = states()
    # Channels 20 to 35 of the latents are the start frame's, which the branch does not read.
    unread = inputs["hidden_states"].clone()
    unread[:, 20:] = 0
    assert torch.equal(states(hidden_states=unread)[-1], expected[-1])
    for name in names:
        changed = states(**{name: inputs[name] * 0.5})
        assert not torch.equal(changed[-1], expected[-1]), name
