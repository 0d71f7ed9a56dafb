"""Our own point renderer: disks, K nearest a pixel, alpha compositing, on torch alone.

Owns ``PointRender``, ``render_points`` and the choice between renderers. The adapter for
PyTorch3D lies in render_pytorch3d.py and is imported only when it is asked for.

Linear in the number of points: they are sorted by depth once, each disk is tested against the
few pixels of its window, the hits are bucketed by pixel with a stable sort, and every pixel's
k-th hits are blended at once, front to back. A GPU does so for many frames at a time: points of
two frames share no pixel, so one sort by depth serves all. All sums that have an order are
element-wise or follow the list of points, so the images are the same to the bit for any chunk
size, any number of frames at a time and any number of threads, on the CPU and on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from worldstereo.errors import ParameterError
from worldstereo.geometry.cameras import check_cameras, check_intrinsics
from worldstereo.geometry.projection import project_points
from worldstereo.parallel.frames import over_frames
from worldstereo.parallel.mesh import ParallelMesh

# Disk radius and layers at product size (spec "Rendering points").
RADIUS_NDC = 0.008
POINTS_PER_PIXEL = 20
# Pixels of disk windows that are tested at a time; bounds the memory, changes no value. A CPU
# wants them in its cache, a GPU wants all its cores busy (about 40 bytes each).
CANDIDATES_PER_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 26}
# ``nearest_z`` where no point covers the pixel.
HOLE_Z = -1.0


@dataclass(frozen=True, eq=False)
class PointRender:
    """Renders of F cameras.

    Attributes:
        rgb: [F, 3, H, W] float32 in [-1, 1] over 0; partly covered pixels are not filled up.
        hole_mask: [F, 1, H, W] float32, 1 where no point covers the pixel.
        nearest_z: [F, 1, H, W] float32, depth of the nearest point that covers the pixel
            along the camera's z, -1 in holes.
    """

    rgb: Tensor
    hole_mask: Tensor
    nearest_z: Tensor


class PointRenderer(Protocol):
    """What both renderers are."""

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
        """See ``render_points``."""
        ...


def point_renderer(name: Literal["torch", "pytorch3d"]) -> PointRenderer:
    """The renderer of this name.

    Raises:
        MissingDependencyError: PyTorch3D was asked for and is not installed.
    """
    if name == "torch":
        return render_points
    from worldstereo.geometry import render_pytorch3d

    return render_pytorch3d.PyTorch3DRenderer()


def render_points(
    points: Tensor,
    colors: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    *,
    radius_ndc: float = RADIUS_NDC,
    points_per_pixel: int = POINTS_PER_PIXEL,
    candidates_per_chunk: int | None = None,
    frames_at_once: int | None = None,
) -> PointRender:
    """Render coloured points as disks (spec "Rendering points").

    A pixel shows the K nearest points with z > 0 whose projected centre lies within the radius
    of the pixel's centre (+0.5), front to back; points of equal z keep their order in the list.
    With distance d_k and w_k = 1 - d_k^2 / r^2 its colour is
    sum_k w_k prod_{j<k} (1 - w_j) c_k over 0.

    Args:
        points: [P, 3] in world coordinates, P >= 0.
        colors: [P, 3] in [-1, 1].
        camera_from_world: [F, 4, 4].
        intrinsics: [F, 3, 3] in pixels of ``height`` x ``width``.
        height: rows H of the images.
        width: columns W.
        radius_ndc: disk radius r, where the image's shorter side spans [-1, 1].
        points_per_pixel: K.
        candidates_per_chunk: pixels of disk windows that are tested at a time; None: what
            suits the device.
        frames_at_once: frames that are rendered together; None: one on a CPU, on a GPU as many
            as fill a chunk.

    Returns:
        The renders on the points' device.

    Raises:
        CameraError: a matrix is not finite or of another shape.
        ParameterError: the radius or the number of points a pixel is not positive.
    """
    check_render_arguments(
        points, colors, camera_from_world, intrinsics, radius_ndc, points_per_pixel
    )
    points, colors = points.float(), colors.float()
    radius = radius_ndc * min(height, width) / 2
    window, kind = _window(radius) ** 2, points.device.type
    candidates = candidates_per_chunk or CANDIDATES_PER_CHUNK.get(kind, 1 << 20)
    fitting = 1 if kind == "cpu" else candidates // (window * max(1, len(points)))
    most = (2**31 - 1) // (height * width)  # pixels are counted in 32 bits
    count = min(frames_at_once or max(1, fitting), most, max(1, len(camera_from_world)))
    # Their numbers are read one by one, which would wait for a GPU each time.
    cameras = list(zip(camera_from_world.cpu(), intrinsics.cpu(), strict=True))
    canvases = []
    for i in range(0, len(cameras), count):
        group = cameras[i : i + count]
        canvas = _Canvas(len(group), height, width, points.device)
        projected = _project(points, group, height, width, radius)
        for part in projected.chunks(max(1, candidates // window)):
            hits = _disk_hits(part, height, width, radius)
            _blend(canvas, hits, colors, points_per_pixel)
        canvases.append(canvas.images())
    if not canvases:
        canvases.append(_Canvas(0, height, width, points.device).images())
    return PointRender(*(torch.cat(parts) for parts in zip(*canvases, strict=True)))


def render_points_over(
    mesh: ParallelMesh,
    points: Tensor,
    colors: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    **options: Any,
) -> PointRender:
    """``render_points`` with the frames shared out among ranks: the same bits on each.

    Args:
        mesh: the ranks, all of which call this with the same arguments.
        points: this and the others as in ``render_points``; at least one camera.
        colors: see there.
        camera_from_world: see there.
        intrinsics: see there.
        height: see there.
        width: see there.
        options: see there.
    """
    cameras = torch.cat([camera_from_world.flatten(1), intrinsics.flatten(1)], dim=1)

    def some(rows: Tensor) -> Tensor:
        poses, k = rows[:, :16].reshape(-1, 4, 4), rows[:, 16:].reshape(-1, 3, 3)
        render = render_points(points, colors, poses, k, height, width, **options)
        return torch.cat([render.rgb, render.hole_mask, render.nearest_z], dim=1)

    whole = over_frames(mesh, some, cameras)
    return PointRender(whole[:, :3], whole[:, 3:4], whole[:, 4:])


def check_render_arguments(
    points: Tensor,
    colors: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    radius_ndc: float,
    points_per_pixel: int,
) -> None:
    """Refuse what neither renderer can draw; arguments as in ``render_points``.

    Raises:
        CameraError: a matrix is not finite or of another shape.
        ParameterError: the radius or the number of points a pixel is not positive.
    """
    check_cameras(camera_from_world)
    check_intrinsics(intrinsics)
    assert len(intrinsics) == len(camera_from_world), (intrinsics.shape, camera_from_world.shape)
    assert points.shape == colors.shape == (len(points), 3), (points.shape, colors.shape)
    if not radius_ndc > 0:
        raise ParameterError(
            "disks need a positive radius",
            where="radius_ndc",
            got=str(radius_ndc),
            allowed="a number > 0; the image's shorter side spans 2",
        )
    if points_per_pixel < 1:
        raise ParameterError(
            "a pixel needs at least one point",
            where="points_per_pixel",
            got=str(points_per_pixel),
            allowed="an integer >= 1",
        )


@dataclass(frozen=True, eq=False)
class _Projected:
    """Points whose disks may touch an image, nearest first; ties in the order of the list."""

    index: Tensor  # [V] int64, position in the list of points
    frame: Tensor  # [V] int32, which of the images
    z: Tensor  # [V] float32
    u: Tensor  # [V] float64, pixels
    v: Tensor  # [V] float64

    def chunks(self, size: int) -> Iterator[_Projected]:
        for i in range(0, len(self.index), size):
            yield self.select(slice(i, i + size))

    def select(self, which: Tensor | slice) -> _Projected:
        return _Projected(
            self.index[which], self.frame[which], self.z[which], self.u[which], self.v[which]
        )


@dataclass(frozen=True, eq=False)
class _Hits:
    """Pixels that lie within disks, ordered by pixel, then by depth as the points were."""

    pixel: Tensor  # [N] int32, frame by frame in row order
    index: Tensor  # [N] int64, position in the list of points
    z: Tensor  # [N] float32
    weight: Tensor  # [N] float32, 1 - d^2 / r^2


class _Canvas:
    """Images while they are blended; their pixels frame by frame in row order."""

    def __init__(self, frames: int, height: int, width: int, device: torch.device) -> None:
        self._size = frames, height, width
        pixels = frames * height * width
        self.rgb = torch.zeros(pixels, 3, device=device)
        self.transmittance = torch.ones(pixels, device=device)
        self.nearest_z = torch.full((pixels,), HOLE_Z, device=device)
        self.layers = torch.zeros(pixels, dtype=torch.int64, device=device)

    def images(self) -> tuple[Tensor, Tensor, Tensor]:
        """rgb, hole_mask and nearest_z as ``PointRender`` has them."""
        frames, height, width = self._size
        single = (frames, 1, height, width)
        rgb = self.rgb.reshape(frames, height, width, 3).permute(0, 3, 1, 2).contiguous()
        hole_mask = (self.layers == 0).float().reshape(single)
        return rgb, hole_mask, self.nearest_z.reshape(single)


def _window(radius: float) -> int:
    """The most pixel centres that an open interval of 2 x radius pixels can hold."""
    return int(2 * radius) + 1


def _project(
    points: Tensor,
    cameras: Sequence[tuple[Tensor, Tensor]],
    height: int,
    width: int,
    radius: float,
) -> _Projected:
    parts = []
    for frame, (camera_from_world, intrinsics) in enumerate(cameras):
        u, v, z = project_points(points, camera_from_world, intrinsics)
        inside_x = (u > -radius) & (u < width + radius)
        inside_y = (v > -radius) & (v < height + radius)
        # Rounded before the sort, so that depths which differ in float64 noise alone are ties.
        z = z.float()
        index = ((z > 0) & inside_x & inside_y).nonzero()[:, 0]
        which = torch.full_like(index, frame, dtype=torch.int32)
        parts.append((index, which, z[index], u[index], v[index]))
    seen = _Projected(*(torch.cat(part) for part in zip(*parts, strict=True)))
    return seen.select(torch.sort(seen.z, stable=True).indices)


def _disk_hits(points: _Projected, height: int, width: int, radius: float) -> _Hits:
    window = _window(radius)
    column, dx2 = _offsets(points.u, width, radius)
    row, dy2 = _offsets(points.v, height, radius)
    row += height * points.frame[:, None]
    distance = (dy2[:, :, None] + dx2[:, None, :]).flatten()
    hit = (distance < 1).nonzero()[:, 0]
    pixel = (row[:, :, None] * width + column[:, None, :]).flatten()[hit]
    # Hits come point by point, nearest point first: a stable sort keeps that order in a pixel.
    pixel, order = torch.sort(pixel, stable=True)
    hit = hit[order]
    point = hit // window**2
    return _Hits(pixel, points.index[point], points.z[point], 1 - distance[hit])


def _offsets(center: Tensor, size: int, radius: float) -> tuple[Tensor, Tensor]:
    """Along one axis: each window's pixels [V, window] int32, and their squared offsets.

    Offsets are in radii; those of pixels outside the image are 4, beyond every disk.
    """
    # The window starts at the first pixel whose centre lies within the disk. What is left of the
    # centre after that is a few pixels at most, so that float32 keeps seven digits of it.
    first = torch.ceil(center - radius - 0.5)
    step = torch.arange(_window(radius), dtype=torch.int32, device=center.device)
    pixel = first.int()[:, None] + step
    # Times the inverse: a GPU divides by a number that way, and both shall round alike.
    offset = ((first - center + 0.5).float()[:, None] + step) * (1 / radius)
    return pixel, torch.where((pixel >= 0) & (pixel < size), offset * offset, 4.0)


def _blend(canvas: _Canvas, hits: _Hits, colors: Tensor, points_per_pixel: int) -> None:
    """Put hits behind what the canvas holds already, up to K layers in all.

    A product and a sum are two operations throughout, never one addcmul: a fused multiply-add
    rounds once instead of twice, and where a kernel fuses depends on the tensor's length.
    """
    pixel, count = torch.unique_consecutive(hits.pixel, return_counts=True)
    pixel = pixel.long()
    first = count.cumsum(0) - count
    before = canvas.layers[pixel]
    uncovered = before == 0
    canvas.nearest_z[pixel[uncovered]] = hits.z[first[uncovered]]
    count = torch.minimum(count, points_per_pixel - before)
    canvas.layers[pixel] = before + count
    for layer in range(points_per_pixel):
        more = count > layer
        pixel, count, first = pixel[more], count[more], first[more]
        if len(pixel) == 0:
            break
        hit = first + layer
        weight, transmittance = hits.weight[hit], canvas.transmittance[pixel]
        canvas.rgb[pixel] += (transmittance * weight)[:, None] * colors[hits.index[hit]]
        canvas.transmittance[pixel] = transmittance * (1 - weight)
