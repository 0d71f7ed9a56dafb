"""The same renders by PyTorch3D, where it is installed and asked for (``renderer: pytorch3d``).

Owns the translation into PyTorch3D's conventions (0.7.9) and back; nothing of the project
imports this module unless that renderer is chosen. Our own renderer in render.py is the default.

PyTorch3D rasterises points that are given in its normalised device coordinates: x to the LEFT,
y UP, 0 at the image's centre, the shorter side from -1 to 1 and the longer one in proportion; z
is the depth. The pixel in column 0 has x near +1. Distances in its fragments are squared, in
these coordinates; empty entries of ``idx`` and ``zbuf`` are -1. Points are projected here, by
our own pinhole camera, so that none of PyTorch3D's camera classes is involved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldstereo.errors import MissingDependencyError
from worldstereo.geometry.projection import project_points
from worldstereo.geometry.render import (
    HOLE_Z,
    POINTS_PER_PIXEL,
    RADIUS_NDC,
    PointRender,
    check_render_arguments,
)

INSTALL = (
    "pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/pytorch3d.git@v0.7.9'"
)


class PyTorch3DRenderer:
    """A ``PointRenderer`` on PyTorch3D's point rasteriser and alpha compositor.

    Its rasteriser is quadratic on the CPU (points x pixels) and binned on a GPU. Of points of
    equal depth in one pixel it may keep others than ``render_points`` does.

    Raises:
        MissingDependencyError: PyTorch3D cannot be imported; the message holds the line to type.
    """

    def __init__(self) -> None:
        try:
            from pytorch3d.renderer import AlphaCompositor, rasterize_points
            from pytorch3d.structures import Pointclouds
        except ImportError as error:
            raise MissingDependencyError(
                "PyTorch3D was asked for and cannot be imported",
                where="renderer: pytorch3d",
                got=str(error),
                fix=f"install it with: {INSTALL}; or choose renderer: torch, which needs nothing",
            ) from error
        self._point_clouds = Pointclouds
        self._rasterize_points = rasterize_points
        self._composite = AlphaCompositor()

    def __call__(
        self,
        points: Tensor,
        colors: Tensor,
        camera_from_world: Tensor,
        intrinsics: Tensor,
        height: int,
        width: int,
        *,
        radius_ndc: float = RADIUS_NDC,
        points_per_pixel: int = POINTS_PER_PIXEL,
    ) -> PointRender:
        """See ``worldstereo.geometry.render.render_points``."""
        check_render_arguments(
            points, colors, camera_from_world, intrinsics, radius_ndc, points_per_pixel
        )
        frames = [
            self._render_frame(
                *_visible(points, colors, camera, pixels_from_camera, height, width),
                (height, width),
                radius_ndc,
                points_per_pixel,
            )
            for camera, pixels_from_camera in zip(camera_from_world, intrinsics, strict=True)
        ]
        rgb, nearest_z, covered = (torch.cat(parts) for parts in zip(*frames, strict=True))
        return PointRender(rgb, (~covered).float(), nearest_z)

    def _render_frame(
        self,
        in_ndc: Tensor,
        colors: Tensor,
        image_size: tuple[int, int],
        radius_ndc: float,
        points_per_pixel: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Colours [1, 3, H, W], nearest depths [1, 1, H, W] and covered pixels [1, 1, H, W]."""
        if len(in_ndc) == 0:
            empty = in_ndc.new_zeros(1, 1, *image_size)
            return empty.expand(-1, 3, -1, -1), empty + HOLE_Z, empty.bool()
        index, depth, squared_distance = self._rasterize_points(
            self._point_clouds(points=[in_ndc]),
            image_size=image_size,
            radius=float(radius_ndc),
            points_per_pixel=points_per_pixel,
            # Its default drops points (with a warning) where many fall into one bin of the image.
            max_points_per_bin=len(in_ndc),
        )
        # [1, H, W, K], nearest first, to the compositor's [1, K, H, W].
        index, depth, squared_distance = (
            part.permute(0, 3, 1, 2) for part in (index.long(), depth, squared_distance)
        )
        alpha = 1 - squared_distance / radius_ndc**2
        # [C, P]; without a background colour it leaves what is not covered at 0.
        rgb = self._composite(index, alpha, colors.permute(1, 0))
        covered = index[:, :1] >= 0
        return rgb, torch.where(covered, depth[:, :1], HOLE_Z), covered


def _visible(
    points: Tensor,
    colors: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Points in front of the camera in PyTorch3D's coordinates [V, 3], and their colours."""
    u, v, z = project_points(points, camera_from_world, intrinsics)
    half = min(height, width) / 2
    in_ndc = torch.stack([(width / 2 - u) / half, (height / 2 - v) / half, z], dim=-1).float()
    front = (in_ndc[:, 2] > 0) & torch.isfinite(in_ndc).all(dim=-1)
    return in_ndc[front], colors[front].float()
