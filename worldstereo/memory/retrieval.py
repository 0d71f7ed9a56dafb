"""Which frames of the memory serve which frames of a clip: scores, continuity, references.

Owns the score between cameras, the continuity bonus and the choice by first maximum. Works on
cameras alone, in float32 on the CPU, without a loop over targets; knows no images. Which cameras
the memory will hold when is planned in plan.py, the reduction to a few references is made in
selection.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldstereo.formats.worldmirror import float32_inverse
from worldstereo.geometry.frustum import box_iou, frustum_boxes
from worldstereo.types import Cameras, Float32, concatenate_cameras

# A trajectory with more cameras than a clip has keyframes is retrieved for at every 4th.
TARGET_STRIDE = 4
# What the history of the same view adds to one score: more than any score without it.
CONTINUITY_BONUS = 1.0
# Target frames without a bonus after a `target*` or `wonder*` traj0; with one after a view's traj2.
TARGETS_WITHOUT_BONUS = frozenset({4, 8, 12, 16})
TARGETS_WITH_BONUS = frozenset({1, 2, 3, 5, 7, 9, 13, 17})


@dataclass(frozen=True, eq=False)
class Frusta:
    """What a score needs of N cameras, whatever sizes their intrinsics are stated for.

    Attributes:
        boxes: [N, 2, 3] float32, lowest and highest corner around each view frustum, world axes.
        axes: [N, 3] float32, unit optical axes in the world.
    """

    boxes: Tensor
    axes: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | Sequence[int]) -> Frusta:
        return Frusta(self.boxes[index], self.axes[index])


def frusta(cameras: Cameras) -> Frusta:
    """The view frusta of cameras, for ``score``.

    Args:
        cameras: N cameras, intrinsics in pixels of the size that they state.
    """
    camera_from_world = torch.from_numpy(np.ascontiguousarray(cameras.camera_from_world)).float()
    intrinsics = torch.from_numpy(np.ascontiguousarray(cameras.intrinsics)).float()
    boxes = frustum_boxes(camera_from_world, intrinsics, cameras.height, cameras.width)
    # Every rounding fixed: acos is so steep near zero that the last bit of an axis is 0.02 degrees.
    world_from_camera = torch.from_numpy(float32_inverse(camera_from_world.numpy()))
    return Frusta(boxes, world_from_camera[:, :3, 2])


def frusta_of(parts: Sequence[Cameras]) -> list[Frusta]:
    """The frusta of several sets of cameras; one computation for all of one image size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, part in enumerate(parts):
        by_size.setdefault((part.height, part.width), []).append(number)
    found: dict[int, Frusta] = {}
    for numbers in by_size.values():
        together = frusta(concatenate_cameras([parts[number] for number in numbers]))
        first = 0
        for number in numbers:
            found[number] = together[first : first + len(parts[number])]
            first += len(parts[number])
    return [found[number] for number in range(len(parts))]


def join_frusta(parts: Sequence[Frusta]) -> Frusta:
    """Frusta in a row; at least one part."""
    return Frusta(
        torch.cat([part.boxes for part in parts]), torch.cat([part.axes for part in parts])
    )


def view_angles(targets: Frusta, bank: Frusta) -> Tensor:
    """Angle in degrees between the optical axes of every pair, [T, B] float32."""
    # Written out, not a matrix product: the same sum whatever the batch and the thread count.
    products = targets.axes[:, None, :] * bank.axes[None, :, :]
    cosine = products[..., 0] + products[..., 1] + products[..., 2]
    return torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0)))


def score(targets: Frusta, bank: Frusta) -> Tensor:
    """How well each bank frame serves each target, without the continuity bonus.

    The overlap (IoU) of the boxes around the two view frusta, times
    clip(exp((90 - angle) / 180 x 5), 0, 1): full weight up to a right angle between the optical
    axes, a steep fall beyond (spec of the memory bank, "Retrieval for a trajectory").

    Args:
        targets: T cameras.
        bank: B cameras.

    Returns:
        [T, B] float32 in [0, 1].
    """
    facing = torch.exp((90.0 - view_angles(targets, bank)) / 180.0 * 5.0).clamp(0.0, 1.0)
    return box_iou(targets.boxes, bank.boxes) * facing


def target_indices(n_cameras: int, nframe: int) -> list[int]:
    """Which of a trajectory's cameras are targets: all, or every 4th of more than ``nframe``.

    The first one is the clip's start frame, for which nothing is retrieved.
    """
    return list(range(0, n_cameras, 1 if n_cameras <= nframe else TARGET_STRIDE))


def continuity(view: str, name: str, bank_owners: Sequence[str], n_targets: int) -> dict[int, int]:
    """Which bank frame gets the bonus at which target.

    A ``target*`` or ``wonder*`` trajectory after traj0 is held to the frames of its view's traj0,
    traj0 and traj1 of a ``view*`` to those of its traj2 (traj1: to the first half of them); of
    these, every 2nd from the 4th on.

    Args:
        view: the trajectory's view.
        name: its name in the view.
        bank_owners: for each frame in the bank, the trajectory (``view/name``) that added it or
            the folder of the start frames.
        n_targets: F, the number of target cameras with the start frame.

    Returns:
        Target i (1..F-1) -> bank position; no entry where there is no bonus.
    """
    if view.startswith(("target", "wonder")) and name != "traj0":
        owner, half = f"{view}/traj0", False
        targets = [i for i in range(1, n_targets) if i not in TARGETS_WITHOUT_BONUS]
    elif view.startswith("view") and name in ("traj0", "traj1"):
        owner, half = f"{view}/traj2", name == "traj1"
        targets = [i for i in range(1, n_targets) if i in TARGETS_WITH_BONUS]
    else:
        return {}
    history = [position for position, of in enumerate(bank_owners) if of == owner]
    history = history[: len(history) // 2] if half else history
    history = history[3::2]
    if not history:
        return {}
    return {i: history[int(i / n_targets * len(history))] for i in targets}


def nearest(scores: Float32, bonus: Mapping[int, int]) -> list[int]:
    """The best bank position of each target; the first one where several are best.

    Args:
        scores: [F - 1, B], row i - 1 is target i.
        bonus: target i -> the bank position that gets the bonus.

    Returns:
        F - 1 positions.
    """
    raised = scores.copy()
    for target, position in bonus.items():
        raised[target - 1, position] += np.float32(CONTINUITY_BONUS)
    # numpy's argmax promises the first maximum, torch's does not.
    return [int(position) for position in raised.argmax(axis=1)]


def first_uses(retrieved: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The references of a clip: the distinct frames in order of first use.

    Args:
        retrieved: bank id of each target 1..F-1.

    Returns:
        The ids and, for each, ``ref_index`` = (first target that uses it) - 1.
    """
    first: dict[str, int] = {}
    for row, frame_id in enumerate(retrieved):
        first.setdefault(frame_id, row)
    return tuple(first), tuple(first.values())
