"""Scores and choices: recorded numbers, a slow twin, laws."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import check_retrieval
from tests.golden.report import Case, Options, attempt
from tests.memory.scenes import random_cameras
from worldstereo.memory.retrieval import (
    continuity,
    first_uses,
    frusta,
    join_frusta,
    nearest,
    score,
    target_indices,
)
from worldstereo.types import Cameras

RETRIEVAL = Path(check_retrieval.__file__).parent / "retrieval"
# The batched scores are float32, the twin is float64.
TWIN_TOLERANCE = 2e-6
seeds = st.integers(0, 2**32 - 1)


def failed(cases: list[Case]) -> list[str]:
    assert cases
    return [str(case) for case in cases if not case.passed]


@pytest.mark.parametrize(
    "check",
    [
        check_retrieval.check_retrieval,
        check_retrieval.check_selection,
        check_retrieval.check_worldmirror_cameras,
        check_retrieval.check_worldmirror_name_map,
    ],
    ids=lambda check: check.__name__,
)
def test_recorded_numbers(check) -> None:  # type: ignore[no-untyped-def]
    assert failed(list(check(RETRIEVAL, Options()))) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows", 4, "nearest", 3), "pano_bank/0000"),
        (("rows", 4, "retrieved", 3), "pano_bank/0000"),
        (("rows", 4, "ref_index", 0), 1),
        (("rows", 9, "targets", "0", "1", 0), float("nan")),
        (("rows", 9, "targets", "0", "1", 1), 12.5),
        (("rows", 9, "depends_on"), []),
        (("level", "view1/traj1"), 1),
        (("max_reference",), 7),
        (("rows",), []),
    ],
    ids=lambda part: str(part),
)
def test_altered_numbers_are_found(tmp_path: Path, path: tuple[str | int, ...], value) -> None:  # type: ignore[no-untyped-def]
    content = json.loads((RETRIEVAL / "retrieval.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "retrieval.json").write_text(json.dumps(content))
    shutil.copy(RETRIEVAL / "retrieval.safetensors", tmp_path)
    assert failed(list(attempt("retrieval", check_retrieval.check_retrieval, tmp_path, Options())))


def test_the_closest_call_of_the_recorded_scene_is_as_close_as_told() -> None:
    scene = check_retrieval.GoldenScene(RETRIEVAL)
    bank = join_frusta([frusta(camera) for camera in scene.bank.values()])
    margins = []
    for trajectory in scene.plan.trajectories:
        targets = frusta(scene.cameras(trajectory.id)[1:])
        best = score(targets, bank[: trajectory.bank_size]).topk(2, dim=1).values
        margin = best[:, 0] - best[:, 1]
        margins.append(float(margin[margin > 0].min()))
    assert min(margins) == pytest.approx(2.6e-6, abs=5e-8)


def corners(cameras: Cameras, index: int) -> list[np.ndarray]:
    """Frustum corners of one camera, one by one in float64."""
    matrix = cameras.camera_from_world[index].astype(np.float64)
    intrinsics = cameras.intrinsics[index].astype(np.float64)
    rotation, center = matrix[:3, :3].T, -matrix[:3, :3].T @ matrix[:3, 3]
    found = []
    for u, v in ((0, 0), (cameras.width, 0), (cameras.width, cameras.height), (0, cameras.height)):
        ray = np.linalg.solve(intrinsics, np.array([u, v, 1.0]))
        ray /= np.linalg.norm(ray)
        found += [center + rotation @ (ray * distance) for distance in (0.1, 10.0)]
    return found


def slow_score(targets: Cameras, i: int, bank: Cameras, j: int) -> float:
    """One target, one bank frame, written as the text of the specification reads."""
    one, other = np.array(corners(targets, i)), np.array(corners(bank, j))
    intersection = volume = other_volume = 1.0
    for axis in range(3):
        low = max(one[:, axis].min(), other[:, axis].min())
        high = min(one[:, axis].max(), other[:, axis].max())
        intersection *= max(0.0, high - low)
        volume *= one[:, axis].max() - one[:, axis].min()
        other_volume *= other[:, axis].max() - other[:, axis].min()
    overlap = intersection / (volume + other_volume - intersection + 1e-8)
    axes = (targets.camera_from_world[i, 2, :3], bank.camera_from_world[j, 2, :3])
    cosine = float(np.dot(axes[0].astype(np.float64), axes[1].astype(np.float64)))
    angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return overlap * min(1.0, math.exp((90 - angle) / 180 * 5))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_batched_scores_equal_a_slow_loop_over_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    targets = random_cameras(random, 5)
    bank = random_cameras(random, 6, height=60, width=60)
    slow = [[slow_score(targets, i, bank, j) for j in range(6)] for i in range(5)]
    fast = score(frusta(targets), frusta(bank)).numpy()
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=0, atol=TWIN_TOLERANCE)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_camera_serves_itself_best(seed: int) -> None:
    cameras = random_cameras(np.random.default_rng(seed), 12)
    scores = score(frusta(cameras), frusta(cameras)).numpy()
    assert (scores.diagonal() >= scores.max(axis=1)).all()
    np.testing.assert_allclose(scores.diagonal(), 1.0, atol=1e-5)
    assert scores.min() >= 0


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_a_score_depends_on_its_two_cameras_alone(seed: int) -> None:
    cameras = random_cameras(np.random.default_rng(seed), 24)
    together = score(frusta(cameras[:8]), frusta(cameras[8:]))
    one_by_one = [frusta(cameras[[i]]) for i in range(24)]
    alone = [torch.cat([score(one, bank)[0] for bank in one_by_one[8:]]) for one in one_by_one[:8]]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_scores_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    cameras = random_cameras(np.random.default_rng(7), 600)
    before = torch.get_num_threads()
    expected = score(frusta(cameras[:100]), frusta(cameras))
    torch.set_num_threads(threads)
    try:
        assert torch.equal(score(frusta(cameras[:100]), frusta(cameras)), expected)
    finally:
        torch.set_num_threads(before)


def test_targets_are_thinned_to_every_4th_only_where_there_are_more() -> None:
    assert target_indices(21, 21) == list(range(21))
    assert target_indices(22, 21) == [0, 4, 8, 12, 16, 20]
    assert target_indices(81, 21) == list(range(0, 81, 4))


def test_continuity_of_targets_and_wonders_holds_to_their_traj0() -> None:
    owners = ["", *["target_a/traj0"] * 8, *["target_b/traj0"] * 8]
    bonus = continuity("target_a", "traj1", owners, 21)
    # Frames 3, 5 and 7 of the history lie at bank positions 4, 6 and 8.
    assert [bonus.get(i) for i in range(1, 21)] == (
        [4, 4, 4, None, 4, 4, 6, None, 6, 6, 6, None, 6, 8, 8, None, 8, 8, 8, 8]
    )
    assert continuity("target_a", "traj0", owners, 21) == {}
    assert continuity("reconstruct_a", "traj1", owners, 21) == {}
    assert continuity("wonder_a", "traj1", owners, 21) == {}


def test_continuity_of_views_holds_to_their_traj2() -> None:
    owners = ["", *["view3/traj2"] * 8]
    assert continuity("view3", "traj0", owners, 21) == (
        {1: 4, 2: 4, 3: 4, 5: 4, 7: 6, 9: 6, 13: 6, 17: 8}
    )
    assert set(continuity("view3", "traj1", owners, 21).values()) == {4}
    assert continuity("view3", "traj2", owners, 21) == {}
    # Half of seven frames is three, of which there is no 4th.
    assert continuity("view3", "traj1", owners[:-1], 21) == {}


def test_the_first_of_equals_wins_and_the_bonus_raises_above_all() -> None:
    scores = np.array([[0.2, 0.9, 0.9], [0.5, 0.5, 0.1]], dtype=np.float32)
    assert nearest(scores, {}) == [1, 0]
    assert nearest(scores, {2: 2}) == [1, 2]
    assert scores[1, 2] == np.float32(0.1)


def test_references_are_listed_by_first_use() -> None:
    assert first_uses(["b", "b", "a", "b", "c", "a"]) == (("b", "a", "c"), (0, 2, 4))
    assert first_uses([]) == ((), ())
