"""Golden checks of the transformers: forward passes at a tiny size, and every key at full size."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.golden import recipe
from tests.golden.report import Case, Options, attempt, failed, largest_difference
from worldstereo.config import ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer

FORWARD_TOLERANCE = 2e-5
TEXT_TOKENS, IMAGE_TOKENS = 512, 257
PIXELS_PER_LATENT = 8


def variant_of(kind: str) -> Variant:
    return "worldstereo-camera" if kind == "camera" else "worldstereo-memory"


def map_frames(case: Mapping[str, Any]) -> int:
    """Frames of the mask and the rays: the latents', or the video's they were thinned from."""
    downsample = case["controlnet_cfg"].get("mask_downsample", 1)
    return int(case["f"] if downsample == 1 else downsample * (case["f"] - 1) + 1)


def inputs_of(case: Mapping[str, Any], tiny: Mapping[str, Any], salt: int) -> dict[str, Any]:
    """The inputs of one case, by the recipe."""
    batch, f, h, w = case.get("batch", 1), case["f"], case["h"], case["w"]
    channels = tiny["in_channels"]
    latent_channels = tiny["out_channels"]
    pixels = (map_frames(case), PIXELS_PER_LATENT * h, PIXELS_PER_LATENT * w)
    rays = case["controlnet_cfg"]["add_channels"] - 1

    def g(name: str, *shape: int) -> torch.Tensor:
        return recipe.gaussian("in." + name, (batch, *shape), salt)

    timestep = torch.tensor(case["timestep"], dtype=torch.float32)
    inputs: dict[str, Any] = {
        "hidden_states": g("hidden_states", channels, f, h, w),
        "timestep": timestep.expand(batch),
        "encoder_hidden_states": g("encoder_hidden_states", TEXT_TOKENS, tiny["text_dim"]),
        "encoder_hidden_states_image": g(
            "encoder_hidden_states_image", IMAGE_TOKENS, tiny["image_dim"]
        ),
        "render_latent": g("render_latent", latent_channels, f, h, w),
        "render_mask": (g("render_mask", 1, *pixels) > 0).float(),
        "camera_embedding": g("camera_embedding", rays, *pixels),
    }
    if case["kind"] != "camera":
        n, row = case["nref"], case["controlnet_cfg"].get("camera_embedding_dim", 7)
        inputs |= {
            "reference_latent": g("reference_latent", channels, n, h, w),
            "ref_index": case["ref_index"],
            "camera_qt": g("camera_qt", f, row),
            "camera_qt_ref": g("camera_qt_ref", n, row),
        }
    return inputs


def build_case(case: Mapping[str, Any], tiny: Mapping[str, Any], salt: int) -> torch.nn.Module:
    """The case's model with its recipe's weights."""
    controlnet = ControlNetConfig.model_validate(case["controlnet_cfg"])
    model = build_transformer(variant_of(case["kind"]), tiny, controlnet)
    return recipe.fill_(model, "transformer.", salt).eval()


def key_mismatches(model: torch.nn.Module, expected: Mapping[str, list[int]]) -> list[str]:
    """Names that are missing, unexpected or of another shape."""
    actual = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return sorted(
        name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name)
    )


def _keys_case(name: str, model: torch.nn.Module, expected: Mapping[str, list[int]]) -> Case:
    wrong = key_mismatches(model, expected)
    note = f"{len(expected)} keys" + (f"; first wrong: {', '.join(wrong[:3])}" if wrong else "")
    return Case(name, float(len(wrong)), 0.0, note)


def check_forward(folder: Path, options: Options) -> Iterator[Case]:
    """Every case of transformer.json: keys where it lists them, and the forward pass."""
    recorded = json.loads((folder / "transformer.json").read_text(encoding="utf-8"))
    outputs = load_file(folder / "transformer.safetensors")
    for name, case in recorded["cases"].items():
        salt = case.get("salt", recorded.get("salt", 0))
        tiny = case.get("tiny", recorded["tiny"])
        yield from attempt(f"transformer.{name}", _check_case, name, case, tiny, salt, outputs)
    unlisted = sorted(outputs.keys() - recorded["cases"].keys())
    if unlisted:
        print(f"{folder}: not checked, in no case: {', '.join(unlisted)}", file=sys.stderr)


@torch.no_grad()
def _check_case(
    name: str,
    case: Mapping[str, Any],
    tiny: Mapping[str, Any],
    salt: int,
    outputs: Mapping[str, torch.Tensor],
) -> Iterator[Case]:
    model = build_case(case, tiny, salt)
    if "state_dict" in case:
        yield _keys_case(f"transformer.{name}.state_dict", model, case["state_dict"])
    if name not in outputs:
        yield failed(f"transformer.{name}", "no recorded output")
        return
    actual = model(**inputs_of(case, tiny, salt))
    difference = largest_difference(actual, outputs[name])
    yield Case(f"transformer.{name}", difference, FORWARD_TOLERANCE)


def check_full_size_keys(folder: Path, options: Options) -> Iterator[Case]:
    """Both models at full size on the meta device: the number of wrong names or shapes."""
    recorded = json.loads((folder / "full_size_keys.json").read_text(encoding="utf-8"))
    for kind in recorded["state_dict"]:
        yield from attempt(f"full_size_keys.{kind}", _check_full_size, kind, recorded)


def _check_full_size(kind: str, recorded: Mapping[str, Any]) -> Iterator[Case]:
    controlnet = ControlNetConfig.model_validate(recorded["controlnet_cfg"])
    with torch.device("meta"):
        model = build_transformer(variant_of(kind), recorded["backbone"], controlnet)
    yield _keys_case(f"full_size_keys.{kind}", model, recorded["state_dict"][kind])
