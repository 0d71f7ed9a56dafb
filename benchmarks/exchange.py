"""What the exchanges of sequence parallelism cost on two GPUs: alone, and beside a product.

``python -m benchmarks.exchange`` on a machine with two GPUs. One exchange of a full-size block with
8 references: half of 41,760 tokens on each rank, 40 heads of 128, bf16. Medians of three times ten.
``push``: each rank writes into the other's memory (PyTorch's symmetric memory) instead of sending
through NCCL; the product does not use it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric_memory
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.environment import write_result
from benchmarks.full_size_model import seconds
from worldstereo.parallel.sequence import HeadExchange

TOKENS, HEADS, SIZE, FFN = 41_760 // 2, 40, 128, 13_824
REPEATS = 10


def milliseconds(work: Callable[[], Any]) -> float:
    """Of one call on this rank, both beginning together."""

    def often() -> None:
        for _ in range(REPEATS):
            work()

    often()
    dist.barrier()
    return statistics.median(seconds(often)) * 1000 / REPEATS


@torch.no_grad()
def run(rank: int, folder: str) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("nccl", store=store, rank=rank, world_size=2, device_id=device)
    exchange = HeadExchange(init_device_mesh("cuda", (2,)))
    tokens = torch.randn(1, TOKENS, HEADS, SIZE, device=device, dtype=torch.bfloat16)
    packed = torch.randn(2, TOKENS, HEADS // 2, SIZE, device=device, dtype=torch.bfloat16)
    arrived = torch.empty_like(packed)
    hidden = tokens.flatten(2, 3)[0]
    weight = torch.randn(HEADS * SIZE, FFN, device=device, dtype=torch.bfloat16)

    # The first rows of the buffer are rank 0's tokens, the others rank 1's.
    shape = (1, 2 * TOKENS, HEADS // 2, SIZE)
    buffer = symmetric_memory.empty(*shape, device=device, dtype=torch.bfloat16)
    handle = symmetric_memory.rendezvous(buffer, dist.group.WORLD)
    buffers = [handle.get_buffer(owner, shape, torch.bfloat16) for owner in range(2)]
    rows = slice(rank * TOKENS, (rank + 1) * TOKENS)

    def push() -> None:
        handle.barrier(channel=0)
        for owner in range(2):
            heads = slice(owner * HEADS // 2, (owner + 1) * HEADS // 2)
            buffers[owner][:, rows].copy_(tokens[:, :, heads])
        handle.barrier(channel=1)

    def beside_product() -> None:
        started = dist.all_to_all_single(arrived, packed, async_op=True)
        _ = hidden @ weight
        started.wait()

    push()
    torch.cuda.synchronize()
    assert torch.equal(buffer, exchange.by_heads(tokens)), "the two exchanges differ"
    found = {
        "all_to_all_ms": milliseconds(lambda: dist.all_to_all_single(arrived, packed)),
        "by_heads_ms": milliseconds(lambda: exchange.by_heads(tokens)),
        "by_tokens_ms": milliseconds(lambda: exchange.by_tokens(exchange.by_heads(tokens)))
        - milliseconds(lambda: exchange.by_heads(tokens)),
        "push_ms": milliseconds(push),
        "product_ms": milliseconds(lambda: hidden @ weight),
        "all_to_all_beside_product_ms": milliseconds(beside_product),
        "sent_bytes": packed.nbytes // 2,
    }
    if rank == 0:
        print(write_result("exchange", found).read_text())
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, args=(folder,), nprocs=2)


if __name__ == "__main__":
    main()
