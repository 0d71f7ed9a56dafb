"""The memory bank: places by plan, any order of arrival, the same references to the bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.memory.scenes import SIZE, MeanColors, random_clip, random_scene, ready
from worldstereo.config import SceneParameters
from worldstereo.memory.bank import MemoryBank
from worldstereo.memory.plan import ScenePlan, plan_scene
from worldstereo.memory.selection import quality, select_rows
from worldstereo.types import References, SceneInput

FRAMES = 9
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="session")
def start_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "start.png"
    Image.fromarray(random_clip("start", 1, (32, 40))[0]).save(path)
    return path


def planned(seed: int, image: Path, **parameters: int) -> tuple[SceneInput, ScenePlan]:
    scene = random_scene(seed, frames=FRAMES, image=image)
    return scene, plan_scene(scene, SceneParameters(**{"align_nframe": 4, **parameters}), FRAMES)


def in_order(scene: SceneInput, plan: ScenePlan) -> dict[str, References]:
    """References of every clip, one after the other in canonical order."""
    bank, found = MemoryBank(scene, plan, MeanColors()), {}
    for trajectory in plan.trajectories:
        found[trajectory.id] = bank.references(trajectory.id)
        bank.add(trajectory.id, random_clip(trajectory.id, FRAMES))
    return found


def assert_same(one: References, other: References) -> None:
    assert one.ids == other.ids
    assert one.ref_index == other.ref_index
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.cameras.camera_from_world, other.cameras.camera_from_world)
    np.testing.assert_array_equal(one.cameras.intrinsics, other.cameras.intrinsics)


@given(seeds, st.integers(1, 8), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_any_order_that_respects_dependencies_gives_the_same_references(
    start_image: Path, seed: int, max_reference: int, random
) -> None:  # type: ignore[no-untyped-def]
    scene, plan = planned(seed, start_image, max_reference=max_reference)
    expected = in_order(scene, plan)
    bank = MemoryBank(scene, plan, MeanColors())
    committed: set[str] = set()
    while len(committed) < len(plan.trajectories):
        trajectory_id = random.choice(ready(plan, committed))
        assert_same(bank.references(trajectory_id), expected[trajectory_id])
        bank.add(trajectory_id, random_clip(trajectory_id, FRAMES))
        committed.add(trajectory_id)


def test_references_are_the_planned_frames_at_working_size(start_image: Path) -> None:
    scene, plan = planned(11, start_image)
    for trajectory_id, references in in_order(scene, plan).items():
        trajectory = plan.trajectory(trajectory_id)
        assert references.ids == trajectory.references
        assert references.ref_index == trajectory.ref_index
        assert references.frames.shape == (len(references.ids), *SIZE, 3)
        assert (references.cameras.height, references.cameras.width) == SIZE
        for frame_id, frame in zip(references.ids, references.frames, strict=True):
            owner, _, index = frame_id.rpartition("/")
            if owner != "pano_bank":
                np.testing.assert_array_equal(frame, random_clip(owner, FRAMES)[int(index)])


def test_reduced_references_follow_the_images(start_image: Path) -> None:
    scene, plan = planned(11, start_image, max_reference=3)
    reduced = [trajectory for trajectory in plan.trajectories if trajectory.reduced]
    assert reduced
    found = in_order(scene, plan)
    start = random_clip("start", 1, (32, 40))[0]
    resized = np.asarray(Image.fromarray(start).resize(SIZE[::-1], Image.Resampling.BICUBIC))
    cameras = {frame.id: frame.camera for frame in scene.start_frames}
    for one in plan.trajectories:
        cameras |= {name: scene.trajectory(one.id).cameras[[index]] for name, index in one.adds}

    def image(frame_id: str) -> np.ndarray:
        owner, _, index = frame_id.rpartition("/")
        return resized if owner == "pano_bank" else random_clip(owner, FRAMES)[int(index)]

    for trajectory in reduced:
        rows = select_rows(
            np.concatenate([cameras[frame].camera_from_world for frame in trajectory.nearest]),
            np.stack([MeanColors()(image(frame)) for frame in trajectory.nearest]),
            np.array([quality(image(frame)) for frame in trajectory.nearest]),
            3,
        )
        chosen = [trajectory.nearest[row] for row in rows]
        best = []
        for scores in trajectory.candidate_scores:
            by_frame = dict(zip(trajectory.candidates, scores, strict=True))
            best.append(max(chosen, key=by_frame.__getitem__))
        assert found[trajectory.id].ids == tuple(dict.fromkeys(best))
        assert found[trajectory.id].ref_index == tuple(
            best.index(frame) for frame in dict.fromkeys(best)
        )


def test_each_frame_is_described_once(start_image: Path) -> None:
    scene, plan = planned(11, start_image, max_reference=2)
    features = MeanColors()
    bank = MemoryBank(scene, plan, features)
    for trajectory in plan.trajectories:
        bank.references(trajectory.id)
        bank.references(trajectory.id)
        bank.add(trajectory.id, random_clip(trajectory.id, FRAMES))
    frames = {
        frame
        for trajectory in plan.trajectories
        if trajectory.reduced
        for frame in trajectory.nearest
    }
    assert features.calls == len(frames)


def test_only_frames_that_will_be_candidates_are_kept(start_image: Path) -> None:
    scene, plan = planned(11, start_image)
    bank = MemoryBank(scene, plan)
    wanted = {frame for trajectory in plan.trajectories for frame in trajectory.nearest}
    every = set(plan.start_frames)
    for trajectory in plan.trajectories:
        bank.add(trajectory.id, random_clip(trajectory.id, FRAMES))
        every |= {frame for frame, _ in trajectory.adds}
    assert {frame for frame in every if frame in bank} == wanted < every


def test_a_bank_keeps_nothing_of_the_clips_arrays(start_image: Path) -> None:
    scene, plan = planned(11, start_image)
    expected = in_order(scene, plan)
    bank = MemoryBank(scene, plan)
    for trajectory in plan.trajectories:
        assert_same(bank.references(trajectory.id), expected[trajectory.id])
        frames = random_clip(trajectory.id, FRAMES)
        bank.add(trajectory.id, frames)
        frames[:] = 0


def test_a_clip_whose_dependencies_are_missing_is_refused(start_image: Path) -> None:
    scene, plan = planned(11, start_image)
    dependent = next(trajectory for trajectory in plan.trajectories if trajectory.depends_on)
    with pytest.raises(AssertionError, match="not in the memory"):
        MemoryBank(scene, plan).references(dependent.id)
