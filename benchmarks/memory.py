"""What a forward needs beside the weights: one block's activations, and little else.

``python -m benchmarks.memory`` on a machine with a GPU; ``benchmarks.sharding`` takes the same row.
The claim: the peak of a forward is within 5 % of weights + what a clip's steps share (keys and
values of the text, rotary tables) + the inputs + the peak of one block alone.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.environment import write_result
from benchmarks.full_size_model import random_inputs, random_transformer, with_shared_parts
from worldstereo.config import ComputeOptions
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh


@torch.no_grad()
def memory_row(model: WorldStereoTransformer, inputs: dict[str, Any]) -> dict[str, float]:
    """Bytes at the peak of a forward and of one block, on one GPU.

    Args:
        model: on its device.
        inputs: of a step, from ``with_shared_parts``.
    """
    model(**inputs)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model(**inputs)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()

    cos, sin = inputs["rotary_tables"]
    _, frames, height, width = inputs["hidden_states"].shape[1:]
    channels = model.config.num_attention_heads * model.config.attention_head_dim
    rows, columns = height // 2, width // 2
    device = cos.device
    temb = torch.randn(1, 6, channels, device=device, dtype=torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    tokens = torch.randn(1, cos.shape[1], channels, device=device, dtype=torch.bfloat16)
    keys = (inputs["text_keys"][0], inputs["image_keys"][0])
    model.blocks[0](tokens, *keys, temb, (cos, sin), frames * rows * columns)
    torch.cuda.synchronize()
    block = torch.cuda.max_memory_allocated() - held
    return {
        "weights_bytes": sum(p.nbytes for p in model.parameters()),
        "held_bytes": held,
        "block_bytes": block,
        "peak_bytes": peak,
        "peak_over_expected": peak / (held + block),
    }


def main() -> None:
    mesh = ParallelMesh.single("cuda")
    model = random_transformer("worldstereo-memory", mesh, ComputeOptions(compile=True))
    inputs = with_shared_parts(model, random_inputs("worldstereo-memory", 8, mesh.device))
    print(write_result("memory", memory_row(model, inputs)).read_text())


if __name__ == "__main__":
    main()
