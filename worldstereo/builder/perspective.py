"""From one image and its depth to a scene in the published reconstruction layout.

Owns ``build_scene``: the start image's intrinsics, one cloud of points, and each trajectory's
path, kept clear of the points, rendered and written. The start camera stands at the origin with
no rotation: the memory takes its first frame for the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from worldstereo.builder.clearance import Obstacles, obstacle_points, shortened
from worldstereo.builder.layout import (
    START_POINTS,
    check_image_shape,
    limited_image,
    new_scene_folder,
    write_json,
    write_order,
    write_renders,
)
from worldstereo.builder.parameters import BuildParameters, check_kind
from worldstereo.builder.report import (
    BuildReport,
    IntrinsicsSource,
    StartCheck,
    TrajectoryReport,
    depth_warnings,
    start_warnings,
    trajectory_warnings,
)
from worldstereo.builder.specs import (
    TrajectorySpec,
    cameras_of,
    trajectory_names,
)
from worldstereo.builder.start_camera import (
    horizontal_degrees,
    intrinsics_warnings,
    median_depth,
    start_intrinsics,
)
from worldstereo.depth.protocol import DepthMap
from worldstereo.depth.provided import check_depth_size
from worldstereo.formats.images import resize_bicubic, write_png
from worldstereo.formats.ply import write_ply
from worldstereo.formats.reconstruction import IMAGE, PROMPT, RENDERS
from worldstereo.formats.renders import ASPECT_TOLERANCE
from worldstereo.formats.scene_folder import read_scene, working_size
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.views import Renderer, as_cloud, edge_threshold, lift_view, render_cloud
from worldstereo.types import Bool, Cameras, Float32, UInt8


def build_scene(
    image: UInt8,
    depth: DepthMap,
    parameters: BuildParameters,
    folder: Path,
    *,
    scale_map: Sequence[tuple[int, int]],
    renderer: Renderer = "torch",
) -> BuildReport:
    """Build a scene folder; it appears by one rename, and the same input gives the same bytes.

    The folder holds ``image.png``, ``prompt.json``, ``renders/<name>/{render.mp4,
    render_mask.mp4, camera.json}``, ``renders/order.json`` where the names are not the published
    ones, ``points.ply`` with the points that the renders were made from, and
    ``build_report.json``.

    Args:
        image: [H, W, 3] RGB.
        depth: of the image, at any size of its aspect ratio; may state intrinsics.
        parameters: prompt, trajectories and how they are built.
        folder: of the scene; new, or empty.
        scale_map: working sizes [height, width] of the model, even numbers.
        renderer: ``torch`` is our own.

    Returns:
        What was built, and what the caller should know about it.

    Raises:
        MediaError: the image is too small or too long; the depth is of another shape, or gives
            too few points.
        CameraError: intrinsics that cannot be, or given cameras that contradict each other.
        ParameterError: a path runs into the scene or cannot be made; the folder exists;
            parameters of a panorama.
        MissingDependencyError: the renderer is not installed.
    """
    check_kind(parameters, "perspective")
    check_image_shape(image)
    image = limited_image(image)
    height, width = image.shape[:2]
    check_depth_size(depth.depth, height, width)
    pivot_distance = median_depth(depth.depth)
    size = working_size(height, width, scale_map)
    intrinsics, source = start_intrinsics(parameters, depth, (height, width))
    first = Cameras(np.eye(4, dtype=np.float32)[None], intrinsics[None], height, width)
    with new_scene_folder(folder) as building:
        rendered = render_size((height, width), size)
        scene = _Scene(image, first, rendered, pivot_distance, depth.depth, renderer)
        names = trajectory_names(parameters.paths)
        trajectories = [
            scene.write_trajectory(building, name, spec, parameters)
            for name, spec in zip(names, parameters.paths, strict=True)
        ]
        write_order(building / RENDERS, names)
        write_ply(building / START_POINTS, as_cloud(scene.points, scene.colors))
        write_png(building / IMAGE, image)
        write_json(building / PROMPT, {"prompt": parameters.prompt})
        report = _report(scene, parameters, depth, size, source, trajectories)
        report.write(building)
        read_scene(building, scale_map=scale_map, nframe=parameters.frames, align_nframe=1)
    return report


def render_size(image: tuple[int, int], working: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the renders: the working size, where that is of the image's shape.

    Else the image's shape, no smaller than the working size: renders are squeezed to it when
    they are read, as the start image is. H.264 needs even sides.

    Args:
        image: (height, width) of the start image.
        working: (height, width) that the model works at.
    """
    if abs(working[0] * image[1] / (working[1] * image[0]) - 1) <= ASPECT_TOLERANCE:
        return working
    scale = max(working[0] / image[0], working[1] / image[1])
    return 2 * round(image[0] * scale / 2), 2 * round(image[1] * scale / 2)


class _Scene:
    """The cloud of one image, which all its trajectories are rendered from."""

    def __init__(
        self,
        image: UInt8,
        first: Cameras,
        size: tuple[int, int],
        pivot_distance: float,
        depth: Float32,
        renderer: Renderer,
    ) -> None:
        self.first, self.pivot_distance = first, pivot_distance
        self._size, self._renderer = size, renderer
        self._start = StartPose(np.eye(4), pivot_distance)
        self._start_image = resize_bicubic(image, size)
        self.points, self.colors = lift_view(
            image, depth, first.resized(*size), sobel_threshold=edge_threshold(depth.shape)
        )
        self._obstacles = Obstacles(obstacle_points(depth, first))
        self.start_check = start_check(
            IMAGE, self._start_image, self.points, self.colors, first.resized(*size), renderer
        )

    def write_trajectory(
        self, folder: Path, name: str, spec: TrajectorySpec, parameters: BuildParameters
    ) -> TrajectoryReport:
        """Choose how far the path goes, render it and write its files."""
        trajectory_id, frames = f"{RENDERS}/{name}", parameters.frames
        chosen = shortened(
            spec,
            self._start,
            self._obstacles,
            parameters.clearance,
            frames=frames,
            name=trajectory_id,
        )
        first = self.first
        cameras = cameras_of(
            chosen.spec, self._start, first.intrinsics[0], first.height, first.width, frames
        )
        video, holes = self._render(cameras.resized(*self._size))
        write_renders(folder / RENDERS / name, video, holes, cameras)
        return TrajectoryReport(
            id=trajectory_id,
            preset=spec.alias or spec.preset,
            asked=spec.extent,
            used=chosen.spec.extent,
            factor=chosen.factor,
            shortened=chosen.factor < 1,
            clearance=chosen.clearance,
            smallest_distance=chosen.smallest_distance,
            hole_share=[float(share) for share in holes.mean(axis=(1, 2))],
        )

    def _render(self, cameras: Cameras) -> tuple[UInt8, Bool]:
        """As ``geometry.views.render_views``, with the points that are there already."""
        video, holes = render_cloud(self.points, self.colors, cameras[1:], renderer=self._renderer)
        seen = np.zeros((1, *self._size), dtype=np.bool_)
        return np.concatenate([self._start_image[None], video]), np.concatenate([seen, holes])


def start_check(
    name: str,
    start_image: UInt8,
    points: Tensor,
    colors: Tensor,
    camera: Cameras,
    renderer: Renderer = "torch",
) -> StartCheck:
    """Render the points from the camera that they were lifted from, and compare.

    Args:
        name: of the start image in the scene.
        start_image: [height, width, 3] at working size.
        points: [P, 3] in world coordinates.
        colors: [P, 3] in [-1, 1].
        camera: of the start image (N = 1), at working size.
        renderer: ``torch`` is our own.
    """
    video, holes = render_cloud(points, colors, camera, renderer=renderer)
    covered = ~holes[0]
    error = (video[0][covered].astype(np.float64) - start_image[covered]) ** 2
    mean = max(float(error.mean()) if error.size else 255.0**2, 1e-4)
    return StartCheck(
        id=name, covered=float(covered.mean()), psnr_db=10 * float(np.log10(255.0**2 / mean))
    )


def _report(
    scene: _Scene,
    parameters: BuildParameters,
    depth: DepthMap,
    size: tuple[int, int],
    intrinsics_from: IntrinsicsSource,
    trajectories: list[TrajectoryReport],
) -> BuildReport:
    first, valid_depth = scene.first, float(depth.valid.mean())
    return BuildReport(
        kind="perspective",
        image_size=(first.height, first.width),
        size=size,
        intrinsics=first.intrinsics[0].tolist(),
        intrinsics_from=intrinsics_from,
        field_of_view=horizontal_degrees(first.intrinsics[0], first.width),
        metric=depth.metric,
        pivot_distance=scene.pivot_distance,
        valid_depth=valid_depth,
        points=len(scene.points),
        start=[scene.start_check],
        trajectories=trajectories,
        warnings=[
            *intrinsics_warnings(parameters, intrinsics_from),
            *depth_warnings(valid_depth),
            *start_warnings(scene.start_check),
            *_path_warnings(trajectories, parameters),
        ],
    )


def _path_warnings(
    trajectories: Sequence[TrajectoryReport], parameters: BuildParameters
) -> Iterator[str]:
    for report, spec in zip(trajectories, parameters.paths, strict=True):
        yield from trajectory_warnings(report, spec)
