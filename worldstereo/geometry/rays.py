"""Plücker rays: what a clip's cameras look like to the ControlNet.

Owns the embedding alone; the cameras are normalised in cameras.py before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldstereo.geometry.cameras import check_cameras, check_intrinsics, invert_matrices

# Where in pixel (u, v) the ray passes. Half a pixel to the LEFT of the pixel's corner in x: the
# released weights were trained so, hence it is kept, although pixel centres lie at +0.5.
OFFSET_X, OFFSET_Y = -0.5, 0.5


def plucker_embedding(
    camera_from_world: Tensor, intrinsics: Tensor, height: int, width: int
) -> Tensor:
    """Plücker coordinates of every pixel's ray (spec "Camera conditioning").

    For pixel (u, v) the ray passes through (u - 0.5, v + 0.5). With d its unit direction in the
    world and o the camera's centre, the channels are [d, o x d].

    Args:
        camera_from_world: [F, 4, 4], already normalised.
        intrinsics: [F, 3, 3] in pixels of ``height`` x ``width``.
        height: rows H of the embedding.
        width: columns W.

    Returns:
        [1, 6, F, H, W] float32 on the cameras' device.

    Raises:
        CameraError: a matrix is not finite, of another shape or cannot be inverted.
    """
    check_cameras(camera_from_world)
    check_intrinsics(intrinsics)
    assert len(camera_from_world) == len(intrinsics), (len(camera_from_world), len(intrinsics))
    frames, device = len(camera_from_world), camera_from_world.device
    world_from_camera = invert_matrices(camera_from_world)
    camera_from_pixel = invert_matrices(intrinsics, "intrinsics")
    world_from_pixel = world_from_camera[:, :3, :3] @ camera_from_pixel.to(device)
    x = torch.arange(width, dtype=torch.float64, device=device)[None, :] + OFFSET_X
    y = torch.arange(height, dtype=torch.float64, device=device)[:, None] + OFFSET_Y
    embedding = torch.empty(1, 6, frames, height, width, device=device)
    # One frame at a time: float64 rays of a whole clip would take 370 MB at product size.
    for frame in range(frames):
        column_x, column_y, column_1 = (
            column[:, None, None] for column in world_from_pixel[frame].unbind(dim=1)
        )
        direction = column_x * x + column_y * y + column_1
        direction = direction / direction.norm(dim=0, keepdim=True)
        center = world_from_camera[frame, :3, 3, None, None].expand_as(direction)
        embedding[0, :3, frame] = direction
        embedding[0, 3:, frame] = torch.linalg.cross(center, direction, dim=0)
    return embedding
