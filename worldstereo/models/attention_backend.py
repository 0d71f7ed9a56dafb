"""Which attention kernel a transformer computes with, and the refusal of those that would not do.

Owns the choice and setting it on a model's processors. The kernels are diffusers' attention
backends, by its names; ``fp8`` is ours (attention_fp8.py).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _check_attention_backend_requirements,
    _maybe_download_kernel_for_backend,
)

from worldstereo.errors import MissingDependencyError, ParameterError
from worldstereo.models.attention import (
    FP8,
    ContextAttentionProcessor,
    SelfAttentionProcessor,
)
from worldstereo.models.attention_fp8 import require_cudnn
from worldstereo.models.transformer import WorldStereoTransformer

AUTO = "auto"


def attention_backends(*, context_parallel: bool) -> list[str]:
    """Names that ``attention_backend`` takes.

    Args:
        context_parallel: those alone that see the tokens of other ranks.
    """
    supported: set[str] = _AttentionBackendRegistry._supports_context_parallel
    names = [name.value for name in AttentionBackendName]
    return [AUTO, FP8, *(name for name in names if name in supported or not context_parallel)]


def attention_backend(
    name: str, device: torch.device, *, context_parallel: bool
) -> AttentionBackendName | Literal["fp8"]:
    """The kernel of this name, ready to use.

    Args:
        name: a backend of diffusers'; ``fp8``: ours in 8 bits; ``auto``: PyTorch's own attention,
            which takes cuDNN's kernel on Hopper (compute capability 9.0) and the fused one of
            each other device.
        device: to compute on.
        context_parallel: whether tokens are split over ranks.

    Raises:
        ParameterError: no such backend, or one that would ignore context parallelism and
            compute with this rank's tokens alone.
        MissingDependencyError: its package is not installed, or its kernel cannot be had.
    """
    if name == AUTO:
        return AttentionBackendName.NATIVE
    if name == FP8:
        require_cudnn(device)
        return FP8
    allowed = attention_backends(context_parallel=context_parallel)
    if name not in allowed:
        known = name in attention_backends(context_parallel=False)
        raise ParameterError(
            "this attention backend would see one rank's tokens alone"
            if known
            else "no such attention backend",
            where="attention",
            got=repr(name),
            allowed=", ".join(allowed),
        )
    backend = AttentionBackendName(name)
    try:
        _check_attention_backend_requirements(backend)
        _maybe_download_kernel_for_backend(backend)
    except Exception as error:
        raise MissingDependencyError(
            f"the attention backend {name} cannot be used",
            where="attention",
            got=str(error).partition("\n")[0],
            allowed=f"{AUTO} needs nothing more",
        ) from error
    if device.type == "cpu" and backend is not AttentionBackendName.NATIVE:
        raise ParameterError(
            "this attention backend computes on a GPU",
            where="attention",
            got=f"{name!r} on a CPU",
            allowed=f"{AUTO}, {AttentionBackendName.NATIVE.value}",
        )
    return backend


def set_attention(
    model: WorldStereoTransformer,
    backend: AttentionBackendName | Literal["fp8"],
    parallel: Any | None,
) -> None:
    """Let all of a model's attention compute with a backend.

    Args:
        model: backbone and ControlNet.
        backend: from ``attention_backend``; in 8 bits it is self-attention's, which takes nearly
            all the time.
        parallel: diffusers' ``ParallelConfig`` for self-attention over all ranks' tokens, or
            None. Cross-attention looks at a context that every rank holds, and takes none.
    """
    for module in model.modules():
        processor = getattr(module, "processor", None)
        if isinstance(processor, SelfAttentionProcessor):
            processor._attention_backend = backend
            processor._parallel_config = parallel
        elif isinstance(processor, ContextAttentionProcessor):
            processor._attention_backend = (
                AttentionBackendName.NATIVE if backend == FP8 else backend
            )
