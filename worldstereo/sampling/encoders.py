"""Prompts and start frames to embeddings, in float32 unless told otherwise.

Owns how a prompt is cleaned, padded and remembered, and which hidden state of the vision
transformer is taken. The networks and the tokenizer are transformers' own; loading them from a
base model's folder is the pipeline's work.
"""

from __future__ import annotations

import html
import re
from collections import OrderedDict
from typing import Any

import ftfy
import torch
from PIL import Image
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    PreTrainedTokenizerBase,
    UMT5EncoderModel,
)
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

TEXT_TOKENS = 512
# 8 MB a prompt at full size: a scene's prompts and the negative one, with room to spare.
REMEMBERED_PROMPTS = 32


def clean_prompt(prompt: str) -> str:
    """Repair broken encodings, undo HTML escapes (twice) and collapse white space."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


class TextEncoder:
    """UMT5 embeddings of 512 tokens with zeros behind the prompt's end.

    The last prompts' embeddings are kept, on the encoder's device: the negative prompt is encoded
    once, and so is a prompt that several trajectories of a scene share.

    Args:
        tokenizer: the base model's tokenizer.
        model: its encoder, in evaluation mode on the device to compute on.
        remember: how many prompts' embeddings are kept.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: UMT5EncoderModel,
        remember: int = REMEMBERED_PROMPTS,
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self._remember = remember
        self._embeddings: OrderedDict[str, torch.Tensor] = OrderedDict()

    def encode(self, prompt: str) -> torch.Tensor:
        """Embedding of one prompt.

        Args:
            prompt: any text; what is longer than 512 tokens is cut off.

        Returns:
            [1, 512, text_dim] in the encoder's precision. Not to be written to.
        """
        text = clean_prompt(prompt)
        if text not in self._embeddings:
            self._embeddings[text] = self._embed(text)
            if len(self._embeddings) > self._remember:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(text)
        return self._embeddings[text]

    def forget(self) -> None:
        """Drop what is remembered."""
        self._embeddings.clear()

    @torch.no_grad()
    def _embed(self, text: str) -> torch.Tensor:
        tokens = self.tokenizer(
            [text],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.model.device)
        hidden: torch.Tensor = self.model(
            tokens.input_ids, attention_mask=tokens.attention_mask
        ).last_hidden_state
        # where, not a product: a non-finite value at a padded position must not survive.
        return torch.where(tokens.attention_mask[..., None].bool(), hidden, 0.0)


class ImageEncoder:
    """CLIP vision tokens of a start frame: the second-last hidden state, which the last layer gets.

    Args:
        processor: resizes, crops and normalises with PIL, whether torchvision is there or not,
            so that a clip comes out the same on every machine.
        model: the base model's vision transformer, in evaluation mode on its device.
    """

    def __init__(self, processor: CLIPImageProcessorPil, model: CLIPVisionModel) -> None:
        self.processor = processor
        self.model = model
        *_, self._last_layer = (m for m in model.modules() if isinstance(m, CLIPEncoderLayer))

    @torch.no_grad()
    def encode(self, image: Image.Image) -> torch.Tensor:
        """Tokens of one image.

        Args:
            image: RGB, already at working size.

        Returns:
            [1, tokens, image_dim] (257 tokens of 1280 at full size) in the encoder's precision.
        """
        pixels = self.processor(images=image, return_tensors="pt").pixel_values
        seen: list[torch.Tensor] = []

        def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])

        # transformers' output_hidden_states finds no layers in a model whose weights are sharded.
        hook = self._last_layer.register_forward_pre_hook(look, with_kwargs=True)
        try:
            self.model(pixels.to(self.model.device, self.model.dtype))
        finally:
            hook.remove()
        (hidden,) = seen
        return hidden
