"""The ControlNet: what point-cloud renders and camera rays add to the backbone's tokens.

Owns: the modules below the key prefix ``controlnet.`` and their precision. Leaves to others: when
its residuals are added, and for which passes of a step they are shared (transformer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn
from torch.nn import functional

from worldstereo.config import ControlNetConfig
from worldstereo.errors import ParameterError
from worldstereo.models.attention import Rotary, RotaryPositions, SelfAttentionProcessor
from worldstereo.models.block import gated_sum

# Pixels of a map that one latent covers, in height and in width: the factor of the Wan VAE.
_PIXELS_PER_LATENT = 8
# Zero frames in front of maps that are given at video rate (and behind, when interpolating).
_MAP_PADDING = 3


@dataclass(frozen=True, eq=False)
class ControlNetResiduals:
    """What the ControlNet adds in one step, for every pass of that step.

    Attributes:
        states: [B, N, dim] after each ControlNet block, before its projection to the backbone's
            width: the projections are repeated in each pass because their results are several
            times as large as the states.
    """

    states: tuple[Tensor, ...]


class AdaptiveNorm(nn.Module):
    """Layer norm whose shift, scale and gate follow from the time embedding, in float32."""

    def __init__(self, time_embed_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_embed_dim, 3 * dim)
        self.norm = FP32LayerNorm(dim, eps=1e-5, elementwise_affine=True)

    def forward(self, hidden_states: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised [B, N, dim] in the input's dtype, and the gate [B, 1, dim] in float32."""
        modulation = self.linear(functional.silu(temb)).float().unsqueeze(1)
        shift, scale, gate = modulation.chunk(3, dim=-1)
        normed = self.norm(hidden_states.float()) * (1 + scale) + shift
        return normed.type_as(hidden_states), gate


class ControlNetBlock(nn.Module):
    """Self-attention and feed-forward, both adaptive and gated."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        self.norm1 = AdaptiveNorm(config.time_embed_dim, config.dim)
        self.self_attn = WanAttention(
            dim=config.dim,
            heads=config.num_heads,
            dim_head=config.dim // config.num_heads,
            eps=1e-6,
            processor=SelfAttentionProcessor(),
        )
        self.norm2 = AdaptiveNorm(config.time_embed_dim, config.dim)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )

    def forward(self, hidden_states: Tensor, temb: Tensor, rotary_emb: Rotary) -> Tensor:
        """One block.

        Args:
            hidden_states: [B, N, dim].
            temb: [B, time_embed_dim].
            rotary_emb: positions of the N tokens.

        Returns:
            [B, N, dim].
        """
        normed, gate = self.norm1(hidden_states, temb)
        attended = self.self_attn(normed, rotary_emb=rotary_emb)
        hidden_states = gated_sum(hidden_states, attended, gate)
        normed, gate = self.norm2(hidden_states, temb)
        return gated_sum(hidden_states, self.ffn(normed), gate)


class MapEmbedding(nn.Module):
    """Hole mask and camera rays at pixel size -> one token per latent patch."""

    def __init__(self, config: ControlNetConfig, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        kernel = (config.mask_downsample, _PIXELS_PER_LATENT, _PIXELS_PER_LATENT)
        self.mask_proj = nn.Sequential(
            nn.Conv3d(config.add_channels, config.mid_channels, kernel, stride=kernel),
            nn.GroupNorm(config.mid_channels // 8, config.mid_channels, eps=1e-5),
            nn.SiLU(),
        )
        self.mask_zero_proj = nn.Conv3d(
            config.mid_channels, config.conv_out_dim, patch_size, stride=patch_size
        )
        at_video_rate = config.mask_downsample > 1
        self.front = _MAP_PADDING if at_video_rate else 0
        self.back = _MAP_PADDING if at_video_rate and config.interp else 0

    def forward(self, maps: Tensor) -> Tensor:
        """[B, add_channels, frames, H, W] -> [B, N, conv_out_dim]."""
        projection = self.mask_proj[0]
        norm = cast(nn.GroupNorm, self.mask_proj[1])
        if self.front or self.back:
            maps = functional.pad(maps, (0, 0, 0, 0, self.front, self.back))
        projected = projection(maps)
        # Group norm in float32, whatever the convolutions compute in.
        normed = functional.group_norm(
            projected.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps
        )
        embedded = self.mask_zero_proj(functional.silu(normed).type_as(projected))
        return cast(Tensor, embedded.flatten(2).transpose(1, 2))


class ControlNet(nn.Module):
    """The branch that reads renders and rays; its parameters are ``controlnet.*``.

    Tokens pass ``split_tokens`` before the first block and ``gather_tokens`` behind each, which do
    nothing here; ``ranks`` is how many ranks they are split over.

    Args:
        config: sizes, ``controlnet_cfg`` of the variant.
        in_channels: channels of its latent input, 36.
        width: width of the backbone's tokens.
        patch_size: the backbone's.
        rope_max_seq_len: the backbone's; longest side of the token grid.
    """

    def __init__(
        self,
        config: ControlNetConfig,
        *,
        in_channels: int,
        width: int,
        patch_size: tuple[int, int, int],
        rope_max_seq_len: int,
    ) -> None:
        super().__init__()
        self.rope = RotaryPositions(config.dim // config.num_heads, patch_size, rope_max_seq_len)
        self.controlnet_patch_embedding = nn.Conv3d(
            in_channels, config.conv_out_dim, patch_size, stride=patch_size
        )
        self.controlnet_mask_embedding = MapEmbedding(config, patch_size)
        self.proj_in = (
            nn.Identity()
            if config.conv_out_dim == config.dim
            else nn.Linear(config.conv_out_dim, config.dim)
        )
        self.controlnet_blocks = nn.ModuleList(
            ControlNetBlock(config) for _ in range(config.num_layers)
        )
        self.proj_out = nn.ModuleList(
            nn.Linear(config.dim, width) for _ in range(config.num_layers)
        )
        self.split_tokens: nn.Module = nn.Identity()
        self.gather_tokens: nn.Module = nn.Identity()
        self.ranks = 1

    def embed(self, latents: Tensor, maps: Tensor) -> Tensor:
        """Tokens that enter the first block.

        Args:
            latents: [B, 36, F, h, w], noisy latents, condition mask and render latents.
            maps: [B, add_channels, F, 8h, 8w]; with ``mask_downsample`` 4 the maps have
                4 (F - 1) + 1 frames.

        Returns:
            [B, N, dim].

        Raises:
            ParameterError: the maps do not cover the latents.
        """
        tokens = self.controlnet_patch_embedding(latents).flatten(2).transpose(1, 2)
        map_tokens = self.controlnet_mask_embedding(maps)
        if map_tokens.shape != tokens.shape:
            raise ParameterError(
                "the render mask and the camera rays do not cover the latents",
                where="render_mask, camera_embedding",
                got=f"[frames, H, W] {list(maps.shape[2:])} for latents {list(latents.shape[2:])}",
                allowed="8 x 8 pixels a latent; as many frames as the latents, "
                "or 4 (F - 1) + 1 with mask_downsample 4",
            )
        return cast(Tensor, self.proj_in(tokens + map_tokens))

    def states(self, tokens: Tensor, temb: Tensor, rotary: Rotary) -> Iterator[Tensor]:
        """[B, N, dim] after each block, computed as they are asked for.

        Args:
            tokens: [B, N, dim], of ``embed``.
            temb: [B, time_embed_dim].
            rotary: positions of the N tokens.
        """
        tokens = self.split_tokens(tokens)
        cos, sin = (self.split_tokens(table) for table in rotary)
        for block in self.controlnet_blocks:
            tokens = block(tokens, temb, (cos, sin))
            yield self.gather_tokens(tokens)
