"""What two cameras have in common, measured on boxes around their view frusta.

Owns the frusta's corners, their axis-aligned boxes and the boxes' overlap. How overlap, angle
and continuity make a score is the memory's matter (memory/retrieval.py).

Everything is computed in the dtype of the cameras, batched, without a loop over cameras.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Lengths along the corner rays, in scene units.
NEAR, FAR = 0.1, 10.0
# Added to the union's volume, so that two empty boxes do not divide by zero.
IOU_EPSILON = 1e-8


def frustum_corners(
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    *,
    near: float = NEAR,
    far: float = FAR,
) -> Tensor:
    """Corners of the view frusta in world coordinates (spec "Retrieval for a trajectory").

    Unit rays through the image's corners (0, 0), (w, 0), (w, h), (0, h), times ``near`` and
    ``far``: lengths along the rays, not depths.

    Args:
        camera_from_world: [N, 4, 4].
        intrinsics: [N, 3, 3] in pixels of ``height`` x ``width``.
        height: rows of the image that the intrinsics are stated for.
        width: its columns.
        near: distance of the first four corners from the camera's centre.
        far: distance of the last four.

    Returns:
        [N, 8, 3] in the dtype of the cameras.
    """
    pixels = camera_from_world.new_tensor(
        [[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]
    )
    world_from_camera: Tensor = torch.linalg.inv(camera_from_world)
    rays: Tensor = pixels @ torch.linalg.inv(intrinsics).mT
    rays = rays / rays.norm(dim=-1, keepdim=True)
    corners = torch.cat([rays * near, rays * far], dim=1)
    return corners @ world_from_camera[:, :3, :3].mT + world_from_camera[:, None, :3, 3]


def frustum_boxes(
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    *,
    near: float = NEAR,
    far: float = FAR,
) -> Tensor:
    """Boxes in world axes around the view frusta; arguments as in ``frustum_corners``.

    Returns:
        [N, 2, 3]: each box's lowest and highest corner. Boxes of cameras whose image sizes
        differ can be concatenated along N.
    """
    corners = frustum_corners(camera_from_world, intrinsics, height, width, near=near, far=far)
    return torch.stack([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Volume of intersection over volume of union for every pair of boxes.

    Args:
        boxes: [N, 2, 3], lowest and highest corners.
        others: [M, 2, 3].

    Returns:
        [N, M] in [0, 1]; 0 where two boxes do not meet.
    """
    lower = torch.maximum(boxes[:, None, 0], others[None, :, 0])
    upper = torch.minimum(boxes[:, None, 1], others[None, :, 1])
    intersection = (upper - lower).clamp(min=0).prod(dim=-1)
    volume, other_volume = ((box[:, 1] - box[:, 0]).prod(dim=-1) for box in (boxes, others))
    union = volume[:, None] + other_volume[None, :] - intersection
    return intersection / (union + IOU_EPSILON)
