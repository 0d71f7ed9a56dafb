"""The two samplers as objects of one protocol: which timesteps, and how a velocity moves latents.

The denoising loop asks nothing else of them. Which variant uses which, with how many steps, is the
pipeline's choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from diffusers import UniPCMultistepScheduler

from worldstereo.config import ModelConfig


class Schedule(Protocol):
    """One clip's path from noise to latents; made anew for each clip."""

    @property
    def timesteps(self) -> torch.Tensor:
        """[S] float32, on the CPU, in the order in which they are visited."""
        ...

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Latents after step ``index``.

        Args:
            index: the step, called in order 0, 1, ..., S - 1; 0 starts anew.
            velocity: [B, 16, F, h, w] float32, the transformer's output at ``timesteps[index]``.
            latents: [B, 16, F, h, w] float32, the transformer's noisy input.

        Returns:
            [B, 16, F, h, w] float32.
        """
        ...


class UniPCSchedule:
    """diffusers' ``UniPCMultistepScheduler`` with the base model's own settings.

    Args:
        scheduler_config: content of the base model's ``scheduler/scheduler_config.json``.
        steps: number of denoising steps.
    """

    def __init__(self, scheduler_config: Mapping[str, Any], steps: int) -> None:
        self._scheduler = UniPCMultistepScheduler.from_config(dict(scheduler_config))
        self._steps = steps
        self._restart()

    def _restart(self) -> None:
        self._scheduler.set_timesteps(self._steps)
        # Timesteps are rounded to integers: with many steps the first occurs twice, and a
        # scheduler that looks its position up by value would start at the second.
        self._scheduler.set_begin_index(0)

    @property
    def timesteps(self) -> torch.Tensor:
        """[S] float32: whole numbers, as diffusers rounds them."""
        timesteps: torch.Tensor = self._scheduler.timesteps
        return timesteps.float()

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """One predictor-corrector step; see :class:`Schedule`."""
        if index == 0:
            self._restart()
        timestep = self._scheduler.timesteps[index]
        (moved,) = self._scheduler.step(velocity, timestep, latents, return_dict=False)
        result: torch.Tensor = moved
        return result


class DistilledSchedule:
    """Euler steps of the flow that the distilled (DMD) variant was trained on.

    With s = linspace(start, end, steps) reversed / end: sigma = shift s / (1 + (shift - 1) s),
    timestep = 1000 sigma, x <- x + (sigma_next - sigma) v, and sigma_next = 0 after the last.

    Args:
        start: ``dmd_start_steps`` of config.json.
        end: ``dmd_end_steps``.
        steps: number of denoising steps.
        shift: ``gen_shift``.
    """

    def __init__(self, start: int, end: int, steps: int, shift: float) -> None:
        s = torch.linspace(start, end, steps, dtype=torch.float32).flip(0) / end
        self._sigmas = shift * s / (1 + (shift - 1) * s)

    @classmethod
    def from_config(cls, config: ModelConfig, steps: int) -> DistilledSchedule:
        """The schedule of a published config.json with this number of steps."""
        published = config.distillation
        return cls(published.start, published.end, steps, published.shift)

    @property
    def timesteps(self) -> torch.Tensor:
        """[S] float32."""
        return 1000 * self._sigmas

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """One Euler step; see :class:`Schedule`."""
        following = self._sigmas[index + 1] if index + 1 < len(self._sigmas) else 0.0
        return latents + float(following - self._sigmas[index]) * velocity
