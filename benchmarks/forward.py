"""One forward of the full-size transformer on one GPU: seconds, memory, accuracy, guidance.

``python -m benchmarks.forward [--flash3 FOLDER]``. Random bf16 weights, 480x768, 21 keyframes.
Each way to compute is warmed up with its shapes, then the median of three runs is taken. The
relative L2 error is against the plain path: eager, PyTorch's own attention, bf16. FOLDER holds
FlashAttention-3's kernel (flash_attention_3.py) where the Hub is out of reach.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import flash_attention_3
from benchmarks.environment import write_result
from benchmarks.full_size_model import (
    negative_keys,
    random_inputs,
    random_transformer,
    seconds,
    with_shared_parts,
)
from worldstereo.config import ComputeOptions, Variant, uses_memory
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh

CONTROL = ("render_latent", "render_mask", "camera_embedding")
# Published code on one H200, for comparison.
PUBLISHED_S = {"memory, 8 references": 5.18, "memory, 1 reference": 3.65, "camera": 3.42}
CASES: dict[str, tuple[Variant, int]] = {
    "memory, 8 references": ("worldstereo-memory", 8),
    "memory, 1 reference": ("worldstereo-memory", 1),
    "camera": ("worldstereo-camera", 0),
}


def ways(flash3: bool) -> dict[str, ComputeOptions]:
    """How to compute, the plain way first."""
    found = {
        "plain": ComputeOptions(),
        "compiled": ComputeOptions(compile=True),
        "compiled, fp8 products": ComputeOptions(compile=True, fp8=True),
        "compiled, fp8 products and attention": ComputeOptions(
            compile=True, fp8=True, attention="fp8"
        ),
    }
    if flash3:
        found |= {
            "compiled, FlashAttention-3": ComputeOptions(compile=True, attention="_flash_3_hub"),
            "compiled, FlashAttention-3, fp8 products": ComputeOptions(
                compile=True, fp8=True, attention="_flash_3_hub"
            ),
        }
    return found


@torch.no_grad()
def guided_step(
    model: WorldStereoTransformer, inputs: dict[str, Any], negative_keys: Any
) -> torch.Tensor:
    """Two passes that share one ControlNet result; the second has another text's keys."""
    control = {name: inputs[name] for name in CONTROL}
    states, timestep = inputs["hidden_states"], inputs["timestep"]
    residuals = model.controlnet_residuals(states, timestep, **control)
    rest = {name: value for name, value in inputs.items() if name not in CONTROL}
    conditional = model(**rest, controlnet_residuals=residuals)
    rest["text_keys"] = negative_keys
    unconditional = model(**rest, controlnet_residuals=residuals)
    return unconditional + 5.0 * (conditional - unconditional)


@torch.no_grad()
def measure(
    model: WorldStereoTransformer, inputs: dict[str, Any], plain: torch.Tensor | None, guided: bool
) -> tuple[dict[str, Any], torch.Tensor]:
    """One way to compute one case; its output, to compare others with."""
    began = time.perf_counter()
    output = model(**inputs).float()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    torch.cuda.reset_peak_memory_stats()
    runs = seconds(lambda: model(**inputs))
    peak = torch.cuda.max_memory_allocated()
    found: dict[str, Any] = {
        "first_s": first,
        "forward_s": statistics.median(runs),
        "runs_s": runs,
        "peak_bytes": peak,
        "weights_bytes": sum(p.nbytes for p in model.parameters()),
    }
    if guided:
        negative = negative_keys(model)
        steps = seconds(lambda: guided_step(model, inputs, negative), repeats=2)
        found["guided_step_ratio"] = statistics.median(steps) / statistics.median(runs)
    if plain is not None:
        found["relative_l2_error"] = float((output - plain).norm() / plain.norm())
    return found, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flash3", type=Path)
    parser.add_argument("--ways", nargs="*", help="these alone; without a result file")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    arguments = parser.parse_args()
    if arguments.flash3:
        flash_attention_3.provide(arguments.flash3)
    mesh = ParallelMesh.single("cuda")
    results: dict[str, dict[str, Any]] = {name: {} for name in CASES}
    plain: dict[str, torch.Tensor] = {}
    for variant in ("worldstereo-memory", "worldstereo-camera"):
        cases = {name: CASES[name][1] for name in arguments.cases if CASES[name][0] == variant}
        for way, options in ways(arguments.flash3 is not None).items():
            if arguments.ways and way not in arguments.ways:
                continue
            if not uses_memory(variant) and way != "compiled":
                continue
            gc.collect()
            torch.cuda.empty_cache()
            torch._dynamo.reset()
            model = random_transformer(variant, mesh, options)
            for name, references in cases.items():
                if references == 1 and way not in ("plain", "compiled"):
                    continue
                inputs = with_shared_parts(model, random_inputs(variant, references, mesh.device))
                results[name][way], output = measure(
                    model, inputs, plain.get(name), guided=way == "compiled" and references == 8
                )
                plain.setdefault(name, output)
                row = results[name][way]
                error = row.get("relative_l2_error", 0.0)
                print(
                    f"{name:22} {way:42} {row['forward_s']:.3f} s  error {error:.4f}"
                    f"  peak {row['peak_bytes'] / 1e9:.1f} GB  first {row['first_s']:.0f} s"
                    f"  guided step x{row.get('guided_step_ratio', 0):.2f}",
                    flush=True,
                )
            del model, inputs
    if not arguments.ways:
        write_result("forward", {"published_s": PUBLISHED_S, "cases": results})


if __name__ == "__main__":
    main()
