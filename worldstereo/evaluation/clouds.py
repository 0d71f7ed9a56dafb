"""Reconstruction: a point cloud against the true one, by distances to nearest neighbours.

Owns precision, recall, F1, the area under F1 over a range of thresholds, and what is done to the
clouds first (docs/evaluation.md): alignment, cropping, thinning. Distances are scipy's KD-tree's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.spatial import KDTree

from worldstereo.errors import MediaError, ParameterError
from worldstereo.evaluation.alignment import Similarity
from worldstereo.evaluation.visibility import seen_by, views_of
from worldstereo.types import Bool, Cameras, Float32

Float64 = NDArray[np.float64]
Given = Literal["scene units", "percent"]

# Percent of the true cloud's bounding box diagonal.
PERCENT_THRESHOLDS = (0.5, 1.0, 2.0, 5.0)
# F1 is integrated over thresholds from 0 to this percentage.
AUC_PERCENT = 5.0


class ThresholdScores(BaseModel):
    """Scores at one threshold.

    Attributes:
        given: what the threshold was given in.
        threshold: in scene units.
        percent_of_diagonal: the same in percent of the true cloud's bounding box diagonal.
        precision: share of our points with a true point nearer than the threshold.
        recall: share of the true points with one of ours nearer than the threshold.
        f1: their harmonic mean, 0 where both are 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    given: Given
    threshold: float
    percent_of_diagonal: float
    precision: float
    recall: float
    f1: float


class CloudScores(BaseModel):
    """One scene's reconstruction.

    Attributes:
        alignment: ``none`` or ``sim3 from cameras``.
        voxel: side of the voxels that both clouds were thinned to, in scene units; 0: not.
        points, true_points: how many were compared.
        outside: how many of our points were left out, since they lie outside the true cloud's
            box.
        diagonal: of the true cloud's bounding box, in scene units.
        at: scores at each threshold, in the order asked for.
        auc: mean of F1 over thresholds from 0 to ``auc_upto``, exact.
        auc_upto: in scene units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alignment: str
    voxel: float
    points: int
    true_points: int
    outside: int
    diagonal: float
    at: tuple[ThresholdScores, ...]
    auc: float
    auc_upto: float


def cloud_scores(
    points: Float32 | Float64,
    truth: Float32 | Float64,
    *,
    thresholds: Sequence[float] = (),
    percents: Sequence[float] = PERCENT_THRESHOLDS,
    auc_percent: float = AUC_PERCENT,
    alignment: Similarity | None = None,
    voxel: float | None = None,
    box_margin_percent: float | None = None,
) -> CloudScores:
    """Compare two clouds.

    Args:
        points: [P, 3], ours; P may be 0, which scores 0.
        truth: [T, 3], T >= 1.
        thresholds: distances in scene units.
        percents: distances in percent of the diagonal of the truth's bounding box.
        auc_percent: upper end of the range of the area under F1, in percent of the diagonal.
        alignment: from our world to the truth's; None: they are one.
        voxel: both clouds are thinned to one point a voxel of this side first, so that how
            densely a place is sampled does not count; None: half the smallest threshold; 0: not.
        box_margin_percent: leave out our points that lie farther than this (in percent of the
            diagonal) outside the true cloud's bounding box, such as a sky that the truth does
            not have; None: all count.

    Raises:
        MediaError: the true cloud has no extent.
        ParameterError: a threshold is not positive, or there is none.
    """
    ours, true = np.asarray(points, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    diagonal = float(np.linalg.norm(np.ptp(true, axis=0))) if len(true) else 0.0
    if not diagonal > 0:
        raise MediaError(
            "the true cloud has no extent",
            where="ground truth",
            got=f"{len(true)} points, bounding box diagonal {diagonal:g}",
            allowed="points at two places at least",
        )
    wanted: list[tuple[Given, float]] = [("scene units", tau) for tau in thresholds]
    wanted += [("percent", percent / 100 * diagonal) for percent in percents]
    _check_thresholds([*(tau for _, tau in wanted), auc_percent])
    side = min(tau for _, tau in wanted) / 2 if voxel is None else voxel
    if alignment is not None:
        ours = alignment(ours)
    every = len(ours)
    if box_margin_percent is not None:
        margin = box_margin_percent / 100 * diagonal
        low, high = true.min(axis=0) - margin, true.max(axis=0) + margin
        ours = ours[((ours >= low) & (ours <= high)).all(axis=1)]
    outside = every - len(ours)
    ours, true = thinned(ours, side), thinned(true, side)
    to_true, to_ours = nearest_distances(ours, true), nearest_distances(true, ours)
    upto = auc_percent / 100 * diagonal
    return CloudScores(
        alignment="none" if alignment is None else "sim3 from cameras",
        voxel=side,
        points=len(ours),
        true_points=len(true),
        outside=outside,
        diagonal=diagonal,
        at=tuple(_at(to_true, to_ours, given, tau, diagonal) for given, tau in wanted),
        auc=f1_area(to_true, to_ours, upto),
        auc_upto=upto,
    )


def nearest_distances(points: Float64, targets: Float64) -> Float64:
    """Distance [P] from each point to the nearest target; infinite where there is no target."""
    if len(targets) == 0:
        return np.full(len(points), np.inf)
    distances, _ = KDTree(targets).query(points)
    return np.asarray(distances, dtype=np.float64).reshape(len(points))


def harmonic_mean(precision: float, recall: float) -> float:
    """F1; 0 where both are 0."""
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def f1_area(to_true: Float64, to_ours: Float64, upto: float) -> float:
    """Mean of F1 over all thresholds from 0 to ``upto``, in 0..1.

    F1 is a step function of the threshold, so the integral is a finite sum: no grid.

    Args:
        to_true: [P] distances of our points.
        to_ours: [T] distances of the true points.
        upto: > 0, in the unit of the distances.
    """
    ours, true = np.sort(to_true), np.sort(to_ours)
    steps = np.unique(np.concatenate([ours, true]))
    edges = np.concatenate([[0.0], steps[(steps > 0) & (steps < upto)], [upto]])
    # Between two edges no distance changes sides: a distance equal to the lower one is inside.
    precision = np.searchsorted(ours, edges[:-1], side="right") / max(len(ours), 1)
    recall = np.searchsorted(true, edges[:-1], side="right") / max(len(true), 1)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float((f1 * np.diff(edges)).sum() / upto)


def thinned(points: Float64, side: float) -> Float64:
    """One point a voxel: the mean of those in it, in the order of the voxels.

    Args:
        points: [P, 3].
        side: of the voxels, which are aligned with the world's axes and origin; 0: all points.
    """
    if side == 0 or len(points) == 0:
        return points
    cells = np.floor(points / side).astype(np.int64)
    # By x, then y, then z; several times faster than np.unique of rows.
    order = np.lexsort(cells.T[::-1])
    cells, points = cells[order], points[order]
    begins = np.flatnonzero(np.r_[True, (cells[1:] != cells[:-1]).any(axis=1)])
    count = np.diff(np.r_[begins, len(points)])
    return np.asarray(np.add.reduceat(points, begins) / count[:, None])


def visible_points(
    points: Float32 | Float64, cameras: Cameras, depths: Float32 | None = None
) -> Bool:
    """Which points at least one camera sees: the crop that recall is fair in.

    Args:
        points: [P, 3] in the cameras' world.
        cameras: F cameras.
        depths: [F, H, W] of their size, so that points behind a surface are not seen; None:
            whatever projects into a picture is.

    Returns:
        [P] bool.
    """
    where = np.asarray(points, dtype=np.float64)
    seen = np.zeros(len(where), dtype=np.bool_)
    nothing = np.zeros((1, cameras.height, cameras.width), dtype=np.float32)
    for index in range(len(cameras)):
        # One view at a time: a large scene has hundreds of them.
        depth = nothing if depths is None else depths[[index]]
        (view,) = views_of(cameras[[index]], depth)
        left = np.flatnonzero(~seen)
        if depths is not None:
            seen[left] = seen_by(view, where[left]).visible
        else:
            seen[left] = view.in_picture(*view.project(where[left]))
    return seen


def _at(
    to_true: Float64, to_ours: Float64, given: Given, tau: float, diagonal: float
) -> ThresholdScores:
    precision = float((to_true < tau).mean()) if len(to_true) else 0.0
    recall = float((to_ours < tau).mean())
    return ThresholdScores(
        given=given,
        threshold=tau,
        percent_of_diagonal=100 * tau / diagonal,
        precision=precision,
        recall=recall,
        f1=harmonic_mean(precision, recall),
    )


def _check_thresholds(thresholds: Sequence[float]) -> None:
    bad = [tau for tau in thresholds if not (np.isfinite(tau) and tau > 0)]
    if bad or len(thresholds) < 2:
        raise ParameterError(
            "distances to judge a cloud by must be positive",
            where="thresholds",
            got=", ".join(f"{tau:g}" for tau in bad) or "none",
            allowed="at least one number > 0",
        )
