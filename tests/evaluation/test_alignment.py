"""Similarities: what was done to points or cameras is found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.evaluation import box_room
from worldstereo.errors import CameraError
from worldstereo.evaluation.alignment import (
    camera_positions,
    similarity_from_cameras,
    similarity_from_points,
)

SEEDS = st.integers(0, 10_000)


def a_similarity(seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    return float(random.uniform(0.2, 5)), turn, random.normal(size=3)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_a_similarity_of_points_is_found(seed: int) -> None:
    scale, turn, shift = a_similarity(seed)
    points = np.random.default_rng(seed).normal(size=(7, 3))
    found = similarity_from_points(points, scale * points @ turn.T + shift)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-9)
    np.testing.assert_allclose(found.translation, shift, atol=1e-9)
    assert found.scale == pytest.approx(scale)


@given(seed=SEEDS)
@settings(max_examples=10)
def test_it_is_evos_where_evo_has_one(seed: int) -> None:
    geometry = pytest.importorskip("evo.core.geometry")
    random = np.random.default_rng(seed)
    source, target = random.normal(size=(2, 9, 3))
    turn, shift, scale = geometry.umeyama_alignment(source.T, target.T, with_scale=True)
    found = similarity_from_points(source, target)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-9)
    np.testing.assert_allclose(found.translation, shift, atol=1e-9)
    assert found.scale == pytest.approx(scale)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_points_on_a_line_are_brought_onto_each_other(seed: int) -> None:
    scale, turn, shift = a_similarity(seed)
    points = np.linspace(0, 2, 6)[:, None] * np.array([0.3, -0.2, 1.0])
    target = scale * points @ turn.T + shift
    found = similarity_from_points(points, target)
    np.testing.assert_allclose(found(points), target, atol=1e-9)
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_a_source_that_stands_still_has_scale_0() -> None:
    target = np.array([[0, 0, 0], [2, 0, 0], [4, 0, 0]])
    found = similarity_from_points(np.ones((3, 3)), target)
    assert found.scale == 0
    np.testing.assert_allclose(found(np.ones((1, 3))), [[2, 0, 0]])


@given(seed=SEEDS, line=st.booleans())
@settings(max_examples=20)
def test_a_similarity_of_cameras_is_found_even_on_a_line(seed: int, line: bool) -> None:
    scale, turn, shift = a_similarity(seed)
    poses = box_room.path(6, yaw=0 if line else 30)
    if line:
        poses[:, :3, 3] = np.linspace(0, 1, 6)[:, None] * np.array([0.1, 0.2, -1])
    moved = poses.copy()
    moved[:, :3, :3] = poses[:, :3, :3] @ turn.T
    centers = scale * camera_positions(poses) @ turn.T + shift
    moved[:, :3, 3] = -np.einsum("nij,nj->ni", moved[:, :3, :3], centers)
    found = similarity_from_cameras(poses, moved)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-6)
    np.testing.assert_allclose(found.translation, shift, atol=1e-5)
    assert found.scale == pytest.approx(scale, rel=1e-6)


def test_cameras_in_one_place_give_no_scale() -> None:
    turning = box_room.path(4, move=0)
    with pytest.raises(CameraError, match="give no scale"):
        similarity_from_cameras(turning, turning)


def test_cameras_that_move_the_other_way_are_refused() -> None:
    poses = box_room.path(4, yaw=0)
    backwards = poses.copy()
    backwards[:, :3, 3] *= -1
    with pytest.raises(CameraError, match="do not move alike"):
        similarity_from_cameras(poses, backwards)
