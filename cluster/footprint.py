"""Bytes of GPU memory that a replica of a model needs, from the sizes in its configuration.

Pure: plain numbers in and out; no Ray, no torch, no look at the machine. Leaves to others: what a
cluster makes of it (topology.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Literal, NamedTuple

from worldstereo.config import ControlNetConfig, ModelConfig, Variant, is_distilled, uses_memory
from worldstereo.models.source import BackboneConfig
from worldstereo.parallel.layout import ParallelLayout, tokens_per_frame

# UMT5-XXL's encoder and CLIP ViT-H/14's vision tower: 22.7 and 2.5 GB in float32.
ENCODER_PARAMETERS = 5_680_910_336 + 630_766_080
# The VAE in float32 and its copy for single frames: what benchmarks/results/clip.json has
# allocated after loading, less transformer and encoders.
VAE_BYTES = 850_310_528
# The VAE at work, bytes for each pixel of the working size. A start frame encoded as one causal
# video: the peak measured there. Two keyframes at once: counted over the tensors of the decoder.
_CODING_BYTES = {"full_vae": 19_300, "first_frame_only": 4_610}

_FLOAT32 = 4
_TEXT_TOKENS, _IMAGE_TOKENS = 512, 257
_PIXELS_PER_LATENT = 8
_REF_INDEX_ROWS = 21  # of the table that `ref_embedding` adds to a memory variant


class ParameterCount(NamedTuple):
    """Parameters: all, the largest block's, those in no block, those that always stay float32."""

    total: int
    largest_block: int
    outside: int
    float32: int


@dataclass(frozen=True)
class Footprint:
    """Bytes of GPU memory that a replica needs, by how ranks share them.

    Attributes:
        transformer: weights, the ControlNet's among them; with fsdp each rank keeps its share.
        gathered: weights that a rank holds whole beside its share: two blocks (the next one is
            fetched while one computes) and what lies outside the blocks.
        encoders: weights of the text and the image encoder, whole on each rank.
        vae: its weights, whole on each rank.
        tokens: of the denoising, what is split over the ulysses ranks.
        clip: of the denoising, what each rank holds whole.
        coding: the VAE at work, before and after the denoising.
    """

    transformer: int
    gathered: int
    encoders: int
    vae: int
    tokens: int
    clip: int
    coding: int

    def rank_bytes(self, layout: ParallelLayout) -> int:
        """The most that one rank of this layout holds at a time, in bytes."""
        weights = self.transformer
        if layout.fsdp:
            weights = min(weights, ceil(weights / layout.world_size) + self.gathered)
        activations = max(ceil(self.tokens / layout.ulysses) + self.clip, self.coding)
        return weights + self.encoders + self.vae + activations


def count_parameters(
    backbone: BackboneConfig, controlnet: ControlNetConfig, variant: Variant
) -> ParameterCount:
    """Count a transformer's parameters from its sizes: exactly those of its state dict."""
    block, control = _backbone_block(backbone), _controlnet_block(controlnet)
    rest = [_outside_blocks(backbone), _outside_controlnet_blocks(backbone, controlnet)]
    if uses_memory(variant):
        rest.append(_Part(_reference_parameters(backbone.width, controlnet), 0))
    parts = [*rest, *[block] * backbone.num_layers, *[control] * controlnet.num_layers]
    return ParameterCount(
        total=sum(part.all for part in parts),
        largest_block=max(block.all, control.all),
        outside=sum(part.all for part in rest),
        float32=sum(part.float32 for part in parts),
    )


def footprint_of(
    backbone: BackboneConfig,
    config: ModelConfig,
    variant: Variant,
    *,
    max_references: int,
    precision_bytes: Literal[2, 4],
    encoder_bytes: int = ENCODER_PARAMETERS * _FLOAT32,
) -> Footprint:
    """What a replica needs for a clip of the largest working size.

    Weights are counted. Activations are an estimate from above: at its peak, where a gated sum
    ends a block, a block holds three float32 tensors and seven in working precision, each as large
    as the tokens (N of the target, M of the references) times the width. Beside it a guided step
    keeps the ControlNet's states for its second pass. Each rank holds whole: the
    cross-attention keys and values of all blocks (of two prompts where there is guidance), and
    maps and render at pixel size, in float32 and cast. The VAE's work is measured.

    Args:
        backbone: the base model's sizes.
        config: the variant's, with working sizes and keyframes.
        variant: decides on references and guidance.
        max_references: of one clip; ignored where the variant takes none.
        precision_bytes: of one number of the transformer: 2 for bfloat16, 4 for float32.
        encoder_bytes: text and image encoder together; the published ones in float32.
    """
    controlnet = config.controlnet_cfg
    counted = count_parameters(backbone, controlnet, variant)
    guided = not is_distilled(variant)
    references = max_references if uses_memory(variant) else 0
    frame_tokens = max(tokens_per_frame(config, backbone).values())
    pixels = max(height * width for height, width in config.scale_map)
    target = config.nframe * frame_tokens
    channels = (target + references * frame_tokens) * backbone.width
    tokens = channels * (3 * _FLOAT32 + 7 * precision_bytes)
    if guided:
        tokens += controlnet.num_layers * target * controlnet.dim * precision_bytes
    context = _TEXT_TOKENS * (2 if guided else 1) + _IMAGE_TOKENS
    keys = backbone.num_layers * 2 * context * backbone.width * precision_bytes
    maps = controlnet.add_channels * (_FLOAT32 + precision_bytes) + 3 * _FLOAT32
    beside = 2 * counted.largest_block + counted.outside
    # Numbers that stay float32 are taken to lie in what is gathered: they are few.
    extra = counted.float32 * (_FLOAT32 - precision_bytes)
    return Footprint(
        transformer=counted.total * precision_bytes + extra,
        gathered=beside * precision_bytes + extra,
        encoders=encoder_bytes,
        vae=VAE_BYTES,
        tokens=tokens,
        clip=keys + config.nframe * pixels * maps,
        coding=pixels * _CODING_BYTES[config.latent_cond_mode],
    )


class _Part(NamedTuple):
    """Parameters of a part of the transformer: all, and those that stay float32."""

    all: int
    float32: int


def _backbone_block(config: BackboneConfig) -> _Part:
    width = config.width
    attention = 4 * _linear(width, width) + 2 * width  # q, k, v, out; norms of q and k
    image = 2 * _linear(config.added_kv_proj_dim, width) + width  # k, v; norm of k
    feed_forward = _linear(width, config.ffn_dim) + _linear(config.ffn_dim, width)
    float32 = 6 * width + (2 * width if config.cross_attn_norm else 0)
    return _Part(2 * attention + image + feed_forward + float32, float32)


def _controlnet_block(config: ControlNetConfig) -> _Part:
    dim = config.dim
    attention = 4 * _linear(dim, dim) + 2 * dim
    feed_forward = _linear(dim, config.ffn_dim) + _linear(config.ffn_dim, dim)
    modulation, norms = 2 * _linear(config.time_embed_dim, 3 * dim), 2 * 2 * dim
    return _Part(attention + feed_forward + modulation + norms, norms)


def _outside_blocks(config: BackboneConfig) -> _Part:
    width, image, patch = config.width, config.image_dim, prod(config.patch_size)
    ends = _linear(config.in_channels * patch, width) + _linear(width, config.out_channels * patch)
    time, time_proj = _linear(config.freq_dim, width) + _linear(width, width), 6 * width
    text = _linear(config.text_dim, width) + _linear(width, width)
    image_embedder = _linear(image, image) + _linear(image, width)
    float32 = time + 2 * image + 2 * width + 2 * width  # norms of the image, output table
    return _Part(ends + _linear(width, time_proj) + text + image_embedder + float32, float32)


def _outside_controlnet_blocks(backbone: BackboneConfig, config: ControlNetConfig) -> _Part:
    patch, inner, norm = prod(backbone.patch_size), config.conv_out_dim, 2 * config.mid_channels
    pixels = config.mask_downsample * _PIXELS_PER_LATENT**2
    latents = _linear(backbone.in_channels * patch, inner)
    maps = _linear(config.add_channels * pixels, config.mid_channels)
    maps += norm + _linear(config.mid_channels * patch, inner)
    entry = 0 if inner == config.dim else _linear(inner, config.dim)
    exits = config.num_layers * _linear(config.dim, backbone.width)
    return _Part(latents + maps + entry + exits, norm)


def _reference_parameters(width: int, config: ControlNetConfig) -> int:
    rows = _linear(config.camera_embedding_dim, width // 2)
    rows += _linear(width // 2, width) + _linear(width, width)
    table = _REF_INDEX_ROWS * width if config.ref_embedding else 0
    return table + (rows if config.main_camera_embedding else 0)


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer, or of a convolution, with bias."""
    return (inputs + 1) * outputs
