"""From an equirectangular panorama to a scene in the published panorama layout.

Owns ``build_panorama``: the order of building, the files, and what the report says. Cameras,
distances and points have modules of their own (``panorama_*``).

The scene's world is that of geometry/equirectangular.py, its unit that of the distances. The
bank holds 27 views; three of its directions, a third of a turn apart, start the trajectories.
Frame 0 of each is the start image itself; the others are rendered from points in all directions,
at the height of the working size and in the shape of the published views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldstereo.builder.clearance import Obstacles, Shortened, shortened
from worldstereo.builder.layout import (
    START_POINTS,
    new_scene_folder,
    write_bank,
    write_json,
    write_renders,
)
from worldstereo.builder.panorama_cameras import (
    BANK_HEIGHT,
    BANK_WIDTH,
    FIELD_OF_VIEW_X,
    bank_cameras,
    polar_cameras,
    view_camera,
    view_cameras,
)
from worldstereo.builder.panorama_cloud import (
    Surroundings,
    ViewCloud,
    lift_surroundings,
    lift_view_and_surroundings,
)
from worldstereo.builder.panorama_depth import (
    MERGED_DEPTH_FILE,
    PanoramaDistances,
    ProvidedPanoramaDepth,
    estimate_distances,
    merge_report,
    merge_statements,
    read_panorama_depth,
)
from worldstereo.builder.parameters import PANORAMA_VIEWS, BuildParameters, check_kind
from worldstereo.builder.perspective import start_check
from worldstereo.builder.report import (
    BuildReport,
    StartCheck,
    TrajectoryReport,
    depth_warnings,
    start_warnings,
    trajectory_warnings,
)
from worldstereo.builder.specs import TrajectorySpec, trajectory_names
from worldstereo.depth.merge import MergedDepth
from worldstereo.depth.protocol import DepthSource
from worldstereo.formats.images import resize_bicubic, write_png
from worldstereo.formats.panorama import PANO_BANK, START_FRAME
from worldstereo.formats.ply import write_ply
from worldstereo.formats.renders import CAPTION
from worldstereo.formats.scene_folder import META, read_scene, working_size
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.equirectangular import check_panorama_image, cut_views
from worldstereo.geometry.render import point_renderer
from worldstereo.geometry.views import Renderer, render_cloud
from worldstereo.types import Bool, Cameras, UInt8, concatenate_cameras

__all__ = [
    "ProvidedPanoramaDepth",
    "build_panorama",
    "check_panorama_image",
    "read_panorama_depth",
]

# The least share of a trajectory that is still built. A view's trajectories are the same for all
# panoramas, so that one view in a corner shall not fail its whole scene.
MINIMUM_EXTENT = 0.02


def build_panorama(
    image: UInt8,
    depth: DepthSource | ProvidedPanoramaDepth,
    parameters: BuildParameters,
    folder: Path,
    *,
    scale_map: Sequence[tuple[int, int]],
    renderer: Renderer = "torch",
) -> BuildReport:
    """Build a panorama scene; it appears by one rename, and the same input gives the same bytes.

    The folder holds ``meta_info.json``, ``pano_bank/{cameras.json, images/0000.png ...
    0026.png}``, ``<view>/start_frame.png``, ``<view>/<name>/{render.mp4, render_mask.mp4,
    camera.json, traj_caption.json}``, ``points.ply`` with the points in all directions,
    ``build_report.json``, and ``merged_depth.json`` where
    depth was estimated.

    Args:
        image: [H, 2 H, 3] equirectangular, see geometry/equirectangular.py.
        depth: an estimator, which is asked for the 27 views and two towards the poles, or the
            panorama's distances.
        parameters: of the kind "panorama".
        folder: of the scene; new, or empty.
        scale_map: working sizes [height, width] of the model.
        renderer: ``torch`` is our own.

    Returns:
        What was built, and what the caller should know about it.

    Raises:
        MediaError: the image is no panorama, or its depth gives too few points.
        ParameterError: the parameters are of another kind; the folder exists; a trajectory
            cannot be followed at all.
        MissingDependencyError: the renderer is not installed.
    """
    check_kind(parameters, "panorama")
    check_panorama_image(image)
    point_renderer(renderer)  # What is missing is said before anything is computed.
    size = working_size(BANK_HEIGHT, BANK_WIDTH, scale_map)
    with new_scene_folder(folder) as building:
        bank = cut_views(image, bank_cameras())  # the 27 start frames
        write_bank(building / PANO_BANK, bank_cameras(), list(bank))
        source = _distances(image, bank, depth)
        surroundings = lift_surroundings(image, source)
        scene = _Scene(image, source, surroundings, parameters, render_size(size[0]), renderer)
        views = [
            scene.write_view(building / name, view_camera(index))
            for index, name in enumerate(PANORAMA_VIEWS)
        ]
        report = _report(source, surroundings, views, size)
        report.write(building)
        write_ply(building / START_POINTS, surroundings.cloud)
        if isinstance(source, MergedDepth):
            write_json(building / MERGED_DEPTH_FILE, merge_report(source))
        write_json(building / META, {"scene_type": "panorama"})
        read_scene(
            building,
            scale_map=scale_map,
            nframe=parameters.frames,
            align_nframe=1,
            task_type="panorama",
        )
    return report


def render_size(working_height: int) -> tuple[int, int]:
    """(height, width) of the renders: the published views' shape at the working height.

    They are squeezed to the working size when they are read, as the start frames are. H.264
    needs even sides.
    """
    height = 2 * round(working_height / 2)
    return height, 2 * round(height * BANK_WIDTH / BANK_HEIGHT / 2)


def _distances(
    image: UInt8, bank: UInt8, depth: DepthSource | ProvidedPanoramaDepth
) -> PanoramaDistances:
    if isinstance(depth, ProvidedPanoramaDepth):
        return depth
    views = np.concatenate([bank, cut_views(image, polar_cameras())])
    return estimate_distances(views, concatenate_cameras([bank_cameras(), polar_cameras()]), depth)


@dataclass(frozen=True, eq=False)
class _View:
    """What the report says about a view."""

    lifted: ViewCloud
    check: StartCheck
    trajectories: list[TrajectoryReport]
    warnings: list[str]


class _Scene:
    """The points in all directions, which all views are rendered from."""

    def __init__(
        self,
        image: UInt8,
        source: PanoramaDistances,
        surroundings: Surroundings,
        parameters: BuildParameters,
        size: tuple[int, int],
        renderer: Renderer,
    ) -> None:
        self._image, self._source, self._surroundings = image, source, surroundings
        self._parameters, self._size, self._renderer = parameters, size, renderer
        self._obstacles = Obstacles(surroundings.obstacles)

    def write_view(self, folder: Path, camera: Cameras) -> _View:
        """Write a view's start frame and trajectories.

        Args:
            folder: of the view; its name is the view's.
            camera: where it starts (N = 1), of the published size.
        """
        start = cut_views(self._image, camera)[0]
        folder.mkdir()
        write_png(folder / START_FRAME, start)
        own = camera.resized(*self._size)
        lifted = lift_view_and_surroundings(start, own, self._source, self._surroundings)
        start = resize_bicubic(start, self._size)  # Frame 0 of every trajectory.
        check = start_check(
            f"{folder.name}/{START_FRAME}", start, *lifted.tensors(), own, self._renderer
        )
        reports, warnings = [], start_warnings(check)
        specs = self._parameters.paths
        for name, spec in zip(trajectory_names(specs), specs, strict=True):
            report = self._write_trajectory(folder / name, spec, start, lifted, camera)
            reports.append(report)
            warnings += trajectory_warnings(report, spec)
        return _View(lifted, check, reports, warnings)

    def _write_trajectory(
        self, folder: Path, spec: TrajectorySpec, start: UInt8, lifted: ViewCloud, camera: Cameras
    ) -> TrajectoryReport:
        """Choose how far the path goes, render it and write its files."""
        frames = self._parameters.frames
        pose = StartPose(camera.camera_from_world[0], lifted.pivot_distance)
        trajectory_id = f"{folder.parent.name}/{folder.name}"
        chosen = shortened(
            spec,
            pose,
            self._obstacles,
            self._parameters.clearance,
            frames=frames,
            name=trajectory_id,
            minimum=MINIMUM_EXTENT,
        )
        cameras = view_cameras(chosen.spec, pose, camera, frames)
        later = cameras[1:].resized(*self._size)
        video, holes = render_cloud(*lifted.tensors(), later, renderer=self._renderer)
        video = np.concatenate([start[None], video])
        holes = np.concatenate([np.zeros_like(holes[:1]), holes])
        write_renders(folder, video, holes, cameras)
        write_json(folder / CAPTION, {"prompt": self._parameters.prompt})
        return _trajectory_report(trajectory_id, spec, chosen, holes)


def _trajectory_report(
    trajectory_id: str, spec: TrajectorySpec, chosen: Shortened, holes: Bool
) -> TrajectoryReport:
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


def _report(
    source: PanoramaDistances,
    surroundings: Surroundings,
    views: list[_View],
    size: tuple[int, int],
) -> BuildReport:
    merging = merge_statements(source) if isinstance(source, MergedDepth) else []
    return BuildReport(
        kind="panorama",
        image_size=(BANK_HEIGHT, BANK_WIDTH),
        size=size,
        intrinsics=bank_cameras().intrinsics[0].tolist(),
        intrinsics_from="panorama",
        field_of_view=FIELD_OF_VIEW_X,
        metric=source.metric,
        pivot_distance=views[0].lifted.pivot_distance,
        valid_depth=surroundings.covered,
        points=max(len(view.lifted.cloud) for view in views),
        start=[view.check for view in views],
        trajectories=[report for view in views for report in view.trajectories],
        warnings=[
            *merging,
            *depth_warnings(surroundings.covered),
            *(warning for view in views for warning in view.warnings),
        ],
    )
