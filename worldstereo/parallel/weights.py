"""Weights that no rank holds whole: each block's are gathered when its turn comes (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.distributed.fsdp import fully_shard

from worldstereo.parallel.mesh import ParallelMesh


def shard_weights(model: nn.Module, blocks: Iterable[nn.Module], mesh: ParallelMesh) -> None:
    """Split a model's weights over all ranks, in place; nothing where the layout does not ask.

    Every rank must then run the model's ``forward`` at the same time as the others.

    Args:
        model: on the meta device, or with weights: those that are others' part are freed.
        blocks: parts of it that are gathered and freed one at a time.
        mesh: the ranks.
    """
    if not mesh.layout.fsdp:
        return
    row = mesh.row()
    for module in (*blocks, model):
        # The rest too, which FSDP would keep whole from the first call on: of UMT5 that is 4 GB.
        fully_shard(module, mesh=row, reshard_after_forward=True)
