"""Which attention kernel a transformer computes with, and the refusal of those that would not do.

Owns the choice and setting it on a model's processors. The kernels are diffusers' attention
backends, by its names; ``fp8`` is ours (attention_fp8.py). None of them knows of other ranks: each
is given all tokens of this rank's heads, so all of them go with sequence parallelism.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    _maybe_download_kernel_for_backend,
)
from torch import nn

from worldstereo.errors import MissingDependencyError, ParameterError
from worldstereo.models.attention import (
    FP8,
    ContextAttentionProcessor,
    Exchange,
    SelfAttentionProcessor,
)
from worldstereo.models.attention_fp8 import require_cudnn

AUTO = "auto"

# A kernel by diffusers' name (``AttentionBackendName``, which has no types), or ``fp8``.
Backend: TypeAlias = Any


def attention_backends() -> list[str]:
    """Names that ``attention_backend`` takes."""
    return [AUTO, FP8, *(name.value for name in AttentionBackendName)]


def attention_backend(name: str, device: torch.device) -> Backend:
    """The kernel of this name, ready to use.

    Args:
        name: a backend of diffusers'; ``fp8``: ours in 8 bits; ``auto``: PyTorch's own attention,
            which takes cuDNN's kernel on Hopper (compute capability 9.0) and the fused one of
            each other device.
        device: to compute on.

    Raises:
        ParameterError: no such backend, or not for this device.
        MissingDependencyError: its package is not installed, or its kernel cannot be had.
    """
    if name == AUTO:
        return AttentionBackendName.NATIVE
    if name == FP8:
        require_cudnn(device)
        return FP8
    if name not in attention_backends():
        raise ParameterError(
            "no such attention backend",
            where="attention",
            got=repr(name),
            allowed=", ".join(attention_backends()),
        )
    backend = AttentionBackendName(name)
    if device.type == "cpu" and backend is not AttentionBackendName.NATIVE:
        raise ParameterError(
            "this attention backend computes on a GPU",
            where="attention",
            got=f"{name!r} on a CPU",
            allowed=f"{AUTO}, {AttentionBackendName.NATIVE.value}",
        )
    try:
        _check_attention_backend_requirements(backend)
        _maybe_download_kernel_for_backend(backend)
    except Exception as error:
        raise MissingDependencyError(
            f"the attention backend {name} cannot be used",
            where="attention",
            got=str(error).partition("\n")[0],
            allowed=f"{AUTO}, which needs nothing more",
        ) from error
    return backend


def set_attention(model: nn.Module, backend: Backend, exchange: Exchange | None) -> None:
    """Let all attention of a model, or of a part of it, compute with a backend.

    Args:
        model: a transformer, its ControlNet or a block.
        backend: from ``attention_backend``; in 8 bits it is self-attention's, which takes nearly
            all the time.
        exchange: how self-attention sees other ranks' tokens; None: there are none.
    """
    for module in model.modules():
        processor = getattr(module, "processor", None)
        if isinstance(processor, SelfAttentionProcessor):
            processor._attention_backend = backend
            processor._exchange = exchange
        elif isinstance(processor, ContextAttentionProcessor):
            processor._attention_backend = (
                AttentionBackendName.NATIVE if backend == FP8 else backend
            )
