"""The sinusoid that a timestep enters the model as, with the same numbers on every machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MAX_PERIOD = 10_000


def timestep_sinusoid(timestep: Tensor, channels: int) -> Tensor:
    """Cosines and sines of a timestep at geometrically spaced frequencies, as Wan has them.

    The frequencies exp(-ln(10000) i / half) are rounded from float64: the float32 exponential of
    some processors is off by one unit in the last place, which a timestep of 1000 turns into a
    visible difference between machines.

    Args:
        timestep: [B], in [0, 1000]; fractions count.
        channels: even number of channels.

    Returns:
        [B, channels] float32, cosines first.
    """
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
    exponents = -math.log(_MAX_PERIOD) * steps / half
    frequencies = exponents.double().exp().float()
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
