"""Camera paths that keep clear of everything in a world.

Owns which presets a world's paths are, their full extents, and how they are shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from worldstereo.geometry.camera_path import CameraPath, Float64, StartPose
from worldstereo.geometry.trajectories import FRAMES, ellipse, orbit

# A path of a given share of its full extent: start, share in (0, 1], frames.
Preset = Callable[[StartPose, float, int], CameraPath]

# Every camera centre keeps this distance from all surfaces, in metres.
KEPT = 0.25
# Extents are tried from the whole downwards by this factor.
SHORTER = 0.9
LEAST_SHARE = 0.4
# Points that a path is tried at, so that nothing lies between its frames.
DENSE = 61
# Views that are looked at along a path, and the share of each that may be blocked.
GLANCES, BLOCKED = 5, 0.12

PRESETS: dict[str, Preset] = {
    "traj_eloop": lambda start, share, frames: ellipse(start, 0.22 * share, 0.15 * share, frames),
    "traj_up": lambda start, share, frames: orbit(start, 0, 24 * share, frames),
    "traj_right": lambda start, share, frames: orbit(start, 30 * share, 0, frames),
    "traj_left": lambda start, share, frames: orbit(start, -30 * share, 0, frames),
}


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a path must not run into.

    Attributes:
        clearance: distances [P] of points [P, 3] in the world to the nearest surface.
        blocked: the largest share of any view of a path that something close by fills.
    """

    clearance: Callable[[Float64], Float64]
    blocked: Callable[[CameraPath], float]


def free_shares(start: StartPose, around: Surroundings) -> dict[str, float]:
    """For each preset the largest tried share of its extent whose path is free; 0 for none."""
    tried = [1.0]
    while tried[-1] * SHORTER >= LEAST_SHARE:
        tried.append(tried[-1] * SHORTER)
    centers = [
        preset(start, share, DENSE).centers for preset in PRESETS.values() for share in tried
    ]
    clearance = around.clearance(np.concatenate(centers)).reshape(len(PRESETS), len(tried), DENSE)
    clear = clearance.min(axis=-1) >= KEPT
    found = {}
    for number, (name, preset) in enumerate(PRESETS.items()):
        free = (
            share
            for share, is_clear in zip(tried, clear[number], strict=True)
            if is_clear and around.blocked(preset(start, share, GLANCES)) <= BLOCKED
        )
        found[name] = next(free, 0.0)
    return found


def free_paths(
    start: StartPose, shares: Mapping[str, float], frames: int = FRAMES
) -> dict[str, CameraPath]:
    """The paths by name.

    Args:
        start: start pose and pivot distance.
        shares: of their full extents.
        frames: number of frames.
    """
    return {name: preset(start, shares[name], frames) for name, preset in PRESETS.items()}
