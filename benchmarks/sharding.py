"""Two GPUs for one clip, against one GPU in the same run: seconds, memory, agreement.

``python -m benchmarks.sharding [--attention NAME] [--flash3 FOLDER]`` on a machine with two GPUs.
Random bf16 weights at full size, 480x768, 21 keyframes, 8 references, blocks compiled. Both ranks
measure one GPU at the same time, as two replicas would; then they share guidance (cfg 2), tokens
(ulysses 2) and the VAE's frames. Medians of three runs after warm-up, all of one model. Agreement:
of sharded with unsharded outputs, and of bf16 with the recorded float32 cases.
"""

from __future__ import annotations

import argparse
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
from torch.distributed.device_mesh import init_device_mesh

from benchmarks import flash_attention_3
from benchmarks.environment import write_result
from benchmarks.forward import guided_step
from benchmarks.full_size_model import (
    FRAMES,
    HEIGHT,
    WIDTH,
    negative_keys,
    random_inputs,
    random_transformer,
    seconds,
    with_shared_parts,
)
from benchmarks.memory import memory_row
from tests.golden.check_transformer import build_case, inputs_of
from worldstereo.config import ComputeOptions
from worldstereo.models.parallelize import parallelize_transformer, split_tokens
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import CFG, ULYSSES, ParallelMesh
from worldstereo.sampling.vae import KeyframeVAE

VARIANT = "worldstereo-memory"
REFERENCES = 8
GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "transformer"
# Published code on one and two H200.
PUBLISHED_S = {"one GPU": 5.18, "two GPUs": 2.84}


def timed(work: Callable[[], torch.Tensor]) -> tuple[dict[str, Any], torch.Tensor]:
    """Seconds and the peak of this rank's memory, after a warm-up, whose result comes with it."""
    result = work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    runs = seconds(work)
    peak = torch.cuda.max_memory_allocated()
    return {"seconds": statistics.median(runs), "runs_s": runs, "peak_bytes": peak}, result


def keep(
    found: dict[str, Any], name: str, work: Callable[[], torch.Tensor], rank: int
) -> torch.Tensor:
    """Measure, keep and, on rank 0, print a row; the result of the work."""
    row, result = timed(work)
    found[name] = row
    if rank == 0:
        shown = {key: round(value, 5) for key, value in row.items() if isinstance(value, float)}
        print(f"{name:34} {shown}  peak {row['peak_bytes'] / 1e9:.1f} GB", flush=True)
    return result


@torch.no_grad()
def transformer_rows(
    mesh: ParallelMesh, join: Callable[[ParallelLayout], ParallelMesh], attention: str, rank: int
) -> tuple[dict[str, Any], ParallelMesh]:
    """One model on one GPU, then with guidance shared, then with tokens shared."""
    found: dict[str, Any] = {}
    options = ComputeOptions(compile=True, attention=attention)
    model = random_transformer(VARIANT, mesh, options)
    inputs = with_shared_parts(model, random_inputs(VARIANT, REFERENCES, mesh.device))
    plain = keep(found, "forward, one GPU", lambda: model(**inputs), rank).float()
    found["memory"] = memory_row(model, inputs)
    one = with_shared_parts(model, random_inputs(VARIANT, 1, mesh.device))
    keep(found, "forward, one GPU, 1 reference", lambda: model(**one), rank)
    negative = negative_keys(model)
    unshared = keep(
        found, "guided step, one GPU", lambda: guided_step(model, inputs, negative), rank
    )

    guided = join(ParallelLayout(cfg=2))
    torch._dynamo.reset()
    split_tokens(model, guided, attention, share_control=True)
    own = inputs | {"text_keys": (inputs["text_keys"], negative)[guided.branch]}

    def own_branch() -> torch.Tensor:
        conditional, unconditional = guided.both_branches(model(**own).float())
        return unconditional + 5.0 * (conditional - unconditional)

    shared = keep(found, "guided step, two GPUs", own_branch, rank)
    found["relative_l2, guidance shared"] = relative_l2(shared, unshared.float())

    # The same process groups, seen as one row.
    row = init_device_mesh("cuda", (1, 2), mesh_dim_names=(CFG, ULYSSES))
    tokens = ParallelMesh(ParallelLayout(ulysses=2), rank, mesh.device, row)
    torch._dynamo.reset()
    model.controlnet.gather_tokens = torch.nn.Identity()
    split_tokens(model, tokens, attention, share_control=False)
    inputs = with_shared_parts(model, random_inputs(VARIANT, REFERENCES, mesh.device))
    output = keep(found, "forward, two GPUs", lambda: model(**inputs), rank).float()
    found["relative_l2, tokens shared"] = relative_l2(output, plain)
    return found, tokens


def vae_rows(mesh: ParallelMesh, found: dict[str, Any], rank: int) -> None:
    """Keyframes to latents and back, in float32 as published."""
    torch.manual_seed(0)
    with torch.device(mesh.device):
        vae = AutoencoderKLWan().eval().requires_grad_(False)
        video = torch.rand(1, 3, FRAMES, HEIGHT, WIDTH) * 2 - 1
    for gpus, ranks in (("one GPU", ParallelMesh.single(mesh.device)), ("two GPUs", mesh)):
        keyframes = KeyframeVAE(vae, mesh=ranks)
        latents = keyframes.encode(video)
        keep(found, f"VAE encode, {gpus}", lambda: keyframes.encode(video), rank)  # noqa: B023
        keep(found, f"VAE decode, {gpus}", lambda: keyframes.decode(latents), rank)  # noqa: B023


@torch.no_grad()
def golden_rows(mesh: ParallelMesh, found: dict[str, Any]) -> None:
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
            model = build_case(case, tiny, salt)  # noqa: B023
            model = torch.nn.Module.to(model, over.device, torch.bfloat16)
            parallelize_transformer(model, over, ComputeOptions())
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


def run(rank: int, arguments: argparse.Namespace, folder: str) -> None:
    if arguments.flash3:
        flash_attention_3.provide(arguments.flash3)
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)

    def join(layout: ParallelLayout) -> ParallelMesh:
        store = dist.FileStore(f"{folder}/{layout}", layout.world_size)
        return ParallelMesh.join(layout, rank=rank, store=store, device=device, timeout_s=300)

    found: dict[str, Any] = {"attention": arguments.attention, "published_s": PUBLISHED_S}
    rows, mesh = transformer_rows(ParallelMesh.single(device), join, arguments.attention, rank)
    found |= rows

    def speedup(what: str) -> float:
        one, two = (found[f"{what}, {gpus}"]["seconds"] for gpus in ("one GPU", "two GPUs"))
        return one / two

    found["speedup"] = {what: speedup(what) for what in ("forward", "guided step")}
    found["guided_step_ratio"] = (
        found["guided step, one GPU"]["seconds"] / found["forward, one GPU"]["seconds"]
    )
    if rank == 0:
        write_result(arguments.name, found)  # what is there, should the rest fail
    vae_rows(mesh, found, rank)
    golden_rows(mesh, found)
    if rank == 0:
        for key, value in found.items():
            if not isinstance(value, dict) or "runs_s" not in value:
                print(key, value)
        write_result(arguments.name, found)
    mesh.leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--flash3", type=Path)
    parser.add_argument("--name", default="sharding", help="stem of the result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, args=(arguments, folder), nprocs=2)


if __name__ == "__main__":
    main()
