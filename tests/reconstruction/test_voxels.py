"""Voxel thinning: laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import laws
from worldstereo.errors import ParameterError
from worldstereo.reconstruction.voxels import VoxelGrid, empty_cloud, thin
from worldstereo.types import PointCloud

VOXELS = st.sampled_from([0.01, 0.0625, 0.1, 1 / 3, 1.0, 7.0])


def random_cloud(seed: int, count: int, spread: float = 3.0) -> PointCloud:
    random = np.random.default_rng(seed)
    points = random.normal(scale=spread, size=(count, 3)).astype(np.float32)
    # Some on the voxels' sides, some twice.
    points[::3] = np.round(points[::3])
    points[count // 2 :] = points[: count - count // 2][::-1]
    return PointCloud(points, random.integers(0, 256, (count, 3), dtype=np.uint8))


def places(cloud: PointCloud, voxel: float) -> np.ndarray:
    return np.floor(cloud.points.astype(np.float64) / voxel).astype(np.int64)


@laws
@given(st.integers(0, 10**6), st.integers(0, 60), VOXELS)
def test_one_point_a_voxel_and_none_elsewhere(seed, count, voxel):
    cloud = random_cloud(seed, count)
    thinned = thin(cloud, voxel)
    kept = [tuple(place) for place in places(thinned, voxel)]
    assert len(set(kept)) == len(kept)
    assert set(kept) == {tuple(place) for place in places(cloud, voxel)}
    assert kept == sorted(kept)


@laws
@given(st.integers(0, 10**6), st.integers(1, 60), VOXELS)
def test_every_point_keeps_one_within_its_voxel(seed, count, voxel):
    cloud = random_cloud(seed, count)
    thinned = thin(cloud, voxel)
    apart = np.linalg.norm(cloud.points[:, None] - thinned.points[None], axis=-1).min(axis=1)
    assert apart.max() <= math.sqrt(3) * voxel * (1 + 1e-5)


@laws
@given(st.integers(0, 10**6), st.integers(0, 60), VOXELS)
def test_thinning_twice_is_thinning_once(seed, count, voxel):
    once = thin(random_cloud(seed, count), voxel)
    twice = thin(once, voxel)
    assert twice.points.tobytes() == once.points.tobytes()
    assert twice.colors.tobytes() == once.colors.tobytes()


@laws
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60), VOXELS)
def test_merged_grids_hold_all_points(seed, first, second, voxel):
    clouds = [random_cloud(seed, first), random_cloud(seed + 1, second)]
    merged = VoxelGrid.of(clouds[0], voxel).merged(VoxelGrid.of(clouds[1], voxel))
    whole = VoxelGrid.of(
        PointCloud(
            np.concatenate([cloud.points for cloud in clouds]),
            np.concatenate([cloud.colors for cloud in clouds]),
        ),
        voxel,
    )
    np.testing.assert_array_equal(merged.index, whole.index)
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_allclose(merged.points, whole.points, atol=1e-9)
    np.testing.assert_array_equal(merged.cloud.colors, whole.cloud.colors)


def test_points_and_colors_are_means():
    points = np.array([[0.1, 0.1, 0.1], [0.3, 0.5, 0.9], [1.5, 0, 0]], dtype=np.float32)
    colors = np.array([[0, 10, 20], [1, 20, 40], [7, 8, 9]], dtype=np.uint8)
    thinned = thin(PointCloud(points, colors), 1.0)
    np.testing.assert_allclose(thinned.points, [[0.2, 0.3, 0.5], [1.5, 0, 0]], atol=1e-7)
    # Halves are rounded up.
    np.testing.assert_array_equal(thinned.colors, [[1, 15, 30], [7, 8, 9]])


def test_far_apart_points_are_sorted_all_the_same():
    points = np.array([[1e30, 0, 0], [0, 3, 0], [0, -3, 5], [-1e30, 1, 0]], dtype=np.float32)
    thinned = thin(PointCloud(points, np.zeros((4, 3), dtype=np.uint8)), 0.5)
    np.testing.assert_array_equal(thinned.points, points[[3, 2, 1, 0]])


def test_points_that_are_not_finite_are_left_out():
    cloud = random_cloud(0, 10)
    cloud.points[3, 1] = np.nan
    cloud.points[7, 0] = np.inf
    thinned = thin(cloud, 1e-4)
    keep = np.isfinite(cloud.points).all(axis=1)
    assert len(thinned) == len(np.unique(cloud.points[keep], axis=0))


def test_nothing_becomes_nothing():
    assert len(thin(empty_cloud(), 0.1)) == 0


@pytest.mark.parametrize("voxel", [0.0, -1.0, math.nan, math.inf])
def test_an_edge_length_is_positive(voxel):
    with pytest.raises(ParameterError, match="edge length"):
        thin(random_cloud(0, 5), voxel)
