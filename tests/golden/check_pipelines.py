"""Keyframe VAE, sampled latents and decoded frames against the recorded pipelines.

The recorded runs were given their embeddings and their noise, so the encoders are not run; from
there on the pipeline's own call is what is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from safetensors.torch import load_file

from tests.golden import recipe
from tests.golden.report import Case, Options, attempt, failed, largest_difference
from worldstereo.config import ModelConfig, Variant, is_distilled, uses_memory, variant_named
from worldstereo.models.checkpoint import build_transformer
from worldstereo.sampling.pipeline import WorldStereo
from worldstereo.sampling.schedules import DistilledSchedule
from worldstereo.sampling.vae import KeyframeVAE

VAE_TOLERANCE = 1e-5
UNIPC_TOLERANCE = 1e-4
DISTILLED_TOLERANCE = 2e-5
FRAMES_TOLERANCE = 1e-4
# A few units in the last place of 1000 in float32.
TIMESTEP_TOLERANCE = 5e-4

# The condition mode whose latents the recorded frames were decoded from.
FRAMES_MODE = "first_frame_only"
OUTPUT = re.compile(r"(?P<kind>[\w-]+)\.(frames|(?P<mode>\w+)\.latents)")
_OWN_TRANSFORMER = Path(__file__).parent / "transformer" / "transformer.json"


@dataclass(frozen=True)
class Recording:
    """One folder's cases: what they were run with and what came out."""

    settings: dict[str, Any]
    expected: dict[str, torch.Tensor]
    transformer: dict[str, Any]

    def gaussian(self, name: str, *shape: int) -> torch.Tensor:
        """The input of this name, standard normal."""
        return recipe.gaussian(f"in.{name}", shape, self.settings["salt"])

    def controlnet(self, kind: str) -> dict[str, Any]:
        """``controlnet_cfg`` of the transformer case that the pipelines of this kind share."""
        config: dict[str, Any] = self.transformer["cases"][kind]["controlnet_cfg"]
        return config


def check(folder: Path, options: Options) -> Iterator[Case]:
    """Timesteps, the keyframe VAE both ways, and every variant and condition mode recorded."""
    recording = read(folder)
    if "timesteps" in recording.settings.get("dmd", {}):
        yield from attempt("pipelines/dmd.timesteps", check_timesteps, recording)
    runs: dict[tuple[str, str], None] = {}
    for name in recording.expected:
        if name.startswith("vae."):
            yield from attempt(f"pipelines/{name}", check_vae, recording, name)
        elif output := OUTPUT.fullmatch(name):
            runs[output["kind"], output["mode"] or FRAMES_MODE] = None
        else:
            yield failed(f"pipelines/{name}", "there is no check of it")
    for kind, mode in runs:
        yield from attempt(f"pipelines/{kind}.{mode}", check_variant, recording, kind, mode)


def read(folder: Path) -> Recording:
    """The files of a folder; what is not beside it of the transformer, from our own copy."""
    transformer = _json(_OWN_TRANSFORMER)
    beside = folder.parent / "transformer" / "transformer.json"
    if beside.is_file():
        other = _json(beside)
        transformer |= other | {"cases": transformer["cases"] | other["cases"]}
    expected = load_file(folder / "pipelines.safetensors")
    return Recording(_json(folder / "pipelines.json"), expected, transformer)


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def check_timesteps(recording: Recording) -> Iterator[Case]:
    """Timesteps of the distilled schedule."""
    dmd = recording.settings["dmd"]
    schedule = DistilledSchedule(dmd["start"], dmd["end"], dmd["steps"], dmd["shift"])
    difference = largest_difference(schedule.timesteps, torch.tensor(dmd["timesteps"]))
    yield Case("pipelines/dmd.timesteps", difference, TIMESTEP_TOLERANCE)


def check_vae(recording: Recording, name: str) -> Iterator[Case]:
    """Encode the raw render frame by frame, or decode such latents likewise."""
    vae = build_vae(recording)
    actual = vae.encode(render_video(recording))
    if name == "vae.keyframe_frames":
        actual = vae.decode(recording.expected.get("vae.keyframe_latents", actual))
    elif name != "vae.keyframe_latents":
        raise LookupError(f"there is no check of {name}")
    difference = largest_difference(actual, recording.expected[name])
    yield Case(f"pipelines/{name}", difference, VAE_TOLERANCE)


def check_variant(recording: Recording, kind: str, mode: str) -> Iterator[Case]:
    """Sample one clip, then decode it where its frames are recorded."""
    model = build_pipeline(recording, variant_named(f"worldstereo-{kind}"), mode)
    distilled = is_distilled(model.variant)
    latents = model(**inputs(recording, model.variant), output_type="latent").frames
    assert isinstance(latents, torch.Tensor)
    name = f"{kind}.{mode}.latents"
    if name in recording.expected:
        difference = largest_difference(latents, recording.expected[name])
        tolerance = DISTILLED_TOLERANCE if distilled else UNIPC_TOLERANCE
        yield Case(f"pipelines/{name}", difference, tolerance)
    name = f"{kind}.frames"
    if name in recording.expected and mode == FRAMES_MODE:
        frames = model.frames_of(latents, "pt")
        assert isinstance(frames, torch.Tensor)
        difference = largest_difference(frames, recording.expected[name])
        yield Case(f"pipelines/{name}", difference, FRAMES_TOLERANCE)


def build_vae(recording: Recording) -> KeyframeVAE:
    """The recorded VAE with its seeded weights."""
    vae = AutoencoderKLWan(**recording.settings["vae"])
    recipe.fill_(vae, "vae.", recording.settings["salt"])
    return KeyframeVAE(vae.eval().requires_grad_(False))


def build_pipeline(recording: Recording, variant: Variant, mode: str) -> WorldStereo:
    """The recorded pipeline: seeded weights, no encoders."""
    settings = recording.settings
    distilled = settings.get("dmd", {})
    fields = {
        "base_model": "",
        "controlnet_cfg": recording.controlnet("memory" if uses_memory(variant) else "camera"),
        "nframe": settings["frames"],
        "latent_cond_mode": mode,
        "dmd_start_steps": distilled.get("start"),
        "dmd_end_steps": distilled.get("end"),
        "dmd_steps": distilled.get("steps"),
        "gen_shift": distilled.get("shift"),
    }
    config = ModelConfig.model_validate({k: v for k, v in fields.items() if v is not None})
    transformer = build_transformer(variant, recording.transformer["tiny"], config.controlnet_cfg)
    recipe.fill_(transformer, "transformer.", settings["salt"])
    return WorldStereo(
        variant=variant,
        config=config,
        transformer=transformer.eval().requires_grad_(False),
        vae=build_vae(recording),
        scheduler_config=settings["scheduler"],
    )


def render_video(recording: Recording) -> torch.Tensor:
    """[1, 3, F, H, W] in (-1, 1)."""
    settings = recording.settings
    shape = (1, 3, settings["frames"], settings["height"], settings["width"])
    return torch.tanh(recording.gaussian("render_video", *shape))


def inputs(recording: Recording, variant: Variant) -> dict[str, Any]:
    """What the recorded pipelines were called with, by the names of the published API."""
    settings, g = recording.settings, recording.gaussian
    frames, height, width = settings["frames"], settings["height"], settings["width"]
    tiny = recording.transformer["tiny"]
    pixels = (255 * torch.sigmoid(g("image", height, width, 3))).to(torch.uint8)
    text = (1, 512, tiny["text_dim"])
    given: dict[str, Any] = {
        "image": Image.fromarray(pixels.numpy()),
        "render_video": render_video(recording),
        "render_mask": (g("render_mask", 1, 1, frames, height, width) > 0).float(),
        "camera_embedding": g("camera_embedding", 1, 6, frames, height, width),
        "prompt_embeds": g("prompt_embeds", *text),
        "negative_prompt_embeds": g("negative_prompt_embeds", *text),
        "image_embeds": g("image_embeds", 1, 257, tiny["image_dim"]),
        "latents": g("latents", 1, 16, frames, height // 8, width // 8),
    }
    if uses_memory(variant):
        count = settings["num_references"]
        given |= {
            "reference_video": torch.tanh(g("reference_video", 1, 3, count, height, width)),
            "ref_index": settings["ref_index"],
            "camera_qt": g("camera_qt", 1, frames, 7),
            "camera_qt_ref": g("camera_qt_ref", 1, count, 7),
        }
    if not is_distilled(variant):
        given["num_inference_steps"] = settings["steps"]
        given["guidance_scale"] = settings["guidance_scale"]
    return given
