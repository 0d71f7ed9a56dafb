"""The real classes at the smallest size that still has every part, and inputs for them."""

from typing import Any

import torch

from tests.golden import recipe
from worldstereo.config import ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer
from worldstereo.models.transformer import WorldStereoTransformer

BACKBONE: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 10,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": 14,
    "added_kv_proj_dim": 24,
    "rope_max_seq_len": 64,
}
CONTROLNET: dict[str, Any] = {
    "dim": 16,
    "ffn_dim": 24,
    "num_heads": 2,
    "num_layers": 2,
    "time_embed_dim": 24,
    "conv_out_dim": 20,
    "add_channels": 7,
    "mid_channels": 16,
    "mask_downsample": 1,
    "interp": False,
    "update_ref": True,
    "ref_embedding": False,
    "main_camera_embedding": True,
    "camera_embedding_dim": 7,
}
# Of config.json, all that may not be absent.
CONFIG: dict[str, Any] = {
    "base_model": "base",
    "nframe": 3,
    "latent_cond_mode": "full_vae",
    "controlnet_cfg": CONTROLNET,
}
CAMERA: Variant = "worldstereo-camera"
MEMORY: Variant = "worldstereo-memory"
FRAMES, HEIGHT, WIDTH = 3, 4, 6
REF_INDEX = [1, 0]


def tiny_model(variant: Variant, **controlnet: Any) -> WorldStereoTransformer:
    """A tiny model with seeded weights."""
    config = ControlNetConfig.model_validate(CONTROLNET | controlnet)
    return recipe.fill_(build_transformer(variant, BACKBONE, config)).eval()


def tiny_inputs(
    variant: Variant, batch: int = 1, map_frames: int = FRAMES, references: int = len(REF_INDEX)
) -> dict[str, Any]:
    """Seeded inputs of ``forward``; few text and image tokens, for speed."""

    def g(name: str, *shape: int) -> torch.Tensor:
        return recipe.gaussian(name, (batch, *shape))

    pixels = (map_frames, 8 * HEIGHT, 8 * WIDTH)
    inputs: dict[str, Any] = {
        "hidden_states": g("hidden_states", 36, FRAMES, HEIGHT, WIDTH),
        "timestep": torch.full((batch,), 712.345),
        "encoder_hidden_states": g("text", 9, BACKBONE["text_dim"]),
        "encoder_hidden_states_image": g("image", 5, BACKBONE["image_dim"]),
        "render_latent": g("render_latent", 16, FRAMES, HEIGHT, WIDTH),
        "render_mask": (g("render_mask", 1, *pixels) > 0).float(),
        "camera_embedding": g("camera_embedding", 6, *pixels),
    }
    if variant != CAMERA:
        inputs |= {
            "reference_latent": g("reference_latent", 36, references, HEIGHT, WIDTH),
            "ref_index": REF_INDEX[:references],
            "camera_qt": g("camera_qt", FRAMES, 7),
            "camera_qt_ref": g("camera_qt_ref", references, 7),
        }
    return inputs
