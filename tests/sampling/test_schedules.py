"""Which timesteps are visited, and how a velocity moves latents."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from worldstereo.config import ControlNetConfig, ModelConfig, published_steps
from worldstereo.errors import CheckpointError
from worldstereo.models.source import bundled_folder, read_model_config
from worldstereo.sampling.schedules import DistilledSchedule, Schedule, UniPCSchedule

GOLDEN = Path(__file__).parent.parent / "golden" / "pipelines" / "pipelines.json"
SHAPE = (1, 16, 3, 4, 6)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(GOLDEN.read_text())
    return content


def follow(schedule: Schedule, latents: torch.Tensor) -> torch.Tensor:
    """Latents after all steps of a velocity that depends on latents and time."""
    for index, timestep in enumerate(schedule.timesteps):
        velocity = torch.sin(latents + timestep / 1000)
        latents = schedule.step(index, velocity, latents)
    return latents


def test_distilled_timesteps_are_the_recorded_ones(recorded: dict[str, Any]) -> None:
    dmd = recorded["dmd"]
    schedule = DistilledSchedule(dmd["start"], dmd["end"], dmd["steps"], dmd["shift"])
    assert schedule.timesteps.tolist() == dmd["timesteps"]


def test_distilled_schedule_reads_its_numbers_from_the_configuration() -> None:
    controlnet = ControlNetConfig.model_validate(dict.fromkeys(_SIZES, 8))
    config = ModelConfig(
        base_model="base",
        controlnet_cfg=controlnet,
        nframe=21,
        latent_cond_mode="full_vae",
        dmd_start_steps=100,
        dmd_end_steps=500,
        dmd_steps=3,
        gen_shift=3.0,
    )
    timesteps = DistilledSchedule.from_config(config, 3).timesteps.tolist()
    expected = [1000 * 3 * s / (1 + 2 * s) for s in (1.0, 0.6, 0.2)]
    assert timesteps == pytest.approx(expected, rel=1e-6)


def test_a_distilled_configuration_without_its_numbers_is_refused() -> None:
    folder = bundled_folder("worldstereo-tiny") / "worldstereo-memory-dmd"
    incomplete = read_model_config(folder).model_copy(update={"gen_shift": None})
    with pytest.raises(CheckpointError, match=r"config\.json: .*got no gen_shift"):
        DistilledSchedule.from_config(incomplete, 4)
    assert published_steps("worldstereo-camera", incomplete) == 40


_SIZES = (
    "dim",
    "ffn_dim",
    "num_heads",
    "num_layers",
    "time_embed_dim",
    "conv_out_dim",
    "add_channels",
    "mid_channels",
)


@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(1, 999),
    steps=st.integers(2, 12),
    shift=st.floats(0.5, 12, allow_nan=False),
)
def test_distilled_steps_follow_a_straight_flow_to_its_end(
    start: int, steps: int, shift: float
) -> None:
    """On the straight flow x = (1 - sigma) data + sigma noise, v = noise - data, x ends at data."""
    torch.manual_seed(0)
    noise, data = torch.randn(SHAPE), torch.randn(SHAPE)
    schedule = DistilledSchedule(start, 1000, steps, shift)
    assert float(schedule.timesteps[0]) == pytest.approx(1000, rel=1e-6)
    assert bool((schedule.timesteps.diff() < 0).all())
    latents = noise
    for index in range(steps):
        latents = schedule.step(index, noise - data, latents)
    torch.testing.assert_close(latents, data, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 6, 14, 15, 40])
def test_unipc_is_the_scheduler_of_diffusers(recorded: dict[str, Any], steps: int) -> None:
    torch.manual_seed(0)
    noise = torch.randn(SHAPE)
    plain = UniPCMultistepScheduler(**recorded["scheduler"])
    plain.set_timesteps(steps)
    latents = noise
    for timestep in plain.timesteps:
        velocity = torch.sin(latents + timestep.float() / 1000)
        latents = plain.step(velocity, timestep, latents, return_dict=False)[0]
    schedule = UniPCSchedule(recorded["scheduler"], steps)
    assert schedule.timesteps.dtype == torch.float32
    assert torch.equal(schedule.timesteps, plain.timesteps.float())
    assert torch.equal(follow(schedule, noise), latents)


def test_unipc_starts_anew_at_step_0(recorded: dict[str, Any]) -> None:
    torch.manual_seed(0)
    noise = torch.randn(SHAPE)
    schedule = UniPCSchedule(recorded["scheduler"], 5)
    first = follow(schedule, noise)
    assert torch.equal(follow(schedule, noise), first)
    # Also after a clip that was stopped half-way.
    schedule.step(0, noise, noise)
    schedule.step(1, noise, noise)
    assert torch.equal(follow(schedule, noise), first)


def test_unipc_uses_every_step_when_rounded_timesteps_repeat(recorded: dict[str, Any]) -> None:
    schedule = UniPCSchedule(recorded["scheduler"], 1000)
    assert int((schedule.timesteps == schedule.timesteps[0]).sum()) > 1
    torch.manual_seed(0)
    noise, data = torch.randn(SHAPE), torch.randn(SHAPE)
    latents = noise
    for index in range(1000):
        latents = schedule.step(index, noise - data, latents)
    torch.testing.assert_close(latents, data, rtol=0, atol=1e-2)
