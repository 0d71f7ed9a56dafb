"""Applies parallelism, compilation and sharded weights to a transformer: the one place that does.

The order matters: 8-bit layers, sequence parallelism of self-attention and the token boundaries,
then compilation of each block, then fully sharded weights block by block and at last the root.
All of it may be done to a model on the meta device; checkpoint.py then fills what each rank
holds. The model itself knows no ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method

from worldstereo.config import ComputeOptions
from worldstereo.errors import ParameterError
from worldstereo.models.attention_backend import attention_backend, set_attention
from worldstereo.models.float8 import check_float8, use_float8
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import CFG, ULYSSES, ParallelMesh
from worldstereo.parallel.sequence import GatherTokens, HeadExchange, SplitTokens
from worldstereo.parallel.weights import shard_weights

# What is called on a model or block beside ``forward`` and reads their weights.
_ROOT_METHODS = ("text_keys", "image_keys", "controlnet_residuals")
_BLOCK_METHODS = ("text_key_value", "image_key_value")


def parallelize_transformer(
    model: WorldStereoTransformer,
    mesh: ParallelMesh,
    options: ComputeOptions,
    *,
    share_control: bool = False,
) -> None:
    """Prepare a transformer for its ranks, in place.

    Args:
        model: whole, in its final dtypes; usually on the meta device.
        mesh: the ranks, all of which call this.
        options: attention backend, compilation, 8-bit products.
        share_control: whether the branches of guidance share the ControlNet's tokens; see
            ``layout.shares_control``.

    Raises:
        ParameterError: the device or the layout does not go with an option.
        MissingDependencyError: the attention backend's package is missing.
    """
    _check_options(mesh, options)
    if options.fp8:
        use_float8(model)
    split_tokens(model, mesh, options.attention, share_control=share_control)
    if options.compile:
        compile_blocks(model)
    if mesh.layout.fsdp:
        _shard_weights(model, mesh)


def _check_options(mesh: ParallelMesh, options: ComputeOptions) -> None:
    if options.fp8:
        check_float8(mesh.device)
    if options.fp8 and mesh.layout.fsdp:
        raise ParameterError(
            "8-bit weights are not sharded",
            where="precision: fp8",
            got="fp8 with parallel.fsdp",
            allowed="fp8 without fsdp: the weights take half as much memory",
            fix="leave fsdp out, or use precision bfloat16",
        )


def split_tokens(
    model: WorldStereoTransformer, mesh: ParallelMesh, attention: str, *, share_control: bool
) -> None:
    """Self-attention over all ranks' tokens; everything else over this rank's own.

    Args:
        model: changed in place.
        mesh: the ranks; nothing is split where one runs a pass.
        attention: name of the backend.
        share_control: whether ranks of both guidance branches, which need the same of the
            ControlNet, each make their part of it.
    """
    backend = attention_backend(attention, mesh.device)
    set_attention(model, backend, None)
    if mesh.device_mesh is None:
        return
    tokens, branches = mesh.device_mesh[ULYSSES], mesh.device_mesh[CFG]
    control = model.controlnet
    if mesh.layout.ulysses > 1:
        set_attention(model, backend, HeadExchange(tokens))
        model.split_tokens, model.gather_tokens = SplitTokens(tokens), GatherTokens(tokens)
        control.split_tokens = model.split_tokens
        control.ranks = mesh.layout.ulysses
    if share_control and mesh.layout.cfg > 1:
        set_attention(control, backend, HeadExchange(mesh.row()))
        control.split_tokens = nn.Sequential(control.split_tokens, SplitTokens(branches))
        control.gather_tokens = GatherTokens(branches)
        control.ranks = mesh.size


def compile_blocks(model: WorldStereoTransformer, backend: str = "inductor") -> None:
    """Compile both kinds of blocks, each kind once for all blocks of it.

    The number of reference tokens is left open; other shapes are compiled when they first come.

    Args:
        model: whose blocks are compiled; only their ``forward``, so that hooks stay outside.
        backend: of ``torch.compile``.
    """
    for block in (*model.blocks, *model.controlnet.controlnet_blocks):
        block.forward = torch.compile(block.forward, backend=backend)
    for block in model.blocks:
        block.register_forward_pre_hook(_leave_references_open)


def _leave_references_open(block: nn.Module, args: tuple[Any, ...]) -> None:
    tokens, _, _, _, rotary, targets = args
    if tokens.shape[1] != targets:
        for tensor in (tokens, *rotary):
            torch._dynamo.mark_dynamic(tensor, 1)


def _shard_weights(model: WorldStereoTransformer, mesh: ParallelMesh) -> None:
    """Every rank keeps a part of each weight and sees one block's whole at a time."""
    shard_weights(model, (*model.blocks, *model.controlnet.controlnet_blocks), mesh)
    for block in model.blocks:
        for name in _BLOCK_METHODS:
            register_fsdp_forward_method(block, name)
    for name in _ROOT_METHODS:
        register_fsdp_forward_method(model, name)
