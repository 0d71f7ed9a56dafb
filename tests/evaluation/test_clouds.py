"""Reconstruction scores with known answers."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation import box_room
from worldstereo.errors import MediaError, ParameterError
from worldstereo.evaluation.alignment import Similarity
from worldstereo.evaluation.clouds import (
    cloud_scores,
    f1_area,
    harmonic_mean,
    nearest_distances,
    thinned,
    visible_points,
)
from worldstereo.types import Cameras

# A lattice of distance 1: nearest neighbours of a small shift are known.
LATTICE = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), axis=-1).reshape(-1, 3)
DIAGONAL = 5 * np.sqrt(3)


def test_the_same_cloud_is_perfect() -> None:
    scores = cloud_scores(LATTICE, LATTICE)
    assert [at.f1 for at in scores.at] == [1.0] * 4
    assert scores.auc == pytest.approx(1)
    assert scores.diagonal == pytest.approx(DIAGONAL)
    assert scores.alignment == "none"


def test_a_shifted_cloud_is_right_beyond_its_shift() -> None:
    shifted = LATTICE + np.array([0.2, 0, 0])
    scores = cloud_scores(shifted, LATTICE, thresholds=(0.19, 0.21), percents=(), voxel=0)
    below, above = scores.at
    assert (below.precision, below.recall, below.f1) == (0, 0, 0)
    assert (above.precision, above.recall, above.f1) == (1, 1, 1)
    assert above.percent_of_diagonal == pytest.approx(100 * 0.21 / DIAGONAL)


def test_a_part_of_the_cloud_is_precise_and_incomplete() -> None:
    part = LATTICE[LATTICE[:, 0] < 3]
    at = cloud_scores(part, LATTICE, thresholds=(0.5,), percents=(), voxel=0).at[0]
    assert (at.precision, at.recall) == (1, 0.5)
    assert at.f1 == pytest.approx(2 / 3)


def test_twice_the_cloud_elsewhere_is_complete_and_imprecise() -> None:
    more = np.concatenate([LATTICE, LATTICE + 100])
    at = cloud_scores(more, LATTICE, thresholds=(0.5,), percents=(), voxel=0).at[0]
    assert (at.precision, at.recall) == (0.5, 1)


@given(step=st.floats(0.01, 0.99))
@settings(max_examples=20)
def test_the_area_of_a_step_is_exact(step: float) -> None:
    distances = np.full(10, step)
    assert f1_area(distances, distances, 1.0) == pytest.approx(1 - step)
    assert f1_area(distances, distances, step) == pytest.approx(0)


def test_the_area_of_two_steps() -> None:
    # Precision is 1 from 0.2 on; recall 1/2 from 0.2 and 1 from 0.6 on.
    area = f1_area(np.array([0.2, 0.2]), np.array([0.2, 0.6]), 1.0)
    assert area == pytest.approx(0.4 * (2 / 3) + 0.4)


@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_the_area_is_what_a_fine_grid_gives(seed: int) -> None:
    random = np.random.default_rng(seed)
    ours, true = random.exponential(0.3, 15), random.exponential(0.5, 11)
    grid = (np.arange(4000) + 0.5) / 4000
    f1 = [harmonic_mean((ours < tau).mean(), (true < tau).mean()) for tau in grid]
    assert f1_area(ours, true, 1.0) == pytest.approx(float(np.mean(f1)), abs=0.01)


def test_an_alignment_is_applied_first() -> None:
    similarity = Similarity(2.0, np.eye(3), np.array([1.0, 2.0, 3.0]))
    ours = (LATTICE - [1, 2, 3]) / 2
    assert cloud_scores(ours, LATTICE, voxel=0).at[0].f1 < 0.1
    scores = cloud_scores(ours, LATTICE, alignment=similarity, voxel=0)
    assert scores.at[0].f1 == 1
    assert scores.alignment == "sim3 from cameras"


def test_points_far_outside_the_truths_box_can_be_left_out() -> None:
    sky = np.array([[0, 0, 50.0], [2.5, 2.5, 5.2]])
    ours = np.concatenate([LATTICE, sky])
    every = cloud_scores(ours, LATTICE, thresholds=(0.1,), percents=(), voxel=0)
    boxed = cloud_scores(
        ours, LATTICE, thresholds=(0.1,), percents=(), voxel=0, box_margin_percent=5
    )
    assert (every.outside, boxed.outside) == (0, 1)
    assert every.at[0].precision == pytest.approx(216 / 218)
    assert boxed.at[0].precision == pytest.approx(216 / 217)


def test_no_points_score_nothing() -> None:
    scores = cloud_scores(np.zeros((0, 3)), LATTICE)
    assert (scores.points, scores.at[0].precision, scores.at[0].recall, scores.auc) == (0, 0, 0, 0)


def test_how_densely_a_place_is_sampled_does_not_count() -> None:
    half = LATTICE[LATTICE[:, 0] < 3]
    repeated = np.concatenate([half + np.array([1e-4 * k, 0, 0]) for k in range(50)])
    dense = np.concatenate([repeated, LATTICE + np.array([0, 0, 50])])
    even = cloud_scores(dense, LATTICE, thresholds=(0.5,), percents=()).at[0]
    assert even.precision == pytest.approx(1 / 3)


def test_thinning_gives_the_mean_of_each_voxel() -> None:
    points = np.array([[0.1, 0, 0], [0.3, 0, 0], [1.5, 0, 0], [-0.5, 0, 0]])
    found = thinned(points, 1.0)
    np.testing.assert_allclose(found, [[-0.5, 0, 0], [0.2, 0, 0], [1.5, 0, 0]])
    assert thinned(points, 0) is points


def test_nearest_distances_to_nothing_are_infinite() -> None:
    assert np.isinf(nearest_distances(LATTICE, np.zeros((0, 3)))).all()


def test_points_are_cropped_to_what_cameras_see() -> None:
    wanted = box_room.cameras(box_room.path(2, yaw=40))
    _, depths = box_room.render(wanted, samples=1)
    ahead, behind_wall, behind = [0, 0, 3.9], [0, 0, 9], [0, 0, -1.5]
    right = [2.1, 0, 2.0]
    points = np.array([ahead, behind_wall, behind, right])
    assert visible_points(points, wanted).tolist() == [True, True, False, True]
    assert visible_points(points, wanted[:1]).tolist() == [True, True, False, False]
    on_wall = np.array([[0, 0, 4.0], behind_wall])
    assert visible_points(on_wall, wanted, depths).tolist() == [True, False]


def test_cropping_to_many_views_takes_the_memory_of_one() -> None:
    one = box_room.cameras(box_room.path(1)).resized(480, 768)
    many = Cameras(
        np.tile(one.camera_from_world, (60, 1, 1)), np.tile(one.intrinsics, (60, 1, 1)), 480, 768
    )
    tracemalloc.start()
    visible_points(LATTICE, many)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 12 * 480 * 768


@pytest.mark.parametrize("bad", [(0.0,), (-1.0,), (float("nan"),)])
def test_thresholds_must_be_positive(bad: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match="must be positive"):
        cloud_scores(LATTICE, LATTICE, thresholds=bad)


def test_a_truth_without_extent_is_refused() -> None:
    for truth in (np.zeros((0, 3)), np.ones((4, 3))):
        with pytest.raises(MediaError, match="no extent"):
            cloud_scores(LATTICE, truth)
