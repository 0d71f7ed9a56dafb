"""What the adapter calls of PyTorch3D 0.7.9, slowly and without PyTorch3D.

Written from its public documentation: point clouds in normalised device coordinates (x left, y
up, shorter side -1..1), fragments [N, H, W, K] with -1 where empty, the K nearest in ascending z,
points behind the camera not rendered, alpha compositing front to back of packed features [C, P].
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor


class Pointclouds:
    """A batch of point clouds; features are left out, the adapter passes colours on its own."""

    def __init__(self, points: list[Tensor]) -> None:
        for cloud in points:
            assert cloud.ndim == 2, cloud.shape
            assert cloud.shape[1] == 3, cloud.shape
            assert cloud.dtype == torch.float32, cloud.dtype
            assert len(cloud) > 0
        self.clouds = points


def pixel_to_ndc(index: int, size: int, other_size: int) -> float:
    """Coordinate of a pixel's centre, where index counts from the right (x) or the bottom (y)."""
    extent = 2.0 * size / other_size if size > other_size else 2.0
    return -extent / 2 + (extent * index + extent / 2) / size


def rasterize_points(
    pointclouds: Pointclouds,
    image_size: tuple[int, int] = (256, 256),
    radius: float = 0.01,
    points_per_pixel: int = 8,
    bin_size: int | None = None,
    max_points_per_bin: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """idx (int32), zbuf and squared distances, each [N, H, W, K]."""
    assert type(radius) is float, radius
    assert all(type(side) is int for side in image_size), image_size
    assert points_per_pixel <= 150, "more than the CUDA kernel takes"
    assert bin_size is None
    height, width = image_size
    shape = (len(pointclouds.clouds), height, width, points_per_pixel)
    idx = torch.full(shape, -1, dtype=torch.int32)
    zbuf, dists = torch.full(shape, -1.0), torch.full(shape, -1.0)
    offset = 0
    for n, cloud in enumerate(pointclouds.clouds):
        assert max_points_per_bin is None or max_points_per_bin >= len(cloud)
        for row in range(height):
            y = pixel_to_ndc(height - 1 - row, height, width)
            for column in range(width):
                x = pixel_to_ndc(width - 1 - column, width, height)
                hits = []
                for p, (point_x, point_y, point_z) in enumerate(cloud.tolist()):
                    squared = (x - point_x) ** 2 + (y - point_y) ** 2
                    if point_z >= 0 and squared < radius**2:
                        hits.append((point_z, offset + p, squared))
                for k, (z, p, squared) in enumerate(sorted(hits)[:points_per_pixel]):
                    idx[n, row, column, k] = p
                    zbuf[n, row, column, k], dists[n, row, column, k] = z, squared
        offset += len(cloud)
    return idx, zbuf, dists


class AlphaCompositor(torch.nn.Module):
    """Alpha compositing; without a background colour what is not covered stays 0."""

    def __init__(self, background_color: Tensor | None = None) -> None:
        super().__init__()
        assert background_color is None

    def forward(self, fragments: Tensor, alphas: Tensor, ptclds: Tensor) -> Tensor:
        """fragments (int64) and alphas [N, K, H, W], ptclds [C, P] -> [N, C, H, W]."""
        assert fragments.dtype == torch.int64, fragments.dtype
        assert fragments.shape == alphas.shape, (fragments.shape, alphas.shape)
        n, layers, height, width = fragments.shape
        images = torch.zeros(n, len(ptclds), height, width)
        for b in range(n):
            for row in range(height):
                for column in range(width):
                    transmittance = 1.0
                    for k in range(layers):
                        index = int(fragments[b, k, row, column])
                        if index < 0:
                            continue
                        alpha = float(alphas[b, k, row, column])
                        images[b, :, row, column] += transmittance * alpha * ptclds[:, index]
                        transmittance *= 1 - alpha
        return images


def modules() -> dict[str, ModuleType]:
    """The modules of the public interface, for ``sys.modules``."""
    package = ModuleType("pytorch3d")
    renderer, structures = ModuleType("pytorch3d.renderer"), ModuleType("pytorch3d.structures")
    vars(renderer).update(AlphaCompositor=AlphaCompositor, rasterize_points=rasterize_points)
    vars(structures).update(Pointclouds=Pointclouds)
    vars(package).update(renderer=renderer, structures=structures)
    return {module.__name__: module for module in (package, renderer, structures)}
