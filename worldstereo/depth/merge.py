"""One depth for all directions from the depths of many views with one centre.

Owns the scales that make the views agree, and which of them a direction's distance comes from.

An estimator sees one view at a time: each depth is right up to a factor of its own. Since all
cameras stand at one place, a direction that two views see has the same distance in both, and what
their distances differ by there is the factor. The logarithms of all factors follow from a robust
least squares over all pairs of views; what is left, their common factor, is taken such that the
median view keeps its depth. So the merged depth is no better a measure of metres than its median
view, and where an estimator bends space a disagreement remains that no factor removes: it is
reported for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import MediaError
from worldstereo.geometry.equirectangular import directions, view_pixels
from worldstereo.types import Cameras, Float32

Float64 = NDArray[np.float64]

# Directions all around at which views are compared: one in every 2 square degrees.
COMPARED = 20_000
# A pair of views that share fewer of them is not compared.
FEWEST_SHARED = 32
# Huber's threshold in robust deviations of the residuals (Huber 1981: 95 % efficient), steps of
# the reweighting, and the deviation below which everything counts as agreeing.
HUBER, REWEIGHTINGS, SMALLEST_DEVIATION = 1.345, 20, 1e-4
# Pull of every log scale to 0, against pair weights near 1: decides where no overlap does.
RIDGE = 1e-9
# A view's say falls with the angle to its optical axis, as the cosine to the power of 2^3.
AXIS_DOUBLINGS = 3
# Views whose logarithms lie within this of the weighted median are blended: nearer than what
# lies before or behind an edge, farther than what estimates of one surface differ by.
AGREEMENT = 0.1
# Directions that are merged at a time; bounds the memory, changes no value.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class PairResidual:
    """How well two views agree after scaling.

    Attributes:
        first, second: which views, by their position.
        shared: directions at which both were compared.
        offset: median of log(first / second) that is left; 0.01 is one percent.
        spread: median of |log(first / second)| that is left.
    """

    first: int
    second: int
    shared: int
    offset: float
    spread: float


@dataclass(frozen=True, eq=False)
class MergedDepth:
    """Depths of views with one centre, brought to one scale; see ``merge_depths``.

    Attributes:
        cameras: of the N views, of one size.
        depths: [N, H, W] float32 along each view's z after scaling, 0 = invalid.
        scales: [N] float64, what each view's depth was multiplied by; their median is 1. Views
            without any depth have 1.
        pairs: what is left between views.
        metric: True where every view's depth came in metres: then the median view's are.
    """

    cameras: Cameras
    depths: Float32
    scales: Float64
    pairs: tuple[PairResidual, ...]
    metric: bool

    def distances(self, towards: Float64) -> Float32:
        """Distance from the common centre in given directions.

        Each view gives the depth of the pixel that the direction lies in. Of these the median
        weighted by cos(angle to the optical axis)^8 says which surface is seen; the views that
        agree with it to 10 % are averaged in the logarithm with the same weights. Nothing is
        averaged across an edge.

        Args:
            towards: [..., 3] unit directions in the world.

        Returns:
            [...] float32, 0 where no view has a depth.
        """
        flat = np.asarray(towards, dtype=np.float64).reshape(-1, 3)
        found = np.zeros(len(flat), dtype=np.float32)
        for i in range(0, len(flat), _CHUNK):
            logs, cosines = _look_up(self.depths, self.cameras, flat[i : i + _CHUNK])
            found[i : i + _CHUNK] = _blend(logs, cosines)
        return found.reshape(np.shape(towards)[:-1])


def merge_depths(depths: Sequence[DepthMap], cameras: Cameras) -> MergedDepth:
    """Bring the depths of views with one centre to one scale.

    For views i and j, m_ij is the median of log(distance_i / distance_j) over the directions that
    both see, w_ij their number as a share of the largest. The log scales s minimise
    sum w_ij huber(s_i - s_j + m_ij), by iteratively reweighted least squares; then their median
    is subtracted from them.

    Args:
        depths: of the N views, as estimated; 0 = invalid. Maps without any depth are allowed.
        cameras: the N views'; their common centre is what distances are measured from.

    Returns:
        The views on one scale. The same input gives the same numbers.

    Raises:
        MediaError: no view has any depth, or a map is not of its camera's size.
    """
    assert len(depths) == len(cameras), (len(depths), len(cameras))
    stacked = _stack(depths, cameras)
    usable = (stacked > 0).any(axis=(1, 2))
    if not usable.any():
        raise MediaError(
            "no view of the panorama has any depth",
            where="depth",
            got=f"{len(depths)} views, all invalid",
            allowed="a depth for part of the sphere at least",
        )
    logs, _ = _look_up(stacked, cameras, _all_around(COMPARED))
    compared = _compare(logs)
    scales = np.zeros(len(depths))
    if len(compared):
        first, second, shared, medians = compared.T
        pairs = np.stack([first, second]).astype(np.intp)
        scales = _solve(pairs, medians, shared / shared.max(), len(depths))
    scales = np.where(usable, scales - np.median(scales[usable]), 0.0)
    return MergedDepth(
        cameras=cameras,
        depths=stacked * np.exp(scales)[:, None, None].astype(np.float32),
        scales=np.exp(scales),
        pairs=_residuals(logs + scales[:, None], compared),
        metric=all(depth.metric for depth in depths),
    )


def _stack(depths: Sequence[DepthMap], cameras: Cameras) -> Float32:
    size = (cameras.height, cameras.width)
    for index, depth in enumerate(depths):
        if depth.depth.shape != size:
            raise MediaError(
                "the depth map is not of its view's size",
                where=f"view {index}",
                got=f"{list(depth.depth.shape)}",
                allowed=f"{list(size)}",
            )
    stacked = np.stack([depth.depth for depth in depths]).astype(np.float32)
    return np.where(np.isfinite(stacked) & (stacked > 0), stacked, np.float32(0))


def _all_around(count: int) -> Float64:
    """``count`` directions [count, 3] spread evenly over the sphere (a Fibonacci lattice)."""
    index = np.arange(count)
    golden_angle = np.pi * (3 - np.sqrt(5))
    return directions(np.arcsin(1 - (2 * index + 1) / count), index * golden_angle)


def _look_up(depths: Float32, cameras: Cameras, towards: Float64) -> tuple[Float64, Float64]:
    """Each view's log distance and cosine [N, M] in directions [M, 3]; NaN where it has none."""
    logs = np.full((len(cameras), len(towards)), np.nan)
    cosines = np.zeros((len(cameras), len(towards)))
    for view in range(len(cameras)):
        pixel, cosine, seen = view_pixels(towards, cameras[[view]])
        depth = np.where(seen, depths[view].reshape(-1)[pixel], 0).astype(np.float64)
        valid = depth > 0
        # As if the pixel's surface faced the camera: the depth along z is that of its centre.
        logs[view, valid] = np.log(depth[valid] / cosine[valid])
        cosines[view, valid] = cosine[valid]
    return logs, cosines


def _compare(logs: Float64) -> Float64:
    """Rows (i, j, shared directions, median of log_i - log_j) of the pairs that overlap."""
    rows = []
    valid = np.isfinite(logs)
    for i in range(len(logs)):
        for j in range(i + 1, len(logs)):
            both = valid[i] & valid[j]
            if both.sum() >= FEWEST_SHARED:
                rows.append((i, j, both.sum(), np.median(logs[i, both] - logs[j, both])))
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _solve(pairs: NDArray[np.intp], medians: Float64, weights: Float64, views: int) -> Float64:
    """Log scales [views] that explain the pairs' medians: s_j - s_i = m_ij."""
    first, second = pairs
    scales: Float64 = np.zeros(views)
    trust = weights
    for _ in range(REWEIGHTINGS):
        normal = RIDGE * np.eye(views)
        np.add.at(normal, (first, first), trust)
        np.add.at(normal, (second, second), trust)
        np.add.at(normal, (first, second), -trust)
        np.add.at(normal, (second, first), -trust)
        right = np.zeros(views)
        np.add.at(right, second, trust * medians)
        np.add.at(right, first, -trust * medians)
        scales = np.asarray(np.linalg.solve(normal, right), dtype=np.float64)
        left = np.abs(scales[first] - scales[second] + medians)
        # 1.4826: from the median of the absolute residuals to a normal distribution's deviation.
        deviation = max(1.4826 * float(np.median(left)), SMALLEST_DEVIATION)
        trust = weights * np.minimum(1, HUBER * deviation / np.maximum(left, 1e-300))
    return scales


def _residuals(logs: Float64, compared: Float64) -> tuple[PairResidual, ...]:
    residuals = []
    for i, j, shared, _ in compared:
        difference = logs[int(i)] - logs[int(j)]
        difference = difference[np.isfinite(difference)]
        residuals.append(
            PairResidual(
                first=int(i),
                second=int(j),
                shared=int(shared),
                offset=float(np.median(difference)),
                spread=float(np.median(np.abs(difference))),
            )
        )
    return tuple(residuals)


def _blend(logs: Float64, cosines: Float64) -> Float32:
    """Distances [M] float32 from the views' logs and cosines [N, M]; 0 where there are none."""
    # NaN comes last: the rows that are left hold all values, a few of many views.
    count = max(int(np.isfinite(logs).sum(axis=0).max(initial=0)), 1)
    order = np.argsort(logs, axis=0, kind="stable")[:count]
    logs = np.take_along_axis(logs, order, axis=0)
    valid = np.isfinite(logs)
    logs = np.where(valid, logs, 0)
    weights = np.where(valid, np.maximum(np.take_along_axis(cosines, order, axis=0), 0), 0)
    for _ in range(AXIS_DOUBLINGS):
        weights *= weights
    summed = np.cumsum(weights, axis=0)
    seen = summed[-1] > 0
    middle = np.argmax(summed >= summed[-1] / 2, axis=0)
    median = np.take_along_axis(logs, middle[None], axis=0)[0]
    weights = np.where(np.abs(logs - median) <= AGREEMENT, weights, 0)
    mean = (weights * logs).sum(axis=0) / np.where(seen, weights.sum(axis=0), 1)
    return np.where(seen, np.exp(mean), 0).astype(np.float32)
