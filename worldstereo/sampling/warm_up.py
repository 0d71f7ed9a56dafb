"""One forward at each working size, before the first clip: compilation takes half a minute."""

from __future__ import annotations

from typing import Any

import torch

from worldstereo.config import ModelConfig
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.sampling.conditions import IMAGE_TOKENS
from worldstereo.sampling.encoders import TEXT_TOKENS

PIXELS_PER_LATENT = 8


@torch.no_grad()
def warm_up(transformer: WorldStereoTransformer, config: ModelConfig) -> list[tuple[int, int]]:
    """Run a transformer once at each working size that it has not seen the like of.

    Compiled blocks know the number of target tokens, which most working sizes share, and leave
    the number of reference tokens open. All ranks of a replica call this together.

    Args:
        transformer: ready to be used.
        config: of the variant; its working sizes and number of keyframes.

    Returns:
        The sizes (height, width) that were run.
    """
    device = transformer.patch_embedding.weight.device
    by_tokens: dict[int, tuple[int, int]] = {}
    for height, width in config.scale_map:
        by_tokens.setdefault(height * width, (height, width))
    for height, width in by_tokens.values():
        inputs = _zeros(transformer, config, height, width, device)
        # As the steps of a clip have them: compiled code tells tokens from keys and values.
        inputs["text_keys"] = transformer.text_keys(inputs.pop("encoder_hidden_states"))
        inputs["image_keys"] = transformer.image_keys(inputs.pop("encoder_hidden_states_image"))
        transformer(**inputs)
    return list(by_tokens.values())


def _zeros(
    transformer: WorldStereoTransformer,
    config: ModelConfig,
    height: int,
    width: int,
    device: torch.device,
) -> dict[str, Any]:
    """Inputs of ``forward`` of a clip that has one reference, where the model takes any."""
    sizes, frames = transformer.config, config.nframe
    controlnet = config.controlnet_cfg
    latents = (frames, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    downsample = controlnet.mask_downsample
    maps = (frames if downsample == 1 else downsample * (frames - 1) + 1, height, width)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(1, *shape, device=device)

    inputs: dict[str, Any] = {
        "hidden_states": zeros(sizes.in_channels, *latents),
        "timestep": torch.full((1,), 500.0, device=device),
        "encoder_hidden_states": zeros(TEXT_TOKENS, sizes.text_dim),
        "encoder_hidden_states_image": zeros(IMAGE_TOKENS, sizes.image_dim),
        "render_latent": zeros(sizes.out_channels, *latents),
        "render_mask": zeros(1, *maps),
        "camera_embedding": zeros(controlnet.add_channels - 1, *maps),
    }
    if transformer.has_references:
        row = controlnet.camera_embedding_dim
        inputs |= {
            "reference_latent": zeros(sizes.in_channels, 1, *latents[1:]),
            "ref_index": (0,),
            "camera_qt": zeros(frames, row),
            "camera_qt_ref": zeros(1, row),
        }
    return inputs
