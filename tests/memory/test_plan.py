"""The plan: against a sequential simulation, its dependencies, its schedule."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scene_job import chain_lengths
from tests.golden import check_retrieval
from tests.memory.scenes import NAMES, random_cameras, random_scene, ready
from worldstereo.config import SceneParameters
from worldstereo.errors import CameraError, ParameterError
from worldstereo.memory import plan as plan_module
from worldstereo.memory.plan import ScenePlan, check_targets, keyframe_indices, plan_scene
from worldstereo.memory.retrieval import frusta, score
from worldstereo.types import BankFrame, SceneInput, TrajectoryInput

GOLDEN = Path(check_retrieval.__file__).parent
seeds = st.integers(0, 2**32 - 1)


def simulate(scene: SceneInput, align_nframe: int) -> dict[str, list[str]]:
    """One trajectory after the other against a growing list, one camera pair at a time."""
    bank = [(frame.id, frusta(frame.camera)) for frame in scene.start_frames]
    used: dict[str, list[str]] = {}
    for trajectory in scene.trajectories:
        n = len(trajectory.cameras)
        used[trajectory.id] = []
        for i in range(1, n):
            target = frusta(trajectory.cameras[[i]])
            scores = [float(score(target, camera)) for _, camera in bank]
            favourite = slow_favourite(trajectory, i, n, [frame_id for frame_id, _ in bank])
            for position, (frame_id, _) in enumerate(bank):
                if frame_id == favourite:
                    scores[position] = float(np.float32(scores[position]) + np.float32(1))
            used[trajectory.id].append(bank[scores.index(max(scores))][0])
        for index in keyframe_indices(n, align_nframe):
            camera = frusta(trajectory.cameras[[index]])
            bank.append((f"{trajectory.id}/{index:04d}", camera))
    return used


def slow_favourite(trajectory: TrajectoryInput, i: int, n: int, bank: list[str]) -> str | None:
    """The frame that gets the continuity bonus at target i."""
    kind = trajectory.view.split("_")[0].rstrip("0123456789")
    if kind in ("target", "wonder") and trajectory.name != "traj0":
        history = [frame for frame in bank if frame.startswith(f"{trajectory.view}/traj0/")]
        here = i not in (4, 8, 12, 16)
    elif kind == "view" and trajectory.name in ("traj0", "traj1"):
        history = [frame for frame in bank if frame.startswith(f"{trajectory.view}/traj2/")]
        if trajectory.name == "traj1":
            history = history[: len(history) // 2]
        here = i in (1, 2, 3, 5, 7, 9, 13, 17)
    else:
        return None
    history = history[3::2]
    return history[int(i / n * len(history))] if history and here else None


@given(seeds, st.sampled_from([5, 9, 13]), st.integers(1, 12), st.integers(1, 9))
@settings(max_examples=10, deadline=None)
def test_the_plan_equals_a_sequential_simulation(
    seed: int, frames: int, align_nframe: int, max_reference: int
) -> None:
    align_nframe = min(align_nframe, frames - 1)
    scene = random_scene(seed, frames=frames)
    parameters = SceneParameters(align_nframe=align_nframe, max_reference=max_reference)
    plan = plan_scene(scene, parameters, frames)
    used = simulate(scene, align_nframe)
    for trajectory in plan.trajectories:
        assert list(trajectory.nearest) == used[trajectory.id]
        assert trajectory.reduced == (len(set(used[trajectory.id])) > max_reference)
        if not trajectory.reduced:
            by_first_use = list(dict.fromkeys(used[trajectory.id]))
            assert list(trajectory.references) == by_first_use
            assert list(trajectory.ref_index) == [
                used[trajectory.id].index(frame_id) for frame_id in by_first_use
            ]


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_dependencies_are_the_candidates_owners_and_the_iterative_start(seed: int) -> None:
    scene = random_scene(seed)
    plan = plan_scene(scene, SceneParameters(align_nframe=4), 9)
    levels = {trajectory.id: trajectory.level for trajectory in plan.trajectories}
    for position, trajectory in enumerate(plan.trajectories):
        owners = {frame.rsplit("/", 1)[0] for frame in trajectory.candidates} - {"pano_bank"}
        if trajectory.id == "reconstruct_0/traj1":
            owners.add("reconstruct_0/traj0")
        assert trajectory.depends_on == tuple(sorted(owners))
        assert trajectory.position == position
        assert owners <= set(NAMES[:position])
        assert trajectory.level == 1 + max((levels[owner] for owner in owners), default=0)
        assert trajectory.bank_size == 5 + 4 * position
    assert plan.critical_path == max(levels.values())


def test_small_batches_give_the_same_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(3, frames=21)
    whole = plan_scene(scene, SceneParameters(), 21)
    for pairs in (1, 1000, 2500):
        monkeypatch.setattr(plan_module, "PAIRS_PER_BATCH", pairs)
        assert plan_scene(scene, SceneParameters(), 21) == whole


def test_the_camera_variant_waits_only_for_the_clip_it_starts_from() -> None:
    plan = plan_scene(random_scene(1), SceneParameters(variant="worldstereo-camera"), 9)
    assert {t.id: t.depends_on for t in plan.trajectories if t.depends_on} == {
        "reconstruct_0/traj1": ("reconstruct_0/traj0",)
    }
    assert all(not t.nearest and not t.references and not t.reduced for t in plan.trajectories)
    assert [t.level for t in plan.trajectories] == [1, 1, 1, 1, 1, 1, 1, 1, 2]


def test_a_plan_survives_json_to_the_bit() -> None:
    plan = plan_scene(random_scene(5), SceneParameters(max_reference=2), 9)
    assert any(trajectory.reduced for trajectory in plan.trajectories)
    again = ScenePlan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.trajectory("wonder_0/traj1") == plan.trajectories[7]
    with pytest.raises(KeyError):
        again.trajectory("wonder_0/traj9")


def rounds(plan: ScenePlan, replicas: int) -> int:
    """Rounds of list scheduling when every clip takes one."""
    # The orchestrator's order: what most clips in a row wait for goes first.
    urgency = chain_lengths(plan.trajectories)
    committed: set[str] = set()
    count = 0
    while len(committed) < len(plan.trajectories):
        waiting = sorted(ready(plan, committed), key=lambda name: -urgency[name])
        assert waiting
        committed |= set(waiting[:replicas])
        count += 1
    return count


def test_list_scheduling_of_the_recorded_scene() -> None:
    plan = check_retrieval.GoldenScene(GOLDEN / "retrieval").plan
    assert [rounds(plan, replicas) for replicas in (1, 2, 4, 8)] == [33, 17, 9, 9]


def test_keyframe_indices_equal_the_recorded_tables() -> None:
    tables = json.loads((GOLDEN / "cameras" / "tables.json").read_text())["keyframes"]
    for key, expected in tables.items():
        n_frames, align_nframe = (int(part) for part in key.split(","))
        assert list(keyframe_indices(n_frames, align_nframe)) == expected


@given(st.integers(2, 200), st.data())
def test_keyframe_gaps_are_even_and_fall(n_frames: int, data: st.DataObject) -> None:
    align_nframe = data.draw(st.integers(1, n_frames - 1))
    indices = keyframe_indices(n_frames, align_nframe)
    gaps = np.diff([0, *indices])
    assert len(indices) == align_nframe
    assert indices[-1] == n_frames - 1
    assert gaps.max() - gaps.min() <= 1
    assert (np.diff(gaps) <= 0).all()


@pytest.mark.parametrize("align_nframe", [0, 21, 100])
def test_more_keyframes_than_the_clip_has_are_refused(align_nframe: int) -> None:
    with pytest.raises(ParameterError, match=r"allowed: 1\.\.20") as caught:
        keyframe_indices(21, align_nframe)
    assert caught.value.got == str(align_nframe)


def test_long_paths_are_thinned_for_retrieval_and_for_the_memory() -> None:
    random = np.random.default_rng(0)
    cameras = random_cameras(random, 33)
    trajectory = TrajectoryInput("a", "b", cameras, "", Path("x.png"))
    start = BankFrame("pano_bank/0", Path("x.png"), cameras[[0]])
    scene = SceneInput("s", "panorama", Path(), (16, 24), (start,), (trajectory,))
    plan = plan_scene(scene, SceneParameters(align_nframe=2), 9)
    assert len(plan.trajectories[0].nearest) == 8
    assert plan.trajectories[0].adds == (("a/b/0004", 4), ("a/b/0008", 8))


def test_targets_beyond_the_clip_are_refused() -> None:
    random = np.random.default_rng(0)
    cameras = random_cameras(random, 60)
    trajectory = TrajectoryInput("a", "b", cameras, "", Path("x.png"))
    starts = tuple(
        BankFrame(f"pano_bank/{i}", Path("x.png"), cameras[[i]]) for i in range(0, 60, 4)
    )
    scene = SceneInput("s", "panorama", Path(), (16, 24), starts, (trajectory,))
    plan = plan_scene(scene, SceneParameters(align_nframe=2), 9)
    with pytest.raises(CameraError, match=r"a/b: too many cameras.*up to 36 cameras"):
        check_targets(scene, plan)
    alone = replace(scene, start_frames=starts[:1])
    check_targets(alone, plan_scene(alone, SceneParameters(align_nframe=2), 9))
