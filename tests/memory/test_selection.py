"""The reduction: quality, features, farthest points."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.memory.scenes import random_cameras
from worldstereo.memory.selection import (
    camera_features,
    farthest_points,
    gray,
    normalised,
    quality,
    select_rows,
)

seeds = st.integers(0, 2**32 - 1)


def slow_quality(frame: np.ndarray) -> float:
    """Pixel by pixel, as the specification reads."""
    height, width = frame.shape[:2]
    values = [
        [(3735 * int(r) + 19235 * int(g) + 9798 * int(b) + 16384) // 32768 for r, g, b in row]
        for row in frame
    ]

    def at(y: int, x: int) -> int:
        y = -y if y < 0 else 2 * height - 2 - y if y >= height else y
        x = -x if x < 0 else 2 * width - 2 - x if x >= width else x
        return values[y][x]

    flat, edges, counts = [], [], [0] * 256
    for y in range(height):
        for x in range(width):
            flat.append(at(y, x))
            counts[at(y, x)] += 1
            around = at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1)
            edges.append(around - 4 * at(y, x))
    entropy = -sum(n / len(flat) * math.log2(n / len(flat)) for n in counts if n)
    return 0.4 * math.log(1 + np.var(edges)) + 0.3 * entropy + 0.3 * math.sqrt(np.var(flat)) / 128


@given(seeds, st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_quality_equals_a_slow_loop_over_pixels(seed: int, height: int, width: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert quality(frame) == pytest.approx(slow_quality(frame), abs=1e-9)


def test_gray_weighs_red_as_opencv_weighs_blue() -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    assert gray(colors).tolist() == [[29, 150, 76, 255]]


def test_a_flat_frame_has_no_quality() -> None:
    assert quality(np.full((8, 8, 3), 77, dtype=np.uint8)) == 0.0


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_camera_features_are_centres_and_unit_quaternions(seed: int) -> None:
    cameras = random_cameras(np.random.default_rng(seed), 6)
    features = camera_features(cameras.camera_from_world)
    inverse = np.linalg.inv(cameras.camera_from_world.astype(np.float64))
    np.testing.assert_allclose(features[:, :3], inverse[:, :3, 3], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features[:, 3:], axis=1), 1, atol=1e-12)
    assert (features[:, 6] >= 0).all()


def test_normalised_columns_have_no_mean_and_unit_deviation() -> None:
    values = normalised(np.random.default_rng(0).normal(3, 5, (50, 4)))
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-6)
    assert (normalised(np.ones((5, 2))) == 0).all()


def slow_farthest_points(features: np.ndarray, qualities: np.ndarray, count: int) -> list[int]:
    """Every distance anew, one row at a time."""
    spread = qualities.max() - qualities.min() + 1e-8
    scaled = [(value - qualities.min()) / spread for value in qualities]
    center = features.mean(axis=0)
    rows = range(len(features))
    chosen = [max(rows, key=lambda i: 0.1 * scaled[i] - np.linalg.norm(features[i] - center))]
    while len(chosen) < count:
        left = [i for i in rows if i not in chosen]
        chosen.append(
            max(
                left,
                key=lambda i: (
                    min(np.linalg.norm(features[i] - features[j]) for j in chosen)
                    * (1 + 0.1 * (scaled[i] - 0.5))
                ),
            )
        )
    return chosen


@given(seeds, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_farthest_points_equal_a_slow_search(seed: int, n: int, count: int) -> None:
    random = np.random.default_rng(seed)
    features, qualities = random.normal(0, 1, (n, 3)), random.normal(5, 1, n)
    count = min(count, n)
    assert farthest_points(features, qualities, count) == (
        slow_farthest_points(features, qualities, count)
    )


@given(seeds, st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_rows_are_chosen_once_and_the_first_of_equal_rows_wins(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    cameras = random_cameras(random, 20)
    features = random.normal(0, 1, (20, 6)).astype(np.float32)
    rows = select_rows(cameras.camera_from_world, features, random.normal(5, 1, 20), count)
    assert len(set(rows)) == len(rows) == count
    same = np.zeros((4, 2))
    assert farthest_points(same, np.ones(4), 4) == [0, 1, 2, 3]
