"""One block of the backbone: Wan's block on target tokens and, behind them, reference tokens.

Owns: the order and precision of a block's steps for both. Leaves to others: attention
itself (attention.py), where the streams come from and go to (transformer.py).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor

from worldstereo.models.attention import (
    Context,
    ContextAttentionProcessor,
    KeyValue,
    Rotary,
    SelfAttentionProcessor,
    image_key_value,
    text_key_value,
)


def gated_sum(tokens: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """``tokens + update * gate``, computed in float32, in the dtype of the tokens."""
    return (tokens.float() + update.float() * gate).type_as(tokens)


class StereoBlock(WanTransformerBlock):  # type: ignore[misc]  # diffusers has no types
    """Wan's block on one row of tokens, the target's and then the references'.

    Weights, norms and modulation are the same for both.

    Args:
        keep_reference: whether the reference tokens that leave the block are used by anyone;
            without it the block skips their output and feed-forward.
        arguments: those of Wan's block.
    """

    def __init__(self, *, keep_reference: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.attn1.set_processor(SelfAttentionProcessor())
        self.attn2.set_processor(ContextAttentionProcessor())
        self.keep_reference = keep_reference

    def text_key_value(self, tokens: Tensor) -> KeyValue:
        """Cross-attention keys and values of embedded text [B, 512, width]."""
        return text_key_value(self.attn2, tokens)

    def image_key_value(self, tokens: Tensor) -> KeyValue:
        """Cross-attention keys and values of an embedded image [B, 257, width]."""
        return image_key_value(self.attn2, tokens)

    def forward(
        self,
        hidden_states: Tensor,
        text: Context,
        image: Context,
        temb: Tensor,
        rotary_emb: Rotary,
        targets: int | None = None,
    ) -> Tensor:
        """One block; norms, modulation and gated sums in float32.

        Args:
            hidden_states: [B, N, width], the target's tokens and then the references'.
            text: [B, 512, width] tokens, or this block's keys and values of them.
            image: [B, 257, width] tokens, or this block's keys and values of them.
            temb: [B, 6, width] time modulation.
            rotary_emb: positions of the N tokens.
            targets: how many of the tokens are the target's; None: all.

        Returns:
            [B, N, width] or, where nobody uses the references, [B, targets, width].
        """
        modulation = (self.scale_shift_table + temb.float()).chunk(6, dim=1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation
        kept = None if self.keep_reference else targets

        ready = (self.norm1(hidden_states.float()) * (1 + scale) + shift).type_as(hidden_states)
        attended = self.attn1(ready, rotary_emb=rotary_emb, queries=kept)
        hidden_states = gated_sum(hidden_states[:, :kept], attended, gate)
        # The target alone looks at text and image.
        target = hidden_states[:, :targets]
        ready = self.norm2(target.float()).type_as(target)
        target = target + self.attn2(ready, text, image=image)
        if target.shape[1] == hidden_states.shape[1]:
            hidden_states = target
        else:
            hidden_states = torch.cat([target, hidden_states[:, targets:]], dim=1)
        ready = self.norm3(hidden_states.float()) * (1 + ffn_scale) + ffn_shift
        return gated_sum(hidden_states, self.ffn(ready.type_as(hidden_states)), ffn_gate)
