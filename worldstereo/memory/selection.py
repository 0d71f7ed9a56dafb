"""Which few of many retrieved frames a clip is given: quality, features, farthest-point sampling.

Owns the reduction of a trajectory's retrieved rows to ``max_reference`` of them. Image features
come from features.py, retrieval among the chosen frames is made by bank.py. Nothing here draws
random numbers; all is float64 unless the inputs decide otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from worldstereo.types import Float32, UInt8

Float64 = NDArray[np.float64]
Real = NDArray[np.floating[Any]]

CAMERA_WEIGHT, IMAGE_WEIGHT = 0.3, 0.7
# How much a frame's quality counts beside its distance from the frames already chosen.
QUALITY_BIAS = 0.1
EPSILON = 1e-8
# OpenCV's integer weights of BGR2GRAY (their sum is 2^15), in its order of channels.
GRAY_WEIGHTS, GRAY_SHIFT = (3735, 19235, 9798), 15


def gray(frame: UInt8) -> UInt8:
    """Grey values as the published program takes them: OpenCV's BGR weights on an RGB array.

    Args:
        frame: [height, width, 3] uint8, RGB; the weights of blue and red are swapped on purpose.

    Returns:
        [height, width] uint8, to the digit what cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) returns.
    """
    weighted = frame.astype(np.int32) @ np.array(GRAY_WEIGHTS, dtype=np.int32)
    return ((weighted + (1 << (GRAY_SHIFT - 1))) >> GRAY_SHIFT).astype(np.uint8)


def quality(frame: UInt8) -> float:
    """How sharp, rich and contrasted a frame is (spec of the memory bank).

    0.4 ln(1 + variance of the Laplacian) + 0.3 x entropy of the grey histogram in bits
    + 0.3 x standard deviation of the grey values / 128.

    Args:
        frame: [height, width, 3] uint8, RGB.
    """
    values = gray(frame)
    # mode "mirror" is OpenCV's default border: reflected without repeating the edge.
    sharpness = np.log1p(ndimage.laplace(values.astype(np.float64), mode="mirror").var())
    shares = np.bincount(values.ravel(), minlength=256) / values.size
    shares = shares[shares > 0]
    entropy = -(shares * np.log2(shares)).sum()
    return float(0.4 * sharpness + 0.3 * entropy + 0.3 * values.std() / 128)


def camera_features(camera_from_world: Float32) -> Float64:
    """Where each camera stands and looks, as columns for the sampling.

    Args:
        camera_from_world: [N, 4, 4].

    Returns:
        [N, 7]: centre x, y, z in the world, then the w2c rotation as a quaternion x, y, z, w
        with w >= 0.
    """
    matrices = camera_from_world.astype(np.float64)
    rotation, translation = matrices[:, :3, :3], matrices[:, :3, 3]
    centers = -np.einsum("nji,nj->ni", rotation, translation)
    quaternions = Rotation.from_matrix(rotation).as_quat(canonical=True)
    return np.concatenate([centers, quaternions], axis=1)


def normalised(features: Real) -> Real:
    """Columns with zero mean and unit population deviation over the rows [N, D]."""
    result: Real = (features - features.mean(axis=0)) / (features.std(axis=0) + EPSILON)
    return result


def farthest_points(
    features: Real, qualities: Real, count: int, *, bias: float = QUALITY_BIAS
) -> list[int]:
    """Rows that lie far from each other, the better ones preferred a little.

    Starts at the row nearest to the mean row (less ``bias`` x quality), then takes the row
    whose distance to the nearest chosen one, times 1 + bias (quality - 0.5), is largest.

    Args:
        features: [N, D].
        qualities: [N], any scale: they are scaled to [0, 1].
        count: how many rows; at most N.
        bias: how much quality counts.

    Returns:
        ``count`` distinct rows in the order chosen; the first of equals wins.
    """
    assert 0 < count <= len(features), (count, len(features))
    span = qualities.max() - qualities.min()
    scaled = (qualities - qualities.min()) / (span + EPSILON)
    center = features.mean(axis=0)
    chosen = [int(np.argmax(bias * scaled - np.linalg.norm(features - center, axis=1)))]
    distances = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < count:
        values = distances * (1 + bias * (scaled - 0.5))
        values[chosen] = -np.inf
        chosen.append(int(np.argmax(values)))
        newest = np.linalg.norm(features - features[chosen[-1]], axis=1)
        distances = np.minimum(distances, newest)
    return chosen


def select_rows(
    camera_from_world: Float32, image_features: Float32, qualities: Real, count: int
) -> list[int]:
    """Choose ``count`` of N retrieved rows by cameras, images and quality.

    Args:
        camera_from_world: [N, 4, 4] of the retrieved frames; a frame used twice is two rows.
        image_features: [N, D].
        qualities: [N], from ``quality``.
        count: at most N.

    Returns:
        Rows in the order chosen.
    """
    features = np.concatenate(
        [
            CAMERA_WEIGHT * normalised(camera_features(camera_from_world)),
            IMAGE_WEIGHT * normalised(image_features),
        ],
        axis=1,
    )
    return farthest_points(features, qualities, count)
