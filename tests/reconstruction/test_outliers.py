"""Outlier removal: planted outliers, a slow twin, edge cases."""

import numpy as np
import pytest

from worldstereo.errors import ParameterError
from worldstereo.reconstruction import outliers
from worldstereo.reconstruction.outliers import statistical_inliers


def surface(count: int, seed: int = 0) -> np.ndarray:
    """Points on a square of side 2 at z = 2."""
    points = np.random.default_rng(seed).uniform(-1, 1, (count, 3))
    points[:, 2] = 2 + 0.002 * points[:, 2]
    return points.astype(np.float32)


def test_planted_outliers_go_and_the_surface_stays():
    # At least one unit off the square: nearer ones may hide behind the spread of the far ones.
    random = np.random.default_rng(1)
    planted = random.uniform(-3, 3, (200, 3)).astype(np.float32)
    planted[:, 2] += np.where(planted[:, 2] > 0, 3.0, 1.0)
    points = np.concatenate([surface(8000), planted])
    inlier = statistical_inliers(points)
    assert not inlier[8000:].any()
    assert inlier[:8000].mean() > 0.98


def test_the_limit_is_mean_plus_two_deviations():
    points = np.random.default_rng(2).normal(size=(150, 3)).astype(np.float32)
    apart = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=-1)
    mean = np.sort(apart, axis=1)[:, 1:21].mean(axis=1)
    expected = mean <= mean.mean() + 2 * mean.std()
    assert 0 < (~expected).sum() < 20
    np.testing.assert_array_equal(statistical_inliers(points), expected)


def test_points_asked_for_in_parts_are_judged_as_one_cloud(monkeypatch):
    points = np.random.default_rng(3).normal(size=(500, 3)).astype(np.float32)
    whole = statistical_inliers(points)
    assert not whole.all()
    monkeypatch.setattr(outliers, "CHUNK", 7)
    np.testing.assert_array_equal(statistical_inliers(points), whole)


def test_even_spacing_has_no_outliers():
    ring = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    circle = np.stack([np.cos(ring), np.sin(ring), 0 * ring], axis=-1).astype(np.float32)
    assert statistical_inliers(circle, neighbours=2, deviations=4.0).all()
    assert statistical_inliers(np.zeros((100, 3), dtype=np.float32)).all()


@pytest.mark.parametrize("count", [0, 1, 20])
def test_few_points_are_left_alone(count):
    assert statistical_inliers(surface(count)).tolist() == [True] * count


@pytest.mark.parametrize("arguments", [{"neighbours": 0}, {"deviations": -0.1}])
def test_limits_are_checked(arguments):
    with pytest.raises(ParameterError, match="neighbours, deviations"):
        statistical_inliers(surface(30), **arguments)
