"""What ``worldstereo-tiny`` is made of: the sizes of its networks, as their config files say them.

Owns two architectures. ``TINY`` is the one that is trained and shipped. ``MINIATURE`` is as small
as the released classes allow; with seeded weights it stands in where weights mean nothing. Text
and image encoders, tokenizer and scheduler are the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Sizes that differ between the two.

    Attributes:
        transformer: arguments of the backbone.
        controlnet: ``controlnet_cfg`` of the variants.
        vae: arguments of ``AutoencoderKLWan``, without the statistics of its latents.
        sizes: working sizes of the variants, (height, width) in pixels.
        guidance: ``guidance_scale`` of the variants; None: that of the published runs.
    """

    transformer: Mapping[str, Any]
    controlnet: Mapping[str, Any]
    vae: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    guidance: float | None = None

    @cached_property
    def variant(self) -> dict[str, Any]:
        """``config.json`` of every variant."""
        own: dict[str, Any] = {
            "controlnet_cfg": dict(self.controlnet),
            "scale_map": [list(size) for size in self.sizes],
        }
        if self.guidance is not None:
            own["guidance_scale"] = self.guidance
        return _VARIANT | own


_VARIANT: dict[str, Any] = {
    "base_model": "base",
    "nframe": 21,
    "latent_cond_mode": "first_frame_only",
    "negative_prompt": "blurry, distorted, static, low quality",
    "dmd_start_steps": 250,
    "dmd_end_steps": 1000,
    "dmd_steps": 4,
    "gen_shift": 5.0,
}
MINIATURE = Architecture(
    transformer={
        "patch_size": [1, 2, 2],
        "num_attention_heads": 4,
        "attention_head_dim": 24,
        "in_channels": 36,
        "out_channels": 16,
        "text_dim": 48,
        "freq_dim": 64,
        "ffn_dim": 216,
        "num_layers": 4,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "image_dim": 32,
        "added_kv_proj_dim": 96,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": None,
    },
    controlnet={
        "dim": 56,
        "ffn_dim": 128,
        "num_heads": 4,
        "num_layers": 2,
        "time_embed_dim": 96,
        "conv_out_dim": 64,
        "add_channels": 7,
        "mid_channels": 16,
        "mask_downsample": 1,
        "interp": False,
        "update_ref": True,
        "ref_embedding": True,
        "main_camera_embedding": True,
        "camera_embedding_dim": 7,
    },
    vae={
        "base_dim": 8,
        "z_dim": 16,
        "dim_mult": [1, 2, 3, 4],
        "num_res_blocks": 1,
        "attn_scales": [],
        "temperal_downsample": [False, True, True],
        "dropout": 0.0,
    },
    # Each a multiple of 32 pixels: its tokens can be shared out over two or four ranks.
    sizes=((64, 96), (64, 64), (96, 64)),
)
TINY = Architecture(
    transformer={
        **MINIATURE.transformer,
        "num_attention_heads": 4,
        "attention_head_dim": 40,
        "ffn_dim": 480,
        "num_layers": 5,
        "added_kv_proj_dim": 160,
    },
    controlnet={
        **MINIATURE.controlnet,
        "dim": 96,
        "ffn_dim": 192,
        "num_layers": 3,
        "time_embed_dim": 160,
    },
    vae={**MINIATURE.vae, "base_dim": 24, "dim_mult": [1, 1, 2, 3]},
    sizes=((128, 192), (144, 192), (160, 160), (192, 144), (192, 128)),
    # Captions say little of what a hole shows: with guidance of 5 the camera variant's holes were
    # 0.9 dB worse.
    guidance=1.0,
)
SCHEDULER = {
    "num_train_timesteps": 1000,
    "solver_order": 2,
    "solver_type": "bh2",
    "prediction_type": "flow_prediction",
    "predict_x0": True,
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
    "timestep_spacing": "linspace",
    "final_sigmas_type": "zero",
    "lower_order_final": True,
}
UMT5 = {
    "vocab_size": 259,  # 256 bytes behind <pad>, </s> and <unk>
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
DINOV2 = {
    "hidden_size": 32,
    "mlp_ratio": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
}
CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}
DINOV2_PROCESSOR = {
    **CLIP_PROCESSOR,
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 256},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
TOKENIZER = {
    "tokenizer_class": "ByT5Tokenizer",
    "extra_ids": 0,
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "model_max_length": 512,
}
MODEL_INDEX = {
    "_class_name": "WanImageToVideoPipeline",
    "image_encoder": ["transformers", "CLIPVisionModel"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "ByT5Tokenizer"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
