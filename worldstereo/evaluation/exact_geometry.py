"""Camera poses of generated frames, by features of an exact picture whose depth is known.

For scenes of ``worldstereo.synthetic``: the true picture at the commanded camera has an exact
depth, so each of its SIFT features is a point of the world. Where a generated frame shows the
same features, perspective-n-point gives the pose from which it really shows the scene, in the
world's own frame and scale. Features and PnP are pycolmap's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldstereo.evaluation.cameras import PoseEstimate
from worldstereo.evaluation.colmap_log import silent_pycolmap
from worldstereo.evaluation.images import LUMA
from worldstereo.evaluation.visibility import Float64, View, bilinear, corners_at, views_of
from worldstereo.types import Cameras, Float32, UInt8

SEED = 0
# A feature is compared with those no farther away than this share of the picture's diagonal.
SEARCH_RADIUS = 0.25
# Lowe 2004: the nearest descriptor must be nearer than this times the second nearest.
MAX_RATIO = 0.85
# Descriptors of unit length that are farther apart are of different things.
MAX_DISTANCE = 0.8
# Reprojection error of an inlier, as a share of the diagonal, and at least this many pixels.
INLIER_SHARE, INLIER_PIXELS = 0.004, 1.0
# A frame with fewer inliers, in number or as a share of its matches, has no pose.
FEWEST_INLIERS, LEAST_INLIER_SHARE = 12, 0.2
# Depths around a feature that differ by more are no surface to take a point from.
DEPTH_STEP = 0.05
# The library's own threshold is for photographs; generated frames have less contrast.
PEAK_THRESHOLD = 0.002


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of one picture.

    Attributes:
        places: [N, 2] float64 pixels (u, v), centres at +0.5.
        descriptors: [N, 128] float32 of unit length.
    """

    places: Float64
    descriptors: Float32


class ExactGeometry:
    """Finds the poses of frames that should show what exact pictures show.

    Args:
        images: [F, H, W, 3] uint8, exact pictures at the commanded cameras.
        depths: [F, H, W] float32, their exact depth along z, 0 where there is none.
        cameras: the F commanded cameras, intrinsics at the size of the pictures.
    """

    def __init__(self, images: UInt8, depths: Float32, cameras: Cameras) -> None:
        assert images.shape == (*depths.shape, 3), (images.shape, depths.shape)
        self._views = views_of(cameras, depths)
        self._known = [
            _on_surfaces(features, view)
            for features, view in zip(sift_features(images), self._views, strict=True)
        ]

    def estimate(self, frames: UInt8) -> PoseEstimate:
        """The pose of each frame; the same for the same frames.

        Args:
            frames: [F, H, W, 3] uint8, generated for the commanded cameras.

        Returns:
            Poses in the world of the commanded cameras, with its scale. Not found are frames
            with too few inliers.
        """
        assert len(frames) == len(self._views), (frames.shape, len(self._views))
        poses = np.tile(np.eye(4), (len(frames), 1, 1))
        found = np.zeros(len(frames), dtype=np.bool_)
        seen = sift_features(frames)
        for number, ((features, points), view) in enumerate(
            zip(self._known, self._views, strict=True)
        ):
            pose = _pose(features, points, seen[number], view)
            if pose is not None:
                poses[number], found[number] = pose, True
        return PoseEstimate(poses, found, scaled=True, estimator=estimator_name())


def estimator_name() -> str:
    """How reports call this estimator, with its library's version."""
    import pycolmap

    return f"exact-geometry: SIFT and PnP of pycolmap {pycolmap.__version__}"


def sift_features(images: UInt8) -> list[Features]:
    """SIFT features of RGB pictures [F, H, W, 3], on the CPU in one thread."""
    with silent_pycolmap() as pycolmap:
        options = pycolmap.FeatureExtractionOptions()
        options.num_threads = 1
        options.use_gpu = False
        options.sift.peak_threshold = PEAK_THRESHOLD
        # The frame and the exact picture were taken the same way up, so that a feature's own
        # orientation adds nothing but chances to be wrong.
        options.sift.upright = True
        sift = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
        greys = np.round(images @ LUMA).astype(np.uint8)
        extracted = [sift.extract_from_uint8_array(grey) for grey in greys]
        raw = [
            (pycolmap.keypoints_to_matrix(keypoints), descriptors.data)
            for keypoints, descriptors in extracted
        ]
    found = []
    for keypoints, data in raw:
        places = np.asarray(keypoints, dtype=np.float64)[:, :2]
        descriptors = np.asarray(data, dtype=np.float32).reshape(len(places), 128)
        norm = np.linalg.norm(descriptors, axis=1, keepdims=True)
        found.append(Features(places, descriptors / np.maximum(norm, 1e-12)))
    return found


def _on_surfaces(features: Features, view: View) -> tuple[Features, Float64]:
    """The features that lie on one surface, and their points [N, 3] in the world."""
    u, v = features.places.T
    corners, _ = corners_at(view.depth, u, v)
    nearest, farthest = corners.min(axis=0), corners.max(axis=0)
    keep = (nearest > 0) & (farthest <= (1 + DEPTH_STEP) * nearest)
    u, v = u[keep], v[keep]
    inverse = np.divide(1.0, view.depth, out=np.zeros_like(view.depth), where=view.depth > 0)
    depth = 1 / bilinear(inverse[..., None], u, v)[:, 0] if len(u) else np.zeros(0)
    kept = Features(features.places[keep], features.descriptors[keep])
    return kept, view.unproject(u, v, depth)


def matches(first: Features, second: Features, radius: float) -> NDArray[np.intp]:
    """Features of two pictures that are each other's nearest, by descriptor.

    Args:
        first: of one picture.
        second: of the other.
        radius: pixels; features farther apart are not compared.

    Returns:
        [M, 2] indices into ``first`` and ``second``, in the order of ``first``.
    """
    if len(first.places) == 0 or len(second.places) == 0:
        return np.zeros((0, 2), dtype=np.intp)
    similar = (first.descriptors @ second.descriptors.T).astype(np.float64)
    apart = np.linalg.norm(first.places[:, None] - second.places[None], axis=-1)
    distance = np.where(apart <= radius, np.sqrt(np.maximum(2 - 2 * similar, 0)), np.inf)
    best = distance.argmin(axis=1)
    back = distance.argmin(axis=0)
    rows = np.arange(len(best))
    nearest = distance[rows, best]
    distance[rows, best] = np.inf
    second_nearest = distance.min(axis=1)
    # Infinite where no second feature lies within the radius: the first has no rival.
    keep = (back[best] == rows) & (nearest < np.minimum(MAX_DISTANCE, MAX_RATIO * second_nearest))
    return np.stack([rows[keep], best[keep]], axis=1)


def _pose(known: Features, points: Float64, seen: Features, view: View) -> Float64 | None:
    """camera_from_world [4, 4] of a frame's features, or None where they do not say."""
    height, width = view.depth.shape
    diagonal = float(np.hypot(height, width))
    pairs = matches(known, seen, SEARCH_RADIUS * diagonal)
    if len(pairs) < FEWEST_INLIERS:
        return None
    k = view.intrinsics
    with silent_pycolmap() as pycolmap:
        camera = pycolmap.Camera(
            model="PINHOLE",
            width=width,
            height=height,
            params=[k[0, 0], k[1, 1], k[0, 2], k[1, 2]],
        )
        pycolmap.set_random_seed(SEED)
        options = pycolmap.AbsolutePoseEstimationOptions()
        options.ransac.max_error = max(INLIER_PIXELS, INLIER_SHARE * diagonal)
        options.ransac.random_seed = SEED
        options.ransac.num_threads = 1
        result: dict[str, Any] | None = pycolmap.estimate_and_refine_absolute_pose(
            seen.places[pairs[:, 1]], points[pairs[:, 0]], camera, options
        )
    if result is None or result["num_inliers"] < max(
        FEWEST_INLIERS, LEAST_INLIER_SHARE * len(pairs)
    ):
        return None
    pose = np.eye(4)
    pose[:3] = result["cam_from_world"].matrix()
    return pose
