"""How the tokens of a pass are split over ranks, exchanged for attention and put together again.

Two modules take the place of a model's token boundaries; tokens lie on dimension 1. Between the
two every rank works on its own contiguous part. Self-attention alone sees the others': each rank
exchanges its part of all heads for all tokens of its part of the heads, and back (DeepSpeed
Ulysses, Jacobs et al., 2023, arXiv 2309.14509).
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


class HeadExchange:
    """All tokens of some heads for some tokens of all heads, and back.

    Not diffusers' context parallelism, which transposes the attention's output before and after
    its way back and knows fewer attention kernels. Each exchange is waited for: beside a matrix
    product it takes longer than alone, and slows the product by more (docs/performance.md). Any
    order of tokens will do: no mask, and their positions are in the queries and keys.

    Args:
        mesh: one-dimensional, the ranks that share a pass.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self._parts, self._group = mesh.size(), mesh.get_group().group_name

    def by_heads(self, mine: Tensor) -> Tensor:
        """Give each rank its heads of this rank's tokens.

        Args:
            mine: [B, tokens, heads, head size].

        Returns:
            [B, tokens of all ranks, heads / ranks, head size], rank by rank.
        """
        batch, tokens, heads, size = mine.shape
        by_rank = mine.reshape(batch, tokens, self._parts, heads // self._parts, size)
        exchanged = self._exchange(by_rank.permute(2, 0, 1, 3, 4).contiguous())
        return exchanged.transpose(0, 1).flatten(1, 2)

    def by_tokens(self, mixed: Tensor) -> Tensor:
        """Give each rank its tokens of this rank's heads.

        Args:
            mixed: [B, tokens of all ranks, heads / ranks, head size].

        Returns:
            [B, tokens, heads, head size].
        """
        batch, tokens, heads, size = mixed.shape
        by_rank = mixed.reshape(batch, self._parts, tokens // self._parts, heads, size)
        exchanged = self._exchange(by_rank.transpose(0, 1).contiguous())
        return exchanged.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _exchange(self, by_rank: Tensor) -> Tensor:
        """[ranks, ...] -> [ranks, ...]: the first index is the receiver's, then the sender's."""
        sizes = [1] * self._parts
        started = torch.ops._c10d_functional.all_to_all_single(by_rank, sizes, sizes, self._group)
        exchanged: Tensor = torch.ops._c10d_functional.wait_tensor(started)
        return exchanged
