"""Result folders of any scene: camera control, consistency and reconstruction.

Owns finding the clips of a folder and what can be measured of them without a known truth:
cameras against poses that someone estimated, consistency where the clips have depth,
reconstruction against a cloud that the caller brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worldstereo.errors import LayoutError, MediaError, ParameterError
from worldstereo.evaluation.alignment import similarity_from_cameras
from worldstereo.evaluation.cameras import CameraErrors, PoseEstimate, camera_errors
from worldstereo.evaluation.clouds import (
    AUC_PERCENT,
    PERCENT_THRESHOLDS,
    CloudScores,
    cloud_scores,
    visible_points,
)
from worldstereo.evaluation.consistency import STRIDE, ClipDepths, Consistency, consistency
from worldstereo.evaluation.pose_estimation import estimate_by_sfm, read_poses
from worldstereo.evaluation.report import ClipReport, Failure, Report, SceneReport, make_report
from worldstereo.evaluation.visibility import DEPTH_TOLERANCE
from worldstereo.formats.depth_maps import DEPTH, read_depth_maps
from worldstereo.formats.ply import read_ply
from worldstereo.formats.results import CAMERAS, FRAMES, TrajectoryResult, read_trajectory
from worldstereo.reconstruction.result_clips import DEPTHS
from worldstereo.types import Cameras, concatenate_cameras

METHOD = "result"
CLOUD = "points.ply"


class ResultSettings(BaseModel):
    """What is measured of a result folder.

    Attributes:
        estimator: where estimated poses come from; None: cameras are not measured.
        poses: the file of ``file``; names in it tell the clips apart.
        poses_scaled: its lengths are in the scene's unit.
        trajectories: ids of the clips; empty: all.
        ground_truth: a cloud (PLY) to compare the reconstruction with.
        cloud: the reconstruction; None: points.ply of the folder.
        ground_truth_cameras: the clips' cameras in the ground truth's world, for an alignment
            by a similarity; None: the worlds are one.
        crop: leave out true points that project into no frame of the clips.
        thresholds: in scene units.
        percents: in percent of the true cloud's diagonal.
        median_depth: of the start image in scene units, where it is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: Literal["file", "pycolmap"] | None = None
    poses: Path | None = None
    poses_scaled: bool = False
    trajectories: tuple[str, ...] = ()
    ground_truth: Path | None = None
    cloud: Path | None = None
    ground_truth_cameras: Path | None = None
    crop: bool = True
    thresholds: tuple[float, ...] = ()
    percents: tuple[float, ...] = PERCENT_THRESHOLDS
    auc_percent: float = Field(default=AUC_PERCENT, gt=0)
    median_depth: float | None = Field(default=None, gt=0)
    consistency_stride: int = Field(default=STRIDE, ge=1)
    depth_tolerance: float = Field(default=DEPTH_TOLERANCE, gt=0)


def evaluate_results(
    folder: Path,
    settings: ResultSettings,
    *,
    on_clip: Callable[[str], None] = lambda clip_id: None,
) -> Report:
    """Measure what a scene's result folder holds.

    Args:
        folder: of a scene, or of one clip.
        settings: what is measured.
        on_clip: called with each clip's id before its cameras are looked at.

    Raises:
        LayoutError: the folder holds no clip, or not the one that was named.
        CameraError: poses that cannot be matched, or that give no alignment.
        MediaError: a file that cannot be read.
        MissingDependencyError: evo is needed and not installed.
    """
    clips = {name: read_trajectory(place) for name, place in find_clips(folder, settings).items()}
    cameras: dict[str, dict[str, CameraErrors]] = {}
    every = find_clips(folder, settings.model_copy(update={"trajectories": ()}))
    for clip_id, clip in clips.items():
        others = [name for name in every if name != clip_id]
        estimate = _estimate(clip_id, clip, settings, others, len(clips) > 1, on_clip)
        cameras[clip_id] = {}
        if estimate is not None:
            commanded = clip.cameras.camera_from_world
            errors = camera_errors(commanded, estimate, median_depth=settings.median_depth)
            cameras[clip_id][METHOD] = errors
    name = folder.resolve().name
    failures = [
        Failure(scene=name, method=METHOD, what=clip_id, detail="too few frames have a pose")
        for clip_id, found in cameras.items()
        if METHOD in found and found[METHOD].failed
    ]
    scene = SceneReport(
        name=name,
        median_depth=settings.median_depth,
        clips=tuple(
            ClipReport(id=clip_id, frames=len(clip.frames), cameras=cameras[clip_id])
            for clip_id, clip in clips.items()
        ),
        consistency=_consistency(folder, clips, settings),
        reconstruction=_reconstruction(folder, clips, settings),
        failures=tuple(failures),
    )
    return make_report("results", _told(settings), (METHOD,), [scene])


def find_clips(folder: Path, settings: ResultSettings) -> dict[str, Path]:
    """The clips of a scene's result folder, by id, sorted; or the one that the folder is.

    Raises:
        LayoutError: there is none, or one that was named is not there.
    """
    if (folder / CAMERAS).is_file() and (folder / FRAMES).is_dir():
        place = folder.resolve()
        found = {f"{place.parent.name}/{place.name}": folder}
    else:
        places = sorted(path.parent for path in folder.glob(f"*/*/{CAMERAS}"))
        found = {
            place.relative_to(folder).as_posix(): place
            for place in places
            if (place / FRAMES).is_dir()
        }
    wanted = settings.trajectories or tuple(found)
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        raise LayoutError(
            "no such clip in the result folder" if missing else "the folder holds no clips",
            where=str(folder),
            got=", ".join(missing) or "no <view>/<trajectory>/cameras.json with frames",
            allowed=", ".join(found) or "what `worldstereo run` or `download` leaves",
        )
    return {name: found[name] for name in wanted}


def _estimate(
    clip_id: str,
    clip: TrajectoryResult,
    settings: ResultSettings,
    others: Sequence[str],
    shared: bool,
    on_clip: Callable[[str], None],
) -> PoseEstimate | None:
    if settings.estimator is None:
        return None
    on_clip(clip_id)
    if settings.estimator == "pycolmap":
        return estimate_by_sfm(clip.frames, clip.cameras)
    if settings.poses is None:
        raise ParameterError("the file of the estimated poses is not named", where="poses")
    size = clip.cameras.height, clip.cameras.width
    return read_poses(
        settings.poses,
        clip_id,
        len(clip.frames),
        size,
        scaled=settings.poses_scaled,
        others=others,
        shared=shared,
    )


def _consistency(
    folder: Path, clips: dict[str, TrajectoryResult], settings: ResultSettings
) -> dict[str, Consistency]:
    """Of the clips that have a depth folder, where at least two have one."""
    deep = []
    for clip_id, clip in clips.items():
        place = folder.joinpath(DEPTHS, *clip_id.split("/"))
        if not (place / DEPTH).is_file():
            continue
        depths = read_depth_maps(place).depths
        if depths.shape != clip.frames.shape[:3]:
            raise MediaError(
                "depth and frames are not of one size",
                where=str(place),
                got=str(list(depths.shape)),
                allowed=str(list(clip.frames.shape[:3])),
            )
        deep.append(ClipDepths(clip_id, clip.cameras, depths))
    if len(deep) < 2:
        return {}
    frames = {clip.id: clips[clip.id].frames for clip in deep}
    return consistency(
        deep,
        {METHOD: frames},
        stride=settings.consistency_stride,
        tolerance=settings.depth_tolerance,
    )


def _reconstruction(
    folder: Path, clips: dict[str, TrajectoryResult], settings: ResultSettings
) -> dict[str, CloudScores]:
    if settings.ground_truth is None:
        return {}
    ours = settings.cloud or folder / CLOUD
    for path in (ours, settings.ground_truth):
        if not path.is_file():
            raise MediaError(
                "a point cloud is missing",
                where=str(path),
                got="no such file",
                allowed="a PLY file",
                fix="name ours with --cloud; `worldstereo export` makes one",
            )
    truth = read_ply(settings.ground_truth).points
    commanded = concatenate_cameras([clip.cameras for clip in clips.values()])
    seen_from, alignment = commanded, None
    if settings.ground_truth_cameras is not None:
        poses = _true_cameras(settings.ground_truth_cameras, clips)
        alignment = similarity_from_cameras(commanded.camera_from_world, poses)
        seen_from = Cameras(
            poses.astype(np.float32), commanded.intrinsics, commanded.height, commanded.width
        )
    if settings.crop:
        truth = truth[visible_points(truth, seen_from)]
    return {
        METHOD: cloud_scores(
            read_ply(ours).points,
            truth,
            thresholds=settings.thresholds,
            percents=settings.percents,
            auc_percent=settings.auc_percent,
            alignment=alignment,
        )
    }


def _true_cameras(path: Path, clips: dict[str, TrajectoryResult]) -> np.ndarray:
    """camera_from_world of every frame of every clip in the ground truth's world."""
    parts: list[np.ndarray] = []
    for clip_id, clip in clips.items():
        size = clip.cameras.height, clip.cameras.width
        poses = read_poses(path, clip_id, len(clip.frames), size, shared=len(clips) > 1)
        if not poses.found.all():
            lacking: Sequence[int] = np.flatnonzero(~poses.found).tolist()
            raise ParameterError(
                "an alignment needs the camera of every frame",
                where=str(path),
                got=f"none for frames {', '.join(map(str, lacking[:5]))} of {clip_id}",
            )
        parts.append(poses.camera_from_world)
    return np.concatenate(parts)


def _told(settings: ResultSettings) -> dict[str, object]:
    """The settings as JSON values; of paths the names alone."""
    values = settings.model_dump(mode="json")
    paths = {"poses", "ground_truth", "cloud", "ground_truth_cameras"}
    return {
        name: Path(value).name if name in paths and value is not None else value
        for name, value in values.items()
    }
