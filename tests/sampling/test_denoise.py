"""The one sampling loop beside a plain one that shares nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.miniature import miniature
from tests.sampling.clips import make_clip
from worldstereo import WorldStereo
from worldstereo.config import Variant, uses_memory
from worldstereo.errors import GenerationCancelled
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.sampling.arguments import Prompts
from worldstereo.sampling.conditions import Conditions, Guidance
from worldstereo.sampling.denoise import denoise
from worldstereo.sampling.inputs import clip_inputs
from worldstereo.sampling.noise import clip_noise
from worldstereo.sampling.schedules import DistilledSchedule, Schedule, UniPCSchedule

Load = Callable[[Variant], WorldStereo]
STEPS = 3


@torch.no_grad()
def denoise_plainly(
    transformer: WorldStereoTransformer,
    latents: torch.Tensor,
    conditions: Conditions,
    schedule: Schedule,
) -> torch.Tensor:
    """Every pass computes everything by itself."""
    references: dict[str, Any] = {}
    if conditions.references is not None:
        references = {
            "reference_latent": conditions.references.latent,
            "ref_index": conditions.references.index,
            "camera_qt": conditions.references.camera_qt,
            "camera_qt_ref": conditions.references.camera_qt_ref,
        }

    def velocity(text: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return transformer(
            hidden_states=torch.cat([latents, conditions.start], dim=1),
            timestep=timestep[None].to(latents.device),
            encoder_hidden_states=text,
            encoder_hidden_states_image=conditions.image,
            render_latent=conditions.render_latent,
            render_mask=conditions.render_mask,
            camera_embedding=conditions.camera_embedding,
            **references,
        ).float()

    for index, timestep in enumerate(schedule.timesteps):
        predicted = velocity(conditions.text, timestep)
        if conditions.guidance is not None:
            unconditional = velocity(conditions.guidance.text, timestep)
            predicted = unconditional + conditions.guidance.scale * (predicted - unconditional)
        latents = schedule.step(index, predicted, latents)
    return latents


def conditions_of(model: WorldStereo, scale: float | None) -> Conditions:
    memory = uses_memory(model.variant)
    clip = make_clip(frames=5, references=2 if memory else 0)
    prompts = Prompts(clip.prompt, model.config.negative_prompt, None, scale)
    return model._encoder.encode(clip_inputs(clip, memory=memory), prompts)


def noise() -> torch.Tensor:
    return clip_noise(0, 0, (1, 16, 5, 4, 6), torch.device("cpu"))


def schedule_of(model: WorldStereo) -> Schedule:
    if model.variant == "worldstereo-memory-dmd":
        return DistilledSchedule.from_config(model.config, STEPS)
    return UniPCSchedule(model._scheduler_config, STEPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("variant", "scale"),
    [
        ("worldstereo-camera", 5.0),
        ("worldstereo-camera", None),
        ("worldstereo-memory", 5.0),
        ("worldstereo-memory-dmd", None),
    ],
)
def test_sharing_between_passes_and_steps_changes_no_bit(
    variant: Variant, scale: float | None, dtype: torch.dtype
) -> None:
    model = WorldStereo.from_pretrained(miniature(), variant, device="cpu", dtype=dtype)
    conditions = conditions_of(model, scale)
    shared = denoise(model.transformer, noise(), conditions, schedule_of(model))
    plain = denoise_plainly(model.transformer, noise(), conditions, schedule_of(model))
    assert shared.dtype == torch.float32
    assert bool(torch.isfinite(shared).all())
    assert torch.equal(shared, plain)


def test_guidance_of_one_is_the_conditional_pass(load: Load) -> None:
    model = load("worldstereo-camera")
    conditions = conditions_of(model, 5.0)
    assert conditions.guidance is not None
    alone = replace(conditions, guidance=None)
    same = replace(conditions, guidance=Guidance(1.0, conditions.guidance.text))
    results = [
        denoise(model.transformer, noise(), each, schedule_of(model))
        for each in (conditions, alone, same)
    ]
    torch.testing.assert_close(results[2], results[1], rtol=0, atol=1e-4)
    assert float((results[0] - results[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("part", ["text", "image", "render_latent", "render_mask", "references"])
def test_every_condition_matters(distilled: WorldStereo, part: str) -> None:
    conditions = conditions_of(distilled, None)
    assert conditions.references is not None
    changed: Any
    if part == "references":
        changed = replace(conditions.references, latent=-conditions.references.latent)
    else:
        changed = 1 - getattr(conditions, part)
    first, second = (
        denoise(distilled.transformer, noise(), each, schedule_of(distilled))
        for each in (conditions, replace(conditions, **{part: changed}))
    )
    assert float((first - second).abs().max()) > 1e-4


def test_steps_are_counted_from_one(distilled: WorldStereo) -> None:
    seen: list[tuple[int, int]] = []
    denoise(
        distilled.transformer,
        noise(),
        conditions_of(distilled, None),
        schedule_of(distilled),
        lambda done, steps: seen.append((done, steps)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_a_step_raises_ends_the_loop(
    distilled: WorldStereo, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = distilled.transformer.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        passes.append(1)
        return forward(*arguments, **named)

    monkeypatch.setattr(distilled.transformer, "forward", counted)

    def stop(done: int, steps: int) -> None:
        if done == 2:
            raise GenerationCancelled("stopped")

    with pytest.raises(GenerationCancelled):
        denoise(
            distilled.transformer,
            noise(),
            conditions_of(distilled, None),
            schedule_of(distilled),
            stop,
        )
    assert len(passes) == 2
