"""Two GPUs for one clip, against one GPU in the same run: seconds, memory, agreement.

``python -m benchmarks.sharding [--attention NAME] [--flash3 FOLDER]`` on a machine with two GPUs.
Random bf16 weights at full size, 480x768, 21 keyframes, 8 references, blocks compiled. Both ranks
measure one GPU at the same time, as two replicas would; then they share: tokens (ulysses 2),
guidance (cfg 2), weights too (fsdp), and the VAE's frames. Medians of three runs after warm-up.
Agreement: of sharded with unsharded outputs, and of bf16 with the recorded float32 cases.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file

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
from tests.golden.check_transformer import build_case, inputs_of
from worldstereo.config import ComputeOptions
from worldstereo.models.parallelize import parallelize_transformer
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.vae import KeyframeVAE

VARIANT = "worldstereo-memory"
REFERENCES = 8
LAYOUTS = (
    ParallelLayout(),
    ParallelLayout(ulysses=2),
    ParallelLayout(cfg=2),
    ParallelLayout(ulysses=2, fsdp=True),
)
GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "transformer"
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


@torch.no_grad()
def golden_rows(mesh: ParallelMesh, found: dict[str, Any], attention: str) -> None:
    """Recorded float32 outputs against bf16 on this device, alone and over the mesh."""
    recorded = json.loads((GOLDEN / "transformer.json").read_text())
    outputs = load_file(GOLDEN / "transformer.safetensors")
    for name, case in recorded["cases"].items():
        salt, tiny = case.get("salt", recorded.get("salt", 0)), case.get("tiny", recorded["tiny"])
        inputs = {
            key: value.to(mesh.device) if isinstance(value, torch.Tensor) else value
            for key, value in inputs_of(case, tiny, salt).items()
        }

        def output(over: ParallelMesh) -> torch.Tensor:
            model = build_case(case, tiny, salt).to(over.device, torch.bfloat16)  # noqa: B023
            parallelize_transformer(model, over, ComputeOptions(attention=attention))
            result: torch.Tensor = model(**inputs).float()  # noqa: B023
            return result

        alone = output(ParallelMesh.single(mesh.device))
        expected = outputs[name].to(mesh.device)
        found[f"golden {name}"] = {
            "bf16_against_float32": relative_l2(alone, expected),
            "sharded_against_alone": relative_l2(output(mesh), alone),
        }


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def run(rank: int, arguments: argparse.Namespace, layout: ParallelLayout, folder: str) -> None:
    """One layout, in processes of its own: what a replica's workers are."""
    if arguments.flash3:
        flash_attention_3.provide(arguments.flash3)
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    options = ComputeOptions(compile=not arguments.eager, attention=arguments.attention)
    found: dict[str, Any] = {}
    if layout.world_size == 1:
        mesh = ParallelMesh.single(device)
    else:
        store = dist.FileStore(f"{folder}/{layout}", layout.world_size)
        mesh = ParallelMesh.join(layout, rank=rank, store=store, device=device, timeout_s=300)
    output = transformer_rows(mesh, options, found, rank)
    if layout.cfg == 1 and not layout.fsdp:
        vae_rows(mesh, found, rank)
    if layout == ParallelLayout(ulysses=2):
        golden_rows(mesh, found, arguments.attention)
    plain = Path(folder, f"plain{rank}.pt")
    if layout.world_size == 1:
        torch.save(output, plain)
    else:
        found[f"relative_l2, {layout}"] = relative_l2(output, torch.load(plain, device))
    if rank == 0:
        Path(folder, f"{layout}.json").write_text(json.dumps(found))
    torch.cuda.synchronize()
    mesh.leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--flash3", type=Path)
    parser.add_argument("--eager", action="store_true", help="without compilation")
    parser.add_argument("--name", default="sharding", help="stem of the result file")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"attention": arguments.attention, "published_s": PUBLISHED_S}
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            torch.multiprocessing.spawn(run, args=(arguments, layout, folder), nprocs=2)
            found |= json.loads(Path(folder, f"{layout}.json").read_text())
    forward, guided = (
        {str(layout): found.get(f"{what}, {layout}", {}).get("seconds") for layout in LAYOUTS}
        for what in ("forward", "guided step")
    )
    one = str(LAYOUTS[0])
    found["ulysses_speedup"] = forward[one] / forward[str(ParallelLayout(ulysses=2))]
    found["guidance_speedup"] = guided[one] / guided[str(ParallelLayout(cfg=2))]
    for key, value in found.items():
        if not isinstance(value, dict) or "runs_s" not in value:
            print(key, value)
    write_result(arguments.name, found)


if __name__ == "__main__":
    main()
