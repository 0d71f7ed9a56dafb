"""FlashAttention-3 for a machine that cannot reach the Hub: the same kernel out of a wheel.

diffusers' backend ``_flash_3_hub`` fetches the kernel from the Hub. xformers 0.0.34 carries it in
its wheel as ``xformers/flash_attn_3/_C.so``, built for torch's stable interface. ``provide`` puts
that one where diffusers keeps the one that it fetched, so that the backend is measured as it is.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_dispatch import _HUB_KERNELS_REGISTRY, AttentionBackendName
from torch import Tensor


def provide(folder: Path) -> None:
    """Let ``_flash_3_hub`` compute with a local kernel.

    Args:
        folder: with ``fa3_C.so`` and the ``libcudart.so.12`` that it was linked to.
    """
    ctypes.CDLL(str(folder / "libcudart.so.12"), mode=ctypes.RTLD_GLOBAL)
    torch.ops.load_library(str(folder / "fa3_C.so"))
    kernel = _HUB_KERNELS_REGISTRY[AttentionBackendName._FLASH_3_HUB]
    kernel.kernel_fn = _attend
    kernel.wrapped_forward_fn = _forward
    kernel.wrapped_backward_fn = _no_backward


@torch.library.custom_op("benchmarks::flash_attention_3", mutates_args=(), device_types="cuda")
def _kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.flash_attn_3.fwd(query, key, value, softmax_scale=scale, is_causal=False)[
        :2
    ]
    return out, lse


@_kernel.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    batch, tokens, heads, _ = query.shape
    lse = query.new_empty((batch, heads, tokens), dtype=torch.float32)
    return torch.empty_like(query, memory_format=torch.contiguous_format), lse


def _attend(q: Tensor, k: Tensor, v: Tensor, **unused: Any) -> Tensor:
    out: Tensor = _kernel(q, k, v, q.shape[-1] ** -0.5)[0]
    return out


def _forward(q: Tensor, k: Tensor, v: Tensor, *unused: Any, **also_unused: Any) -> Any:
    return _kernel(q, k, v, q.shape[-1] ** -0.5)


def _no_backward(*arguments: Any, **named: Any) -> None:
    raise AssertionError("inference only")
