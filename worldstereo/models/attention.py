"""Attention of the transformers: rotary positions and the two processors.

Owns: rotary tables (also for references, which sit to the right of the target), attention over
target and reference tokens in one row, and cross-attention to text and image whose keys and values
may have been computed before. Leaves to others: the attention kernel, by each processor's
``_attention_backend``, and the tokens of other ranks, by its ``_exchange``; both are set from
outside (attention_backend.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self, cast

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanRotaryPosEmbed
from torch import Tensor

from worldstereo.models.attention_fp8 import attention_fp8

# ``_attention_backend`` for which diffusers has no name: ours in 8 bits.
FP8 = "fp8"

# Cosines and signed sines, each [1, tokens, 1, head size] float32: ``rotate`` tells how they act.
Rotary = tuple[Tensor, Tensor]


class KeyValue(NamedTuple):
    """Keys and values of one block's cross-attention, each [B, tokens, heads, head size]."""

    key: Tensor
    value: Tensor


class Exchange(Protocol):
    """What the ranks that share a pass do around attention: parallel/sequence.py has it."""

    def by_heads(self, mine: Tensor) -> Tensor:
        """This rank's tokens of all heads -> all tokens of this rank's heads."""
        ...

    def by_tokens(self, mixed: Tensor) -> Tensor:
        """The way back."""
        ...


# What cross-attention looks at: embedded tokens [B, tokens, width], or one block's keys and values.
Context = Tensor | KeyValue


class RotaryPositions(WanRotaryPosEmbed):  # type: ignore[misc]  # diffusers has no types
    """Wan's rotary tables, whose buffers stay float32 and are never left without values.

    The buffers are in no checkpoint, so a model that was built on the meta device has none:
    moving it to a real device computes them. Casting the model does not round them.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        cos, sin = self.freqs_cos, self.freqs_sin
        super()._apply(fn, recurse)
        device = self.freqs_cos.device
        if cos.is_meta and device.type != "meta":
            self.rebuild(device)
        elif self.freqs_cos.dtype != cos.dtype:
            self.freqs_cos, self.freqs_sin = cos.to(device), sin.to(device)
        return self

    def rebuild(self, device: torch.device) -> None:
        """Compute the tables anew: on the CPU, so that every device holds the same numbers."""
        with torch.device("cpu"):
            fresh = WanRotaryPosEmbed(self.attention_head_dim, self.patch_size, self.max_seq_len)
        self.freqs_cos = fresh.freqs_cos.to(device)
        self.freqs_sin = fresh.freqs_sin.to(device)

    def forward(
        self, frames: int, height: int, width: int, ref_index: Sequence[int] | None = None
    ) -> tuple[Tensor, ...]:
        """Tables of the target's tokens and, with ``ref_index``, of the references' tokens.

        The grid is twice as wide as the latents: the target takes its left half, reference r the
        right half of frame ``ref_index[r] + 1``.

        Args:
            frames: latent frames F.
            height: latent rows h.
            width: latent columns w.
            ref_index: R target frames less one, each below F - 1.

        Returns:
            (cos, sin) or (cos, sin, reference cos, reference sin), each
            [1, tokens, 1, head size] float32, tokens ordered frame, row, column. Sines are
            signed: those of the first channel of each pair are negative.
        """
        # Only the shape of the argument is read.
        if ref_index is None:
            shape = torch.empty(1, 1, frames, height, width, device="meta")
            cos, sin = super().forward(shape)
            return cos, _signed(sin)
        _, patch_height, patch_width = self.patch_size
        rows, columns = height // patch_height, width // patch_width
        shape = torch.empty(1, 1, frames, height, 2 * columns * patch_width, device="meta")
        positions = [index + 1 for index in ref_index]
        target, reference = [], []
        cos, sin = super().forward(shape)
        for table in (cos, _signed(sin)):
            grid = table.unflatten(1, (-1, rows, 2 * columns))
            target.append(grid[:, :, :, :columns].flatten(1, 3))
            reference.append(grid[:, positions, :, columns:].flatten(1, 3))
        return *target, *reference


def _signed(sin: Tensor) -> Tensor:
    return torch.stack([-sin[..., 0::2], sin[..., 1::2]], dim=-1).flatten(-2)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair of neighbouring channels by its token's angles, as Wan does.

    (a, b) becomes (a cos - b sin, b cos + a sin), written as x cos + (b, a) (-sin, sin): one
    expression for all channels, which a compiler puts into one pass.

    Args:
        x: [B, tokens, heads, head size].
        rotary: cosines, each repeated for both channels of a pair, and signed sines.

    Returns:
        The same shape and dtype; the products are float32.
    """
    cos, sin = rotary
    swapped = x.reshape(*x.shape[:-1], -1, 2).flip(-1).reshape(x.shape)
    return (x * cos + swapped * sin).type_as(x)


class SelfAttentionProcessor:
    """Self-attention over a row of tokens, of which the first ones may be all that look."""

    _attention_backend: Any = None
    _exchange: Exchange | None = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: Rotary | None = None,
        *,
        queries: int | None = None,
    ) -> Tensor:
        """Attend without a mask: every token is seen by all that look.

        Args:
            attn: the projections and norms.
            hidden_states: [B, N, width].
            encoder_hidden_states: unused; diffusers' attention module passes it.
            attention_mask: unused, likewise.
            rotary_emb: positions of the N tokens.
            queries: how many of them look, the first ones; the others are looked at alone, which
                leaves the output of those that look as it is. None: all.

        Returns:
            [B, queries, width].
        """
        assert rotary_emb is not None
        cos, sin = rotary_emb
        heads = (attn.heads, -1)
        looking = hidden_states[:, :queries]
        looking_rotary = (cos[:, :queries], sin[:, :queries])
        query = rotate(attn.norm_q(attn.to_q(looking)).unflatten(2, heads), looking_rotary)
        key = rotate(attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads), rotary_emb)
        value = attn.to_v(hidden_states).unflatten(2, heads)
        mixed = self._attend(query, key, value)
        return cast(Tensor, attn.to_out[0](mixed.flatten(2, 3).type_as(query)))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, queries, heads, head size] over all keys, of all ranks where tokens are split."""
        exchange = self._exchange
        if exchange is None:
            return attend(query, key, value, self._attention_backend)
        query, key, value = (exchange.by_heads(x) for x in (query, key, value))
        return exchange.by_tokens(attend(query, key, value, self._attention_backend))


def attend(query: Tensor, key: Tensor, value: Tensor, backend: Any) -> Tensor:
    """Attention without a mask of [B, tokens, heads, head size] by a backend; see there."""
    if backend == FP8:
        return attention_fp8(query, key, value)
    return cast(Tensor, dispatch_attention_fn(query, key, value, backend=backend))


def text_key_value(attn: WanAttention, tokens: Tensor) -> KeyValue:
    """Keys and values of embedded text tokens [B, tokens, width]."""
    heads = (attn.heads, -1)
    key, value = attn.norm_k(attn.to_k(tokens)), attn.to_v(tokens)
    return KeyValue(key.unflatten(2, heads), value.unflatten(2, heads))


def image_key_value(attn: WanAttention, tokens: Tensor) -> KeyValue:
    """Keys and values of embedded image tokens [B, tokens, width]: projections of their own."""
    heads = (attn.heads, -1)
    key, value = attn.norm_added_k(attn.add_k_proj(tokens)), attn.add_v_proj(tokens)
    return KeyValue(key.unflatten(2, heads), value.unflatten(2, heads))


class ContextAttentionProcessor:
    """Cross-attention of the target tokens to image and text: two attentions, added.

    Every rank holds the whole context, so nothing is exchanged.
    """

    _attention_backend: Any = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Context,
        attention_mask: None = None,
        rotary_emb: None = None,
        *,
        image: Context,
    ) -> Tensor:
        """Attend to the context, given as tokens or as keys and values made before.

        Args:
            attn: the projections and norms.
            hidden_states: [B, N, width] target tokens.
            encoder_hidden_states: the text, [B, 512, width] or its keys and values.
            attention_mask: unused; diffusers' attention module passes it.
            rotary_emb: unused, likewise.
            image: the image, [B, 257, width] or its keys and values.

        Returns:
            [B, N, width].
        """
        text = encoder_hidden_states
        if not isinstance(text, KeyValue):
            text = text_key_value(attn, text)
        if not isinstance(image, KeyValue):
            image = image_key_value(attn, image)
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        from_image = self._attend(query, image)
        from_text = self._attend(query, text)
        return cast(Tensor, attn.to_out[0](from_text + from_image))

    def _attend(self, query: Tensor, context: KeyValue) -> Tensor:
        mixed = attend(query, context.key, context.value, self._attention_backend)
        return mixed.flatten(2, 3).type_as(query)
