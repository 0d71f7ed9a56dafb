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
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    PreTrainedModel,
    UMT5EncoderModel,
)

from worldstereo.errors import CheckpointError
from worldstereo.models.progress import without_progress_bars
from worldstereo.models.source import shortened
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.parallel.weights import shard_weights
from worldstereo.sampling.encoders import ImageEncoder, TextEncoder
from worldstereo.sampling.vae import KeyframeVAE

Part = TypeVar("Part")

# What the libraries raise for a file that is missing, cut off or of another kind.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


def load_vae(base: Path, mesh: ParallelMesh) -> KeyframeVAE:
    """``vae`` in float32: latents outside the transformer stay so. Whole on every rank.

    Raises:
        CheckpointError: the folder lacks it, or its weights do not fit.
    """
    folder = base / "vae"
    vae = _load_model(folder, AutoencoderKLWan.from_pretrained, torch_dtype=torch.float32)
    return KeyframeVAE(vae.to(mesh.device), mesh=mesh)


def load_text_encoder(base: Path, mesh: ParallelMesh, dtype: torch.dtype) -> TextEncoder:
    """``tokenizer`` and ``text_encoder``; its weights are sharded where the layout says so.

    Raises:
        CheckpointError: the folder lacks one, or its weights do not fit.
    """
    tokenizer = _load(base / "tokenizer", AutoTokenizer.from_pretrained)
    model = _load_model(
        base / "text_encoder",
        UMT5EncoderModel.from_pretrained,
        dtype=dtype,
        device_map=str(mesh.device),
    )
    shard_weights(model, _blocks(model), mesh)
    return TextEncoder(tokenizer, model)


def load_image_encoder(base: Path, mesh: ParallelMesh, dtype: torch.dtype) -> ImageEncoder:
    """``image_processor`` and ``image_encoder``; its weights are sharded likewise.

    Raises:
        CheckpointError: the folder lacks one, or its weights do not fit.
    """
    processor = _load(base / "image_processor", CLIPImageProcessorPil.from_pretrained)
    model = _load_model(
        base / "image_encoder",
        CLIPVisionModel.from_pretrained,
        dtype=dtype,
        device_map=str(mesh.device),
    )
    shard_weights(model, _blocks(model), mesh)
    return ImageEncoder(processor, model)


def load_scheduler_config(base: Path) -> Mapping[str, Any]:
    """Settings of the ``scheduler``.

    Raises:
        CheckpointError: the folder lacks it, or it is no UniPC scheduler's.
    """
    folder = base / "scheduler"
    config: dict[str, Any] = _load(folder, UniPCMultistepScheduler.load_config)
    _load(folder, lambda _: UniPCMultistepScheduler.from_config(config))
    return config


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model that its library says must stay whole on a device."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


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
