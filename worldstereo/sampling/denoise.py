"""The sampler: one loop for all variants.

Camera and memory variants differ in which conditions are present, the distilled one in its
schedule and in having no guidance. What two passes or two steps compute alike is computed once,
through what the transformer offers for it; the result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.conditions import Conditions
from worldstereo.sampling.schedules import Schedule

# Called with (steps done, steps in all); may raise to stop.
OnStep = Callable[[int, int], None]


@torch.no_grad()
def denoise(
    transformer: WorldStereoTransformer,
    latents: torch.Tensor,
    conditions: Conditions,
    schedule: Schedule,
    on_step: OnStep | None = None,
    mesh: ParallelMesh | None = None,
) -> torch.Tensor:
    """Turn noise into the latents of one clip.

    Args:
        transformer: camera or memory transformer, in evaluation mode.
        latents: [1, 16, F, h, w] float32 noise on the transformer's device.
        conditions: of the clip; they decide on guidance and references.
        schedule: timesteps and the update of the latents, not used by another clip meanwhile.
        on_step: called after each step; what it raises ends the loop.
        mesh: ranks that run this loop together, with the same noise and conditions; None: this
            one alone. Where they share guidance, each runs one of the two passes.

    Returns:
        [1, 16, F, h, w] float32, normalised as the VAE's latents are.
    """
    guidance = conditions.guidance
    control = {
        "render_latent": conditions.render_latent,
        "render_mask": conditions.render_mask,
        "camera_embedding": conditions.camera_embedding,
    }
    # Over all steps: keys and values of the text and the start frame, rotary tables, references.
    common = _common_arguments(transformer, latents, conditions)
    passes = [conditions.text] if guidance is None else [conditions.text, guidance.text]
    shared_guidance = guidance is not None and mesh is not None and mesh.layout.cfg > 1
    if shared_guidance:
        assert mesh is not None
        passes = [passes[mesh.branch]]
    texts = [transformer.text_keys(text) for text in passes]
    timesteps = schedule.timesteps
    for index, timestep in enumerate(timesteps):
        states = torch.cat([latents, conditions.start], dim=1)
        t = timestep.to(latents.device).expand(len(latents))
        if guidance is None:
            velocity = transformer(states, t, text_keys=texts[0], **control, **common).float()
        elif shared_guidance:
            assert mesh is not None
            own = transformer(states, t, text_keys=texts[0], **control, **common).float()
            conditional, unconditional = mesh.both_branches(own)
            velocity = unconditional + guidance.scale * (conditional - unconditional)
        else:
            # The ControlNet sees no text: one result serves both passes.
            residuals = transformer.controlnet_residuals(states, t, **control)
            common["controlnet_residuals"] = residuals
            conditional, unconditional = (
                transformer(states, t, text_keys=text, **common).float() for text in texts
            )
            velocity = unconditional + guidance.scale * (conditional - unconditional)
        latents = schedule.step(index, velocity, latents)
        if on_step is not None:
            on_step(index + 1, len(timesteps))
    return latents


def _common_arguments(
    transformer: WorldStereoTransformer, latents: torch.Tensor, conditions: Conditions
) -> dict[str, Any]:
    """Arguments of every pass of a clip."""
    references = conditions.references
    index = None if references is None else references.index
    frames, height, width = latents.shape[2:]
    arguments: dict[str, Any] = {
        "image_keys": transformer.image_keys(conditions.image),
        "rotary_tables": transformer.rotary_tables(frames, height, width, index),
    }
    if references is not None:
        arguments["reference_latent"] = references.latent
        arguments["ref_index"] = index
        arguments["camera_qt"] = references.camera_qt
        arguments["camera_qt_ref"] = references.camera_qt_ref
    return arguments
