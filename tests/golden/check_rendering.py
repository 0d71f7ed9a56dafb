"""Recorded lifting and point rendering against worldstereo.geometry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.golden.report import (
    Case,
    Options,
    attempt,
    failed,
    largest_difference,
    largest_length_difference,
    relative_difference,
)
from worldstereo.geometry.lift import lift_depth
from worldstereo.geometry.render import point_renderer

LENGTH_TOLERANCE = 1e-5
COLOR_TOLERANCE = 1e-4
# Shares of pixels that may differ: a pixel whose centre lies on a disk's rim belongs to the disk
# or not by the last bit of a float32.
COLOR_SHARE = 1e-3
RIM_SHARE = 1e-4
# Tensors of one scene: what is given, and what comes of it.
INPUTS = {"image", "depth", "valid", "intrinsics", "world_to_camera"}
LIFTED = {"points", "colors"}
RENDERED = {"rgb", "hole_mask", "zbuf_nearest"}


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
        yield from attempt(f"rendering {name}", _check_scene, name, scene, settings, options)
    unlisted = {key for key in recorded if key.rpartition(".")[0] not in scenes}
    if unlisted:
        print(f"{folder}: not checked, in no scene: {', '.join(sorted(unlisted))}", file=sys.stderr)


def _check_scene(
    name: str, scene: dict[str, Tensor], settings: dict[str, Any], options: Options
) -> Iterator[Case]:
    """What is recorded of a scene; where its points are not, their lifting is not checked."""
    for key in sorted(scene.keys() - INPUTS - LIFTED - RENDERED):
        yield failed(f"rendering {name}.{key}", "there is no check of it")
    if scene.keys() & LIFTED:
        yield from _check_lifting(name, scene, settings)
    if scene.keys() & RENDERED:
        yield from _check_renders(name, scene, settings, options)


def _check_lifting(name: str, scene: dict[str, Tensor], settings: dict[str, Any]) -> Iterator[Case]:
    points, colors = _lifted(scene, settings)
    count = f"{len(points)} points of {settings['points']}"
    if "points" in scene:
        difference = largest_length_difference(points, scene["points"])
        yield Case(f"rendering {name}.points", difference, LENGTH_TOLERANCE, count)
    if "colors" in scene:
        difference = largest_difference(colors, scene["colors"])
        yield Case(f"rendering {name}.colors", difference, LENGTH_TOLERANCE, count)


def _lifted(scene: dict[str, Tensor], settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return lift_depth(
        scene["image"],
        scene["depth"],
        scene["valid"] > 0.5,
        scene["intrinsics"][0],
        scene["world_to_camera"][0],
        contract=settings["contract"],
        sobel_threshold=settings["sobel_threshold"],
    )


def _check_renders(
    name: str, scene: dict[str, Tensor], settings: dict[str, Any], options: Options
) -> Iterator[Case]:
    given = scene.keys() >= LIFTED
    points, colors = (scene["points"], scene["colors"]) if given else _lifted(scene, settings)
    rendered = point_renderer(options.renderer)(
        points,
        colors,
        scene["world_to_camera"],
        scene["intrinsics"],
        settings["height"],
        settings["width"],
        radius_ndc=settings["radius_ndc"],
        points_per_pixel=settings["points_per_pixel"],
    )
    checks: dict[str, tuple[Tensor, Callable[[str, Tensor, Tensor], Case]]] = {
        "rgb": (rendered.rgb, _check_colors),
        "hole_mask": (rendered.hole_mask, _check_holes),
        "zbuf_nearest": (rendered.nearest_z, _check_nearest),
    }
    for quantity in sorted(scene.keys() & RENDERED):
        actual, compare = checks[quantity]
        label, expected = f"rendering {name}.{quantity}", scene[quantity]
        if actual.shape == expected.shape:
            yield compare(label, actual, expected)
        else:
            yield failed(label, f"shape {list(actual.shape)} instead of {list(expected.shape)}")


def _check_colors(label: str, actual: Tensor, expected: Tensor) -> Case:
    error = (actual - expected).abs().nan_to_num(nan=float("inf")).amax(dim=1)
    largest = float(error.max())
    note = f"share of pixels off by more than {COLOR_TOLERANCE:g}; largest {largest:.3g}"
    return Case(label, _share(error > COLOR_TOLERANCE), COLOR_SHARE, note)


def _check_holes(label: str, actual: Tensor, expected: Tensor) -> Case:
    return Case(label, _share(actual != expected), RIM_SHARE, "share of pixels")


def _check_nearest(label: str, actual: Tensor, expected: Tensor) -> Case:
    """The largest difference but for a share of pixels; a hole on one side alone is a large one."""
    error = relative_difference(actual, expected)
    # Not as 1 unit of depth more or less: -1 is no depth.
    error[(actual < 0) != (expected < 0)] = float("inf")
    left_out = int(RIM_SHARE * error.numel())
    kept = float(error.flatten().sort().values[-1 - left_out])
    above = int((error > LENGTH_TOLERANCE).sum())
    return Case(label, kept, LENGTH_TOLERANCE, f"{above} pixels above, {left_out} may be")


def _share(pixels: Tensor) -> float:
    return float(pixels.to(torch.float64).mean())
