"""Clips of the bundled model over several ranks, and what of them must be equal to one process."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.miniature import miniature
from tests.parallel.ranks import Rank
from tests.sampling.clips import make_clip
from worldstereo import WorldStereo
from worldstereo.config import ComputeOptions, Variant, is_distilled, uses_memory
from worldstereo.errors import GenerationCancelled
from worldstereo.geometry.render import render_points_over
from worldstereo.models import parallelize
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import LeaderStopped, ParallelMesh
from worldstereo.sampling.inputs import clip_inputs
from worldstereo.types import Progress

# Five frames are uneven over 2 and over 4 ranks; 16 tokens a frame divide by both.
FRAMES, HEIGHT, WIDTH = 5, 64, 64
STEPS = 3


@dataclass(frozen=True)
class Case:
    variant: Variant
    references: int
    layout: ParallelLayout

    def __str__(self) -> str:
        return f"{self.variant}, {self.references} references, {self.layout}"


def cases(world_size: int) -> list[Case]:
    """Every variant, guided ones with shared guidance too, with and without sharded weights."""
    return [
        Case(variant, references, ParallelLayout(cfg=cfg, ulysses=world_size // cfg, fsdp=fsdp))
        for variant in ("worldstereo-camera", "worldstereo-memory", "worldstereo-memory-dmd")
        for cfg in ((1,) if is_distilled(variant) else (1, 2))
        for fsdp in (False, True)
        for references in ((1, 3) if uses_memory(variant) else (0,))
    ]


def load(variant: Variant, mesh: ParallelMesh | None = None) -> WorldStereo:
    return WorldStereo.from_pretrained(
        miniature(), subfolder=variant, device="cpu", mesh=mesh, local_files_only=True
    )


def latents_of(model: WorldStereo, references: int) -> Tensor:
    """Latents of one clip, from the noise of a generator that every rank seeds differently."""
    clip = make_clip(HEIGHT, WIDTH, FRAMES, references)
    inputs = clip_inputs(clip, memory=uses_memory(model.variant))
    frames = model(
        **vars(inputs),
        prompt=clip.prompt,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(1024 + model.mesh.rank),
        output_type="latent",
    ).frames
    assert isinstance(frames, Tensor)
    return frames


@contextmanager
def watched(model: WorldStereo) -> Iterator[Counter[str]]:
    """What this rank computes meanwhile: passes, tokens of the blocks, frames encoded."""
    seen: Counter[str] = Counter()

    def on_pass(module: Any, args: Any, kwargs: Any) -> None:
        seen["passes"] += 1

    def on_block(module: Any, args: Any) -> None:
        seen["tokens"] = args[0].shape[1]

    def on_control(module: Any, args: Any) -> None:
        seen["control_tokens"] = args[0].shape[1]

    def on_frames(module: Any, args: Any) -> None:
        seen["frames"] += len(args[0])

    transformer = model.transformer
    hooks = [
        transformer.register_forward_pre_hook(on_pass, with_kwargs=True),
        transformer.blocks[0].register_forward_pre_hook(on_block),
        transformer.controlnet.controlnet_blocks[0].register_forward_pre_hook(on_control),
        model.vae.vae.encoder.register_forward_pre_hook(on_frames),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def run_cases(rank: Rank, wanted: list[Case]) -> dict[Case, dict[str, Any]]:
    """Latents of each case, what one rank holds of the weights, and what it computes."""
    results: dict[Case, dict[str, Any]] = {}
    models: dict[tuple[Variant, ParallelLayout], WorldStereo] = {}
    for layout in dict.fromkeys(case.layout for case in wanted):
        mesh = rank.join(layout)
        for case in wanted:
            if case.layout != layout:
                continue
            key = (case.variant, layout)
            if key not in models:
                models[key] = load(case.variant, mesh)
            model = models[key]
            with watched(model) as seen:
                latents = latents_of(model, case.references)
            results[case] = {
                "latents": latents,
                "seen": dict(seen),
                "held": held_bytes(model.transformer),
                "text_held": held_bytes(model.text_encoder.model),
            }
        models.clear()
        mesh.leave()
    return results


def held_bytes(model: torch.nn.Module) -> int:
    """Bytes of the weights that this process keeps."""
    local = [getattr(p, "to_local", lambda p=p: p)() for p in model.parameters()]
    return sum(tensor.nbytes for tensor in local)


def run_compiled(rank: Rank) -> Tensor:
    """Latents of blocks that were compiled before their weights were sharded."""
    mesh = rank.join(ParallelLayout(ulysses=2, fsdp=True))
    compile_blocks = parallelize.compile_blocks
    # Inductor takes half a minute: what it is given is made by the same tracing.
    parallelize.compile_blocks = partial(compile_blocks, backend="eager")
    try:
        model = WorldStereo.from_pretrained(
            miniature(),
            subfolder="worldstereo-memory",
            mesh=mesh,
            options=ComputeOptions(compile=True),
            local_files_only=True,
        )
    finally:
        parallelize.compile_blocks = compile_blocks
    latents = latents_of(model, 3)
    mesh.leave()
    return latents


def run_frames(rank: Rank, frames: list[int]) -> dict[int, tuple[Tensor, ...]]:
    """Keyframe latents, decoded frames and point renders for several counts of frames."""
    results = {}
    mesh = rank.join(ParallelLayout(ulysses=2))
    vae = load("worldstereo-camera", mesh).vae
    for count in frames:
        latents = vae.encode(video(count))
        render = render_points_over(mesh, *cloud(count))
        parts = (render.rgb, render.hole_mask, render.nearest_z)
        results[count] = (latents, vae.decode(latents), *parts)
    mesh.leave()
    return results


def cloud(frames: int) -> tuple[Any, ...]:
    """Points, colours and cameras that move past them: arguments of ``render_points``."""
    random = torch.Generator().manual_seed(5)
    points = torch.rand(500, 3, generator=random) * 2 + torch.tensor([-1.0, -1.0, 2.0])
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, 0, 3] = torch.linspace(0, 1, frames)
    k = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]).repeat(frames, 1, 1)
    return points, torch.rand(500, 3, generator=random), poses, k, 32, 48


def run_stopped(rank: Rank) -> dict[str, Any]:
    """A clip that the leader stops in its second step, and the one after it."""
    mesh = rank.join(ParallelLayout(ulysses=2, fsdp=True))
    model = load("worldstereo-memory-dmd", mesh)
    clip = make_clip(HEIGHT, WIDTH, model.config.nframe, 1)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 2:
            raise GenerationCancelled("stopped on request")

    ended = ""
    try:
        model.generate(clip, num_inference_steps=STEPS, on_stage=stop)
    except (GenerationCancelled, LeaderStopped) as error:
        ended = type(error).__name__
    frames = model.generate(clip, num_inference_steps=STEPS)
    mesh.leave()
    return {"ended": ended, "seen": [(p.stage, p.step) for p in seen], "frames": frames}


def video(frames: int) -> Tensor:
    """[1, 3, frames, 64, 64] in [-1, 1]."""
    return (
        torch.rand(1, 3, frames, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3)) * 2 - 1
    )
