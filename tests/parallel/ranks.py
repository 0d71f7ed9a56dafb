"""Runs a function on several ranks, each a process of its own, and brings the results back."""

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import ParallelMesh

# A rank that waits for longer has lost the others; on a busy machine they start slowly.
TIMEOUT_S = 300
LOOPBACK = "lo"


def on_ranks(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """``work(Rank, *arguments)`` on each rank; its results in the order of the ranks.

    Args:
        count: processes.
        work: of a module that the processes can import.
        arguments: must be picklable; results too, by ``torch.save``.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = torch.multiprocessing.get_context("forkserver")
        # Every rank needs it, and loading it takes seconds: once for all.
        context.set_forkserver_preload(["worldstereo.sampling.pipeline"])
        processes = [
            context.Process(target=_run, args=(rank, count, Path(folder), work, arguments))
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        failures = [path.read_text() for path in sorted(Path(folder).glob("*.failure"))]
        assert not failures, "\n".join(failures)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(count)]


class Rank:
    """What a rank's work is given: it joins one layout after the other."""

    def __init__(self, index: int, folder: Path) -> None:
        self.index = index
        self._folder = folder
        self._meetings = 0

    def join(self, layout: ParallelLayout) -> ParallelMesh:
        self._meetings += 1
        store = dist.FileStore(str(self._folder / f"store{self._meetings}"), layout.world_size)
        return ParallelMesh.join(
            layout, rank=self.index, store=store, device="cpu", timeout_s=TIMEOUT_S
        )


def _run(
    rank: int, count: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    torch.set_num_threads(1)
    try:
        torch.save(work(Rank(rank, folder), *arguments), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.failure").write_text(
            f"rank {rank} of {count}:\n{traceback.format_exc()}"
        )
        raise
