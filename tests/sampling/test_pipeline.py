"""From a clip to its frames with the bundled model, and what a call refuses."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

from tests.conftest import ROOT
from tests.miniature import miniature
from tests.sampling.clips import make_clip
from worldstereo import WorldStereo
from worldstereo.config import VARIANTS, Variant, published_guidance, published_steps, uses_memory
from worldstereo.errors import (
    CheckpointError,
    GenerationCancelled,
    GenerationError,
    ParameterError,
    PromptError,
)
from worldstereo.sampling.inputs import clip_inputs, to_pixels
from worldstereo.sampling.noise import clip_noise
from worldstereo.types import Clip, Progress, UInt8

Load = Callable[[Variant], WorldStereo]
FRAMES = (21, 32, 48, 3)


def clip_for(variant: Variant, **changed: Any) -> Clip:
    return make_clip(references=2 if uses_memory(variant) else 0, **changed)


def call_arguments(clip: Clip, variant: Variant) -> dict[str, Any]:
    inputs = clip_inputs(clip, memory=uses_memory(variant))
    return {"prompt": clip.prompt, **vars(inputs)}


def digest(frames: UInt8) -> str:
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()


# Generation


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_is_generated(load: Load, variant: Variant) -> None:
    stages: list[Progress] = []
    frames = load(variant).generate(
        clip_for(variant), num_inference_steps=2, on_stage=stages.append
    )
    assert frames.shape == FRAMES
    assert frames.dtype == np.uint8
    assert frames.std() > 10  # a picture, not a plain colour
    assert (frames[0] != frames[-1]).any()
    assert stages == [
        Progress("encode"),
        Progress("denoise", 0, 2),
        Progress("denoise", 1, 2),
        Progress("denoise", 2, 2),
        Progress("decode"),
    ]


@pytest.mark.parametrize(
    ("variant", "steps", "guidance"),
    [
        ("worldstereo-camera", 40, 5.0),
        ("worldstereo-memory", 40, 5.0),
        ("worldstereo-memory-dmd", 4, None),
    ],
)
def test_published_defaults(
    load: Load, variant: Variant, steps: int, guidance: float | None
) -> None:
    model = load(variant)
    assert published_steps(variant, model.config) == steps
    assert published_guidance(variant, model.config) == guidance
    own = model.config.model_copy(update={"guidance_scale": 1.5})
    assert published_guidance(variant, own) == (None if guidance is None else 1.5)
    # Stopped at the first step: the number is told when denoising starts.
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 1:
            raise GenerationCancelled("enough")

    with pytest.raises(GenerationCancelled):
        model.generate(clip_for(variant), on_stage=stop)
    assert seen[-1] == Progress("denoise", 1, steps)


def test_the_same_clip_gives_the_same_bytes(distilled: WorldStereo, load: Load) -> None:
    first = distilled.generate(make_clip())
    again = distilled.generate(make_clip())
    fresh = WorldStereo.from_pretrained(miniature(), local_files_only=True, device="cpu")
    assert digest(first) == digest(again) == digest(fresh.generate(make_clip()))


def test_the_same_clip_gives_the_same_bytes_in_another_process(distilled: WorldStereo) -> None:
    """In a process that generated another clip before, with as many threads."""
    program = (
        "import torch\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "from tests.miniature import miniature\n"
        "from tests.sampling.clips import make_clip\n"
        "from tests.sampling.test_pipeline import digest\n"
        "from worldstereo import WorldStereo\n"
        "model = WorldStereo.from_pretrained(miniature(), device='cpu')\n"
        "model.generate(make_clip(draw=1, references=1, seed=3))\n"
        "print(digest(model.generate(make_clip(draw=2))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest(distilled.generate(make_clip(draw=2)))


def test_seed_draw_prompt_and_references_matter(distilled: WorldStereo) -> None:
    clips = [
        make_clip(),
        replace(make_clip(), seed=1),
        make_clip(draw=1),
        make_clip(prompt="a garden"),
        make_clip(references=1),
        make_clip(references=0),
    ]
    assert len({digest(distilled.generate(clip)) for clip in clips}) == len(clips)


def test_a_memory_clip_without_references_looks_at_its_start_frame(
    distilled: WorldStereo,
) -> None:
    clip = make_clip(references=0)
    own = make_clip(references=1).references
    assert own is not None
    explicit = replace(
        own, frames=clip.start_image[None], cameras=clip.cameras[[0]], ref_index=(0,)
    )
    frames = distilled.generate(clip)
    assert digest(frames) == digest(distilled.generate(replace(clip, references=explicit)))


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_a_clip_is_stopped_where_its_progress_is_refused(
    distilled: WorldStereo, stage: str
) -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == stage and progress.step in (0, 2):
            raise GenerationCancelled("asked for", where="renders/traj_up")

    with pytest.raises(GenerationCancelled, match="asked for"):
        distilled.generate(make_clip(), on_stage=stop)
    assert seen[-1].stage == stage
    # The pipeline is usable afterwards, and what was stopped left no trace.
    fresh = WorldStereo.from_pretrained(miniature(), device="cpu")
    assert digest(distilled.generate(make_clip())) == digest(fresh.generate(make_clip()))


# The published call


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_call_is_the_generation_of_the_same_inputs(load: Load, variant: Variant) -> None:
    model, clip = load(variant), clip_for(variant)
    generator = torch.Generator().manual_seed(clip.seed)
    output = model(
        **call_arguments(clip, variant), num_inference_steps=2, generator=generator
    ).frames
    assert isinstance(output, torch.Tensor)
    assert output.shape == (1, 21, 3, 32, 48)
    assert float(output.min()) >= 0
    assert float(output.max()) <= 1
    frames = to_pixels(output.transpose(1, 2) * 2 - 1)
    assert np.array_equal(frames, model.generate(clip, num_inference_steps=2))


def test_kinds_of_output(distilled: WorldStereo) -> None:
    arguments = call_arguments(make_clip(), "worldstereo-memory-dmd")
    arguments["latents"] = clip_noise(0, 0, (1, 16, 21, 4, 6), distilled.device)
    tensor = distilled(**arguments).frames
    array = distilled(**arguments, output_type="np").frames
    latents = distilled(**arguments, output_type="latent").frames
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(latents, torch.Tensor)
    assert array.shape == (1, 21, 32, 48, 3)
    assert latents.shape == (1, 16, 21, 4, 6)
    assert np.array_equal(array, tensor.permute(0, 1, 3, 4, 2).numpy())
    assert torch.equal(distilled.frames_of(latents, "pt"), tensor)


def test_embeddings_replace_texts(load: Load) -> None:
    model = load("worldstereo-camera")
    arguments = call_arguments(clip_for(model.variant), model.variant)
    common = {
        "latents": clip_noise(0, 0, (1, 16, 21, 4, 6), model.device),
        "num_inference_steps": 1,
        "output_type": "latent",
    }
    by_text = model(**arguments, **common).frames
    assert model.text_encoder is not None
    assert model.image_encoder is not None
    prompt = arguments.pop("prompt")
    by_embedding = model(
        **arguments,
        **common,
        prompt_embeds=model.text_encoder.encode(prompt),
        negative_prompt_embeds=model.text_encoder.encode(model.config.negative_prompt),
        image_embeds=model.image_encoder.encode(arguments["image"]),
    ).frames
    assert torch.equal(torch.as_tensor(by_text), torch.as_tensor(by_embedding))


def test_the_negative_prompt_is_used_with_guidance_only(load: Load) -> None:
    model = load("worldstereo-camera")
    arguments = call_arguments(clip_for(model.variant), model.variant)
    arguments["latents"] = clip_noise(0, 0, (1, 16, 21, 4, 6), model.device)
    arguments |= {"num_inference_steps": 1, "output_type": "latent"}

    def result(**more: Any) -> torch.Tensor:
        return torch.as_tensor(model(**arguments, **more).frames)

    assert torch.equal(result(), result(guidance_scale=5.0))
    assert torch.equal(result(), result(negative_prompt=model.config.negative_prompt))
    assert not torch.equal(result(), result(negative_prompt="a very different text"))
    assert not torch.equal(result(), result(guidance_scale=2.0))
    off = result(guidance_scale=1.0)
    assert torch.equal(off, result(guidance_scale=0.0, negative_prompt="any"))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no prompt": ({"prompt": None}, PromptError, "prompt: there is no prompt"),
    "prompt that is no text": ({"prompt": 5}, PromptError, "no text; got int"),
    "both prompts": ({"prompt_embeds": torch.zeros(1, 512, 48)}, PromptError, "given twice"),
    "narrow embedding": (
        {"prompt": None, "prompt_embeds": torch.zeros(1, 512, 8)},
        ParameterError,
        r"prompt_embeds: .* got \[1, 512, 8\]; allowed: \[1, 512, 48\]",
    ),
    "embedding that is no tensor": (
        {"prompt": None, "prompt_embeds": np.zeros((1, 512, 48))},
        ParameterError,
        r"prompt_embeds: .* got ndarray; allowed: \[1, 512, 48\]",
    ),
    "narrow image embedding": (
        {"image_embeds": torch.zeros(1, 257, 8)},
        ParameterError,
        "image_embeds",
    ),
    "other height": ({"height": 64}, ParameterError, "got 64x48; allowed: 32x48"),
    "other width": ({"width": 64}, ParameterError, "got 32x64; allowed: 32x48"),
    "no steps": ({"num_inference_steps": 0}, ParameterError, r"num_inference_steps: .* 1\.\.1000"),
    "half a step": ({"num_inference_steps": 2.5}, ParameterError, "num_inference_steps"),
    "too many steps": ({"num_inference_steps": 1001}, ParameterError, "num_inference_steps"),
    "guidance of the distilled": ({"guidance_scale": 5.0}, ParameterError, "without guidance"),
    "negative guidance": ({"guidance_scale": -1}, ParameterError, "guidance_scale: .* got -1"),
    "guidance that is no number": ({"guidance_scale": "5"}, ParameterError, "guidance_scale"),
    "several generators": (
        {"generator": [torch.Generator()]},
        ParameterError,
        "generator: .* got list",
    ),
    "output type": ({"output_type": "pil"}, ParameterError, "allowed: pt, np, latent"),
    "noise of another size": (
        {"latents": torch.zeros(1, 16, 21, 8, 6)},
        ParameterError,
        r"latents: .* allowed: \[1, 16, 21, 4, 6\]",
    ),
    "mask of another size": (
        {"render_mask": torch.zeros(1, 1, 21, 4, 6)},
        ParameterError,
        "render_mask",
    ),
}


@pytest.mark.parametrize(("changed", "kind", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_call_refuses(
    distilled: WorldStereo, changed: dict[str, Any], kind: type[Exception], says: str
) -> None:
    arguments = {**call_arguments(make_clip(), distilled.variant), **changed}
    with pytest.raises(kind, match=says):
        distilled(**arguments)


def test_numbers_may_be_numpys(distilled: WorldStereo) -> None:
    arguments = call_arguments(make_clip(), distilled.variant)
    arguments["latents"] = clip_noise(0, 0, (1, 16, 21, 4, 6), distilled.device)
    plain = distilled(**arguments, num_inference_steps=1, output_type="latent").frames
    arguments |= {"num_inference_steps": np.int64(1), "guidance_scale": np.float32(1)}
    numpys = distilled(**arguments, output_type="latent").frames
    assert torch.equal(torch.as_tensor(numpys), torch.as_tensor(plain))


def test_a_clip_of_another_length_is_refused(distilled: WorldStereo) -> None:
    with pytest.raises(ParameterError, match=r"traj_up: cameras: .* got 20 frames; allowed: 21"):
        distilled.generate(make_clip(frames=20))


def test_a_clip_off_the_grid_is_refused(distilled: WorldStereo) -> None:
    with pytest.raises(ParameterError, match=r"21 frames of 40x48; allowed: .* multiples of 16"):
        distilled.generate(make_clip(height=40))


def test_references_for_the_camera_variant_are_refused(load: Load) -> None:
    with pytest.raises(ParameterError, match="takes no references"):
        load("worldstereo-camera").generate(make_clip(references=2))


def test_latents_that_are_not_finite_are_an_error(distilled: WorldStereo) -> None:
    arguments = call_arguments(make_clip(), distilled.variant)
    noise = torch.full((1, 16, 21, 4, 6), 1e38)
    with pytest.raises(GenerationError, match="not finite"):
        distilled(**arguments, latents=noise)


# Loading


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_loaded_ready(load: Load, variant: Variant) -> None:
    model = load(variant)
    assert model.variant == variant
    assert model.config.nframe == 21
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert not model.transformer.training
    assert not any(parameter.requires_grad for parameter in model.transformer.parameters())
    assert model.vae.vae.dtype == torch.float32
    assert model.text_encoder is not None
    assert model.text_encoder.model.dtype == torch.float32


def test_precisions_can_be_chosen() -> None:
    model = WorldStereo.from_pretrained(
        miniature(), device="cpu", dtype=torch.bfloat16, encoder_dtype=torch.bfloat16
    )
    assert model.dtype == torch.bfloat16
    assert model.vae.vae.dtype == torch.float32
    assert model.text_encoder is not None
    assert model.text_encoder.model.dtype == torch.bfloat16
    frames = model.generate(make_clip(), num_inference_steps=2)
    assert frames.shape == FRAMES


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("device", "gpu"),
        ("device", "cuda:99"),
        ("dtype", "bfloat16"),
        ("dtype", torch.int8),
        ("encoder_dtype", torch.int8),
    ],
)
def test_an_unusable_device_or_precision_is_refused(where: str, value: object) -> None:
    with pytest.raises(ParameterError, match="allowed: ") as caught:
        WorldStereo.from_pretrained("worldstereo-tiny", **{"device": "cpu", where: value})
    assert caught.value.where == where


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    WorldStereo.from_pretrained("worldstereo-tiny", device="cpu")
    assert capfd.readouterr() == ("", "")
    # The bars of what others load are as they were.
    list(transformers_logging.tqdm([1], desc="theirs"))
    assert "theirs" in capfd.readouterr().err


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ParameterError, match="worldstereo-large"):
        WorldStereo.from_pretrained("worldstereo-tiny", "worldstereo-large")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="worldstereo-memory-dmd"):
        WorldStereo.from_pretrained(str(tmp_path), local_files_only=True)
