"""How a clip's frames are split over ranks, worked on and put together again.

For what treats each frame by itself: the VAE and the renderer. Counts may be uneven; ranks
without a frame take part in the exchange alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from worldstereo.parallel.mesh import ParallelMesh


def split_frames(frames: int, parts: int) -> list[int]:
    """How many frames each rank gets: ``frames // parts``, the rest one each to the last ranks.

    Args:
        frames: >= 0.
        parts: number of ranks, >= 1.

    Returns:
        ``parts`` counts whose sum is ``frames``.
    """
    assert frames >= 0, frames
    assert parts >= 1, parts
    share, rest = divmod(frames, parts)
    return [share] * (parts - rest) + [share + 1] * rest


def over_frames(mesh: ParallelMesh, work: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """``work(frames)`` with every rank doing its share, the whole on every rank.

    Args:
        mesh: all its ranks call this, with the same frames.
        work: [n, ...] -> [n, ...] for any n >= 1, each frame by itself; the results lie on the
            mesh's device.
        frames: [N, ...], N >= 1.

    Returns:
        [N, ...], what one rank would return, but for rounding that depends on how many frames
        ``work`` is given at a time.
    """
    if mesh.size == 1:
        return work(frames)
    counts = split_frames(len(frames), mesh.size)
    # Ranks without a frame work on the first one, so that all know the shape of a result.
    start = sum(counts[: mesh.rank])
    mine = work(frames[start : start + max(counts[mesh.rank], 1)])
    most = max(counts)
    # Both backends want parts of one size: short ones are filled up, and cut again.
    padded = mine.new_zeros(most, *mine.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
