"""The released sizes without a checkpoint: a transformer with random weights, and its inputs.

Built on the meta device and initialised on the GPU, so that a measurement of time and memory
starts in seconds. Random weights say nothing about quality.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldstereo.config import ComputeOptions, ControlNetConfig, Variant, uses_memory
from worldstereo.models.attention import KeyValue, RotaryPositions
from worldstereo.models.checkpoint import assign, build_transformer
from worldstereo.models.parallelize import parallelize_transformer
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh

SIZES = json.loads(
    Path(__file__)
    .parent.parent.joinpath("tests", "golden", "transformer", "full_size_keys.json")
    .read_text()
)
FRAMES, HEIGHT, WIDTH = 21, 480, 768
TEXT_TOKENS, IMAGE_TOKENS = 512, 257


def random_transformer(
    variant: Variant, mesh: ParallelMesh, options: ComputeOptions
) -> WorldStereoTransformer:
    """The full-size transformer on the mesh's device, the same on all ranks.

    Args:
        variant: decides on references.
        mesh: the ranks.
        options: how it computes.
    """
    with torch.device("meta"):
        controlnet = ControlNetConfig.model_validate(SIZES["controlnet_cfg"])
        model = build_transformer(variant, SIZES["backbone"], controlnet)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    nn.Module.to(model, torch.bfloat16)
    model.requires_grad_(False).eval()
    parallelize_transformer(model, mesh, options)
    if mesh.layout.fsdp:
        model.to_empty(device=mesh.device)
    generator = torch.Generator(mesh.device).manual_seed(0)
    for name, shape in shapes.items():
        assign(model, name, _random(name, shape, generator), mesh.device)
    for module in model.modules():
        if isinstance(module, RotaryPositions):
            module.rebuild(mesh.device)
    return model


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.bfloat16)
    if len(shape) >= 2:
        return values / shape[1:].numel() ** 0.5
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def random_inputs(
    variant: Variant, references: int, device: torch.device, *, seed: int = 1
) -> dict[str, Any]:
    """Arguments of the transformer's ``forward`` at 480x768, 21 keyframes.

    Args:
        variant: the camera variant takes no references.
        references: their number.
        device: of the tensors.
        seed: the same on all ranks.
    """
    generator = torch.Generator(device).manual_seed(seed)
    height, width = HEIGHT // 8, WIDTH // 8

    def g(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator, device=device)

    pixels = (FRAMES, HEIGHT, WIDTH)
    inputs: dict[str, Any] = {
        "hidden_states": g(36, FRAMES, height, width),
        "timestep": torch.full((1,), 712.345, device=device),
        "encoder_hidden_states": g(TEXT_TOKENS, SIZES["backbone"]["text_dim"]),
        "encoder_hidden_states_image": g(IMAGE_TOKENS, SIZES["backbone"]["image_dim"]),
        "render_latent": g(16, FRAMES, height, width),
        "render_mask": (g(1, *pixels) > 0).float(),
        "camera_embedding": g(6, *pixels),
    }
    if uses_memory(variant):
        inputs |= {
            "reference_latent": g(36, references, height, width),
            "ref_index": [2 * i for i in range(references)],
            "camera_qt": g(FRAMES, 7),
            "camera_qt_ref": g(references, 7),
        }
    return inputs


def with_shared_parts(model: WorldStereoTransformer, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs as a step of a clip has them: what all steps share computed before."""
    shared = dict(inputs)
    shared["text_keys"] = model.text_keys(shared.pop("encoder_hidden_states"))
    shared["image_keys"] = model.image_keys(shared.pop("encoder_hidden_states_image"))
    frames, height, width = inputs["hidden_states"].shape[2:]
    shared["rotary_tables"] = model.rotary_tables(frames, height, width, inputs.get("ref_index"))
    return shared


def negative_keys(model: WorldStereoTransformer) -> tuple[KeyValue, ...]:
    """Keys and values of another text than that of ``random_inputs``."""
    device = model.patch_embedding.weight.device
    generator = torch.Generator(device).manual_seed(2)
    shape = (1, TEXT_TOKENS, SIZES["backbone"]["text_dim"])
    return model.text_keys(torch.randn(shape, generator=generator, device=device))


def seconds(work: Callable[[], Any], repeats: int = 3) -> list[float]:
    """Seconds of each of several runs on the GPU of what has been warmed up."""
    found = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return found
