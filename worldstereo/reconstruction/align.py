"""The factor that brings a clip's depths into the unit of a cloud.

Owns the comparison of a clip's depths with a reference cloud and the robust estimate of their
ratio. A depth map's scale acts along the rays of its own camera: factors belong to frames, and
a clip's factor is that of all its frames together.

The estimate is the median of log ratios over the visible overlap, after leaving out what lies
farther from the median than three robust standard deviations (1.4826 x the median absolute
deviation; Rousseeuw and Croux, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worldstereo.reconstruction.clip_depths import ClipDepths
from worldstereo.reconstruction.voxels import VoxelGrid
from worldstereo.types import Float32, PointCloud

Float64 = NDArray[np.float64]

# Columns of the coarse z-buffer that hides points behind others, and how much farther than the
# nearest point of its cell a point may lie to count as visible.
ZBUFFER_COLUMNS, ZBUFFER_SLACK = 64, 1.1
# At most this many reference points, evenly spread over the list, are compared.
MOST_REFERENCE_POINTS = 100_000
# Ratios count up to INLIER_DEVIATIONS robust deviations, but at least INLIER_FLOOR (in log), from
# their median.
INLIER_DEVIATIONS, INLIER_FLOOR = 3.0, 0.01
# An estimate stands when so many points were compared - a number, and a share of the samples -
# and at least MIN_AGREEMENT of the ratios lie within AGREEMENT of the estimate.
LEAST_OVERLAP, LEAST_OVERLAP_SHARE = 100, 0.005
AGREEMENT, MIN_AGREEMENT = 0.1, 0.5
# Limits of a clip's factor, and of a frame's factor relative to its clip's.
SMALLEST_FACTOR, LARGEST_FACTOR = 1 / 32, 32.0
FRAME_LIMIT = 1.25


@dataclass(frozen=True)
class Alignment:
    """How a clip was brought into the cloud's unit.

    Attributes:
        factor: of the clip's depths.
        frame_factors: of each frame's; the clip's where the frame shows too little overlap.
        reference: what it was compared with: the start cloud, the clips before it, or nothing
            (too little overlap: the median factor of the clips before it, 1 for the first; or
            no alignment was asked for: 1).
        overlap: points that were compared.
        agreement: share of them within 10 % of the factor.
    """

    factor: float
    frame_factors: tuple[float, ...]
    reference: Literal["start", "clips", "none"] = "none"
    overlap: int = 0
    agreement: float = 0.0


def unaligned(clip: ClipDepths, factor: float = 1.0) -> Alignment:
    """The same factor for all frames, compared with nothing."""
    return Alignment(factor, (factor,) * len(clip))


def align_clip(
    clip: ClipDepths,
    start: PointCloud | None,
    earlier: VoxelGrid | None,
    earlier_factors: Sequence[float],
    *,
    align_frames: bool,
) -> Alignment:
    """Align a clip to the start cloud, or else to the clips before it.

    Args:
        clip: the clip.
        start: cloud of the start image, in the cameras' unit.
        earlier: the clips before this one in canonical order, aligned.
        earlier_factors: their factors.
        align_frames: whether frames with enough overlap get factors of their own.
    """
    if start is not None:
        found = _aligned(clip, start.points, "start", align_frames=align_frames)
        if found is not None:
            return found
    if earlier is not None:
        found = _aligned(clip, earlier.cloud.points, "clips", align_frames=align_frames)
        if found is not None:
            return found
    return unaligned(clip, float(np.median(earlier_factors)) if len(earlier_factors) else 1.0)


def overlap_ratios(clip: ClipDepths, frame: int, points: Float32) -> Float64:
    """Log of (depth of a reference point / depth of the frame at its pixel), where both are.

    Reference points that others hide from the frame do not count: each must be the nearest, but
    for a tenth of the depth, of the points in its cell of a coarse grid.

    Args:
        clip: the clip.
        frame: number of its frame.
        points: [P, 3] of the reference cloud.

    Returns:
        [R] in the order of the points.
    """
    seen = clip.seen(frame, points)
    cell = max(clip.cameras.width / ZBUFFER_COLUMNS, 1.0)
    columns = int(clip.cameras.width / cell) + 1
    place = (seen.v / cell).astype(np.intp) * columns + (seen.u / cell).astype(np.intp)
    nearest = np.full((int(clip.cameras.height / cell) + 1) * columns, np.inf)
    np.minimum.at(nearest, place, seen.z)
    visible = (seen.z <= ZBUFFER_SLACK * nearest[place]) & (seen.depth > 0)
    return np.asarray(np.log(seen.z[visible] / seen.depth[visible]))


def robust_scale(ratios: Float64, least: int) -> tuple[float, float] | None:
    """The factor that most log ratios agree on.

    Args:
        ratios: [R] log ratios.
        least: fewer ratios than this tell nothing.

    Returns:
        The factor, and the share of the ratios within 10 % of it; None where the ratios are too
        few or fewer than half of them agree.
    """
    if len(ratios) < max(least, 1):
        return None
    middle = np.median(ratios)
    distance = np.abs(ratios - middle)
    limit = max(INLIER_DEVIATIONS * 1.4826 * float(np.median(distance)), INLIER_FLOOR)
    scale = float(np.median(ratios[distance <= limit]))
    agreement = float((np.abs(ratios - scale) <= np.log1p(AGREEMENT)).mean())
    return (float(np.exp(scale)), agreement) if agreement >= MIN_AGREEMENT else None


def _aligned(
    clip: ClipDepths,
    points: Float32,
    name: Literal["start", "clips"],
    *,
    align_frames: bool,
) -> Alignment | None:
    points = points[:: max(1, -(-len(points) // MOST_REFERENCE_POINTS))]
    ratios = [overlap_ratios(clip, frame, points) for frame in range(len(clip))]
    every = np.concatenate(ratios)
    samples = int((clip.depths > 0).sum())
    found = robust_scale(every, max(LEAST_OVERLAP, int(LEAST_OVERLAP_SHARE * samples)))
    if found is None:
        return None
    factor = min(max(found[0], SMALLEST_FACTOR), LARGEST_FACTOR)
    factors = [factor] * len(clip)
    if align_frames:
        for frame, own in enumerate(ratios):
            valid = int((clip.depths[frame] > 0).sum())
            single = robust_scale(own, max(LEAST_OVERLAP, int(LEAST_OVERLAP_SHARE * valid)))
            if single is not None:
                factors[frame] = min(max(single[0], factor / FRAME_LIMIT), factor * FRAME_LIMIT)
    return Alignment(factor, tuple(factors), name, len(every), found[1])
