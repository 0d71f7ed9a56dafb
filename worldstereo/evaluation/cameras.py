"""Camera control: how far estimated cameras are from the commanded ones.

Owns the definitions (docs/evaluation.md) of RotErr, of TransErr in three variants, of ATE and
of RPE. Where the estimates come from is pose_estimation.py's and exact_geometry.py's.

Poses are world_from_camera relative to frame 0, that is to the first frame that was found; what
was not found is no part of any mean, and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.spatial.transform import Rotation

from worldstereo.errors import MissingDependencyError
from worldstereo.evaluation.alignment import (
    Float64,
    Similarity,
    camera_positions,
    moves,
    similarity_from_points,
)

# Fewer cameras are no trajectory: a similarity would fit them whatever they are.
FEWEST_FRAMES = 3


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """Cameras that an estimator found in the F frames of a clip.

    Attributes:
        camera_from_world: [F, 4, 4] float64, OpenCV; the identity where nothing was found.
        found: [F] bool.
        scaled: whether lengths are in the commanded cameras' unit; if not, up to one factor.
        estimator: its name and version.
    """

    camera_from_world: Float64
    found: NDArray[np.bool_]
    scaled: bool
    estimator: str

    def __post_init__(self) -> None:
        n = len(self.found)
        assert self.camera_from_world.shape == (n, 4, 4), self.camera_from_world.shape


class MeanAndSum(BaseModel):
    """An error's mean over the frames behind the origin frame, and its sum over them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    sum: float


class CameraErrors(BaseModel):
    """One clip's camera errors; a metric that is not defined is null and says why.

    Attributes:
        estimator: where the estimated poses come from.
        frames: F of the clip.
        failed_frames: frames without an estimated pose, in order.
        failed: whether so few frames were found that nothing is measured.
        rotation_deg: RotErr, geodesic angles in degrees.
        translation_self_normalised: TransErr after each trajectory is divided by its largest
            distance from frame 0; no unit.
        translation_sim3: TransErr after a similarity onto the commanded centres, in scene units.
        translation_metric: TransErr as it is, in scene units.
        ate_sim3: RMSE of the centres after a similarity (evo), in scene units.
        ate_sim3_median_depths: the same in median depths of the start image.
        rpe_translation: RMSE of the relative motion's translation from frame to frame, after
            the similarity (evo), in scene units.
        rpe_rotation_deg: RMSE of its rotation angle (evo), in degrees.
        undefined: why a metric is null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: str
    frames: int
    failed_frames: tuple[int, ...]
    failed: bool
    rotation_deg: MeanAndSum | None = None
    translation_self_normalised: MeanAndSum | None = None
    translation_sim3: MeanAndSum | None = None
    translation_metric: MeanAndSum | None = None
    ate_sim3: float | None = None
    ate_sim3_median_depths: float | None = None
    rpe_translation: float | None = None
    rpe_rotation_deg: float | None = None
    undefined: dict[str, str] = {}


def camera_errors(
    commanded: ArrayLike, estimate: PoseEstimate, *, median_depth: float | None = None
) -> CameraErrors:
    """Measure one clip's cameras.

    Args:
        commanded: camera_from_world [F, 4, 4] that the clip was asked for.
        estimate: what was found in its frames; any world of its own.
        median_depth: of the start image, in scene units; None where it is not known.

    Raises:
        MissingDependencyError: evo is not installed.
    """
    wanted = np.asarray(commanded, dtype=np.float64)
    assert wanted.shape == (len(estimate.found), 4, 4), wanted.shape
    found = np.flatnonzero(estimate.found)
    fields: dict[str, Any] = {
        "estimator": estimate.estimator,
        "frames": len(wanted),
        "failed_frames": tuple(int(frame) for frame in np.flatnonzero(~estimate.found)),
        "failed": len(found) < FEWEST_FRAMES,
    }
    if fields["failed"]:
        return CameraErrors(**fields)
    true = relative_poses(wanted[found])
    seen = relative_poses(estimate.camera_from_world[found])
    undefined: dict[str, str] = {}
    fields["rotation_deg"] = _mean_and_sum(_angles(true, seen))
    # Asked in the world, by whose distances float32 rounds.
    stands = not moves(camera_positions(wanted[found]))
    fields |= _translation_errors(
        true[:, :3, 3], seen[:, :3, 3], estimate.scaled, stands, undefined
    )
    fields |= _errors_by_evo(true, seen, stands, undefined)
    if median_depth is None:
        undefined["ate_sim3_median_depths"] = "the median depth is not known"
    elif fields.get("ate_sim3") is not None:
        fields["ate_sim3_median_depths"] = fields["ate_sim3"] / median_depth
    return CameraErrors(**fields, undefined=undefined)


def relative_poses(camera_from_world: ArrayLike) -> Float64:
    """world_from_camera relative to the first camera: W_0 W_i^-1, [N, 4, 4] float64.

    Args:
        camera_from_world: [N, 4, 4] W, rigid; rotations are made orthonormal, since matrices in
            float32 are so to seven digits only.
    """
    matrices = np.asarray(camera_from_world, dtype=np.float64)
    rotation = Rotation.from_matrix(matrices[:, :3, :3]).as_matrix()
    centers = -np.einsum("nji,nj->ni", rotation, matrices[:, :3, 3])
    relative = np.tile(np.eye(4), (len(matrices), 1, 1))
    relative[:, :3, :3] = rotation[0] @ rotation.transpose(0, 2, 1)
    relative[:, :3, 3] = (centers - centers[0]) @ rotation[0].T
    return relative


def _angles(true: Float64, seen: Float64) -> Float64:
    """Degrees between rotations: arccos((tr(R^T R') - 1) / 2), computed without its loss."""
    between = true[:, :3, :3].transpose(0, 2, 1) @ seen[:, :3, :3]
    return np.asarray(np.degrees(Rotation.from_matrix(between).magnitude()))


def _mean_and_sum(errors: Float64) -> MeanAndSum:
    """Of errors [N], of which the first is the origin frame's, 0 by definition."""
    return MeanAndSum(mean=float(errors[1:].mean()), sum=float(errors[1:].sum()))


def _translation_errors(
    true: Float64, seen: Float64, scaled: bool, stands: bool, undefined: dict[str, str]
) -> dict[str, Any]:
    """TransErr in the variants that need no similarity, from centres [N, 3] in frame 0."""
    fields: dict[str, Any] = {}
    if not stands:
        errors = np.linalg.norm(_self_normalised(true) - _self_normalised(seen), axis=1)
        fields["translation_self_normalised"] = _mean_and_sum(errors)
    else:
        undefined["translation_self_normalised"] = "the commanded camera stands in one place"
    if scaled:
        fields["translation_metric"] = _mean_and_sum(np.linalg.norm(true - seen, axis=1))
    else:
        undefined["translation_metric"] = "the estimator knows no scale"
    return fields


def _self_normalised(centers: Float64) -> Float64:
    largest = np.linalg.norm(centers, axis=1).max()
    return np.asarray(centers / largest) if moves(centers) else np.zeros_like(centers)


def _errors_by_evo(
    true: Float64, seen: Float64, stands: bool, undefined: dict[str, str]
) -> dict[str, Any]:
    """ATE and RPE by evo, and TransErr, after a similarity of the estimated centres."""
    metrics, trajectory = _evo()
    relation = metrics.PoseRelation
    if stands:
        why = "the commanded camera stands in one place, which any similarity maps to"
        undefined |= dict.fromkeys(("translation_sim3", "ate_sim3", "rpe_translation"), why)
        similarity = Similarity(1.0, np.eye(3), np.zeros(3))
    else:
        similarity = similarity_from_points(seen[:, :3, 3], true[:, :3, 3])
    aligned = seen.copy()
    aligned[:, :3, :3] = similarity.rotation @ seen[:, :3, :3]
    aligned[:, :3, 3] = similarity(seen[:, :3, 3])
    pair = tuple(trajectory.PosePath3D(poses_se3=list(poses)) for poses in (true, aligned))

    def rmse(metric: Any) -> float:
        metric.process_data(pair)
        return float(metric.get_statistic(metrics.StatisticsType.rmse))

    def step(what: Any) -> Any:
        return metrics.RPE(what, delta=1, delta_unit=metrics.Unit.frames, all_pairs=True)

    fields: dict[str, Any] = {"rpe_rotation_deg": rmse(step(relation.rotation_angle_deg))}
    if "ate_sim3" not in undefined:
        errors = np.linalg.norm(aligned[:, :3, 3] - true[:, :3, 3], axis=1)
        # Behind an alignment of all frames none of them is the origin.
        fields["translation_sim3"] = MeanAndSum(mean=float(errors.mean()), sum=float(errors.sum()))
        fields["ate_sim3"] = rmse(metrics.APE(relation.translation_part))
        fields["rpe_translation"] = rmse(step(relation.translation_part))
    return fields


def _evo() -> tuple[Any, Any]:
    """evo's modules ``metrics`` and ``trajectory``, which print and draw nothing."""
    try:
        from evo.core import metrics, trajectory
    except ImportError as error:
        raise MissingDependencyError(
            "camera errors need the package evo",
            where="evaluate",
            got=str(error),
            fix="install it with: pip install 'worldstereo-cluster[evaluate]'",
        ) from error
    return metrics, trajectory
