"""After the clips: depth of what was generated, one fused cloud, and the files that hold them.

Owns the order of this stage and which of its outputs need what. Where the depth of a clip comes
from is told to it: an estimator, or plane-sweep stereo, which the commanded cameras make possible
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydantic

from worldstereo.builder.layout import START_POINTS
from worldstereo.builder.report import REPORT_FILE, BuildReport
from worldstereo.depth.protocol import DepthSource
from worldstereo.depth.provided import read_depth
from worldstereo.depth.stereo import stereo_depths
from worldstereo.errors import GenerationError, ParameterError
from worldstereo.formats.images import read_image
from worldstereo.formats.ply import read_ply
from worldstereo.formats.results import read_trajectory
from worldstereo.geometry.views import as_cloud, lift_view
from worldstereo.reconstruction.bundle import NEEDS_POINTS, OUTPUTS, Output, write_bundle
from worldstereo.reconstruction.fuse import FusionParameters, PointMemory
from worldstereo.reconstruction.result_clips import BundleClip, start_frames_of
from worldstereo.scene import SceneRun
from worldstereo.types import Cameras, Float32, PointCloud, SceneInput, UInt8

# What makes the clips' depth be estimated.
NEEDS_DEPTH: frozenset[Output] = frozenset({"points", "glb", "depth"})

# Told what is being done, how much of it is done, and of how much.
OnStage = Callable[[str, int, int], None]


class Reconstruction:
    """A scene's point memory, and what is written of it.

    Args:
        run: the scene while it is generated.
        estimator: of the clips' depth; None: plane-sweep stereo.
    """

    def __init__(self, run: SceneRun, estimator: DepthSource | None) -> None:
        self._run = run
        self._estimator = estimator
        self._points: PointMemory | None = None
        self._depths: dict[str, Float32] = {}

    def write(self, outputs: Collection[str], on_stage: OnStage) -> list[Path]:
        """Bring the point memory to the committed clips and write the outputs.

        The same clips give the same bytes, whatever was written before.

        Args:
            outputs: what to write; those that need depth make it be estimated.
            on_stage: is called as the stage goes on.

        Returns:
            The files, below the scene's result folder.

        Raises:
            ParameterError: an unknown output.
            GenerationError: points were asked for and none were found; the rest is written.
            WorldStereoError: the estimator failed, or a committed clip cannot be read.
        """
        wanted = bundle_outputs(outputs)
        run = self._run
        wants_depth = bool(NEEDS_DEPTH & set(wanted))
        clips = self._committed_clips(on_stage, with_depth=wants_depth)
        cloud = None
        if wants_depth:
            on_stage("fuse", 0, 0)
            cloud = self._memory().cloud()
            clips = self._in_scene_unit(clips)
        on_stage("export", 0, 0)
        empty = cloud is None or not len(cloud)
        lacking = [name for name in wanted if name in NEEDS_POINTS and empty]
        files = write_bundle(
            run.output,
            [name for name in wanted if name not in lacking],
            clips,
            cloud=None if empty else cloud,
            start_frames=start_frames_of(run.scene),
            metric=is_metric(run.scene),
            up="z" if run.scene.layout == "panorama" else "-y",
            scene_name=run.scene.name,
            model_type=run.parameters.variant,
        )
        if lacking:
            raise GenerationError(
                "no points were found in the clips; the other outputs are written",
                where=f"outputs {', '.join(lacking)}",
                got="no depth that its neighbours agree with",
                fix="a camera that only turns shows no depth to stereo: let it move, or have the "
                "server estimate depth",
            )
        return files

    def _committed_clips(self, on_stage: OnStage, *, with_depth: bool) -> list[BundleClip]:
        """The committed clips in canonical order; their depth enters the point memory."""
        run = self._run
        committed = [item for item in run.plan.trajectories if item.id in run.committed]
        clips = []
        for done, planned in enumerate(committed):
            on_stage("points" if with_depth else "export", done, len(committed))
            clip = read_trajectory(run.folder(planned.id))
            depths = None
            if with_depth:
                depths = self._remember(planned.position, planned.id, clip.frames, clip.cameras)
            clips.append(
                BundleClip(
                    id=planned.id,
                    frames=clip.frames,
                    cameras=clip.cameras,
                    depths=depths,
                    keyframes=tuple(index for _, index in planned.adds),
                )
            )
        return clips

    def _remember(
        self, position: int, trajectory_id: str, frames: UInt8, cameras: Cameras
    ) -> Float32:
        if trajectory_id not in self._depths:
            depths = self._depths_of(frames, cameras)
            if self._points is None:
                self._points = self._new_memory(frames, cameras)
            self._points.add(position, trajectory_id, frames, cameras, depths)
            self._depths[trajectory_id] = depths
        return self._depths[trajectory_id]

    def _in_scene_unit(self, clips: list[BundleClip]) -> list[BundleClip]:
        """The clips with their depths in the unit of the cloud and the cameras."""
        if self._estimator is None:
            return clips
        alignments = self._memory().alignments
        scaled = []
        for clip in clips:
            assert clip.depths is not None, clip.id
            factors = np.array(alignments[clip.id].frame_factors, dtype=np.float32)
            scaled.append(replace(clip, depths=clip.depths * factors[:, None, None]))
        return scaled

    def _depths_of(self, frames: UInt8, cameras: Cameras) -> Float32:
        if self._estimator is None:
            return stereo_depths(frames, cameras)
        return np.stack([found.depth for found in self._estimator.depths_of(list(frames))])

    def _new_memory(self, frames: UInt8, cameras: Cameras) -> PointMemory:
        """The point memory, given the canonically first clip."""
        start = start_cloud(self._run.scene)
        if self._estimator is None:
            # Stereo finds depth in the cameras' own unit: there is no scale to be found.
            return PointMemory(start, FusionParameters(align=False))
        if start is None:
            # Estimates need something in the cameras' unit that they can be scaled to.
            stereo = PointMemory(None, FusionParameters(align=False))
            stereo.add(0, "stereo", frames, cameras, stereo_depths(frames, cameras))
            found = stereo.cloud()
            start = found if len(found) else None
        return PointMemory(start, FusionParameters(align=True))

    def _memory(self) -> PointMemory:
        assert self._points is not None, "there is a clip before there is a cloud"
        return self._points


def bundle_outputs(names: Collection[str]) -> tuple[Output, ...]:
    """The outputs of these names; ParameterError for one that there is not."""
    unknown = sorted(set(names) - set(OUTPUTS))
    if unknown:
        raise ParameterError(
            "unknown output", where="outputs", got=", ".join(unknown), allowed=", ".join(OUTPUTS)
        )
    return tuple(name for name in OUTPUTS if name in names)


def is_metric(scene: SceneInput) -> bool:
    """Whether the unit of a scene's cameras is known to be the metre: it was built so."""
    return built_in_metres(scene.root)


def built_in_metres(folder: Path) -> bool:
    """Whether a scene folder, or the results of one, says that it was built from metric depth."""
    report = _report_in(folder)
    return report is not None and report.metric


def start_cloud(scene: SceneInput) -> PointCloud | None:
    """The points that were known before anything was generated; None where there are none."""
    if _report_in(scene.root) is not None and (scene.root / START_POINTS).is_file():
        return read_ply(scene.root / START_POINTS)
    for trajectory in scene.trajectories:
        if trajectory.depth is not None and trajectory.start_image is not None:
            camera = trajectory.cameras[[0]].resized(*scene.size)
            image, depth = read_image(trajectory.start_image), read_depth(trajectory.depth)
            return as_cloud(*lift_view(image, depth, camera))
    return None


def _report_in(folder: Path) -> BuildReport | None:
    """How a scene was built; None where it was not: files of such names may be anybody's."""
    try:
        return BuildReport.model_validate_json((folder / REPORT_FILE).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None
