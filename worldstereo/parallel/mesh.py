"""The ranks that share one model replica, and this process's place among them.

Owns the process groups and the few exchanges that are not part of a module: every rank gets the
leader's noise, both guidance branches, and the leader's decision to stop. Each returns at once
where there is one rank. Every rank calls them in the same order, whatever it knows by itself:
rank 0 decides, the rest are told. Leaves to others: who starts the ranks and where they meet,
which modules are split (models/parallelize.py), and frames (frames.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from worldstereo.errors import ParameterError
from worldstereo.parallel.layout import ParallelLayout

CFG, ULYSSES = "cfg", "ulysses"


class ParallelMesh:
    """This rank, and all that share a clip with it; made by ``single`` or ``join``.

    Attributes:
        layout: the degrees.
        rank: 0 leads.
        device: of this rank.
        device_mesh: [cfg, ulysses]; None with one rank.
    """

    def __init__(
        self,
        layout: ParallelLayout,
        rank: int,
        device: torch.device,
        device_mesh: DeviceMesh | None,
    ) -> None:
        self.layout = layout
        self.rank = rank
        self.device = device
        self.device_mesh = device_mesh

    @classmethod
    def single(cls, device: torch.device | str) -> ParallelMesh:
        """One rank by itself: no groups, no exchanges."""
        return cls(ParallelLayout(), 0, torch.device(device), None)

    @classmethod
    def join(
        cls,
        layout: ParallelLayout,
        *,
        rank: int,
        store: dist.distributed_c10d.Store,
        device: torch.device | str,
        timeout_s: float,
    ) -> ParallelMesh:
        """Meet the other ranks; all must call it.

        Args:
            layout: the same on all ranks.
            rank: of this process, 0 to ``layout.world_size - 1``.
            store: where the ranks meet, such as a ``TCPStore``.
            device: of this rank, a CUDA device (``cuda``: the current one) or the CPU. Tensors on
                it go through NCCL or Gloo, words between the processes always through Gloo.
            timeout_s: an exchange that takes longer raises. Whoever runs the ranks should notice
                earlier: NCCL ends the process.

        Raises:
            ParameterError: ``rank`` does not exist in this layout.
            torch.distributed.DistError: the others were not there in time.
        """
        if not 0 <= rank < layout.world_size:
            raise ParameterError(
                "there is no such rank",
                where="rank",
                got=str(rank),
                allowed=f"0 to {layout.world_size - 1} for {layout}",
            )
        device = torch.device(device)
        timeout = timedelta(seconds=timeout_s)
        backend = "gloo"
        if device.type == "cuda":
            number = torch.cuda.current_device() if device.index is None else device.index
            device = torch.device("cuda", number)
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend,
            store=store,
            rank=rank,
            world_size=layout.world_size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
        shape = (layout.cfg, layout.ulysses)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=(CFG, ULYSSES))
        for group in mesh.get_all_groups():
            # A device mesh gives its groups the backend's own, half an hour.
            dist.distributed_c10d._set_pg_timeout(timeout, group)
        return cls(layout, rank, device, mesh)

    @property
    def size(self) -> int:
        """Ranks of the replica."""
        return self.layout.world_size

    @property
    def is_leader(self) -> bool:
        """Whether this is the rank that decides, and whose frames and progress count."""
        return self.rank == 0

    @property
    def branch(self) -> int:
        """Which guidance pass is this rank's where they are shared: 0 conditional, 1 not."""
        return 0 if self.device_mesh is None else self.device_mesh.get_local_rank(CFG)

    def row(self) -> DeviceMesh:
        """All ranks in one row: what shares weights, or the ControlNet of two branches."""
        return init_device_mesh(self.device.type, (self.size,), mesh_dim_names=("ranks",))

    def from_leader(self, tensor: Tensor) -> Tensor:
        """The leader's values in every rank's tensor of this shape, dtype and device."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def both_branches(self, mine: Tensor) -> tuple[Tensor, Tensor]:
        """The conditional and the unconditional pass's result; each rank brings its own.

        Args:
            mine: the pass ``branch``, contiguous; the same shape on all ranks.
        """
        assert self.device_mesh is not None
        assert self.layout.cfg == 2, self.layout
        conditional, unconditional = torch.empty_like(mine), torch.empty_like(mine)
        dist.all_gather([conditional, unconditional], mine, group=self.device_mesh.get_group(CFG))
        return conditional, unconditional

    def agree(self, step: Callable[[], None]) -> None:
        """Run the leader's ``step``; where it raises, every rank raises in the same place.

        The leader raises what it caught, the others ``LeaderStopped``.
        """
        failure: BaseException | None = None
        if self.is_leader:
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - the others must be told of any
                failure = error
        if self.size > 1:
            word = torch.tensor([failure is not None], dtype=torch.uint8)
            dist.broadcast(word, src=0)
            if bool(word) and not self.is_leader:
                raise LeaderStopped
        if failure is not None:
            raise failure

    def leave(self) -> None:
        """Give the process groups up; twice is harmless."""
        if self.device_mesh is not None:
            self.device_mesh = None
            # Others may have gone before, with what this one still waits for.
            with suppress(RuntimeError, ValueError):
                dist.destroy_process_group()


class LeaderStopped(Exception):
    """The leading rank ended the clip, on request or because it failed."""
