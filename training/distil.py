"""Stage ``dmd``: four steps instead of forty, ``python -m training.distil RUNS WORLDS``.

The student starts as the memory model. Of a noisy clip at one of its four noise levels the teacher,
with the guidance it is used with, makes the way to the next level in several steps; the student is
to go there in one. So it learns the teacher's own flow, guidance included, as one round of
progressive distillation does (Salimans and Ho 2022). Distribution matching, which the released
variant was made with, needs a third network that follows the student's outputs; here a clip's
conditions leave so little open that matching the flow step by step is enough, and it is stable
within minutes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from training.architecture import TINY, Architecture
from training.clips import Clips
from training.generator import (
    REFERENCES,
    VALIDATED_REFERENCES,
    Validation,
    compile_blocks,
    load_averaged,
    load_scenes,
    new_transformer,
    precision,
    velocity,
)
from training.run import Inputs, Rates, Run, stage_arguments
from worldstereo.config import ModelConfig, published_guidance
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.sampling.schedules import DistilledSchedule

BATCH, RATES = 32, Rates(hidden=0.005, other=5e-4)
# Steps of the teacher for one of the student's.
TEACHER_STEPS = 6
LOG_EVERY, VALIDATE_EVERY = 50, 500


def student_sigmas(architecture: Architecture) -> list[float]:
    """Noise levels of the student's steps, from 1 down, without the 0 behind them."""
    config = architecture.variant
    schedule = DistilledSchedule(
        config["dmd_start_steps"],
        config["dmd_end_steps"],
        config["dmd_steps"],
        config["gen_shift"],
    )
    levels: list[float] = (schedule.timesteps / 1000).tolist()
    return levels


@torch.no_grad()
def guided_way(
    teacher: WorldStereoTransformer,
    clips: Inputs,
    noisy: Tensor,
    start: Tensor,
    end: Tensor,
    guidance: float,
) -> Tensor:
    """Where the teacher's guided flow takes latents [B, z, F, h, w] from one level to another.

    Args:
        teacher: memory model.
        clips: what it is conditioned on.
        noisy: at noise levels ``start`` [B].
        start: see there.
        end: noise levels [B] to go to.
        guidance: of the teacher; up to 1: none, as in use.
    """
    x = noisy
    for number in range(TEACHER_STEPS):
        now = start + (end - start) * (number / TEACHER_STEPS)
        following = start + (end - start) * ((number + 1) / TEACHER_STEPS)
        with precision(x.device):
            said = velocity(teacher, clips, x, now)
            if guidance > 1:
                without = velocity(teacher, clips, x, now, clips["negative"])
                said = without + guidance * (said - without)
        x = x + (following - now).view(-1, 1, 1, 1, 1) * said
    return x


def distillation_loss(
    student: WorldStereoTransformer,
    teacher: WorldStereoTransformer,
    sigmas: Tensor,
    guidance: float,
    clips: Inputs,
) -> Tensor:
    """Mean squared error of the student's velocity at random ones of its steps.

    Args:
        student: is trained.
        teacher: is not.
        sigmas: [steps + 1], the student's noise levels and the 0 behind them.
        guidance: of the teacher.
        clips: a batch.
    """
    x = clips["latents"]
    step = torch.randint(len(sigmas) - 1, (len(x),), device=x.device)
    start, end = sigmas[step], sigmas[step + 1]
    level = start.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * x + level * torch.randn_like(x)
    reached = guided_way(teacher, clips, noisy, start, end, guidance)
    wanted = (reached - noisy) / (end - start).view(-1, 1, 1, 1, 1)
    with precision(x.device):
        found = velocity(student, clips, noisy, start)
    return ((found - wanted).square() * clips["error_weights"]).mean()


def train(
    runs: Path,
    worlds: Path,
    minutes: float,
    *,
    device: str,
    architecture: Architecture = TINY,
    batch: int = BATCH,
    compiled: bool = True,
) -> None:
    """Train it; the folder ``runs/dmd`` gets checkpoint and log."""
    scenes, held, vae = load_scenes(runs, worlds, architecture, device)
    student, teacher = (new_transformer(architecture, "memory") for _ in range(2))
    for model in (student, teacher):
        load_averaged(model, runs / "memory")
        model.to(device)
        if compiled:
            compile_blocks(model)
    teacher.requires_grad_(False)
    levels = student_sigmas(architecture)
    sigmas = torch.tensor([*levels, 0.0], device=device)
    validation = Validation(held, student, vae, VALIDATED_REFERENCES)
    guidance = published_guidance("worldstereo-memory", ModelConfig(**architecture.variant))
    assert guidance is not None
    loss = partial(distillation_loss, student, teacher, sigmas, guidance)
    run = Run(runs / "dmd", student, loss, RATES, minutes)
    clips = Clips(scenes, student).drawn(batch, REFERENCES)
    scores = partial(validation.scores, levels)
    run.train(clips, scores, log_every=LOG_EVERY, validate_every=VALIDATE_EVERY)


def main() -> None:
    """The command."""
    parser = stage_arguments("training.distil", __doc__, minutes=4)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--plain", action="store_true", help="without torch.compile")
    a = parser.parse_args()
    train(a.runs, a.worlds, a.minutes, device=a.device, batch=a.batch, compiled=not a.plain)


if __name__ == "__main__":
    main()
