"""One block of the backbone: Wan's block on the target tokens and, beside them, reference tokens.

Owns: the order and precision of a block's steps for both streams. Leaves to others: attention
itself (attention.py), where the streams come from and go to (transformer.py).
"""

from __future__ import annotations

from typing import Any, cast

from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor

from worldstereo.models.attention import (
    Context,
    ContextAttentionProcessor,
    Rotary,
    SelfAttentionProcessor,
)


def gated_sum(tokens: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """``tokens + update * gate``, computed in float32, in the dtype of the tokens."""
    return (tokens.float() + update.float() * gate).type_as(tokens)


class StereoBlock(WanTransformerBlock):  # type: ignore[misc]  # diffusers has no types
    """Wan's block on two token streams, target and reference, with shared weights.

    Args:
        keep_reference: whether the reference stream that leaves the block is used by anyone;
            without it the block skips the references' output and feed-forward.
        arguments: those of Wan's block.
    """

    def __init__(self, *, keep_reference: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.attn1.set_processor(SelfAttentionProcessor())
        self.attn2.set_processor(ContextAttentionProcessor())
        self.keep_reference = keep_reference

    def forward(
        self,
        hidden_states: Tensor,
        text: Context,
        image: Context,
        temb: Tensor,
        rotary_emb: Rotary,
        reference_states: Tensor | None = None,
        reference_rotary: Rotary | None = None,
    ) -> tuple[Tensor, ...]:
        """One block; norms, modulation and gated sums in float32.

        Args:
            hidden_states: [B, N, width] target tokens.
            text: [B, 512, width] tokens, or this block's keys and values of them.
            image: [B, 257, width] tokens, or this block's keys and values of them.
            temb: [B, 6, width] time modulation.
            rotary_emb: positions of the target tokens.
            reference_states: [B, M, width] reference tokens or None.
            reference_rotary: their positions.

        Returns:
            Target tokens [B, N, width] and, where someone uses them, reference tokens
            [B, M, width]. Tensors only, as diffusers' hooks for context parallelism ask.
        """
        modulation = (self.scale_shift_table + temb.float()).chunk(6, dim=1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation

        def normed(tokens: Tensor) -> Tensor:
            return cast(Tensor, (self.norm1(tokens.float()) * (1 + scale) + shift).type_as(tokens))

        def fed_forward(tokens: Tensor) -> Tensor:
            ready = (self.norm3(tokens.float()) * (1 + ffn_scale) + ffn_shift).type_as(tokens)
            return gated_sum(tokens, self.ffn(ready), ffn_gate)

        attended, reference_attended = self.attn1(
            normed(hidden_states),
            rotary_emb=rotary_emb,
            reference_states=None if reference_states is None else normed(reference_states),
            reference_rotary=reference_rotary,
            keep_reference=self.keep_reference,
        )
        hidden_states = gated_sum(hidden_states, attended, gate)
        ready = self.norm2(hidden_states.float()).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(ready, text, image=image)
        hidden_states = fed_forward(hidden_states)
        if reference_states is None or reference_attended is None:
            return (hidden_states,)
        reference_states = gated_sum(reference_states, reference_attended, gate)
        return hidden_states, fed_forward(reference_states)
