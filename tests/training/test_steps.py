"""Optimizer, schedule, average, checkpoints, and what the stages' losses ask for."""

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from training import distil, generator, run
from training.architecture import MINIATURE
from training.autoencoder import KeyframeNetwork, new_vae
from training.clips import channel_weights, error_weights
from training.muon import Muon, orthogonal
from training.run import Inputs, Rates, Run, averaged_weights
from worldstereo.sampling.vae import KeyframeVAE


class Clock:
    """Monotonic seconds that pass when a test says so."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(run, "time", made)
    return made


def test_steps_are_made_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in ((2, 12, 30), (3, 30, 12)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_muon_finds_what_least_squares_finds() -> None:
    torch.manual_seed(0)
    x, wanted = torch.randn(64, 8), torch.randn(6, 8)
    weight = nn.Parameter(torch.zeros(6, 8))
    rate = torch.tensor(0.1)
    optimizer = Muon([weight], rate)
    for step in range(200):
        rate.fill_(0.1 * (1 - step / 200))
        optimizer.zero_grad()
        (x @ (weight - wanted).T).square().mean().backward()
        optimizer.step()
    assert (weight - wanted).abs().max() < 0.02


def small_run(folder: Path, minutes: float = 1.0) -> tuple[nn.Module, Run]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 5))

    def loss(inputs: Inputs) -> torch.Tensor:
        found: torch.Tensor = model(inputs["x"])
        return (found - inputs["x"]).square().mean()

    return model, Run(folder, model, loss, Rates(0.05, 0.01), minutes, average=0.5)


def test_a_stage_ends_with_its_time_and_goes_on_where_it_was(tmp_path: Path, clock: Clock) -> None:
    inputs = {"x": torch.randn(16, 5)}
    _, first = small_run(tmp_path)
    losses = []
    for step in first.steps():
        losses.append(first.train_on(inputs).item())
        clock.now += 3
        if step == 9:  # cut short: the last checkpoint is what stays
            first.save()
            break
    model, second = small_run(tmp_path)
    steps = []
    for step in second.steps():
        steps.append(step)
        losses.append(second.train_on(inputs).item())
        clock.now += 3
    assert steps == list(range(9, 19))
    assert second.used_s == 60
    assert losses[10] == pytest.approx(losses[9], rel=0.2)
    assert losses[-1] < 0.7 * losses[0]
    kept = averaged_weights(tmp_path)
    assert not torch.equal(kept["0.weight"], model.get_parameter("0.weight"))
    second.use_average()
    assert torch.equal(kept["0.weight"], model.get_parameter("0.weight"))


def test_a_step_without_a_finite_gradient_spoils_nothing(tmp_path: Path, clock: Clock) -> None:
    model, stage = small_run(tmp_path)
    inputs, broken = {"x": torch.randn(16, 5)}, {"x": torch.full((16, 5), torch.inf)}
    losses = []
    for step in stage.steps():
        losses.append(stage.train_on(broken if step == 5 else inputs).item())
        clock.now += 3
    assert not math.isfinite(losses[5])
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert losses[-1] < losses[4] < losses[0]


def test_rates_rise_and_fall_with_the_time(tmp_path: Path, clock: Clock) -> None:
    _, stage = small_run(tmp_path)
    rates = []
    for _ in stage.steps():
        rates.append(stage._optimizers[0].param_groups[0]["lr"].item())
        clock.now += 1
    highest = rates.index(max(rates))
    assert 1 <= highest <= 3
    assert max(rates) == pytest.approx(0.05, rel=0.01)
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert rates[-1] < 0.001


def test_the_log_has_a_line_each(tmp_path: Path, clock: Clock) -> None:
    _, stage = small_run(tmp_path)
    clock.now = 2.5
    stage.log(loss=0.25, validation_psnr=20)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line == {"step": 0, "seconds": 2.5, "loss": 0.25, "validation_psnr": 20}


def test_the_flat_network_is_the_vae_of_the_product() -> None:
    network = KeyframeNetwork(new_vae(MINIATURE))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    frames = torch.rand(2, 3, 32, 48) * 2 - 1
    vae = network.store().eval()
    vae.register_to_config(latents_mean=[0.0] * 16, latents_std=[1.0] * 16)
    stored = KeyframeVAE(vae, flat=False)
    with torch.no_grad():
        latents = network.encode(frames)[0]
        decoded = network.decode(latents)
        video = frames.transpose(0, 1)[None]
        assert torch.allclose(stored.encode(video)[0].transpose(0, 1), latents, atol=1e-4)
        again = stored.decode(latents.transpose(0, 1)[None])[0].transpose(0, 1)
    assert torch.allclose(again, decoded.clamp(-1, 1), atol=1e-4)
    assert any(p.requires_grad for p in network.parameters())


def clips(count: int = 64) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.zeros(count, 1, 3, 16, 16)
    mask[:, :, :, :8] = 1
    return {
        "latents": torch.randn(count, 4, 3, 2, 2),
        "error_weights": error_weights(mask, torch.ones(4)),
        "negative": torch.zeros(count, 1, 1),
    }


def test_what_is_learned_is_noise_less_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    given = clips()
    levels = []

    def exact(_: Any, known: Inputs, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        levels.extend(sigma.tolist())
        level = sigma.view(-1, 1, 1, 1, 1)
        return (noisy - known["latents"]) / level

    monkeypatch.setattr(generator, "velocity", exact)
    assert generator.flow_loss(SimpleNamespace(), given) < 1e-4  # type: ignore[arg-type]
    assert min(levels) < 0.05
    assert max(levels) > 0.95
    # Shifted by 3: half of all lie above 3 / 4.
    assert sorted(levels)[32] == pytest.approx(0.75, abs=0.03)


def test_holes_count_more_and_the_mean_stays() -> None:
    mask = torch.zeros(2, 1, 3, 16, 16)
    mask[:, :, :, :8] = 1
    channels = torch.tensor([0.5, 1.5])
    weights = error_weights(mask, channels)
    assert weights.shape == (2, 2, 3, 2, 2)
    assert weights.mean() == pytest.approx(1)
    assert torch.allclose(weights[:, :, :, 0] / weights[:, :, :, 1], torch.tensor(3.0))
    assert torch.allclose(weights[:, 1] / weights[:, 0], torch.tensor(3.0))


def test_channels_count_as_much_as_they_show() -> None:
    class Picture:
        """A picture that is twice the first channel and a tenth of the second."""

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return 2 * latents[:, :1] + 0.1 * latents[:, 1:2]

    weights = channel_weights(Picture(), torch.randn(32, 3, 8, 8))  # type: ignore[arg-type]
    assert weights.mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(0.0025, rel=0.2)
    assert weights[2] == 0


def test_the_student_takes_the_published_steps() -> None:
    assert distil.student_sigmas(MINIATURE) == pytest.approx([1, 0.9375, 0.8333333, 0.625])


@pytest.mark.parametrize(("guidance", "wanted"), [(5.0, 18.0), (1.0, 2.0), (0.0, 2.0)])
def test_the_student_is_to_go_where_the_guided_teacher_goes(
    monkeypatch: pytest.MonkeyPatch, guidance: float, wanted: float
) -> None:
    given = clips()

    def constant(
        model: Any, known: Inputs, noisy: torch.Tensor, sigma: torch.Tensor, text: Any = None
    ) -> torch.Tensor:
        return torch.full_like(noisy, model if text is None else -model)

    monkeypatch.setattr(distil, "velocity", constant)
    sigmas = torch.tensor([*distil.student_sigmas(MINIATURE), 0.0])
    loss = partial(
        distil.distillation_loss, teacher=2.0, sigmas=sigmas, guidance=guidance, clips=given
    )
    assert loss(wanted) < 1e-8
    assert loss(wanted + 1) == pytest.approx(1, rel=1e-3)
