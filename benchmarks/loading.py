"""From a checkpoint on disk to a transformer on the devices: seconds and memory of the CPU.

``python -m benchmarks.loading FOLDER [--ranks 2] [--fsdp]``, FOLDER from full_size_checkpoint.py.
The files are in the page cache, or not: what the first run finds is told. Each rank streams what
it holds from the files to its device. The claim: no copy of the model in the CPU's memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.environment import write_result
from worldstereo.config import ComputeOptions
from worldstereo.models.checkpoint import load_transformer
from worldstereo.models.source import read_model_config
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import ParallelMesh

VARIANT = "worldstereo-memory-dmd"


class OwnMemory:
    """The most anonymous memory that this process had, bytes: pages of files do not count."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> OwnMemory:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.05):
            info = process.memory_info()
            self.peak = max(self.peak, info.rss - info.shared)


def run(rank: int, source: Path, layout: ParallelLayout, folder: str) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    mesh = ParallelMesh.single(device)
    if layout.world_size > 1:
        store = dist.FileStore(f"{folder}/store", layout.world_size)
        mesh = ParallelMesh.join(layout, rank=rank, store=store, device=device, timeout_s=300)
    torch.zeros(1, device=device)
    before = psutil.Process().memory_info()
    with OwnMemory() as own:
        began = time.perf_counter()
        model = load_transformer(
            VARIANT,
            source / "base" / "transformer",
            source / VARIANT,
            read_model_config(source / VARIANT),
            mesh=mesh,
            dtype=torch.bfloat16,
            options=ComputeOptions(),
        )
        torch.cuda.synchronize()
        took = time.perf_counter() - began
    row = {
        "seconds": took,
        "device_bytes": torch.cuda.memory_allocated(),
        "cpu_peak_bytes": own.peak - (before.rss - before.shared),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(row))
    del model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    arguments = parser.parse_args()
    files = [*arguments.source.glob("base/transformer/*.safetensors")]
    files += arguments.source.glob(f"{VARIANT}/*.safetensors")
    found: dict[str, Any] = {"file_bytes": sum(file.stat().st_size for file in files)}
    layouts = (
        ParallelLayout(),
        ParallelLayout(ulysses=2),
        ParallelLayout(ulysses=2, fsdp=True),
    )
    for layout in layouts[: 1 if torch.cuda.device_count() < 2 else 3]:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(
                run, args=(arguments.source, layout, folder), nprocs=layout.world_size
            )
            ranks = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
        found[str(layout)] = ranks
        print(layout, ranks, flush=True)
        write_result("loading", found)


if __name__ == "__main__":
    main()
