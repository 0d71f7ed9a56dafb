"""Points that are far from all others.

Owns statistical outlier removal (Rusu et al., "Towards 3D point cloud based object maps for
household environments", 2008) on scipy's KD-tree.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from worldstereo.errors import ParameterError
from worldstereo.types import Bool, Float32

# Spec "Reconstruction".
NEIGHBOURS, DEVIATIONS = 20, 2.0
# Points that are asked for at a time; bounds the memory, changes no value.
CHUNK = 1 << 17


def statistical_inliers(
    points: Float32, neighbours: int = NEIGHBOURS, deviations: float = DEVIATIONS
) -> Bool:
    """Which points lie as close to their neighbours as the others do to theirs.

    A point is an outlier where its mean distance to its nearest neighbours exceeds the mean of
    these means over the cloud by more than so many of their standard deviations (population).

    Args:
        points: [P, 3], finite.
        neighbours: nearest other points that count, >= 1.
        deviations: standard deviations, >= 0.

    Returns:
        [P] True for inliers; all True where there are no more than ``neighbours`` points, which
        are too few to tell.

    Raises:
        ParameterError: a number is out of its range.
    """
    if neighbours < 1 or not deviations >= 0:
        raise ParameterError(
            "outlier removal needs neighbours and a limit",
            where="neighbours, deviations",
            got=f"{neighbours}, {deviations}",
            allowed=">= 1, >= 0",
        )
    if len(points) <= neighbours:
        return np.ones(len(points), dtype=np.bool_)
    places = points.astype(np.float64)
    tree, mean = cKDTree(places), np.empty(len(places))
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        distances, _ = tree.query(places[part], k=neighbours + 1)
        # The nearest is the point itself.
        mean[part] = np.asarray(distances)[:, 1:].mean(axis=1)
    # All alike up to rounding: no spread, no outliers.
    limit = mean.mean() * (1 + 1e-9) + deviations * mean.std()
    return np.asarray(mean <= limit)
