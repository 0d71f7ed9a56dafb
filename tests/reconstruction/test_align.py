"""Scale alignment: known factors, robustness, what it is compared with."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import laws
from tests.reconstruction.wall import wall_cameras, wall_clip, wall_cloud
from worldstereo.reconstruction.align import (
    FRAME_LIMIT,
    LARGEST_FACTOR,
    align_clip,
    overlap_ratios,
    robust_scale,
)
from worldstereo.reconstruction.clip_depths import ClipDepths, sample_clip
from worldstereo.reconstruction.voxels import VoxelGrid
from worldstereo.types import Cameras, PointCloud

CENTERS = [[0, 0, 0], [0.2, 0, 0], [0.4, 0.1, 0.3], [0.6, 0.1, 0.5]]


def kept(cameras: Cameras, frames: np.ndarray, depths: np.ndarray, samples=10**6) -> ClipDepths:
    return sample_clip(
        0,
        "view/traj",
        frames,
        cameras,
        depths.astype(np.float32),
        samples=samples,
        far=8.0,
        min_cosine=0.0,
        sobel_threshold=0.35,
    )


def wall(scale: float | np.ndarray = 1.0, yaws=None, samples=10**6) -> ClipDepths:
    cameras = wall_cameras(CENTERS, yaws)
    frames, depths = wall_clip(cameras)
    return kept(cameras, frames, depths * np.reshape(scale, (-1, 1, 1)), samples)


@laws
@given(st.floats(0.05, 20), st.integers(0, 10**6), st.floats(0, 0.3))
def test_a_factor_is_found_among_noise_and_outliers(factor, seed, outliers):
    random = np.random.default_rng(seed)
    ratios = np.log(factor) + random.normal(scale=0.01, size=400)
    wild = random.random(400) < outliers
    ratios[wild] += random.uniform(0.3, 2.0, wild.sum())
    scale, agreement = robust_scale(ratios, 100)
    assert scale == pytest.approx(factor, rel=0.01)
    assert agreement == pytest.approx(1 - wild.mean(), abs=1e-9)


def test_too_few_or_disagreeing_ratios_give_no_factor():
    assert robust_scale(np.zeros(99), 100) is None
    assert robust_scale(np.zeros(0), 0) is None
    assert robust_scale(np.linspace(-2, 2, 500), 100) is None


@pytest.mark.parametrize("samples", [10**6, 600])
def test_a_clip_is_brought_to_the_start_cloud(samples):
    # Every fourth pixel in rows and columns or all: the factor is that of the cloud either way.
    found = align_clip(
        wall(1.3, samples=samples), wall_cloud(step=0.02), None, [], align_frames=False
    )
    assert found.reference == "start"
    assert found.factor == pytest.approx(1 / 1.3, rel=1e-3)
    assert found.frame_factors == (found.factor,) * 4
    assert found.agreement == 1.0
    assert found.overlap > 100


def test_depths_in_the_clouds_unit_keep_their_scale():
    found = align_clip(wall(), wall_cloud(), None, [], align_frames=True)
    assert found.factor == pytest.approx(1, abs=1e-4)


def test_frames_get_factors_of_their_own():
    jitter = np.array([1.1, 0.95, 1.05, 2.0])
    clip = wall(1.3 * jitter)
    found = align_clip(clip, wall_cloud(), None, [], align_frames=True)
    np.testing.assert_allclose(found.frame_factors[:3], 1 / (1.3 * jitter[:3]), rtol=2e-3)
    # The last one is out of bounds: it stays within the limit around the clip's factor.
    assert found.frame_factors[3] == pytest.approx(found.factor / FRAME_LIMIT)


def test_a_frame_without_overlap_takes_the_clips_factor():
    found = align_clip(wall(1.3, yaws=[0, 0, 0, 180]), wall_cloud(), None, [], align_frames=True)
    assert found.frame_factors[3] == found.factor
    assert found.factor == pytest.approx(1 / 1.3, rel=2e-3)


def test_earlier_clips_serve_where_the_start_cloud_does_not():
    grid = VoxelGrid.of(wall_cloud(), 0.02)
    behind = wall_cloud(-2.0)
    for start in (None, behind):
        found = align_clip(wall(0.5), start, grid, [], align_frames=False)
        assert found.reference == "clips"
        assert found.factor == pytest.approx(2, rel=2e-3)


def test_without_overlap_the_factors_before_it_count():
    behind = wall_cloud(-2.0)
    found = align_clip(wall(), behind, None, [0.5, 0.7, 0.6], align_frames=True)
    assert (found.factor, found.reference, found.overlap) == (0.6, "none", 0)
    assert align_clip(wall(), behind, None, [], align_frames=True).factor == 1.0
    assert align_clip(wall(), None, None, [], align_frames=True).factor == 1.0


def test_factors_are_limited():
    found = align_clip(wall(1e-3), wall_cloud(), None, [], align_frames=True)
    assert found.factor == LARGEST_FACTOR


def test_hidden_points_do_not_count():
    # Another wall twice as far; the nearer one hides it from every frame.
    near, far = wall_cloud(2.0, 0.02), wall_cloud(4.0, 0.02)
    both = PointCloud(
        np.concatenate([far.points, near.points]), np.concatenate([far.colors, near.colors])
    )
    ratios = overlap_ratios(wall(), 0, both.points)
    assert len(ratios) > 1000
    np.testing.assert_allclose(ratios, 0, atol=1e-3)


def test_ratios_follow_the_points():
    points = np.array([[0, 0, 4.0], [0, 0, -2], [np.nan, 0, 2], [0.3, 0.2, 1.0]], dtype=np.float32)
    ratios = overlap_ratios(wall(), 0, points)
    np.testing.assert_allclose(ratios, [math.log(2), math.log(0.5)], atol=1e-5)


def test_empty_depths_and_clouds_are_no_error():
    cameras = wall_cameras(CENTERS)
    frames, depths = wall_clip(cameras)
    found = align_clip(kept(cameras, frames, 0 * depths), wall_cloud(), None, [], align_frames=True)
    assert (found.factor, found.reference) == (1.0, "none")
    nothing = wall_cloud()[:0]
    found = align_clip(wall(), nothing, VoxelGrid.of(nothing, 0.1), [], align_frames=True)
    assert (found.factor, found.reference) == (1.0, "none")
