"""Stages ``memory`` and ``camera``: the transformer with its ControlNet, by flow matching.

``python -m training.generator RUNS WORLDS memory`` trains the memory variant, ``... camera`` goes
on from there without references, for the camera variant: what both have in common is learned once,
and to find in a reference what a hole shows takes the longest. With noise n and latents x the model
sees (1 - sigma) x + sigma n and is to say n - x; sigma is drawn uniformly and shifted as Wan's
timesteps are. A caption is dropped for the negative prompt now and then, so that guidance has
something to compare with. Errors count by how much they show in the picture, and more in holes of
the render than where the render shows what is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from training.architecture import TINY, Architecture
from training.autoencoder import trained_vae
from training.clips import FILE, Chooser, Clips, Scenes, encode_scenes
from training.run import Inputs, Rates, Run, averaged_weights, stage_arguments
from worldstereo.config import ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.sampling.vae import KeyframeVAE

Stage = Literal["memory", "camera"]

BATCH, RATES = 32, Rates(hidden=0.02, other=2e-3, decay=0.02)
CONTROL = ("render_latent", "render_mask", "camera_embedding")
REFERENCE = ("reference_latent", "camera_qt", "camera_qt_ref")
# The timestep shift of training, and how many captions are dropped.
SHIFT, DROP_TEXT = 3.0, 0.1
# How many references clips have, and the share of batches with so many: most memories give few.
NO_REFERENCES = {0: 1.0}
REFERENCES = {1: 0.1, 2: 0.2, 3: 0.2, 4: 0.2, 6: 0.15, 8: 0.15}
# Validation's clips have so many.
VALIDATED_REFERENCES = 4
# Deviation of the noise that references get, at most: in use they are generated pictures.
REFERENCE_NOISE = 0.2
MINUTES: dict[Stage, float] = {"memory": 18, "camera": 5}
LOG_EVERY, VALIDATE_EVERY, VALIDATED, VALIDATION_STEPS = 50, 2000, 16, 8


def new_transformer(
    architecture: Architecture, stage: str, seed: int = 0
) -> WorldStereoTransformer:
    """An untrained model; what it adds to the residual stream starts at zero."""
    torch.manual_seed(seed)
    variant: Variant = "worldstereo-camera" if stage == "camera" else "worldstereo-memory"
    controlnet = ControlNetConfig(**architecture.controlnet)
    model = build_transformer(variant, architecture.transformer, controlnet)
    for name, parameter in model.named_parameters():
        if name.endswith(("mask_zero_proj.weight", "camera_embedding.4.weight")):
            nn.init.zeros_(parameter)
    nn.init.zeros_(model.proj_out.weight)
    return cast(WorldStereoTransformer, model.train())


def load_averaged(model: WorldStereoTransformer, folder: Path) -> None:
    """Fill a model with another stage's averaged weights, but for what the model has not."""
    missing, unexpected = model.load_state_dict(averaged_weights(folder), strict=False)
    assert not missing, missing
    assert all(name.startswith(("camera_embedding", "ref_index")) for name in unexpected), (
        unexpected
    )


def velocity(
    model: WorldStereoTransformer,
    clips: Inputs,
    noisy: Tensor,
    sigma: Tensor,
    text: Tensor | None = None,
) -> Tensor:
    """What the model says of noisy latents [B, z, F, h, w] at noise levels [B], float32.

    ``text`` is instead of the clips' own captions.
    """
    given: dict[str, Any] = {name: clips[name] for name in CONTROL}
    if "reference_latent" in clips:
        count = clips["reference_latent"].shape[2]
        given |= {name: clips[name] for name in REFERENCE}
        # Where each clip's references are is in its own rotary table.
        given |= {"ref_index": [0] * count, "rotary_tables": (clips["cos"], clips["sin"])}
    states = torch.cat([noisy, clips["start"]], dim=1)
    own = clips["text"] if text is None else text
    found: Tensor = model(states, 1000 * sigma, own, clips["image"], **given)
    return found.float()


def shifted(uniform: Tensor, shift: float = SHIFT) -> Tensor:
    """Noise levels of numbers in 0..1, as Wan shifts them."""
    return shift * uniform / (1 + (shift - 1) * uniform)


def flow_loss(model: WorldStereoTransformer, clips: Inputs) -> Tensor:
    """Mean squared error of the flow at random noise levels."""
    x = clips["latents"]
    # One of each part of 0..1, so that batches differ little.
    count = len(x)
    uniform = (torch.arange(count, device=x.device) + torch.rand(count, device=x.device)) / count
    sigma = shifted(uniform)
    noise, level = torch.randn_like(x), sigma.view(-1, 1, 1, 1, 1)
    with precision(x.device):
        found = velocity(model, disturbed(clips), (1 - level) * x + level * noise, sigma)
    return ((found - (noise - x)).square() * clips["error_weights"]).mean()


def precision(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, where weights keep their float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def disturbed(clips: Inputs) -> Inputs:
    """Noise on the references, from none to ``REFERENCE_NOISE``, another for each clip."""
    if "reference_latent" not in clips:
        return clips
    latent, z = clips["reference_latent"], clips["latents"].shape[1]
    level = REFERENCE_NOISE * torch.rand(len(latent), 1, 1, 1, 1, device=latent.device)
    dirty = latent[:, :z] + level * torch.randn_like(latent[:, :z])
    return {**clips, "reference_latent": torch.cat([dirty, latent[:, z:-z], dirty], dim=1)}


@torch.no_grad()
def generate(
    model: WorldStereoTransformer, clips: Inputs, sigmas: Sequence[float], seed: int = 0
) -> Tensor:
    """Latents [B, z, F, h, w] by Euler steps without guidance, from seeded noise."""
    like = clips["latents"]
    generator = torch.Generator(like.device).manual_seed(seed)
    x = torch.randn(like.shape, generator=generator, device=like.device)
    with precision(like.device):
        for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
            level = torch.full((len(x),), sigma, device=x.device)
            x = x + (following - sigma) * velocity(model, clips, x, level)
    return x


def validation_sigmas(steps: int = VALIDATION_STEPS) -> list[float]:
    """Evenly spaced and shifted."""
    levels: list[float] = shifted(torch.linspace(1, 0, steps + 1)[:-1]).tolist()
    return levels


@torch.no_grad()
def score_generated(latents: Tensor, clips: Inputs, vae: KeyframeVAE) -> dict[str, float]:
    """PSNR in dB against the decoded exact latents: on all pixels, and on holes; not of frame 0."""
    made, true = vae.decode(latents)[:, :, 1:], vae.decode(clips["latents"])[:, :, 1:]
    holes = clips["render_mask"][:, :, 1:].expand_as(made) > 0
    square = (made - true).square()
    error, in_holes = float(square.mean()), float(square[holes].mean())
    return {"psnr": 10 * math.log10(4 / error), "psnr_holes": 10 * math.log10(4 / in_holes)}


def load_scenes(
    runs: Path, worlds: Path, architecture: Architecture, device: str
) -> tuple[Scenes, Scenes, KeyframeVAE]:
    """Scenes to train on, scenes to validate on, and the VAE; encoded by the first who asks."""
    vae = KeyframeVAE(trained_vae(runs, architecture).to(device).eval(), frames_per_call=64)
    file = runs / FILE
    if not file.exists():
        negative = architecture.variant["negative_prompt"]
        encoded = [encode_scenes(worlds, vae, negative, validation=v) for v in (False, True)]
        partial = file.with_suffix(".partial")
        torch.save(encoded, partial)
        partial.rename(file)
    trained, held = torch.load(file)
    return Scenes(trained, device), Scenes(held, device), vae


class Validation:
    """The same few clips of scenes that are not trained on, generated now and then."""

    def __init__(
        self, scenes: Scenes, model: WorldStereoTransformer, vae: KeyframeVAE, references: int
    ) -> None:
        chooser, clips = Chooser(scenes, seed=1234), Clips(scenes, model)
        self._model, self._vae = model, vae
        self._batches = [clips.batch(chooser.choose(VALIDATED, references)) for _ in range(2)]

    def scores(self, sigmas: Sequence[float]) -> dict[str, float]:
        """Means over all clips, by name."""
        found = [
            score_generated(generate(self._model, clips, sigmas), clips, self._vae)
            for clips in self._batches
        ]
        return {f"validation_{k}": sum(f[k] for f in found) / len(found) for k in found[0]}


def train(
    runs: Path,
    worlds: Path,
    stage: Stage,
    minutes: float,
    *,
    device: str,
    architecture: Architecture = TINY,
    batch: int = BATCH,
    compiled: bool = True,
) -> None:
    """Train a stage; its folder in ``runs`` gets checkpoint and log."""
    scenes, held, vae = load_scenes(runs, worlds, architecture, device)
    model = new_transformer(architecture, stage)
    if stage == "camera":
        load_averaged(model, runs / "memory")
    model.to(device)
    if compiled:
        compile_blocks(model)
    references = REFERENCES if stage == "memory" else NO_REFERENCES
    validation = Validation(held, model, vae, VALIDATED_REFERENCES if stage == "memory" else 0)
    run = Run(runs / stage, model, partial(flow_loss, model), RATES, minutes)
    clips = Clips(scenes, model, drop_text=DROP_TEXT).drawn(batch, references)
    scores = partial(validation.scores, validation_sigmas())
    run.train(clips, scores, log_every=LOG_EVERY, validate_every=VALIDATE_EVERY)


def compile_blocks(model: WorldStereoTransformer) -> None:
    """Compile each kind of block once for any number of tokens."""
    for block in [*model.blocks, *model.controlnet.controlnet_blocks]:
        block.compile(dynamic=True)


def main() -> None:
    """The command."""
    parser = stage_arguments("training.generator", __doc__, minutes=None)
    parser.add_argument("stage", choices=("memory", "camera"))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--plain", action="store_true", help="without torch.compile")
    a = parser.parse_args()
    minutes = MINUTES[a.stage] if a.minutes is None else a.minutes
    train(a.runs, a.worlds, a.stage, minutes, device=a.device, batch=a.batch, compiled=not a.plain)


if __name__ == "__main__":
    main()
