"""Recorded camera conditioning and tables against worldstereo.geometry and its neighbours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.golden.report import Case, Options, attempt, failed, largest_length_difference
from worldstereo.config import DEFAULT_SCALE_MAP
from worldstereo.formats.scene_folder import working_size
from worldstereo.geometry.cameras import normalise_cameras, quaternion_translation, unify_cameras
from worldstereo.geometry.rays import plucker_embedding
from worldstereo.memory.plan import keyframe_indices
from worldstereo.parallel.frames import split_frames

TOLERANCE = 1e-5
# The recorded rays are those of every 5th frame.
RAY_STRIDE = 5
# What the other quantities are computed from.
INPUTS = re.compile(r"world_to_camera|intrinsics(_\d+x\d+)?")


def check_cameras(folder: Path, options: Options) -> Iterator[Case]:
    """Normalisation, quaternions and rays of every trajectory in cameras.safetensors."""
    recorded = load_file(folder / "cameras.safetensors")
    for name in recorded:
        if not INPUTS.fullmatch(name.rpartition(".")[2]):
            yield from attempt(f"cameras {name}", _check_quantity, recorded, name)


def _check_quantity(recorded: dict[str, Tensor], name: str) -> Iterator[Case]:
    trajectory, _, quantity = name.rpartition(".")
    actual, expected = _compute(recorded, trajectory, quantity), recorded[name]
    if quantity == "quaternion":
        actual = _same_sign(actual, expected)
    yield Case(f"cameras {name}", largest_length_difference(actual, expected), TOLERANCE)


def _compute(recorded: dict[str, Tensor], trajectory: str, quantity: str) -> Tensor:
    """What the engine makes of the recorded inputs."""
    cameras = recorded[f"{trajectory}.world_to_camera"]
    if quantity == "centered":
        return normalise_cameras(cameras)
    if quantity == "centered_legacy_scale1":
        # As an older release did: relative to the first camera from the left, distance 1.
        return normalise_cameras(torch.linalg.inv(cameras[0]) @ cameras, camera_scale=1.0)
    if quantity == "unified":
        return unify_cameras(cameras, cameras[:1])[0]
    if found := re.fullmatch(r"unified_references((?:_\d+)+)", quantity):
        rows = [int(row) for row in found[1].split("_")[1:]]
        return unify_cameras(cameras, cameras[rows])[1]
    if quantity == "quaternion":
        return quaternion_translation(cameras)[:, :4]
    if found := re.fullmatch(r"plucker_(\d+)x(\d+)", quantity):
        height, width = int(found[1]), int(found[2])
        intrinsics = recorded[f"{trajectory}.intrinsics_{height}x{width}"]
        rays = plucker_embedding(normalise_cameras(cameras), intrinsics, height, width)
        return rays[:, :, ::RAY_STRIDE]
    raise LookupError(f"there is no check of {quantity}")


def _same_sign(actual: Tensor, expected: Tensor) -> Tensor:
    """``actual`` with the sign of ``expected`` where w is 0 up to rounding and leaves it open."""
    if actual.shape != expected.shape:
        return actual
    half_turn = expected[:, :1].abs() < TOLERANCE
    opposite = (actual * expected).sum(dim=-1, keepdim=True) < 0
    return torch.where(half_turn & opposite, -actual, actual)


def check_tables(folder: Path, options: Options) -> Iterator[Case]:
    """Frame tables and working sizes of tables.json: the number of wrong entries."""
    tables = json.loads((folder / "tables.json").read_text())
    functions: dict[str, tuple[str, Callable[[int, int], list[int]]]] = {
        "keyframes": (",", lambda frames, count: list(keyframe_indices(frames, count))),
        "resolution": ("x", lambda h, w: list(working_size(h, w, DEFAULT_SCALE_MAP))),
        "frame_split": (",", split_frames),
    }
    for name, entries in tables.items():
        if name in functions:
            yield from attempt(f"tables {name}", _check_table, name, entries, *functions[name])
        else:
            yield failed(f"tables {name}", "there is no check of this table")


def _check_table(
    name: str,
    entries: dict[str, list[int]],
    separator: str,
    function: Callable[[int, int], list[int]],
) -> Iterator[Case]:
    wrong = []
    for key, expected in entries.items():
        first, second = (int(number) for number in key.split(separator))
        actual = function(first, second)
        if actual != expected:
            wrong.append(f"{key}: {actual} instead of {expected}")
    if entries:
        note = f"{len(entries)} entries" + "".join(f"; {entry}" for entry in wrong)
        yield Case(f"tables {name}", float(len(wrong)), 0.0, note)
