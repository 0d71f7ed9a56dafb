"""Recorded lifting and point rendering against worldstereo.geometry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.golden.report import Case, Options, largest_difference
from worldstereo.geometry.lift import lift_depth
from worldstereo.geometry.render import point_renderer

LENGTH_TOLERANCE = 1e-5
COLOR_TOLERANCE = 1e-4
# Shares of pixels that may differ: a pixel whose centre lies on a disk's rim belongs to the disk
# or not by the last bit of a float32.
COLOR_SHARE = 1e-3
RIM_SHARE = 1e-4


def check(folder: Path, options: Options) -> Iterator[Case]:
    """Every scene of rendering.json: its points, and all its frames rendered from them."""
    recorded = load_file(folder / "rendering.safetensors")
    scenes = json.loads((folder / "rendering.json").read_text())
    for name, settings in scenes.items():
        prefix = f"{name}."
        scene = {
            key.removeprefix(prefix): value
            for key, value in recorded.items()
            if key.startswith(prefix)
        }
        yield from _check_lifting(name, scene, settings)
        yield from _check_renders(name, scene, settings, options)


def _check_lifting(name: str, scene: dict[str, Tensor], settings: dict[str, Any]) -> Iterator[Case]:
    points, colors = lift_depth(
        scene["image"],
        scene["depth"],
        scene["valid"] > 0.5,
        scene["intrinsics"][0],
        scene["world_to_camera"][0],
        contract=settings["contract"],
        sobel_threshold=settings["sobel_threshold"],
    )
    count = f"{len(points)} points of {settings['points']}"
    yield Case(
        f"rendering {name}.points", _lengths_off(points, scene["points"]), LENGTH_TOLERANCE, count
    )
    yield Case(
        f"rendering {name}.colors",
        largest_difference(colors, scene["colors"]),
        LENGTH_TOLERANCE,
        count,
    )


def _check_renders(
    name: str, scene: dict[str, Tensor], settings: dict[str, Any], options: Options
) -> Iterator[Case]:
    assert options.renderer in ("torch", "pytorch3d"), options.renderer
    render = point_renderer("torch" if options.renderer == "torch" else "pytorch3d")
    rendered = render(
        scene["points"],
        scene["colors"],
        scene["world_to_camera"],
        scene["intrinsics"],
        settings["height"],
        settings["width"],
        radius_ndc=settings["radius_ndc"],
        points_per_pixel=settings["points_per_pixel"],
    )
    mask, expected_mask = rendered.hole_mask, scene["hole_mask"]
    if mask.shape != expected_mask.shape or rendered.rgb.shape != scene["rgb"].shape:
        yield Case(f"rendering {name}", float("inf"), 0.0, f"shape {list(rendered.rgb.shape)}")
        return
    error = (rendered.rgb - scene["rgb"]).abs().nan_to_num(nan=float("inf")).amax(dim=1)
    yield Case(
        f"rendering {name}.rgb",
        _share(error > COLOR_TOLERANCE),
        COLOR_SHARE,
        f"share of pixels off by more than {COLOR_TOLERANCE:g}; largest {float(error.max()):.3g}",
    )
    yield Case(
        f"rendering {name}.hole_mask", _share(mask != expected_mask), RIM_SHARE, "share of pixels"
    )
    yield _check_nearest(name, rendered.nearest_z, scene["zbuf_nearest"])


def _check_nearest(name: str, actual: Tensor, expected: Tensor) -> Case:
    """The largest difference but for a share of pixels; holes on one side are the mask's case."""
    covered = (actual >= 0) & (expected >= 0)
    error = _relative(actual, expected)[covered].sort().values
    left_out = int(RIM_SHARE * error.numel())
    above = int((error > LENGTH_TOLERANCE).sum())
    kept = float(error[-1 - left_out]) if error.numel() else 0.0
    note = f"{above} pixels above, {left_out} may be"
    return Case(f"rendering {name}.zbuf_nearest", kept, LENGTH_TOLERANCE, note)


def _lengths_off(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    return float(_relative(actual, expected).max())


def _relative(actual: Tensor, expected: Tensor) -> Tensor:
    """|difference|, relative where a length is above 1: float32 has no 1e-5 beyond 128."""
    difference = (actual.double() - expected.double()).abs().nan_to_num(nan=float("inf"))
    return difference / expected.double().abs().clamp(min=1)


def _share(pixels: Tensor) -> float:
    return float(pixels.to(torch.float64).mean())
