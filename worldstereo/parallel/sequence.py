"""Where a transformer's tokens are split over the ranks of a pass, and put together again.

Two modules that take the place of a model's token boundaries. Tokens lie on dimension 1. Between
the two, every rank works on its own contiguous part; only self-attention sees the others', through
diffusers' context parallelism (models/parallelize.py).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh


class SplitTokens(nn.Module):
    """This rank's part of tokens that all ranks hold.

    Args:
        mesh: one-dimensional, the ranks that share a pass.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self._parts, self._mine = mesh.size(), mesh.get_local_rank()

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, ...] -> [B, N / ranks, ...], a view."""
        count = tokens.shape[1]
        assert count % self._parts == 0, (count, self._parts)  # check_layout saw to it
        return tokens.chunk(self._parts, dim=1)[self._mine]


class GatherTokens(nn.Module):
    """All ranks' parts in their order, on every rank.

    Args:
        mesh: as for ``SplitTokens``.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self._parts, self._group = mesh.size(), mesh.get_group()

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N / ranks, ...] -> [B, N, ...]."""
        parts = [torch.empty_like(tokens) for _ in range(self._parts)]
        dist.all_gather(parts, tokens.contiguous(), group=self._group)
        return torch.cat(parts, dim=1)
