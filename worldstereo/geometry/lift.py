"""From an image and its depth map to coloured points in the world.

Owns the contraction of the far field, the depth edges that are left out, and the unprojection.
Depth maps are read in depth/; points are rendered in render.py.

Only element-wise operations, medians and sums over rows: the same points to the bit, however
many threads there are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from worldstereo.errors import MediaError
from worldstereo.geometry.cameras import check_cameras, check_intrinsics
from worldstereo.geometry.projection import unproject_pixels

# Depths beyond CONTRACT x the median depth are pulled in, to less than twice that.
CONTRACT = 8.0
# A pixel is a depth edge where exp(-EDGE_DECAY x gradient) falls below SOBEL_THRESHOLD.
SOBEL_THRESHOLD = 0.35
EDGE_DECAY = 10.0
# As many points or fewer are no scene.
TOO_FEW_POINTS = 8


def contract_depth(depth: Tensor, contract: float = CONTRACT) -> Tensor:
    """Pull the far field in (spec "Lifting depth to points").

    With m = ``contract`` x the lower median of the positive depths, every depth > m becomes
    2 m - m^2 / (depth + 1e-6), which is continuous at m and stays below 2 m.

    Args:
        depth: [H, W] along z, 0 = invalid, at least one positive.
        contract: m in medians.

    Returns:
        [H, W] in the dtype of the input.
    """
    limit = contract * depth[depth > 0].median()
    return torch.where(depth > limit, 2 * limit - limit**2 / (depth + 1e-6), depth)


def depth_edges(depth: Tensor, sobel_threshold: float = SOBEL_THRESHOLD) -> Tensor:
    """Pixels on a depth edge (spec "Lifting depth to points").

    Unnormalised Sobel gradients of the disparity, which is scaled to [0, 1] over all pixels.
    Invalid pixels count with their disparity of 1e7, so that in a map that has any, only the
    border of the invalid areas is an edge: the published renders were made so.

    Args:
        depth: [H, W] contracted depth, 0 = invalid.
        sobel_threshold: in (0, 1]; the higher, the more pixels are edges.

    Returns:
        [H, W] bool.
    """
    disparity = 1 / (depth + 1e-7)
    lowest = disparity.min()
    disparity = (disparity - lowest) / (disparity.max() - lowest + 1e-6)
    padded = functional.pad(disparity[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    smooth_y = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_x = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    gradient_x = smooth_y[:, 2:] - smooth_y[:, :-2]
    gradient_y = smooth_x[2:] - smooth_x[:-2]
    magnitude = torch.sqrt(gradient_x**2 + gradient_y**2)
    return torch.exp(-EDGE_DECAY * magnitude) < sobel_threshold


def lift_depth(
    image: Tensor,
    depth: Tensor,
    valid: Tensor,
    intrinsics: Tensor,
    camera_from_world: Tensor,
    *,
    contract: float = CONTRACT,
    sobel_threshold: float = SOBEL_THRESHOLD,
) -> tuple[Tensor, Tensor]:
    """Unproject an image's pixels at their centres (+0.5) into the world.

    Args:
        image: [3, H, W], colours in [-1, 1].
        depth: [H, W] float32 along the camera's z, in scene units; 0 = invalid.
        valid: [H, W] bool; False = invalid, whatever the depth.
        intrinsics: [3, 3] in pixels of H x W.
        camera_from_world: [4, 4] of the camera that took the image.
        contract: see ``contract_depth``.
        sobel_threshold: see ``depth_edges``.

    Returns:
        Points [P, 3] float32 in world coordinates, and their colours [P, 3], in row order of
        the pixels that are neither invalid nor on a depth edge.

    Raises:
        CameraError: a matrix is not finite or cannot be inverted.
        MediaError: a negative or non-finite depth among the valid ones, or so few points that
            nothing could be rendered from them.
    """
    height, width = depth.shape
    assert image.shape == (3, height, width), (image.shape, depth.shape)
    assert valid.shape == (height, width), (valid.shape, depth.shape)
    check_cameras(camera_from_world[None])
    check_intrinsics(intrinsics[None])
    # What is not valid may be anything: estimators write infinity there.
    depth = torch.where(valid, depth, 0)
    _check_depth(depth)
    usable = depth > 0
    share = float(usable.float().mean())
    if bool(usable.any()):
        depth = contract_depth(depth, contract)
        usable = usable & ~depth_edges(depth, sobel_threshold)
    rows, columns = usable.nonzero(as_tuple=True)
    if len(rows) <= TOO_FEW_POINTS:
        raise MediaError(
            "too few points to render from",
            where="depth",
            got=f"{len(rows)} points; {share:.2%} of the {height} x {width} depths are valid, "
            "the others are 0, masked or on a depth edge",
            allowed=f"more than {TOO_FEW_POINTS} points",
            fix="give a depth map with more valid pixels",
        )
    points = unproject_pixels(
        columns + 0.5, rows + 0.5, depth[rows, columns], camera_from_world, intrinsics
    )
    return points.float(), image[:, rows, columns].T.contiguous()


def _check_depth(depth: Tensor) -> None:
    bad = ~(torch.isfinite(depth) & (depth >= 0))
    if bool(bad.any()):
        row, column = (int(index) for index in bad.nonzero()[0])
        raise MediaError(
            "the depth map holds values that are no depths",
            where=f"depth, row {row}, column {column}",
            got=f"{float(depth[row, column]):.6g} ({int(bad.sum())} such pixels)",
            allowed="finite depths along z, > 0, or 0 where there is none",
        )
