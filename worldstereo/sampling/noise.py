"""The noise that a clip starts from: a function of its scene's seed and its place in the scene.

The published scripts make one generator a run and draw clip after clip from it in canonical
order. Here clip k makes a generator of its own with the same seed and discards k draws, so that
its noise does not depend on which process runs it, when, or after which other clips.

Processes that share one clip must hold identical noise; that is for whoever splits the clip: one
process draws and hands it to the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worldstereo.errors import ParameterError


def draw_noise(
    shape: Sequence[int], generator: torch.Generator | None, device: torch.device
) -> torch.Tensor:
    """Standard normal float32 noise on ``device``, drawn on the generator's own device.

    Args:
        shape: of the latents, [1, 16, F, h, w].
        generator: advanced by one draw; None: the global generator of ``device``.
        device: where the noise is needed.

    Raises:
        ParameterError: the generator is none.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ParameterError(
            "the noise needs one generator of torch's",
            where="generator",
            got=type(generator).__name__,
            allowed="a torch.Generator or None",
        )
    source = generator.device if generator is not None else device
    return torch.randn(tuple(shape), generator=generator, device=source, dtype=torch.float32).to(
        device
    )


def clip_noise(seed: int, draw: int, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Draw number ``draw`` of a generator on ``device`` that is seeded with ``seed``.

    Args:
        seed: the scene's seed.
        draw: canonical position of the clip in its scene, from 0. All clips of a scene have one
            shape, so the discarded draws are of ``shape`` too.
        shape: of the latents, [1, 16, F, h, w].
        device: the device of the generator and of the noise; a CPU and a GPU draw differently.

    Returns:
        float32 noise of ``shape``.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for _ in range(draw):
        draw_noise(shape, generator, device)
    return draw_noise(shape, generator, device)
