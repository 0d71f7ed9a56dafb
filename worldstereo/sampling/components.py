"""The parts of a base model beside its transformer: read from its folder, or refused.

Owns what a diffusers repository calls ``vae``, ``text_encoder``, ``tokenizer``,
``image_encoder``, ``image_processor`` and ``scheduler``. The libraries fill weights that a file
lacks with random ones; here that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPVisionModel, UMT5EncoderModel

from worldstereo.errors import CheckpointError
from worldstereo.models.progress import without_progress_bars
from worldstereo.models.source import shortened
from worldstereo.sampling.encoders import ImageEncoder, TextEncoder
from worldstereo.sampling.vae import KeyframeVAE

Part = TypeVar("Part")

# What the libraries raise for a file that is missing, cut off or of another kind.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


def load_vae(base: Path, device: torch.device) -> KeyframeVAE:
    """``vae`` in float32: latents outside the transformer stay so.

    Raises:
        CheckpointError: the folder lacks it, or its weights do not fit.
    """
    folder = base / "vae"
    vae = _load_model(folder, AutoencoderKLWan.from_pretrained, torch_dtype=torch.float32)
    return KeyframeVAE(vae.to(device))


def load_text_encoder(base: Path, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """``tokenizer`` and ``text_encoder``.

    Raises:
        CheckpointError: the folder lacks one, or its weights do not fit.
    """
    tokenizer = _load(base / "tokenizer", AutoTokenizer.from_pretrained)
    model = _load_model(base / "text_encoder", UMT5EncoderModel.from_pretrained, dtype=dtype)
    return TextEncoder(tokenizer, model.to(device))


def load_image_encoder(base: Path, device: torch.device, dtype: torch.dtype) -> ImageEncoder:
    """``image_processor`` and ``image_encoder``.

    Raises:
        CheckpointError: the folder lacks one, or its weights do not fit.
    """
    processor = _load(base / "image_processor", CLIPImageProcessorPil.from_pretrained)
    model = _load_model(base / "image_encoder", CLIPVisionModel.from_pretrained, dtype=dtype)
    return ImageEncoder(processor, model.to(device))


def load_scheduler_config(base: Path) -> Mapping[str, Any]:
    """Settings of the ``scheduler``.

    Raises:
        CheckpointError: the folder lacks it, or it is no UniPC scheduler's.
    """
    folder = base / "scheduler"
    config: dict[str, Any] = _load(folder, UniPCMultistepScheduler.load_config)
    _load(folder, lambda _: UniPCMultistepScheduler.from_config(config))
    return config


def _load(folder: Path, load: Callable[..., Part], **arguments: Any) -> Part:
    if not folder.is_dir():
        raise CheckpointError(
            "the base model lacks a part",
            where=str(folder),
            got="no such folder",
            fix="download the whole base model that config.json names",
        )
    try:
        return load(str(folder), **arguments)
    except _UNREADABLE as error:
        raise CheckpointError(
            "a part of the base model cannot be read",
            where=str(folder),
            got=f"{type(error).__name__}: {error}".partition("\n")[0],
            fix="download the folder again",
        ) from error


def _load_model(folder: Path, load: Callable[..., Any], **arguments: Any) -> Any:
    with without_progress_bars():
        model, report = _load(
            folder, load, local_files_only=True, output_loading_info=True, **arguments
        )
    wrong = {
        kind: sorted(str(key) for key in report.get(kind) or ())
        for kind in ("missing_keys", "mismatched_keys", "error_msgs")
    }
    if any(wrong.values()):
        raise CheckpointError(
            "weights that do not fit the part's config.json",
            where=str(folder),
            got="; ".join(
                f"{kind.replace('_', ' ')}: {shortened(keys)}"
                for kind, keys in wrong.items()
                if keys
            ),
            allowed="every weight present, in its shape",
        )
    return model.eval().requires_grad_(False)
