"""What one image with depth shows of other cameras' views.

Owns the way from an image and its depth map to a clip's render and its holes: at which size the
map is lifted, that frame 0 is the image itself, and how colours become 8-bit pictures. The
points are made in lift.py and drawn in render.py.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from worldstereo.depth.provided import resize_depth
from worldstereo.formats.images import resize_bicubic
from worldstereo.geometry.lift import SOBEL_THRESHOLD, lift_depth
from worldstereo.geometry.render import RADIUS_NDC, point_renderer
from worldstereo.types import Bool, Cameras, Float32, PointCloud, UInt8

Renderer = Literal["torch", "pytorch3d"]

# What a depth map is lifted to at most: the renderer's time is linear in it.
MAX_POINTS = 1 << 20
# The shorter side of the maps that the published threshold of depth edges is for, in pixels.
USUAL_SIDE = 480


def render_views(
    image: UInt8, depth: Float32, cameras: Cameras, *, renderer: Renderer = "torch"
) -> tuple[UInt8, Bool]:
    """Render what an image with depth shows of other cameras' views.

    Args:
        image: [h0, w0, 3] RGB, which the first camera took, at any size.
        depth: [h, w] along the first camera's z in the cameras' unit, 0 = invalid, at any size
            of the image's aspect ratio.
        cameras: the clip's F cameras at the size that is rendered.
        renderer: ``torch`` is our own.

    Returns:
        Render [F, height, width, 3] uint8 and holes [F, height, width] bool, True where no point
        covers the pixel; frame 0 is the image without holes.

    Raises:
        CameraError: a matrix is not finite or cannot be inverted.
        MediaError: the depth gives too few points.
        MissingDependencyError: the renderer is not installed.
    """
    point_renderer(renderer)  # What is missing is said before anything is computed.
    points, colors = lift_view(image, depth, cameras[[0]])
    video, holes = render_cloud(points, colors, cameras[1:], renderer=renderer)
    start = resize_bicubic(image, (cameras.height, cameras.width))
    seen = np.zeros((1, cameras.height, cameras.width), dtype=np.bool_)
    return np.concatenate([start[None], video]), np.concatenate([seen, holes])


def lift_view(
    image: UInt8, depth: Float32, camera: Cameras, *, sobel_threshold: float = SOBEL_THRESHOLD
) -> tuple[Tensor, Tensor]:
    """The points of an image with depth, as ``render_views`` draws them.

    Args:
        image: [h0, w0, 3] RGB at any size.
        depth: [h, w] along the camera's z, 0 = invalid.
        camera: the one that took the image (N = 1), at the size that will be rendered.
        sobel_threshold: of depth edges, see ``lift.depth_edges``.

    Returns:
        Points [P, 3] float32 in world coordinates and their colours [P, 3] float32 in [-1, 1].

    Raises:
        CameraError: a matrix is not finite or cannot be inverted.
        MediaError: the depth gives too few points.
    """
    size = lifting_size(depth.shape, (camera.height, camera.width))
    depth = resize_depth(depth, *size)
    return lift_depth(
        torch.tensor(resize_bicubic(image, size)).permute(2, 0, 1) / 127.5 - 1,
        torch.from_numpy(depth),
        torch.from_numpy(depth > 0),
        torch.from_numpy(camera.resized(*size).intrinsics[0]),
        torch.from_numpy(camera.camera_from_world[0]),
        sobel_threshold=sobel_threshold,
    )


def edge_threshold(depth: tuple[int, ...]) -> float:
    """The threshold of depth edges for a map [h, w] that is smaller than the published ones.

    An edge is told by the slope from pixel to pixel, which is twice as steep in a map of half the
    size: there a floor would be nothing but edges. exp(-k g / n) < t where exp(-k g) < t^n.
    """
    return float(SOBEL_THRESHOLD ** max(1.0, USUAL_SIDE / min(depth)))


def as_cloud(points: Tensor, colors: Tensor) -> PointCloud:
    """Points [P, 3] with colours [P, 3] in [-1, 1] as a cloud with 8-bit colours."""
    rounded = ((colors.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return PointCloud(points.float().cpu().numpy(), rounded.cpu().numpy())


def render_cloud(
    points: Tensor, colors: Tensor, cameras: Cameras, *, renderer: Renderer = "torch"
) -> tuple[UInt8, Bool]:
    """Render points as 8-bit pictures.

    Args:
        points: [P, 3] in world coordinates, on any device.
        colors: [P, 3] in [-1, 1].
        cameras: F cameras at the size that is rendered.
        renderer: ``torch`` is our own.

    Returns:
        Render [F, height, width, 3] uint8, mid-grey where nothing is, and holes
        [F, height, width] bool, True where no point covers the pixel.

    Raises:
        CameraError: a matrix is not finite.
        MissingDependencyError: the renderer is not installed.
    """
    device = points.device
    rendered = point_renderer(renderer)(
        points,
        colors,
        torch.from_numpy(cameras.camera_from_world).to(device),
        torch.from_numpy(cameras.intrinsics).to(device),
        cameras.height,
        cameras.width,
    )
    values = ((rendered.rgb.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    holes = rendered.hole_mask[:, 0].cpu().numpy() > 0.5
    return np.ascontiguousarray(values.permute(0, 2, 3, 1).cpu().numpy()), holes


def lifting_size(depth: tuple[int, ...], working: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the map whose pixels become points: the depth map's own.

    Not the working size: in a small picture of a scene a floor is so steep from pixel to pixel
    that it counts as a depth edge and is left out. A map is made larger where it has fewer pixels
    than the working size, or where they lie further apart than a disk's radius, since holes would
    open between the points; and smaller where it has more than ``MAX_POINTS``.
    """
    height, width = max(depth[0], working[0]), max(depth[1], working[1])
    scale = max(1.0, 2 / RADIUS_NDC / min(height, width))
    most = max(MAX_POINTS, working[0] * working[1])
    scale = min(scale, math.sqrt(most / (height * width)))
    return int(height * scale), int(width * scale)
