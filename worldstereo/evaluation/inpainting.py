"""What anybody can paint into the holes of a point render: the baselines to be beaten.

Each fills every frame by itself and leaves the covered pixels as they are. Nothing is learnt.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from worldstereo.types import Bool, UInt8

Float64 = NDArray[np.float64]
Fill = Callable[[UInt8, Bool], UInt8]


def fill_mean(frames: UInt8, holes: Bool) -> UInt8:
    """Paint the mean colour of a frame's covered pixels.

    Args:
        frames: [F, H, W, 3] uint8.
        holes: [F, H, W] bool.

    Returns:
        [F, H, W, 3] uint8; a frame without a covered pixel stays as it is. So with all fills.
    """
    return _each(frames, holes, lambda frame, hole: frame[~hole].mean(axis=0))


def fill_nearest(frames: UInt8, holes: Bool) -> UInt8:
    """Paint the colour of the nearest covered pixel; arguments as of ``fill_mean``."""

    def colors(frame: Float64, hole: Bool) -> Float64:
        rows, columns = ndimage.distance_transform_edt(
            hole, return_distances=False, return_indices=True
        )
        return np.asarray(frame[rows[hole], columns[hole]])

    return _each(frames, holes, colors)


def fill_pull_push(frames: UInt8, holes: Bool) -> UInt8:
    """Paint a smooth blend of what is around, by a pyramid; arguments as of ``fill_mean``.

    Pull: each coarser level holds the means of its four pixels' known ones. Push: what is
    unknown takes the coarser level's colour, interpolated (Gortler et al. 1996, section 3.4, with
    weights of 0 and 1).
    """
    return _each(frames, holes, lambda frame, hole: _pull_push(frame, ~hole)[hole])


FILLS: dict[str, Fill] = {
    "mean colour": fill_mean,
    "nearest pixel": fill_nearest,
    "pull-push": fill_pull_push,
}


def _each(frames: UInt8, holes: Bool, colors: Callable[[Float64, Bool], Float64]) -> UInt8:
    filled = frames.copy()
    for frame, hole in zip(filled, holes, strict=True):
        if hole.any() and not hole.all():
            frame[hole] = np.round(colors(frame.astype(np.float64), hole)).astype(np.uint8)
    return filled


def _pull_push(frame: Float64, known: Bool) -> Float64:
    height, width = known.shape
    if known.all() or max(height, width) == 1:
        return frame
    even = ((0, height % 2), (0, width % 2))
    weights = np.pad(known, even).astype(np.float64)
    weighted = np.pad(frame, (*even, (0, 0))) * weights[..., None]
    total = _quads(weights)
    coarse = _quads(weighted) / np.maximum(total, 1)[..., None]
    coarse = _pull_push(coarse, total > 0)
    return np.where(known[..., None], frame, _doubled(coarse)[:height, :width])


def _quads(values: Float64) -> Float64:
    """Sums of 2 x 2 pixels."""
    return np.asarray(values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2])


def _doubled(frame: Float64) -> Float64:
    """Twice as large, bilinear about pixel centres; constant beyond the border."""
    for axis in (0, 1):
        border = [(0, 0)] * frame.ndim
        border[axis] = (1, 1)
        padded, last = np.pad(frame, border, mode="edge"), frame.shape[axis]
        before, after = (padded.take(range(i, i + last), axis) for i in (0, 2))
        pair = np.stack([0.75 * frame + 0.25 * before, 0.75 * frame + 0.25 * after], axis + 1)
        shape = list(frame.shape)
        shape[axis] *= 2
        frame = pair.reshape(shape)
    return frame
