"""Two GPUs for one clip, against one GPU in the same run: seconds, memory, agreement.

``python -m benchmarks.sharding [--attention NAME] [--flash3 FOLDER]`` on a machine with two GPUs.
Random bf16 weights at full size, 480x768, 21 keyframes, 8 references, blocks compiled. Both ranks
measure one GPU at the same time, as two replicas would; then they share: tokens (ulysses 2),
guidance (cfg 2), weights too (fsdp), and the VAE's frames. Medians of three runs after warm-up.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from diffusers import AutoencoderKLWan

from benchmarks import flash_attention_3
from benchmarks.environment import write_result
from benchmarks.forward import guided_step
from benchmarks.full_size_model import (
    FRAMES,
    HEIGHT,
    WIDTH,
    random_inputs,
    random_transformer,
    seconds,
    with_shared_parts,
)
from worldstereo.config import ComputeOptions
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.vae import KeyframeVAE

VARIANT = "worldstereo-memory"
REFERENCES = 8
# Published code on one and two H200.
PUBLISHED_S = {"one GPU": 5.18, "two GPUs": 2.84}


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds, with all ranks at the same point, and the peak of this rank's memory."""
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    runs = seconds(work)
    peak = torch.cuda.max_memory_allocated()
    return {"seconds": statistics.median(runs), "runs_s": runs, "peak_bytes": peak}


def share(found: dict[str, Any], name: str, row: dict[str, Any], rank: int) -> None:
    """Keep and print a row of rank 0."""
    found[name] = row
    if rank == 0:
        shown = {key: round(value, 5) for key, value in row.items() if isinstance(value, float)}
        print(f"{name:34} {shown}  peak {row.get('peak_bytes', 0) / 1e9:.1f} GB", flush=True)


@torch.no_grad()
def transformer_rows(
    mesh: ParallelMesh, options: ComputeOptions, found: dict[str, Any], rank: int
) -> torch.Tensor:
    """A forward and a guided step of a transformer over this mesh."""
    gc.collect()
    torch.cuda.empty_cache()
    torch._dynamo.reset()
    model = random_transformer(VARIANT, mesh, options)
    inputs = with_shared_parts(model, random_inputs(VARIANT, REFERENCES, mesh.device))
    name = str(mesh.layout)
    if mesh.layout.cfg == 1:
        share(found, f"forward, {name}", timed(lambda: model(**inputs)), rank)
    if mesh.size == 1:
        share(found, f"guided step, {name}", timed(lambda: guided_step(model, inputs)), rank)
    if mesh.layout.cfg == 2:

        def own_branch() -> torch.Tensor:
            conditional, unconditional = mesh.both_branches(model(**inputs).float())
            return unconditional + 5.0 * (conditional - unconditional)

        share(found, f"guided step, {name}", timed(own_branch), rank)
    weights = sum(getattr(p, "to_local", lambda p=p: p)().nbytes for p in model.parameters())
    found[f"weights_bytes, {name}"] = weights
    output: torch.Tensor = model(**inputs).float()
    return output


def vae_rows(mesh: ParallelMesh, found: dict[str, Any], rank: int) -> None:
    """Keyframes to latents and back, in float32 as published."""
    torch.manual_seed(0)
    with torch.device(mesh.device):
        vae = AutoencoderKLWan().eval().requires_grad_(False)
        video = torch.rand(1, 3, FRAMES, HEIGHT, WIDTH) * 2 - 1
    keyframes = KeyframeVAE(vae, mesh=mesh)
    latents = keyframes.encode(video)
    share(found, f"VAE encode, {mesh.layout}", timed(lambda: keyframes.encode(video)), rank)
    share(found, f"VAE decode, {mesh.layout}", timed(lambda: keyframes.decode(latents)), rank)


def run(rank: int, arguments: argparse.Namespace, folder: str) -> None:
    if arguments.flash3:
        flash_attention_3.provide(arguments.flash3)
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    options = ComputeOptions(compile=not arguments.eager, attention=arguments.attention)
    found: dict[str, Any] = {"attention": arguments.attention, "published_s": PUBLISHED_S}
    alone = ParallelMesh.single(device)
    plain = transformer_rows(alone, options, found, rank)
    vae_rows(alone, found, rank)
    for number, layout in enumerate(
        (
            ParallelLayout(ulysses=2),
            ParallelLayout(cfg=2),
            ParallelLayout(ulysses=2, fsdp=True),
        )
    ):
        store = dist.FileStore(f"{folder}/{number}", 2)
        mesh = ParallelMesh.join(layout, rank=rank, store=store, device=device, timeout_s=300)
        output = transformer_rows(mesh, options, found, rank)
        error = float((output - plain).norm() / plain.norm())
        found[f"relative_l2, {layout}"] = error
        if rank == 0:
            print(f"{layout}: relative L2 against one GPU {error:.5f}", flush=True)
        if layout == ParallelLayout(ulysses=2):
            vae_rows(mesh, found, rank)
        mesh.leave()
    one, two = str(alone.layout), str(ParallelLayout(ulysses=2))
    found["ulysses_speedup"] = (
        found[f"forward, {one}"]["seconds"] / found[f"forward, {two}"]["seconds"]
    )
    found["guidance_speedup"] = (
        found[f"guided step, {one}"]["seconds"]
        / found[f"guided step, {ParallelLayout(cfg=2)}"]["seconds"]
    )
    if rank == 0:
        print({key: found[key] for key in ("ulysses_speedup", "guidance_speedup")})
        write_result(arguments.name, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--flash3", type=Path)
    parser.add_argument("--eager", action="store_true", help="without compilation")
    parser.add_argument("--name", default="sharding", help="stem of the result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, args=(arguments, folder), nprocs=2)


if __name__ == "__main__":
    main()
