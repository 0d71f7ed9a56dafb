"""What is kept of a committed clip: its depths where they can be trusted, and the colours there.

Owns which pixels of a clip become points, and the pixel grid that bounds the memory. Depths stay
in the frames' own scale until the clip is aligned (align.py), so that alignment may depend on
clips that come later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from worldstereo.geometry.lift import depth_edges
from worldstereo.geometry.projection import project_points, unproject_pixels
from worldstereo.types import Bool, Cameras, Float32, PointCloud, UInt8

Float64 = NDArray[np.float64]

# A depth edge needs a jump by this share of the depth: edges are sought in disparities scaled to
# the frame's own range, where the noise of a flat wall would be nothing but edges.
MIN_JUMP = 0.05


@dataclass(frozen=True, eq=False)
class ClipDepths:
    """Depths of a clip at every ``stride``-th pixel, in rows and columns.

    Frame f is sampled from row ``f % stride`` and column ``f // stride % stride`` on: frames that
    see the same surface sample different places of it.

    Attributes:
        position: the clip's place in canonical order.
        trajectory_id: its ``view/name``.
        cameras: F cameras in pixels of the whole frames.
        depths: [F, h, w] float32 along z in the estimate's own scale, 0 = left out.
        colors: [F, h, w, 3] RGB.
        stride: pixels between samples.
    """

    position: int
    trajectory_id: str
    cameras: Cameras
    depths: Float32
    colors: UInt8
    stride: int

    def __len__(self) -> int:
        return len(self.depths)

    @property
    def footprint(self) -> float:
        """Width of a pixel at the median depth, in the estimate's scale; 0 without depths."""
        depths = self.depths[self.depths > 0]
        if len(depths) == 0:
            return 0.0
        return float(np.median(depths) / np.median(self.cameras.intrinsics[:, 0, 0]))

    def points(self, frame: int, factor: float) -> PointCloud:
        """The points of one frame, with its depths times ``factor``, in row order."""
        rows, columns = np.nonzero(self.depths[frame])
        first_row, first_column = _start(frame, self.stride)
        camera, pinhole = self._matrices(frame)
        points = unproject_pixels(
            torch.from_numpy(columns * self.stride + first_column + 0.5),
            torch.from_numpy(rows * self.stride + first_row + 0.5),
            torch.from_numpy(self.depths[frame, rows, columns].astype(np.float64) * factor),
            camera,
            pinhole,
        )
        return PointCloud(points.float().numpy(), self.colors[frame, rows, columns])

    def cloud(self, factors: tuple[float, ...]) -> PointCloud:
        """The points of all frames, frame by frame; one factor a frame."""
        parts = [self.points(frame, factor) for frame, factor in enumerate(factors)]
        return PointCloud(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.colors for part in parts]),
        )

    def seen(self, frame: int, points: Float32) -> SeenPoints:
        """Which points lie in a frame's view, where, and what depth the frame has there."""
        camera, pinhole = self._matrices(frame)
        u, v, z = (
            part.numpy() for part in project_points(torch.from_numpy(points), camera, pinhole)
        )
        with np.errstate(invalid="ignore"):
            inside = (z > 0) & (u >= 0) & (v >= 0)
            inside &= (u < self.cameras.width) & (v < self.cameras.height)
        index = np.flatnonzero(inside)
        u, v, z = u[index], v[index], z[index]
        first_row, first_column = _start(frame, self.stride)
        height, width = self.depths.shape[1:]
        row = np.rint((v - 0.5 - first_row) / self.stride).astype(np.intp).clip(0, height - 1)
        column = np.rint((u - 0.5 - first_column) / self.stride).astype(np.intp).clip(0, width - 1)
        return SeenPoints(index, u, v, z, self.depths[frame, row, column].astype(np.float64))

    def _matrices(self, frame: int) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(self.cameras.camera_from_world[frame]),
            torch.from_numpy(self.cameras.intrinsics[frame]),
        )


@dataclass(frozen=True, eq=False)
class SeenPoints:
    """Points in the view of a frame.

    Attributes:
        index: [S] their numbers.
        u, v: [S] pixels.
        z: [S] their depth along the camera's z.
        depth: [S] the depth of the frame's nearest sample in its own scale, 0 where it has none.
    """

    index: NDArray[np.intp]
    u: Float64
    v: Float64
    z: Float64
    depth: Float64


def sample_clip(
    position: int,
    trajectory_id: str,
    frames: UInt8,
    cameras: Cameras,
    depths: Float32,
    *,
    samples: int,
    far: float,
    min_cosine: float,
    sobel_threshold: float,
) -> ClipDepths:
    """Keep what can be trusted of a clip's depths, at so many pixels.

    Args:
        position: the clip's place in canonical order.
        trajectory_id: its ``view/name``.
        frames: [F, H, W, 3] RGB.
        cameras: F cameras of these frames.
        depths: [F, H, W] along z; what is not finite and positive is left out.
        samples: the most pixels of all frames together that are kept (the stride is whole).
        far: depths beyond this many medians of the clip's depths are left out.
        min_cosine: see ``usable_depths``.
        sobel_threshold: see ``geometry.lift.depth_edges``.
    """
    count, height, width = depths.shape
    with np.errstate(invalid="ignore"):
        depths = np.where(np.isfinite(depths) & (depths > 0), depths, 0).astype(np.float32)
    valid = depths[depths > 0]
    limit = far * float(np.median(valid)) if len(valid) else 0.0
    depths[depths > limit] = 0
    stride = 1
    while count * (height // stride) * (width // stride) > samples and stride < min(height, width):
        stride += 1
    rows, columns = height // stride, width // stride
    kept = np.zeros((count, rows, columns), dtype=np.float32)
    colors = np.zeros((count, rows, columns, 3), dtype=np.uint8)
    for frame in range(count):
        usable = usable_depths(
            depths[frame], cameras.intrinsics[frame], min_cosine, sobel_threshold
        )
        row, column = _start(frame, stride)
        grid = np.s_[
            row : row + rows * stride : stride, column : column + columns * stride : stride
        ]
        kept[frame] = np.where(usable, depths[frame], 0)[grid]
        colors[frame] = frames[frame][grid]
    return ClipDepths(position, trajectory_id, cameras, kept, colors, stride)


def usable_depths(
    depth: Float32, intrinsics: Float32, min_cosine: float, sobel_threshold: float
) -> Bool:
    """Pixels whose depth is that of a surface which the camera sees well.

    Left out are depth edges as in lifting (``geometry.lift.depth_edges``), where the depth does
    jump within 3 x 3 pixels, and surfaces at a grazing angle. Both look at a map whose invalid
    pixels are filled with the nearest valid depth, so that the border of an invalid area is no
    edge by itself.

    Args:
        depth: [H, W] along z, 0 = invalid.
        intrinsics: [3, 3] in pixels of H x W.
        min_cosine: of the angle between a pixel's ray and the surface's normal, in [0, 1].
        sobel_threshold: see ``depth_edges``.

    Returns:
        [H, W] bool.
    """
    valid = depth > 0
    if not valid.any():
        return valid
    if not valid.all():
        nearest = ndimage.distance_transform_edt(
            ~valid, return_distances=False, return_indices=True
        )
        depth = depth[tuple(nearest)]
    jump = ndimage.maximum_filter(depth, 3) > (1 + MIN_JUMP) * ndimage.minimum_filter(depth, 3)
    edges = jump & depth_edges(torch.from_numpy(depth), sobel_threshold).numpy()
    return np.asarray(valid & ~edges & (_view_cosine(depth, intrinsics) >= min_cosine))


def _view_cosine(depth: Float32, intrinsics: Float32) -> Float64:
    """[H, W] |cosine| between each pixel's ray and the normal, from central differences."""
    height, width = depth.shape
    matrix = np.linalg.inv(intrinsics.astype(np.float64))
    u, v = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    rays = [row[0] * u + row[1] * v + row[2] for row in matrix]
    # Of X = z ray, up to a common factor: dX/du x dX/dv . X / z, see any text on range images.
    surface = [depth.astype(np.float64) * ray for ray in rays]
    across = [_difference(part, 1) for part in surface]
    down = [_difference(part, 0) for part in surface]
    normal = [
        across[1] * down[2] - across[2] * down[1],
        across[2] * down[0] - across[0] * down[2],
        across[0] * down[1] - across[1] * down[0],
    ]
    along = sum(n * ray for n, ray in zip(normal, rays, strict=True))
    lengths = np.sqrt(sum(n * n for n in normal) * sum(ray * ray for ray in rays))
    # A single row or column has no normal, and nothing speaks against it.
    return np.where(lengths > 0, np.abs(along) / np.where(lengths > 0, lengths, 1), 1.0)


def _difference(image: Float64, axis: int) -> Float64:
    padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    length = image.shape[axis]
    return padded.take(range(2, length + 2), axis) - padded.take(range(length), axis)


def _start(frame: int, stride: int) -> tuple[int, int]:
    return frame % stride, frame // stride % stride
