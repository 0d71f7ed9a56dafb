"""What a caller may ask for beside the clip: device, prompts, steps, guidance, kind of output.

Owns the published defaults' use and the refusals of values out of range. The clip's own tensors
are checked in ``inputs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

import torch

from worldstereo.config import (
    MAX_GUIDANCE,
    MAX_STEPS,
    ModelConfig,
    Variant,
    is_distilled,
    published_guidance,
    published_steps,
)
from worldstereo.errors import ParameterError, PromptError
from worldstereo.sampling.inputs import ClipInputs

OutputType = Literal["pt", "np", "latent"]

PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Prompts:
    """What a clip shows, as text or as embeddings made elsewhere.

    Attributes:
        text: prompt, or [1, 512, text_dim].
        negative: negative prompt, or [1, 512, text_dim]; not encoded without guidance.
        image_embeds: [1, 257, image_dim], or None: the start frame is encoded.
        guidance_scale: None: no guidance.
    """

    text: str | torch.Tensor
    negative: str | torch.Tensor
    image_embeds: torch.Tensor | None
    guidance_scale: float | None


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device to compute on; for None the GPU where there is one, else the CPU.

    Raises:
        ParameterError: torch knows or finds no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    # What torch raises for a name that it does not know, no driver, or a build without CUDA.
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ParameterError(
            "there is no such device",
            where="device",
            got=f"{device!r}: {error}".partition("\n")[0],
            allowed=f"cpu, or cuda where there is a GPU; torch sees {torch.cuda.device_count()}",
        ) from error


def usable_precision(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype.

    Raises:
        ParameterError: it is none that models compute in.
    """
    if dtype not in PRECISIONS:
        allowed = ", ".join(str(precision) for precision in PRECISIONS)
        raise ParameterError("an unusable precision", where=name, got=repr(dtype), allowed=allowed)
    return dtype


def denoising_steps(steps: int | None, variant: Variant, config: ModelConfig) -> int:
    """The number of steps, the published one for None.

    The distilled schedule starts at pure noise from two steps on; a single step of it starts at
    ``dmd_start_steps``.

    Raises:
        ParameterError: out of range.
    """
    if steps is None:
        return published_steps(variant, config)
    if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= steps <= MAX_STEPS:
        raise ParameterError(
            "a number of denoising steps out of range",
            where="num_inference_steps",
            got=repr(steps),
            allowed=f"1..{MAX_STEPS}",
        )
    return int(steps)


def used_guidance(scale: float | None, variant: Variant, config: ModelConfig) -> float | None:
    """The guidance scale, the model's own for None; None where one pass a step is enough.

    Raises:
        ParameterError: out of range, or above 1 for the distilled variant.
    """
    if scale is None:
        scale = published_guidance(variant, config)
    elif not isinstance(scale, Real) or not 0 <= scale <= MAX_GUIDANCE:
        raise ParameterError(
            "a guidance scale out of range",
            where="guidance_scale",
            got=repr(scale),
            allowed=f"0..{MAX_GUIDANCE}",
        )
    elif scale > 1 and is_distilled(variant):
        raise ParameterError(
            "the distilled variant runs without guidance",
            where="guidance_scale",
            got=repr(scale),
            allowed="none, or up to 1",
            fix="leave it out, or use worldstereo-memory",
        )
    return float(scale) if scale is not None and scale > 1 else None


def one_prompt(
    name: str, text: str | None, embeds: torch.Tensor | None, default: str | None = None
) -> str | torch.Tensor:
    """The text or its embedding, whichever is given, else the default.

    Raises:
        PromptError: both are given, or nothing is and there is no default, or the text is none.
    """
    if text is not None and embeds is not None:
        raise PromptError("a prompt is given twice", where=name, allowed=f"{name} or {name}_embeds")
    if embeds is not None:
        return embeds
    if text is None:
        text = default
    if not isinstance(text, str):
        raise PromptError(
            "there is no prompt" if text is None else "a prompt that is no text",
            where=name,
            got=type(text).__name__,
            allowed=f"a text, or {name}_embeds",
        )
    return text


def check_size(inputs: ClipInputs, height: int | None, width: int | None) -> None:
    """Refuse a height or width that is given and is not the render's.

    Raises:
        ParameterError: names both sizes.
    """
    asked = (
        inputs.size[0] if height is None else height,
        inputs.size[1] if width is None else width,
    )
    if asked != inputs.size:
        raise ParameterError(
            "another size than the render's was asked for",
            where="height, width",
            got=f"{asked[0]}x{asked[1]}",
            allowed=f"{inputs.size[0]}x{inputs.size[1]}",
            fix="render at the size that is to be generated",
        )


def check_output_type(output_type: str) -> None:
    """Refuse an output type that there is not.

    Raises:
        ParameterError: lists those that there are.
    """
    if output_type not in get_args(OutputType):
        raise ParameterError(
            "unknown output type",
            where="output_type",
            got=repr(output_type),
            allowed=", ".join(get_args(OutputType)),
        )
