"""The diffusion transformers of WorldStereo 2.0: Wan 2.1 I2V, a ControlNet and reference tokens.

Owns: the forward pass of both variants, what of it passes may share, and which parameters stay
float32. Leaves to others: weights (checkpoint.py), sampling, devices, and every kind of
parallelism, which is applied to these modules from outside; nothing here knows of ranks.

Sharing. Each pass computes everything by itself unless it is given what was computed before:
``controlnet_residuals`` (once a step), ``text_keys`` and ``image_keys`` (once a prompt, once a
start frame) and ``rotary_tables`` (once a shape). The result is the same to the bit.

Token boundaries. Tokens of the backbone and their rotary tables pass ``split_tokens`` before the
first block, the result passes ``gather_tokens`` behind the last projection. Both do nothing here;
the ControlNet has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from worldstereo.config import ControlNetConfig
from worldstereo.errors import ParameterError
from worldstereo.models.attention import (
    Context,
    KeyValue,
    Rotary,
    RotaryPositions,
)
from worldstereo.models.block import StereoBlock
from worldstereo.models.controlnet import ControlNet, ControlNetResiduals
from worldstereo.models.timestep import timestep_sinusoid

# Rows of a table that `ref_embedding` adds to a checkpoint and that no computation reads.
_REF_INDEX_ROWS = 21

# Of the ControlNet the norms alone: diffusers' name parts would also match its `norm1.linear` and
# `norm2.linear`, which are matrices.
_FLOAT32_BACKBONE = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
_FLOAT32_CONTROLNET = ("norm1.norm.", "norm2.norm.", "mask_proj.1.")


def stays_float32(name: str) -> bool:
    """Whether a parameter keeps float32 in a model of lower precision."""
    parts = _FLOAT32_CONTROLNET if name.startswith("controlnet.") else _FLOAT32_BACKBONE
    return any(part in name for part in parts)


class WorldStereoTransformer(WanTransformer3DModel):  # type: ignore[misc]  # diffusers has no types
    """The Wan transformer with a ControlNet: what both variants share.

    Args:
        controlnet: ``controlnet_cfg`` of the variant.
        backbone: arguments of ``WanTransformer3DModel``.
    """

    has_references: ClassVar[bool]

    _no_split_modules: ClassVar[list[str]] = ["StereoBlock", "ControlNetBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["StereoBlock", "ControlNetBlock"]
    # Wan's plan knows neither ControlNet nor references: it would split wrongly.
    _cp_plan: ClassVar[dict[str, Any] | None] = None

    def __init__(self, controlnet: ControlNetConfig, **backbone: Any) -> None:
        super().__init__(**backbone)
        config = self.config
        patch_size = tuple(config.patch_size)
        width = config.num_attention_heads * config.attention_head_dim
        self.rope = RotaryPositions(config.attention_head_dim, patch_size, config.rope_max_seq_len)
        keeps = self.has_references and controlnet.update_ref
        self.blocks = nn.ModuleList(
            StereoBlock(
                # No one uses the references that leave the last block.
                keep_reference=keeps and index + 1 < config.num_layers,
                dim=width,
                ffn_dim=config.ffn_dim,
                num_heads=config.num_attention_heads,
                qk_norm=config.qk_norm,
                cross_attn_norm=config.cross_attn_norm,
                eps=config.eps,
                added_kv_proj_dim=config.added_kv_proj_dim,
            )
            for index in range(config.num_layers)
        )
        self.controlnet = ControlNet(
            controlnet,
            in_channels=config.in_channels,
            width=width,
            patch_size=patch_size,
            rope_max_seq_len=config.rope_max_seq_len,
        )
        self.split_tokens: nn.Module = nn.Identity()
        self.gather_tokens: nn.Module = nn.Identity()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Cast and move as any module does, except that ``stays_float32`` is obeyed."""
        kept = {
            name: parameter.data
            for name, parameter in self.named_parameters()
            if stays_float32(name) and parameter.dtype == torch.float32
        }
        super()._apply(fn, recurse)
        for name, before in kept.items():
            parameter = self.get_parameter(name)
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = before.to(parameter.device)
        return self

    @property
    def compute_dtype(self) -> torch.dtype:
        """What matrix products run in; latents, maps, mask and camera rows are cast to it."""
        return cast(torch.dtype, self.patch_embedding.weight.dtype)

    def text_keys(self, encoder_hidden_states: Tensor) -> tuple[KeyValue, ...]:
        """Each block's cross-attention keys and values of one prompt [B, 512, text width]."""
        tokens = self._text_tokens(encoder_hidden_states)
        return tuple(cast(StereoBlock, block).text_key_value(tokens) for block in self.blocks)

    def image_keys(self, encoder_hidden_states_image: Tensor) -> tuple[KeyValue, ...]:
        """Each block's cross-attention keys and values of one image [B, 257, image width]."""
        tokens = self._image_tokens(encoder_hidden_states_image)
        return tuple(cast(StereoBlock, block).image_key_value(tokens) for block in self.blocks)

    def rotary_tables(
        self, frames: int, height: int, width: int, ref_index: Sequence[int] | None = None
    ) -> Rotary:
        """Positions of F x h x w latents and of the references behind them, for the backbone.

        Returns:
            Cosines and signed sines, each [1, tokens, 1, head size].

        Raises:
            ParameterError: an index is outside 0..F-2.
        """
        index = None
        if ref_index is not None:
            index = [int(i) for i in ref_index]
            if not all(0 <= i < frames - 1 for i in index):
                raise ParameterError(
                    "a reference lies beside no target frame",
                    where="ref_index",
                    got=str(index),
                    allowed=f"0 to {frames - 2} for {frames} latent frames",
                )
        tables = [self.split_tokens(table) for table in self.rope(frames, height, width, index)]
        cos, sin = (torch.cat(tables[i::2], dim=1) for i in range(2))
        return cos, sin

    def controlnet_residuals(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        render_latent: Tensor,
        render_mask: Tensor,
        camera_embedding: Tensor,
    ) -> ControlNetResiduals:
        """What the ControlNet adds in this step; it depends on neither text nor references.

        Args:
            hidden_states: this and the others as in ``forward``.
            timestep: see there.
            render_latent: see there.
            render_mask: see there.
            camera_embedding: see there.

        Returns:
            To be passed to ``forward`` for every pass over the same latents and timestep.
        """
        temb, _ = self._time(timestep)
        maps = (render_latent, render_mask, camera_embedding)
        states = self._control_states(None, hidden_states, temb, *maps)
        used = zip(self.blocks, states, strict=False)
        return ControlNetResiduals(tuple(state for _, state in used))

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        encoder_hidden_states_image: Tensor | None = None,
        render_latent: Tensor | None = None,
        render_mask: Tensor | None = None,
        camera_embedding: Tensor | None = None,
        reference_latent: Tensor | None = None,
        ref_index: Sequence[int] | None = None,
        camera_qt: Tensor | None = None,
        camera_qt_ref: Tensor | None = None,
        *,
        text_keys: Sequence[KeyValue] | None = None,
        image_keys: Sequence[KeyValue] | None = None,
        controlnet_residuals: ControlNetResiduals | None = None,
        rotary_tables: Rotary | None = None,
    ) -> Tensor:
        """Predict the flow of one step.

        Args:
            hidden_states: [B, 36, F, h, w], 16 noisy latent and 20 condition channels.
            timestep: [B] float32, in [0, 1000].
            encoder_hidden_states: [B, 512, text width].
            encoder_hidden_states_image: [B, 257, image width].
            render_latent: [B, 16, F, h, w].
            render_mask: [B, 1, F, 8h, 8w], 1 where nothing was rendered.
            camera_embedding: [B, 6, F, 8h, 8w] Plücker maps.
            reference_latent: [B, 36, R, h, w]; memory variants only.
            ref_index: R target frames less one, each in 0..F-2.
            camera_qt: [B, F, 7] rows of the target cameras, where the model embeds them.
            camera_qt_ref: [B, R, 7] rows of the references' cameras, likewise.
            text_keys, image_keys, controlnet_residuals, rotary_tables: what the methods of these
                names returned; the inputs that one was made of may then be left out.

        Returns:
            [B, 16, F, h, w] in ``compute_dtype``.

        Raises:
            ParameterError: an input is missing, or the references do not fit.
        """
        frames, height, width = grid = hidden_states.shape[2:]
        self._check_references(reference_latent, ref_index)
        temb, modulation = self._time(timestep)
        rotary = rotary_tables or self.rotary_tables(frames, height, width, ref_index)
        maps = (render_latent, render_mask, camera_embedding)
        states = self._control_states(controlnet_residuals, hidden_states, temb, *maps)
        text = text_keys or self._for_each_block(self._text_tokens(encoder_hidden_states))
        image = image_keys or self._for_each_block(self._image_tokens(encoder_hidden_states_image))
        # No name here for the embedded tokens: they are freed after the first block.
        tokens = self._through_blocks(
            self.split_tokens(self._tokens(hidden_states, camera_qt, "camera_qt")),
            self._reference_tokens(reference_latent, camera_qt_ref),
            zip(self.blocks, text, image, strict=True),
            modulation,
            rotary,
            states,
        )
        return self._head(tokens, temb, grid)

    def _through_blocks(
        self,
        tokens: Tensor,
        reference: Tensor | None,
        blocks: Iterable[tuple[nn.Module, Context, Context]],
        modulation: Tensor,
        rotary: Rotary,
        states: Iterator[Tensor],
    ) -> Tensor:
        """Target tokens after all blocks, the ControlNet's residuals added after the first ones."""
        targets = tokens.shape[1]
        for i, (block, text, image) in enumerate(blocks):
            # A block that drops the references leaves the embedded ones for the next.
            if reference is not None and tokens.shape[1] == targets:
                tokens = torch.cat([tokens, reference], dim=1)
            tokens = block(tokens, text, image, modulation, rotary, targets)
            state = next(states, None)
            if state is not None:
                # In place: the references behind the target stay where they are.
                tokens[:, :targets] += self.controlnet.proj_out[i](state)
        return tokens

    def _check_references(
        self, reference_latent: Tensor | None, ref_index: Sequence[int] | None
    ) -> None:
        if reference_latent is not None and not self.has_references:
            raise ParameterError(
                "the camera variant takes no references",
                where="reference_latent",
                fix="leave it out, or load a memory variant",
            )
        count = 0 if reference_latent is None else reference_latent.shape[2]
        positions = 0 if ref_index is None else len(ref_index)
        if positions != count or (ref_index is None) != (reference_latent is None):
            raise ParameterError(
                "references and their positions do not match",
                where="ref_index",
                got=f"{positions} positions for {count} references",
                allowed="one index for each reference",
            )

    def _text_tokens(self, encoder_hidden_states: Tensor | None) -> Tensor:
        states = _given(encoder_hidden_states, "encoder_hidden_states", "text_keys")
        return cast(Tensor, self.condition_embedder.text_embedder(states.to(self.compute_dtype)))

    def _image_tokens(self, encoder_hidden_states_image: Tensor | None) -> Tensor:
        states = _given(encoder_hidden_states_image, "encoder_hidden_states_image", "image_keys")
        return cast(Tensor, self.condition_embedder.image_embedder(states.to(self.compute_dtype)))

    def _time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Time embedding [B, width] and its projection [B, 6, width]; the sinusoid is float32."""
        embedder = self.condition_embedder
        sinusoid = timestep_sinusoid(timestep, self.config.freq_dim)
        stored = embedder.time_embedder.linear_1.weight.dtype
        temb = embedder.time_embedder(sinusoid.to(stored)).to(self.compute_dtype)
        return temb, embedder.time_proj(embedder.act_fn(temb)).unflatten(1, (6, -1))

    def _tokens(self, latents: Tensor, camera_rows: Tensor | None, name: str) -> Tensor:
        """[B, 36, frames, h, w] -> [B, N, width], ordered frame, row, column."""
        tokens = self.patch_embedding(latents.to(self.compute_dtype)).flatten(2).transpose(1, 2)
        return cast(Tensor, tokens.contiguous())

    def _reference_tokens(self, latents: Tensor | None, rows: Tensor | None) -> Tensor | None:
        if latents is None:
            return None
        return cast(Tensor, self.split_tokens(self._tokens(latents, rows, "camera_qt_ref")))

    def _for_each_block(self, tokens: Tensor) -> Sequence[Context]:
        return [tokens] * len(self.blocks)

    def _control_states(
        self,
        shared: ControlNetResiduals | None,
        hidden_states: Tensor,
        temb: Tensor,
        render_latent: Tensor | None,
        render_mask: Tensor | None,
        camera_embedding: Tensor | None,
    ) -> Iterator[Tensor]:
        """The shared states, or else computed one at a time, so that no more than one is held."""
        if shared is not None:
            return iter(shared.states)
        instead, dtype = "controlnet_residuals", self.compute_dtype
        rendered = _given(render_latent, "render_latent", instead)
        mask = _given(render_mask, "render_mask", instead)
        rays = _given(camera_embedding, "camera_embedding", instead)
        noisy = hidden_states[:, : self.config.in_channels - rendered.shape[1]]
        tokens = self.controlnet.embed(
            torch.cat([noisy.to(dtype), rendered.to(dtype)], dim=1),
            torch.cat([mask.to(dtype), rays.to(dtype)], dim=1),
        )
        cos, sin = self.controlnet.rope(*hidden_states.shape[2:])
        return self.controlnet.states(tokens, temb, (cos, sin))

    def _head(self, tokens: Tensor, temb: Tensor, grid: Sequence[int]) -> Tensor:
        """[B, N, width] -> [B, 16, F, h, w], Wan's output norm, projection and unpatchify."""
        shift, scale = (self.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        patch = tuple(self.config.patch_size)
        patches = self.gather_tokens(self.proj_out(tokens))
        patches = patches.unflatten(1, [n // p for n, p in zip(grid, patch, strict=True)])
        patches = patches.unflatten(-1, (*patch, -1))
        # [B, f, y, x, pt, py, px, channel] -> [B, channel, f, pt, y, py, x, px]
        patches = patches.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return cast(Tensor, patches.flatten(6, 7).flatten(4, 5).flatten(2, 3))


class CameraTransformer(WorldStereoTransformer):
    """``worldstereo-camera``: no references."""

    has_references = False


class MemoryTransformer(WorldStereoTransformer):
    """``worldstereo-memory`` and ``worldstereo-memory-dmd``: references join self-attention."""

    has_references = True

    def __init__(self, controlnet: ControlNetConfig, **backbone: Any) -> None:
        super().__init__(controlnet, **backbone)
        width = self.config.num_attention_heads * self.config.attention_head_dim
        self.camera_embedding: nn.Sequential | None = None
        if controlnet.main_camera_embedding:
            self.camera_embedding = nn.Sequential(
                nn.Linear(controlnet.camera_embedding_dim, width // 2),
                nn.SiLU(),
                nn.Linear(width // 2, width),
                nn.SiLU(),
                nn.Linear(width, width),
            )
        if controlnet.ref_embedding:
            # Published checkpoints may hold it; no computation reads it.
            self.ref_index_embedding = nn.Embedding(_REF_INDEX_ROWS, width)

    def _tokens(self, latents: Tensor, camera_rows: Tensor | None, name: str) -> Tensor:
        """As the base class, plus each frame's embedded camera row on all tokens of the frame."""
        tokens = super()._tokens(latents, camera_rows, name)
        if self.camera_embedding is None:
            return tokens
        rows = _given(camera_rows, name, None).to(self.compute_dtype)
        embedded = self.camera_embedding(rows).unsqueeze(2)
        by_frame = tokens.view(len(tokens), latents.shape[2], -1, tokens.shape[-1])
        return cast(Tensor, (by_frame + embedded).flatten(1, 2))


def _given(value: Tensor | None, name: str, instead: str | None) -> Tensor:
    """The value, or ParameterError when the caller passed neither it nor what replaces it."""
    if value is None:
        allowed = f"a tensor, or {instead}" if instead else "a tensor"
        raise ParameterError("an input of the transformer is missing", where=name, allowed=allowed)
    return value
